//! `slipway up`: a whole cluster in one foreground process.

use crate::pki::{Pki, write_atomically};
use crate::supervise::keep_running;
use crate::{cli, parts, security, server};
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use slipway_apiserver::ApiServer;
use slipway_apiserver::http::authenticate::User;
use slipway_store::Store;
use slipway_store::postgres::private::Private;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The address of this machine alone at which pods reach the API when no other is advertised. It lies on an
/// interface without a wire, so that nothing outside the machine reaches an API that is served on loopback.
const LOCAL_ADDRESS: &str = "10.254.0.1";
pub const LOCAL_INTERFACE: &str = "slipway0";
/// How long the parts may take to end, each group, before the process goes on without them.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(8);

/// Runs everything until `shutdown`: the parts end before the API server does, and the database ends last.
pub async fn run(flags: cli::Up, shutdown: CancellationToken) -> Result<()> {
    std::fs::create_dir_all(&flags.data_dir).with_context(|| format!("creating {}", flags.data_dir.display()))?;
    let data_dir = flags.data_dir.canonicalize()?;
    let _lock = lock(&data_dir)?;

    let (database, url) = database(&flags, &data_dir).await?;
    let store = slipway_store::postgres::Postgres::connect(&url, slipway_store::postgres::Options::default())
        .await
        .context("connecting to Postgres")?;
    let store: Arc<dyn Store> = store;

    let pki = Pki::open(&data_dir.join("pki"))?;
    let advertise = advertised(&flags)?;
    let mut options = server::options(&pki, advertise)?;
    security::apply(&mut options, &flags.security, Some(&data_dir.join("pki").join(server::ENCRYPTION)))?;
    let (audit, trail) = security::audit(&flags.security, &url).await?;
    options.audit = Arc::new(audit);
    let api = ApiServer::start(store, options).await.context("starting the API server")?;

    let server_stop = CancellationToken::new();
    let mut serving = serve(&api, &pki, &flags, advertise, &server_stop).await?;
    let (_, kubeconfig) = server::admin_kubeconfig(&pki, &format!("https://{}", reachable(flags.listen)))?;
    write_atomically(&data_dir.join("kubeconfig"), kubeconfig.as_bytes(), 0o600)?;

    let parts_stop = CancellationToken::new();
    let running = start_parts(&flags, &data_dir, &api, &pki, advertise, &parts_stop)?;
    announce(&flags, &data_dir, &api)?;

    if let Some(database) = &database {
        let (database, stop) = (database.clone(), parts_stop.clone());
        tokio::spawn(async move { database.keep(stop).await });
    }
    shutdown.cancelled().await;
    tracing::info!("stopping: pods keep running");
    parts_stop.cancel();
    join_all(running, "the parts").await;
    server_stop.cancel();
    join_all(std::mem::take(&mut serving), "the API server").await;
    api.close();
    drop(api);
    if let Some(trail) = trail {
        trail.close().await;
    }
    if let Some(database) = database {
        database.stop().await.context("stopping Postgres")?;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Two processes on one data directory would corrupt each other's view of the node.
pub fn lock(data_dir: &Path) -> Result<Flock<std::fs::File>> {
    let file = std::fs::File::create(data_dir.join("slipway.lock"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| anyhow::anyhow!("{}: another slipway runs on this data directory ({error})", data_dir.display()))
}

async fn database(flags: &cli::Up, data_dir: &Path) -> Result<(Option<Private>, String)> {
    if let Some(url) = &flags.postgres {
        return Ok((None, url.clone()));
    }
    let dir = data_dir.join("postgres");
    let private = Private::start(&dir).await.context("starting the private Postgres")?;
    let url = private.url();
    Ok((Some(private), url))
}

/// Where pods and nodes reach the API. Where it listens everywhere, it is the address by which the machine reaches others;
/// on a machine that is a node, else, an address of the machine's own.
fn advertised(flags: &cli::Up) -> Result<Option<SocketAddr>> {
    let port = flags.listen.port();
    let outward = || flags.listen.ip().is_unspecified().then(|| parts::outward_address(None).ok()).flatten();
    if let Some(ip) = flags.advertise_address.or_else(outward) {
        return Ok(Some(SocketAddr::new(ip, port)));
    }
    if flags.nodes == 0 {
        return Ok((!flags.listen.ip().is_unspecified()).then_some(flags.listen));
    }
    if !flags.listen.ip().is_loopback() && !flags.listen.ip().is_unspecified() {
        return Ok(Some(flags.listen));
    }
    local_interface()?;
    Ok(Some(SocketAddr::new(LOCAL_ADDRESS.parse::<IpAddr>()?, port)))
}

fn local_interface() -> Result<()> {
    let ip = |arguments: &[&str]| Command::new("ip").args(arguments).output().context("running ip (Debian: iproute2)");
    // A bridge without ports stands in where the kernel has no dummies. Both fail when the interface is there already.
    for kind in ["dummy", "bridge"] {
        ip(&["link", "add", LOCAL_INTERFACE, "type", kind])?;
    }
    ip(&["addr", "replace", &format!("{LOCAL_ADDRESS}/32"), "dev", LOCAL_INTERFACE])?;
    let up = ip(&["link", "set", LOCAL_INTERFACE, "up"])?;
    anyhow::ensure!(up.status.success(), "making {LOCAL_INTERFACE}: {}", String::from_utf8_lossy(&up.stderr));
    // The machine's own processes reach Services by it, whether or not there is a default route; the rules take over
    // before anything leaves.
    let route = ip(&["route", "replace", server::SERVICE_CIDR, "dev", LOCAL_INTERFACE])?;
    anyhow::ensure!(route.status.success(), "the route to Services: {}", String::from_utf8_lossy(&route.stderr));
    Ok(())
}

/// A wildcard address is reached at loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() { SocketAddr::new(IpAddr::from([127, 0, 0, 1]), listen.port()) } else { listen }
}

/// Listens at `--listen` and, where that doesn't include it, at the advertised address.
async fn serve(
    api: &Arc<ApiServer>,
    pki: &Pki,
    flags: &cli::Up,
    advertise: Option<SocketAddr>,
    stop: &CancellationToken,
) -> Result<Vec<JoinHandle<()>>> {
    let proxies = api.options.request_header.as_ref();
    let tls = server::tls(pki, flags.listen, advertise.map(|address| address.ip().to_string()), proxies)?;
    let mut addresses = vec![flags.listen];
    if let Some(advertise) = advertise
        && !flags.listen.ip().is_unspecified()
        && advertise != flags.listen
    {
        addresses.push(advertise);
    }
    let router = crate::dashboard::router(api);
    let mut tasks = vec![];
    for address in addresses {
        let listener = server::bind(address).await?;
        let (api, tls, stop) = (api.clone(), tls.clone(), stop.clone());
        let router = router.clone();
        tasks.push(tokio::spawn(async move { api.serve_router(router, listener, tls, stop).await }));
    }
    Ok(tasks)
}

fn start_parts(
    flags: &cli::Up,
    data_dir: &Path,
    api: &Arc<ApiServer>,
    pki: &Pki,
    advertise: Option<SocketAddr>,
    stop: &CancellationToken,
) -> Result<Vec<JoinHandle<()>>> {
    let client = |user: &str, groups: &[&str]| api.client(User::new(user, groups));
    let mut running = vec![];

    // The directory is locked, so this process is the one that has run here before, and need not wait for itself.
    let identity = Some(format!("{}_{}", parts::host_name()?, data_dir.display()));

    let scheduler = client("system:kube-scheduler", &[]);
    let me = identity.clone();
    running.push(keep_running("scheduler", stop.clone(), move |stop| {
        let scheduler = scheduler.clone();
        let part = {
            let client = scheduler.clone();
            move |stop| parts::run_scheduler(client, stop)
        };
        parts::elected(scheduler, "kube-scheduler", me.clone(), stop, part)
    }));

    let controllers = client("system:kube-controller-manager", &[]);
    let mut options = parts::controller_options(Some(&pki.ca), &pki.ca.cert_pem, flags.grace);
    options.service_account_key_pem = Some(pki.service_account_key_pem.clone());
    let me = identity.clone();
    running.push(keep_running("controllers", stop.clone(), move |stop| {
        let controllers = controllers.clone();
        let part = {
            let (client, options) = (controllers.clone(), options.clone());
            move |stop| parts::run_controllers(client, options, stop)
        };
        parts::elected(controllers, "kube-controller-manager", me.clone(), stop, part)
    }));

    if flags.cloud.cloud.is_some() {
        let (cloud, ca) = (client("system:cloud-controller-manager", &[]), pki.ca.cert_pem.clone());
        let cloud_flags = cli::CloudFlags { join_server: Some(join_server(flags, advertise)?), ..flags.cloud.clone() };
        running.push(keep_running("cloud", stop.clone(), move |stop| {
            let (cloud, flags, ca) = (cloud.clone(), cloud_flags.clone(), ca.clone());
            let part = {
                let client = cloud.clone();
                move |stop| parts::run_cloud(client, flags, ca, stop)
            };
            parts::elected(cloud, "cloud-controller-manager", identity.clone(), stop, part)
        }));
    }
    if flags.nodes > 0 {
        running.push(start_node(flags, data_dir, api, pki, advertise, stop)?);
    }
    if flags.simulated_nodes > 0 {
        let nodes = client("system:simulated-nodes", &["system:nodes", "system:masters"]);
        let (count, start) = (flags.simulated_nodes, flags.simulated_start);
        running.push(keep_running("simulated nodes", stop.clone(), move |stop| {
            parts::run_simulated(nodes.clone(), count, start, stop)
        }));
    }
    Ok(running)
}

/// Where machines that are bought join: an address that others than this machine reach.
fn join_server(flags: &cli::Up, advertise: Option<SocketAddr>) -> Result<String> {
    if let Some(server) = &flags.cloud.join_server {
        return Ok(server.clone());
    }
    let reached = advertise.filter(|address| !address.ip().is_loopback() && address.ip().to_string() != LOCAL_ADDRESS);
    let address =
        reached.context("new machines could not reach the API: --listen 0.0.0.0:6443, --advertise-address or --join-server")?;
    Ok(format!("https://{address}"))
}

fn start_node(
    flags: &cli::Up,
    data_dir: &Path,
    api: &Arc<ApiServer>,
    pki: &Pki,
    advertise: Option<SocketAddr>,
    stop: &CancellationToken,
) -> Result<JoinHandle<()>> {
    let name = flags.node_name.clone().map_or_else(parts::host_name, Ok)?;
    let ip = advertise.map(|address| address.ip()).context("a node needs an address")?;
    let user = format!("system:node:{name}");
    let client = api.client(User::new(&user, &["system:nodes"]));
    let serving = pki.server("node-serving", &user, &[name.clone(), ip.to_string(), "127.0.0.1".into()].into())?;
    let mut options = slipway_node::Options::new(&name, ip, data_dir.to_owned());
    options.runtime_endpoint = flags.runtime_endpoint.clone();
    options.serving = Some((serving.cert_pem, serving.key_pem));
    options.client_ca_pem = pki.ca.cert_pem.clone();
    let wiring = parts::NodeWiring { options, cluster_dns: server::CLUSTER_DNS };
    Ok(keep_running("node", stop.clone(), move |stop| parts::run_node(client.clone(), wiring.clone(), stop)))
}

/// Says where things are, once everything answers.
fn announce(flags: &cli::Up, data_dir: &Path, api: &Arc<ApiServer>) -> Result<()> {
    let address = reachable(flags.listen);
    let code = api.sessions.issue_code(User::admin(), api.now());
    let link = format!("https://{address}/ui/sign-in#code={code}");
    write_atomically(&data_dir.join("dashboard-link"), format!("{link}\n").as_bytes(), 0o600)?;
    tracing::info!(%address, kubeconfig = %data_dir.join("kubeconfig").display(), "ready");
    println!("Slipway is ready at https://{address}. Sign in to its dashboard, once, by {link}");
    Ok(())
}

async fn join_all(tasks: Vec<JoinHandle<()>>, what: &str) {
    let all = futures::future::join_all(tasks);
    if tokio::time::timeout(SHUTDOWN_PATIENCE, all).await.is_err() {
        tracing::warn!("{what} did not end in time");
    }
}
