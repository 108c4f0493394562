//! From a connection to a request that a verb can carry out, and back.

pub mod error;
