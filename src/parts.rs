//! Wiring of the parts, as they run in one process with `up` and apart with `--kubeconfig`.

use crate::cli;
use crate::pki::Identity;
use crate::server::{CLUSTER_DNS, POD_CIDR, SERVICE_CIDR};
use crate::supervise::keep_running;
use anyhow::{Context, Result};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled by the first SIGTERM or SIGINT; a second one ends the process at once.
pub fn shutdown_on_signal() -> Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancel = token.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
            if cancel.is_cancelled() {
                std::process::exit(130);
            }
            cancel.cancel();
        }
    });
    Ok(token)
}

pub fn host_name() -> Result<String> {
    let name = nix::unistd::gethostname().context("reading the host name")?;
    Ok(name.to_string_lossy().to_lowercase())
}

/// A client that says it is `part`: what it writes is told to be that part's.
pub async fn client(kubeconfig: &Path, part: &str) -> Result<kube::Client> {
    let config = kube::config::Kubeconfig::read_from(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
    let mut config = kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default()).await?;
    let agent = http::HeaderValue::try_from(format!("{part}/{}", env!("CARGO_PKG_VERSION")))?;
    config.headers.push((http::header::USER_AGENT, agent));
    Ok(kube::Client::try_from(config)?)
}

/// Runs a part when it is the one that leads, and ends it with an error when it does no more. `identity` tells it from
/// the others that may lead; `None`: there are none.
pub async fn elected<R: Future<Output = Result<()>>>(
    client: kube::Client,
    name: &str,
    identity: Option<String>,
    shutdown: CancellationToken,
    part: impl FnOnce(CancellationToken) -> R,
) -> Result<()> {
    use slipway_controllers::leader::{Ended, Options, lead};
    let Some(identity) = identity else { return part(shutdown).await };
    let options = Options { identity, ..Options::new(name, "") };
    match lead(client, options, shutdown, part).await {
        Ended::Part(outcome) => outcome,
        Ended::Lost => anyhow::bail!("{name} does not lead any more"),
        Ended::Stopped => Ok(()),
    }
}

/// Of a process of its own.
fn candidate(election: cli::Election) -> Result<Option<String>> {
    let identity = || Ok(format!("{}_{}", host_name()?, uuid::Uuid::new_v4()));
    election.leader_elect.then(identity).transpose()
}

pub async fn scheduler(flags: cli::Scheduler, shutdown: CancellationToken) -> Result<()> {
    let client = client(&flags.component.kubeconfig, "kube-scheduler").await?;
    let run = |stop| run_scheduler(client.clone(), stop);
    elected(client.clone(), "kube-scheduler", candidate(flags.election)?, shutdown, run).await
}

pub async fn run_scheduler(client: kube::Client, shutdown: CancellationToken) -> Result<()> {
    Ok(slipway_scheduler::run(client, slipway_scheduler::Options::default(), shutdown).await?)
}

pub async fn controllers(flags: cli::Controllers, shutdown: CancellationToken) -> Result<()> {
    let pki = flags.pki_dir.as_deref().map(crate::pki::Pki::open).transpose()?;
    let ca = pki.as_ref().map(|pki| &pki.ca);
    let root = ca.map(|ca| ca.cert_pem.clone()).unwrap_or_default();
    let mut options = controller_options(ca, &root, flags.grace);
    options.service_account_key_pem = pki.as_ref().map(|pki| pki.service_account_key_pem.clone());
    let client = client(&flags.component.kubeconfig, "kube-controller-manager").await?;
    let run = |stop| run_controllers(client.clone(), options, stop);
    elected(client.clone(), "kube-controller-manager", candidate(flags.election)?, shutdown, run).await
}

pub fn controller_options(ca: Option<&Identity>, root_ca_pem: &str, grace: cli::Grace) -> slipway_controllers::Options {
    slipway_controllers::Options {
        cluster_ca: ca.map(|ca| (ca.cert_pem.clone(), ca.key_pem.clone())),
        root_ca_pem: root_ca_pem.to_owned(),
        pod_cidr: POD_CIDR.to_owned(),
        node_monitor_grace_period: grace.node_monitor_grace_period,
        ..slipway_controllers::Options::default()
    }
}

pub async fn run_controllers(
    client: kube::Client,
    options: slipway_controllers::Options,
    shutdown: CancellationToken,
) -> Result<()> {
    Ok(slipway_controllers::run(client, options, shutdown).await?)
}

pub async fn run_simulated(client: kube::Client, count: usize, start: Duration, shutdown: CancellationToken) -> Result<()> {
    let options = slipway_node::simulated::Options { count, start_latency: start, ..Default::default() };
    Ok(slipway_node::simulated::run(client, options, shutdown).await?)
}

pub async fn cloud(flags: cli::Cloud, shutdown: CancellationToken) -> Result<()> {
    let ca = std::fs::read_to_string(&flags.ca).with_context(|| format!("reading {}", flags.ca.display()))?;
    let client = client(&flags.component.kubeconfig, "cloud-controller-manager").await?;
    let run = |stop| run_cloud(client.clone(), flags.flags, ca, stop);
    elected(client.clone(), "cloud-controller-manager", candidate(flags.election)?, shutdown, run).await
}

pub async fn run_cloud(client: kube::Client, flags: cli::CloudFlags, ca_pem: String, shutdown: CancellationToken) -> Result<()> {
    anyhow::ensure!(flags.cloud.is_some(), "which cloud? --cloud ec2");
    let cluster = match flags.cluster_name {
        Some(name) => name,
        None => cluster_name(&client).await?,
    };
    let options = slipway_controllers::cloud::Options {
        cluster: cluster.clone(),
        join_server: flags.join_server.context("new machines need an address to join at: --join-server")?,
        ca_pem,
        ..Default::default()
    };
    let account = slipway_cloud_ec2::Options { region: flags.cloud_region, endpoint: flags.cloud_endpoint, cluster };
    let provider: Arc<dyn slipway_cloud::Provider> = Arc::new(slipway_cloud_ec2::Ec2::connect(account).await);
    slipway_controllers::cloud::run(client, provider, options, shutdown).await;
    Ok(())
}

/// A name that the cluster keeps for life and shares with none: what has it in the cloud and no Machine here is removed.
async fn cluster_name(client: &kube::Client) -> Result<String> {
    let namespaces: kube::Api<slipway_api::core::Namespace> = kube::Api::all(client.clone());
    let system = namespaces.get("kube-system").await.context("reading the namespace kube-system, for the cluster's name")?;
    let uid = system.metadata.uid.context("the namespace kube-system has no UID")?;
    Ok(format!("slipway-{}", uid.split('-').next().unwrap_or(&uid)))
}

pub async fn proxy(flags: cli::Proxy, shutdown: CancellationToken) -> Result<()> {
    let name = flags.node_name.map_or_else(host_name, Ok)?;
    run_proxy(client(&flags.component.kubeconfig, "kube-proxy").await?, name, vec![], shutdown).await
}

pub async fn run_proxy(
    client: kube::Client,
    node_name: String,
    served_here: Vec<std::net::Ipv4Addr>,
    shutdown: CancellationToken,
) -> Result<()> {
    use slipway_node::proxy::{Backend, Options};
    let pod_cidr = POD_CIDR.parse().context("the pods' range")?;
    let options = Options { node_name, backend: Backend::Auto, pod_cidr, served_here };
    Ok(slipway_node::proxy::run(client, options, shutdown).await?)
}

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct NodeWiring {
    pub options: slipway_node::Options,
    pub cluster_dns: std::net::Ipv4Addr,
}

/// A node: its agent, the service proxy, the cluster's DNS and the routes to other nodes' pods.
pub async fn run_node(client: kube::Client, wiring: NodeWiring, shutdown: CancellationToken) -> Result<()> {
    slipway_node::cni::sysctl::prepare().context("the kernel's settings for pods' traffic")?;
    let NodeWiring { options, cluster_dns } = wiring;
    let stop = shutdown.child_token();
    // Whichever part ends first, the others end with it, and all are started again.
    let _stop = stop.clone().drop_guard();
    let name = options.node_name.clone();
    let dns = slipway_node::dns::Options {
        listen: (cluster_dns, 53).into(),
        make_interface: true,
        domain: options.cluster_domain.clone(),
        resolv_conf: "/etc/resolv.conf".into(),
        reverse: vec![POD_CIDR.parse().context("the pods' range")?, SERVICE_CIDR.parse().context("the Services' range")?],
    };
    let routes = slipway_node::cni::routes::run(client.clone(), name.clone(), stop.clone());
    tokio::select! {
        ended = run_proxy(client.clone(), name, vec![cluster_dns], stop.clone()) => ended.context("the service proxy"),
        ended = slipway_node::dns::run(client.clone(), dns, stop.clone()) => ended.context("the cluster's DNS"),
        ended = slipway_node::run(client, options, stop.clone()) => ended.context("the node agent"),
        () = routes => Ok(()),
    }
}

/// `slipway node`: joins with a token, or runs with a kubeconfig of its own.
pub async fn node(flags: cli::Node, shutdown: CancellationToken) -> Result<()> {
    use slipway_node::bootstrap::{Join, has_joined};
    std::fs::create_dir_all(&flags.data_dir).with_context(|| format!("creating {}", flags.data_dir.display()))?;
    let _lock = crate::up::lock(&flags.data_dir)?;
    let name = flags.node_name.clone().map_or_else(host_name, Ok)?;
    let ip = match flags.node_ip {
        Some(ip) => ip,
        None => outward_address(flags.join.as_deref())?,
    };
    let mut options = slipway_node::Options::new(&name, ip, flags.data_dir.clone());
    options.runtime_endpoint = flags.runtime_endpoint.clone();
    options.provider_id = flags.provider_id.clone();
    options.labels = flags.labels.iter().map(|label| pair(label)).collect::<Result<_>>()?;
    options.taints = flags.taints.iter().map(|text| taint(text)).collect::<Result<_>>()?;
    if let Some(ca) = &flags.ca {
        options.client_ca_pem = std::fs::read_to_string(ca).with_context(|| format!("reading {}", ca.display()))?;
    }
    let wiring = |options: slipway_node::Options| NodeWiring { options, cluster_dns: CLUSTER_DNS };
    let Some(server) = flags.join else {
        let kubeconfig = flags.kubeconfig.context("--kubeconfig or --join")?;
        return run_node(client(&kubeconfig, "kubelet").await?, wiring(options), shutdown).await;
    };
    anyhow::ensure!(flags.token.is_some() || has_joined(&flags.data_dir), "a machine needs a token to join: --token");
    let joining =
        Join { server, ca_pem: options.client_ca_pem.clone(), token: flags.token, node_name: name, data_dir: flags.data_dir };
    let wiring = wiring(options);
    // A machine may start before the API server does, or outlive it.
    let running = keep_running("node", shutdown, move |stop| member(joining.clone(), wiring.clone(), stop));
    running.await.context("the node")
}

/// Runs a node until its certificate has been renewed: then everything is connected anew, which pods don't notice.
async fn member(joining: slipway_node::bootstrap::Join, wiring: NodeWiring, stop: CancellationToken) -> Result<()> {
    use slipway_node::bootstrap::{join, rotate};
    let Some(client) = stop.run_until_cancelled(join(&joining)).await else { return Ok(()) };
    let client = client.context("joining the cluster")?;
    tokio::select! {
        ended = run_node(client.clone(), wiring, stop) => ended,
        rotated = rotate(&joining, &client) => rotated.context("renewing the node's certificate"),
    }
}

/// The address from which this machine reaches the API server: no packet is sent for that.
pub fn outward_address(server: Option<&str>) -> Result<IpAddr> {
    let host = server.and_then(|server| server.strip_prefix("https://")).unwrap_or("192.0.2.1:443");
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(host.trim_end_matches('/')).context("finding this node's address: name it with --node-ip")?;
    Ok(socket.local_addr()?.ip())
}

fn pair(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').with_context(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `key=value:Effect`, the value may be left out.
fn taint(text: &str) -> Result<slipway_api::core::Taint> {
    let (rest, effect) = text.rsplit_once(':').with_context(|| format!("{text:?} is not KEY=VALUE:EFFECT"))?;
    let (key, value) = rest.split_once('=').map_or((rest, None), |(key, value)| (key, Some(value.to_owned())));
    Ok(slipway_api::core::Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}
