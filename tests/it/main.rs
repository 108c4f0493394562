//! Integration tests: one binary, one file a topic.

mod architecture;
mod authentication;
mod deletion;
mod listener;
mod lists;
mod network;
mod objects;
mod watches;
