//! What Slipway asks of a cloud: machines and load balancers, behind one trait.
//!
//! No cloud's SDK is known here: `cloud/ec2` is glue in a crate of its own, and [`fake`] is the deterministic twin that
//! tests and simulations run against.

pub mod bootstrap;
pub mod fake;

use async_trait::async_trait;
use std::collections::BTreeMap;

/// The tag that carries the cluster's name on everything that Slipway makes in a cloud.
pub const TAG_CLUSTER: &str = "slipway.dev/cluster";
/// The tag that carries the UID of the Machine (or Service) that something was made for: the sweep finds by it what no
/// object owns any more.
pub const TAG_OWNER: &str = "slipway.dev/owner-uid";

/// What a cloud can do for a cluster. Every call may be repeated: `launch` is idempotent by its token, the `ensure_*`
/// and `delete_*` calls by name.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// The scheme of `providerID`s, as `aws`.
    fn name(&self) -> &'static str;

    /// What is known of these instance types; a name that the cloud doesn't know is left out.
    async fn instance_types(&self, names: &[String]) -> Result<Vec<InstanceType>, Error>;

    /// The subnets with these ids, or with none given the account's default ones.
    async fn subnets(&self, ids: &[String]) -> Result<Vec<Subnet>, Error>;

    /// Starts one machine. The same token never starts a second one.
    async fn launch(&self, launch: &Launch) -> Result<Instance, Error>;

    /// Every machine of the cluster that isn't terminated, found by its tag.
    async fn instances(&self) -> Result<Vec<Instance>, Error>;

    /// Ends a machine; that it is gone already is a success.
    async fn terminate(&self, instance_id: &str) -> Result<(), Error>;

    /// Makes a load balancer be as described, and says how far it is.
    async fn ensure_load_balancer(&self, wanted: &LoadBalancer) -> Result<LoadBalancerState, Error>;

    /// The cluster's load balancers, as (name, UID of the Service), found by their tags.
    async fn load_balancers(&self) -> Result<Vec<(String, String)>, Error>;

    /// Removes a load balancer and all that belongs to it; that it is gone already is a success.
    async fn delete_load_balancer(&self, name: &str) -> Result<(), Error>;
}

/// One line of the cloud's catalogue.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceType {
    pub name: String,
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    /// As `amd64`.
    pub architecture: String,
    /// Money an hour, on demand, in US dollars.
    pub price_per_hour: f64,
    pub zones: Vec<String>,
}

/// Where in the cloud's network machines can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    pub id: String,
    pub zone: String,
}

/// Everything that a new machine is started with.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// The UID of the Machine object, which was written before.
    pub token: String,
    pub name: String,
    pub instance_type: String,
    pub image: String,
    pub zone: Option<String>,
    pub subnet: Option<String>,
    /// Cheaper, and taken back by the cloud when it likes.
    pub spot: bool,
    pub security_groups: Vec<String>,
    pub instance_profile: Option<String>,
    pub key_name: Option<String>,
    pub user_data: String,
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceState {
    Pending,
    Running,
    Stopping,
    Terminated,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    pub id: String,
    /// As the node's `spec.providerID`: `aws:///us-east-1a/i-0123`.
    pub provider_id: String,
    pub state: InstanceState,
    pub instance_type: String,
    pub zone: String,
    pub private_ip: Option<String>,
    /// The UID of the Machine it was started for, from its tag.
    pub owner: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// One listener and where it leads on every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub port: u16,
    pub protocol: Protocol,
    pub node_port: u16,
}

/// A load balancer as a Service wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadBalancer {
    /// Unique in the account; at most 32 letters, digits and hyphens.
    pub name: String,
    /// The Service's UID.
    pub owner: String,
    pub internal: bool,
    /// None: the account's default ones.
    pub subnets: Vec<String>,
    pub listeners: Vec<Listener>,
    /// Instance ids.
    pub targets: Vec<String>,
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadBalancerState {
    pub hostname: Option<String>,
    pub ip: Option<String>,
    pub active: bool,
}

/// What went wrong in the cloud, sorted by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Ask again later: throttled, a time-out, a fault on their side.
    #[error("the cloud did not answer: {0}")]
    Retryable(String),
    /// There is none of this now, here: another type or zone may do.
    #[error("out of capacity: {0}")]
    Capacity(String),
    /// The account's limit is reached.
    #[error("over the account's quota: {0}")]
    Quota(String),
    #[error("denied: {0}")]
    Denied(String),
    #[error("gone: {0}")]
    Gone(String),
    /// The request is wrong and stays wrong: the user has to change something.
    #[error("refused: {0}")]
    Invalid(String),
}

impl Error {
    /// A reason for a condition or an event.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Retryable(_) => "CloudUnavailable",
            Error::Capacity(_) => "InsufficientCapacity",
            Error::Quota(_) => "QuotaExceeded",
            Error::Denied(_) => "Denied",
            Error::Gone(_) => "Gone",
            Error::Invalid(_) => "InvalidRequest",
        }
    }
}
