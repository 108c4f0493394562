//! Integration tests: one binary, one file a topic.

mod admission;
mod architecture;
mod authentication;
mod discovery;
mod listener;
mod network;
mod node_agent;
mod over_memory;
mod over_postgres;
mod patch;
mod scheduling;
mod simulated;
mod subresources;
mod table;
