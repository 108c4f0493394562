//! A whole cluster in this process, but for machines: API server, scheduler, controllers and simulated nodes.

use serde_json::Value;
use slipway_apiserver::User;
use slipway_node::simulated;
use slipway_tests::{PATIENCE, TestServer};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub struct Cluster {
    pub server: TestServer,
    /// Makes nodes fail.
    pub nodes: simulated::Handle,
    options: slipway_controllers::Options,
    controllers: Option<(CancellationToken, JoinHandle<()>)>,
    shutdown: CancellationToken,
}

impl Cluster {
    pub async fn start(nodes: usize) -> Cluster {
        let options = slipway_controllers::Options { root_ca_pem: "-- the authority --".into(), ..Default::default() };
        Self::start_with(nodes, options).await
    }

    pub async fn start_with(count: usize, options: slipway_controllers::Options) -> Cluster {
        let server = TestServer::memory().await;
        let (nodes, shutdown) = (simulated::Handle::default(), CancellationToken::new());
        let lease_period = Duration::from_millis(500);
        let simulation =
            simulated::Options { count, name_prefix: "node-".into(), lease_period, handle: nodes.clone(), ..Default::default() };
        tokio::spawn(simulated::run(server.client(), simulation, shutdown.clone()));
        tokio::spawn(slipway_scheduler::run(
            server.api.client(User::new("system:kube-scheduler", &[])),
            Default::default(),
            shutdown.clone(),
        ));
        let mut cluster = Cluster { server, nodes, options, controllers: None, shutdown };
        cluster.start_controllers();
        cluster
    }

    pub fn start_controllers(&mut self) {
        // With the rights that it has in a cluster, and no more.
        let manager = User::new("system:kube-controller-manager", &[]);
        let (client, options, stop) = (self.server.api.client(manager), self.options.clone(), self.shutdown.child_token());
        let running = stop.clone();
        let task = tokio::spawn(async move {
            slipway_controllers::run(client, options, running).await.expect("the options are right");
        });
        self.controllers = Some((stop, task));
    }

    /// Ends the controllers wherever they are, as if the process had died.
    pub async fn kill_controllers(&mut self) {
        let (_, task) = self.controllers.take().expect("they run");
        task.abort();
        let _ = task.await;
    }

    pub async fn create(&self, path: &str, yaml: &str) -> Value {
        let object = serde_json::from_str(yaml).expect("the test's objects are JSON");
        self.server.post(path, object).await.expect(201)
    }

    /// The object at `path`, once it is as wanted.
    pub async fn until(&self, path: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let seen = async {
            loop {
                last = self.server.get(path).await.body;
                if wanted(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        assert!(seen.is_ok(), "{path} never {what}: {last:#}");
        last
    }

    pub async fn until_gone(&self, path: &str) {
        self.until(path, "goes", |answer| answer["code"] == 404).await;
    }

    pub async fn until_empty(&self, path: &str) {
        self.until(path, "empties", |list| items(list).is_empty()).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

pub fn deployment(name: &str, replicas: u32) -> String {
    serde_json::json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "web:1"}]},
            },
        },
    })
    .to_string()
}
