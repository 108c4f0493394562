//! Integration tests: one binary, one file a topic.
#![allow(clippy::unwrap_used)] // a test fails by it

mod admission;
mod architecture;
mod authentication;
mod bad_input;
mod cloud;
mod cluster;
mod cron_jobs;
mod discovery;
mod garbage_collection;
mod listener;
mod namespaces;
mod network;
mod node_agent;
mod node_lifecycle;
mod over_memory;
mod over_postgres;
mod patch;
mod replication_controllers;
mod resource_quota;
mod reviews;
mod scheduling;
mod simulated;
mod stateful_sets;
mod subresources;
mod table;
mod workloads;
