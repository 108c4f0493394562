//! The service proxy: makes every Service's addresses reach its endpoints, by rules in the kernel.
//!
//! [`model`] turns Services and EndpointSlices into routes, [`nftables`] and [`iptables`] turn routes into text, both
//! without any I/O; [`run`] watches, loads the text, and forgets UDP connections whose endpoint is gone. The rules stay
//! when the process stops: Services go on working without it, as they were.

mod cidr;
mod conntrack;
pub mod health;
pub mod iptables;
pub mod load;
pub mod model;
pub mod nftables;
mod run;
#[cfg(test)]
mod testing;
pub mod watched;

pub use cidr::Cidr;
pub use load::{Backend, Loader, cleanup};
pub use run::{Options, run};

/// Marks packets that are to leave with the node's own address; the bit that kube-proxy uses, so that other software
/// on the node knows to leave it alone.
const MASQUERADE_MARK: u32 = 0x4000;

/// Why rules could not be loaded or watched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("neither nft nor iptables-restore works on this machine")]
    NoBackend,
    #[error("cannot start {program}")]
    Start {
        program: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("{program} refused the rules: {message}")]
    Refused { program: &'static str, message: String },
}
