//! The API server: the only crate that serves the API, and the only one above the store.

pub mod http;
pub mod kind;
pub mod patch;
pub mod resources;
pub mod table;
