//! placeholder

pub mod dns;
pub mod proxy;
