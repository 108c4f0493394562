//! placeholder

pub mod proxy;
