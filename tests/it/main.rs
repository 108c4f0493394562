//! Integration tests: one binary, one file a topic.

mod admission;
mod architecture;
mod authentication;
mod cluster;
mod deletion;
mod discovery;
mod garbage_collection;
mod listener;
mod lists;
mod namespaces;
mod network;
mod node_agent;
mod node_lifecycle;
mod objects;
mod over_memory;
mod over_postgres;
mod patch;
mod scheduling;
mod simulated;
mod subresources;
mod table;
mod watches;
mod workloads;
