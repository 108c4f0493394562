//! Integration tests: one binary, one file a topic.

mod architecture;
mod deletion;
mod lists;
mod objects;
mod watches;
