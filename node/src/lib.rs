//! The node agent: it runs the pods that are bound to its node, on a CRI runtime, and tells the API server of them.
//!
//! Beside it stand what else a node needs: the service proxy, the cluster's DNS, and the network plugins' configuration.

pub mod bootstrap;
pub mod cni;
pub mod dns;
mod event;
mod garbage;
mod objects;
pub mod pod;
pub mod probe;
pub mod proxy;
mod register;
mod run;
pub mod runtime;
pub mod server;
pub mod simulated;
pub mod volume;

pub use run::{Options, run};
pub use runtime::containerd::Containerd;
pub use runtime::mount_namespace::enter_mount_namespace;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the container runtime")]
    Runtime(#[from] runtime::Error),
    #[error("the API server: {0}")]
    Api(#[source] Box<kube::Error>),
    #[error("files of a pod")]
    Files(#[source] std::io::Error),
    #[error("the agent's server: {0}")]
    Server(String),
    #[error("joining the cluster: {0}")]
    Join(String),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Error::Api(Box::new(error))
    }
}
