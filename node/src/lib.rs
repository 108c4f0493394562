//! placeholder

pub mod cni;
pub mod dns;
pub mod proxy;
pub mod simulated;
