//! Pods bound a second on simulated nodes, end to end through the API: API server, scheduler and nodes in one process.
//!
//! `./dev bench schedule`, or `cargo bench -p slipway-tests --bench schedule -- [--nodes 1000] [--pods 10000] [--postgres URL | --memory]`;
//! without either the store is a private Postgres. The pods are created first, with the scheduler stopped, so that what is measured is scheduling and not creating.

use futures::{StreamExt, TryStreamExt};
use kube::api::PostParams;
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::json;
use slipway_api::core::{Node, Pod};
use slipway_apiserver::http::authenticate::User;
use slipway_apiserver::{ApiServer, Options};
use slipway_node::simulated;
use slipway_store::Store;
use slipway_store::memory::Memory;
use slipway_tests::postgres::Cluster;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The figure that the project holds itself to.
const PODS_PER_SECOND_MIN: f64 = 500.0;
const CREATES_IN_FLIGHT: usize = 32;

struct Arguments {
    nodes: usize,
    pods: usize,
    place: Place,
}

/// Where the objects are.
enum Place {
    Memory,
    Postgres(String),
    PrivatePostgres(Arc<Cluster>),
}

async fn arguments() -> Arguments {
    let all: Vec<String> = std::env::args().collect();
    let value = |name: &str| all.iter().position(|argument| argument == name).and_then(|at| all.get(at + 1)).cloned();
    let number = |name: &str, default| value(name).map_or(default, |text| text.parse().expect("a number"));
    let place = match value("--postgres") {
        Some(url) => Place::Postgres(url),
        None if all.iter().any(|argument| argument == "--memory") => Place::Memory,
        None => Place::PrivatePostgres(Cluster::shared().await),
    };
    Arguments { nodes: number("--nodes", 1_000), pods: number("--pods", 10_000), place }
}

async fn store(place: &Place) -> Arc<dyn Store> {
    match place {
        Place::Memory => Memory::new(),
        Place::PrivatePostgres(cluster) => cluster.store().await,
        Place::Postgres(url) => {
            let options = slipway_store::postgres::Options::default();
            slipway_store::postgres::Postgres::connect(url, options).await.expect("Postgres answers")
        }
    }
}

async fn create_pods(client: &Client, count: usize) {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let create = |index: usize| {
        let api = api.clone();
        async move {
            let resources = json!({"requests": {"cpu": "100m", "memory": "128Mi"}});
            let spec = json!({"containers": [{"name": "web", "image": "web:1", "resources": resources}]});
            let metadata = json!({"name": format!("pod-{index}"), "labels": {"app": "web"}});
            let pod = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a valid pod");
            api.create(&PostParams::default(), &pod).await.map(drop)
        }
    };
    let mut created = futures::stream::iter(0..count).map(create).buffer_unordered(CREATES_IN_FLIGHT);
    while let Some(result) = created.next().await {
        result.expect("a pod is created");
    }
}

/// Waits until so many pods have a node.
async fn all_bound(client: &Client, count: usize) {
    let config = watcher::Config::default().fields("spec.nodeName!=");
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let mut events = Box::pin(kube::runtime::watcher(api, config));
    let mut bound = std::collections::HashSet::new();
    while bound.len() < count {
        if let Some(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) =
            events.try_next().await.expect("the watch goes on")
        {
            bound.insert(pod.metadata.name);
        }
    }
}

async fn ready_nodes(client: &Client) -> usize {
    let nodes = Api::<Node>::all(client.clone()).list_metadata(&Default::default()).await.expect("nodes are listed");
    nodes.items.len()
}

async fn measure(arguments: &Arguments) -> f64 {
    let server = ApiServer::start(store(&arguments.place).await, Options::default()).await.expect("the server starts");
    let client = server.client(User::admin());
    let shutdown = CancellationToken::new();
    let options = simulated::Options { count: arguments.nodes, ..simulated::Options::default() };
    let nodes = tokio::spawn(simulated::run(client.clone(), options, shutdown.clone()));
    while ready_nodes(&client).await < arguments.nodes {
        assert!(!nodes.is_finished(), "the nodes stopped");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    create_pods(&client, arguments.pods).await;
    let start = Instant::now();
    let scheduler = tokio::spawn(slipway_scheduler::run(client.clone(), Default::default(), shutdown.clone()));
    all_bound(&client, arguments.pods).await;
    let seconds = start.elapsed().as_secs_f64();
    assert!(!scheduler.is_finished(), "the scheduler stopped");
    shutdown.cancel();
    let _ = tokio::join!(nodes, scheduler);
    server.close();
    arguments.pods as f64 / seconds
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let arguments = runtime.block_on(arguments());
    let rate = runtime.block_on(measure(&arguments));
    let Arguments { nodes, pods, place } = &arguments;
    let store = if matches!(place, Place::Memory) { "memory" } else { "Postgres" };
    println!(
        "schedule: {pods} pods on {nodes} nodes over {store}: {rate:.0} pods bound a second (at least {PODS_PER_SECOND_MIN:.0})"
    );
    if rate < PODS_PER_SECOND_MIN {
        std::process::exit(1);
    }
}
