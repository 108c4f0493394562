//! Integration tests: one binary, one file a topic.

mod admission;
mod architecture;
mod authentication;
mod deletion;
mod discovery;
mod listener;
mod lists;
mod network;
mod node_agent;
mod objects;
mod patch;
mod scheduling;
mod simulated;
mod subresources;
mod table;
mod watches;
