//! Cluster DNS: the names of Services and of the pods behind them, answered on every node by its agent.
//!
//! [`zone`] knows the names and is pure; [`server`] speaks DNS over UDP and TCP; [`forward`] passes on what is not the
//! cluster's; [`run`] watches Services and EndpointSlices.

pub mod forward;
pub mod interface;
mod run;
pub mod server;
pub mod zone;

pub use run::{Options, run};

/// Why names can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0:?} is not a domain name")]
    Domain(String),
    #[error("cannot listen on {address}")]
    Listen {
        address: std::net::SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot set up the network interface {name}")]
    Interface {
        name: String,
        #[source]
        source: Box<rtnetlink::Error>,
    },
    #[error("cannot talk to the kernel about network interfaces")]
    Netlink(#[source] std::io::Error),
}
