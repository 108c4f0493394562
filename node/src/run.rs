//! Wiring: the runtime, the node's registration, its pods, and the server.

use crate::event::Recorder;
use crate::objects::Objects;
use crate::pod::allocation::Allocations;
use crate::pod::cgroup::Cgroups;
use crate::pod::workers::Workers;
use crate::pod::{Context, image::Images};
use crate::register::Registration;
use crate::runtime::Runtime;
use crate::runtime::cri::Cri;
use crate::runtime::events::Changes;
use crate::volume::Tokens;
use crate::{Containerd, Error, cni, garbage, server};
use kube::Client;
use parking_lot::RwLock;
use slipway_api::core::Taint;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The port of the agent's server that clients expect.
pub const PORT: u16 = 10250;
const PODS_MAX: u32 = 110;

#[derive(Debug, Clone)]
pub struct Options {
    pub node_name: String,
    pub node_ip: IpAddr,
    /// Volumes, logs, and the private containerd's files.
    pub data_dir: PathBuf,
    /// A CRI socket to use. Without one a containerd of our own is started, or adopted.
    pub runtime_endpoint: Option<PathBuf>,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    /// Certificate and key (PEM) of the agent's server. Without them it asks for a certificate by CSR.
    pub serving: Option<(String, String)>,
    /// Who may call the agent's server: clients with a certificate from here.
    pub client_ca_pem: String,
    /// Of the agent's server; 0 takes any.
    pub port: u16,
    pub labels: BTreeMap<String, String>,
    /// Set when the node registers for the first time.
    pub taints: Vec<Taint>,
    /// As `aws:///us-east-1a/i-0123`.
    pub provider_id: Option<String>,
    pub pods_max: u32,
    /// Registry host (or `_default`) → URL that is asked in its place; for the private containerd.
    pub registry_mirrors: BTreeMap<String, String>,
}

impl Options {
    pub fn new(node_name: &str, node_ip: IpAddr, data_dir: PathBuf) -> Options {
        Options {
            node_name: node_name.to_owned(),
            node_ip,
            data_dir,
            runtime_endpoint: None,
            cluster_dns: IpAddr::from([10, 96, 0, 10]),
            cluster_domain: "cluster.local".into(),
            serving: None,
            client_ca_pem: String::new(),
            port: PORT,
            labels: BTreeMap::new(),
            taints: vec![],
            provider_id: None,
            pods_max: PODS_MAX,
            registry_mirrors: BTreeMap::new(),
        }
    }
}

/// Runs the agent until `shutdown`. Pods go on running after it; the next one adopts them.
///
/// The process should have called [`crate::enter_mount_namespace`] first, if the containerd is our own.
pub async fn run(client: Client, mut options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    std::fs::create_dir_all(&options.data_dir).map_err(Error::Files)?;
    options.data_dir = options.data_dir.canonicalize().map_err(Error::Files)?;
    let containerd = Containerd::new(&options.data_dir, options.registry_mirrors.clone());
    let socket = match &options.runtime_endpoint {
        Some(socket) => socket.clone(),
        None => {
            containerd.ensure().await?;
            containerd.socket()
        }
    };
    let recorder = Recorder::start(client.clone(), &options.node_name);
    let runtime: Arc<dyn Runtime> = Arc::new(Cri::new(&socket));
    let listener = tokio::net::TcpListener::bind((options.node_ip, options.port)).await;
    let listener = listener.map_err(|error| Error::Server(format!("listening on port {}: {error}", options.port)))?;
    options.port = listener.local_addr().map_or(options.port, |address| address.port());
    let context = Arc::new(Context {
        runtime: runtime.clone(),
        objects: Objects::new(client.clone()),
        recorder: recorder.clone(),
        images: Images::default(),
        tokens: Tokens::default(),
        cgroups: Cgroups::detect(&options.node_name),
        allocations: Allocations::default(),
        allocatable: RwLock::default(),
        options: options.clone(),
    });
    let network = network(&containerd);
    let told = context.clone();
    let registration = Registration {
        client: client.clone(),
        options: options.clone(),
        runtime: runtime.clone(),
        recorder,
        allocatable: Arc::new(move |allocatable| *told.allocatable.write() = allocatable),
        pod_cidr: Arc::new(network),
    };
    let stop = shutdown.child_token();
    // Whichever part ends first, the others end with it.
    let _stop = stop.clone().drop_guard();
    let parts = async {
        tokio::join!(
            registration.run(stop.clone()),
            Workers::new(context.clone(), Changes::follow(&socket)).run(stop.clone()),
            garbage::run(context.clone(), stop.clone()),
        );
        Ok(())
    };
    tokio::select! {
        outcome = parts => outcome,
        outcome = server::serve(context.clone(), client, listener, stop.clone()) => outcome,
    }
}

/// Writes the network's configuration, once the node's share is known. Our own containerd reads it there; another runtime may be
/// told to, or has a network of its own.
fn network(containerd: &Containerd) -> impl Fn(&str) + Send + Sync + use<> {
    let (conf_dir, data_dir) = (containerd.cni_conf_dir(), containerd.cni_data_dir());
    move |cidr: &str| {
        let Ok(pod_cidr) = cidr.parse() else {
            tracing::error!(cidr, "the node's share of the pods' network is no range");
            return;
        };
        let network = cni::Network { conf_dir: conf_dir.clone(), data_dir: data_dir.clone(), pod_cidr, mtu: None };
        if let Err(error) = cni::write_conflist(&network) {
            tracing::error!(%error, "writing the network's configuration");
        }
    }
}
