//! The pages, one file each.

pub mod app;
pub mod apps;
pub mod deploy;
pub mod log;
pub mod nodes;
pub mod sign_in;
