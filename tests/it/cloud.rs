//! The cloud's controllers over the real API and the fake cloud: machines are bought for pods and given back, and load
//! balancers follow Services. The test plays the machines: they join with their own tokens and run what they are given.

use crate::cluster::{Cluster, deployment, items};
use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use slipway_apiserver::ApiServer;
use slipway_apiserver::http::authenticate::User;
use slipway_cloud::fake::{Fake, Faults};
use slipway_cloud::{InstanceState, InstanceType, Provider};
use slipway_controllers::cloud::{self, Options};
use slipway_tests::eventually;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const MACHINES: &str = "/apis/slipway.dev/v1alpha1/machines";
const POOLS: &str = "/apis/slipway.dev/v1alpha1/nodepools";
const CLASSES: &str = "/apis/slipway.dev/v1alpha1/nodeclasses";
const TOKENS: &str = "/api/v1/namespaces/kube-system/secrets?fieldSelector=type%3Dbootstrap.kubernetes.io/token";

const TROUBLE: Faults = Faults { throttled: 0.25, answer_lost: 0.25, no_capacity: 0.25 };

/// A cluster without nodes, in a cloud.
struct Site {
    cluster: Cluster,
    cloud: Arc<Fake>,
    buyer: JoinHandle<()>,
    _stop: DropGuard,
}

impl Site {
    async fn start(seed: u64, faults: Faults) -> Site {
        let types = [("small", 2, 0.05), ("large", 8, 0.19)].map(|(name, cpus, price)| InstanceType {
            name: name.into(),
            cpu_milli: cpus * 1000,
            memory_bytes: (cpus * 2) << 30,
            architecture: "amd64".into(),
            price_per_hour: price,
            zones: vec!["fake-1a".into(), "fake-1b".into()],
        });
        let cloud = Arc::new(Fake::new(seed, faults, types.into()));
        cloud.set_stop_ticks(3);
        let cluster = Cluster::start(0).await;
        let shutdown = CancellationToken::new();
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(machines(cluster.server.api.clone(), cloud.clone())));
        let buyer = buyer(&cluster, &cloud);
        let site = Site { cluster, cloud, buyer, _stop: shutdown.drop_guard() };
        site.post(
            CLASSES,
            "default",
            json!({"provider": "ec2", "image": "ami-1", "subnets": ["subnet-fake-1a", "subnet-fake-1b"]}),
        )
        .await;
        let pool = json!({
            "nodeClassRef": {"name": "default"}, "instanceTypes": ["large", "small"],
            "template": {"labels": {"tier": "bought"}, "taints": [{"key": "bought", "effect": "NoSchedule"}]},
            "disruption": {"emptyAfterSeconds": 1},
        });
        site.post(POOLS, "general", pool).await;
        site
    }

    async fn post(&self, path: &str, name: &str, spec: Value) -> Value {
        let kind = match path {
            CLASSES => "NodeClass",
            POOLS => "NodePool",
            PODS => "Pod",
            _ => "Service",
        };
        let version = if kind.starts_with("Node") { "slipway.dev/v1alpha1" } else { "v1" };
        let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec});
        self.cluster.server.post(path, object).await.expect(201)
    }

    async fn pod(&self, name: &str, cpu: &str) {
        self.post(PODS, name, pod_spec(cpu)).await;
    }

    /// As if the process had died, and another had come.
    async fn restart_the_buyer(&mut self) {
        self.buyer.abort();
        let _ = (&mut self.buyer).await;
        self.buyer = buyer(&self.cluster, &self.cloud);
    }

    async fn until_all_run(&self, count: usize) {
        let running = |pods: &Value| {
            let runs = |pod: &&Value| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null();
            items(pods).iter().filter(runs).count() == count
        };
        self.cluster.until(PODS, "run", running).await;
    }

    /// Each machine of the cloud is one of the ledger's.
    async fn until_the_ledger_is_true(&self) {
        eventually("a ledger that says what there is", || async {
            let machines = self.cluster.server.get(MACHINES).await.expect(200);
            let launched = |machine: &&Value| machine["status"]["providerID"].is_string();
            let mut written: Vec<&str> =
                items(&machines).iter().filter(launched).filter_map(|machine| machine["metadata"]["uid"].as_str()).collect();
            written.sort_unstable();
            let mut real: Vec<String> = self.cloud.inventory().into_iter().filter_map(|instance| instance.owner).collect();
            real.sort_unstable();
            (real == written).then_some(())
        })
        .await;
    }

    async fn until_nothing_is_left(&self) {
        self.cluster.until_empty(MACHINES).await;
        self.cluster.until_empty(NODES).await;
        self.cluster.until_empty(TOKENS).await;
        eventually("an empty cloud", || async { self.cloud.inventory().is_empty().then_some(()) }).await;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.buyer.abort();
    }
}

fn pod_spec(cpu: &str) -> Value {
    json!({
        "terminationGracePeriodSeconds": 0,
        "nodeSelector": {"tier": "bought"},
        "tolerations": [{"key": "bought", "operator": "Exists"}],
        "containers": [{"name": "c", "image": "web:1", "resources": {"requests": {"cpu": cpu}}}],
    })
}

fn buyer(cluster: &Cluster, cloud: &Arc<Fake>) -> JoinHandle<()> {
    let client = cluster.server.api.client(User::new("system:cloud-controller-manager", &[]));
    let options = Options {
        join_server: "https://10.0.0.5:6443".into(),
        ca_pem: "-- the authority --".into(),
        batch_window: Duration::from_millis(100),
        settle: Duration::from_secs(2),
        sweep_interval: Duration::from_millis(500),
        poll_interval: Duration::from_millis(100),
        refusal_kept: Duration::from_secs(1),
        visible_after: Duration::from_secs(1),
        ..Options::default()
    };
    let provider: Arc<dyn Provider> = cloud.clone();
    tokio::spawn(cloud::run(client, provider, options, CancellationToken::new()))
}

/// The machines: those that run become nodes by what their script says, and start and end their pods.
async fn machines(api: Arc<ApiServer>, cloud: Arc<Fake>) {
    loop {
        cloud.tick();
        for instance in cloud.inventory().into_iter().filter(|instance| instance.state == InstanceState::Running) {
            let Some(launch) = cloud.launched_with(&instance.id) else { continue };
            let script = Script(launch.user_data);
            let name = script.after("--node-name").remove(0);
            let node = format!("{NODES}/{name}");
            if call(&api, None, "GET", &node, None).await.0 == 404 {
                // Without a valid token it would not get its certificate.
                let token = script.after("--token").remove(0);
                let asks = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
                assert_eq!(call(&api, Some(&token), "GET", asks, None).await.0, 200, "the token of {name}");
                register(&api, &name, &script, instance.instance_type == "large").await;
            }
            run_pods(&api, &name).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Script(String);

impl Script {
    /// The words that follow each of these flags.
    fn after(&self, flag: &str) -> Vec<String> {
        let flag = format!("{flag} '");
        let found = self.0.split(&flag).skip(1);
        found.filter_map(|rest| rest.split('\'').next().map(str::to_owned)).collect()
    }
}

async fn register(api: &Arc<ApiServer>, name: &str, script: &Script, large: bool) {
    let labels: serde_json::Map<String, Value> = script
        .after("--label")
        .iter()
        .filter_map(|label| label.split_once('=').map(|(key, value)| (key.to_owned(), json!(value))))
        .collect();
    let taints: Vec<Value> = script
        .after("--taint")
        .iter()
        .filter_map(|taint| taint.split_once(':').map(|(key, effect)| json!({"key": key, "effect": effect})))
        .collect();
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {"taints": taints},
    });
    let (code, body) = call(api, None, "POST", NODES, Some(node)).await;
    assert_eq!(code, 201, "{body:#}");
    let has = json!({"cpu": if large { "8" } else { "2" }, "memory": if large { "15Gi" } else { "3700Mi" }, "pods": "110"});
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady"});
    let status = json!({"status": {"capacity": has, "allocatable": has, "conditions": [ready]}});
    call(api, None, "PATCH", &format!("{NODES}/{name}/status"), Some(status)).await;
}

async fn run_pods(api: &Arc<ApiServer>, node: &str) {
    let (_, pods) = call(api, None, "GET", &format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}"), None).await;
    for pod in items(&pods) {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        if pod["metadata"]["deletionTimestamp"].is_string() {
            call(api, None, "DELETE", &format!("{PODS}/{name}?gracePeriodSeconds=0"), None).await;
        } else if pod["status"]["phase"] != "Running" {
            let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
            call(api, None, "PATCH", &format!("{PODS}/{name}/status"), Some(status)).await;
        }
    }
}

/// As an administrator, or with a token.
async fn call(api: &Arc<ApiServer>, token: Option<&str>, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let kind = if method == "PATCH" { "application/strategic-merge-patch+json" } else { "application/json" };
    let mut request = Request::builder().method(method).uri(path).header("content-type", kind);
    let mut router = api.router();
    match token {
        Some(token) => request = request.header("authorization", format!("Bearer {token}")),
        None => router = router.layer(axum::Extension(User::admin())),
    }
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let response = router.oneshot(request.body(body).expect("a request")).await.expect("a router does not fail");
    let answer = slipway_tests::Answer::of(response).await;
    (answer.code, answer.body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_gets_a_machine_that_goes_when_nobody_needs_it() {
    let site = Site::start(1, Faults::default()).await;
    site.pod("web", "500m").await;
    site.until_all_run(1).await;
    let machines = site.cluster.server.get(MACHINES).await.expect(200);
    let [machine] = items(&machines) else { panic!("one machine is enough: {machines:#}") };
    assert_eq!((&machine["spec"]["instanceType"], &machine["status"]["phase"]), (&json!("small"), &json!("Ready")));
    let name = machine["metadata"]["name"].as_str().unwrap();
    let node = site.cluster.server.get(&format!("{NODES}/{name}")).await.expect(200);
    assert_eq!(node["spec"]["providerID"], machine["status"]["providerID"]);
    assert_eq!(node["metadata"]["labels"]["node.kubernetes.io/instance-type"], "small");
    let events = "/api/v1/events?fieldSelector=involvedObject.name%3Dweb";
    let told = |list: &Value| items(list).iter().any(|event| event["reason"] == "TriggeredScaleUp");
    site.cluster.until(events, "tell of the purchase", told).await;
    let counted = |pool: &Value| pool["status"]["machines"] == 1;
    site.cluster.until(&format!("{POOLS}/general"), "counts its machine", counted).await;

    site.cluster.server.delete(&format!("{PODS}/web")).await.expect(200);
    site.until_nothing_is_left().await;
    assert_eq!(site.cloud.bought(), 1);
}

/// Every call may fail, or do its work and lose its answer; capacity ends; the controllers die again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_leaked_whatever_goes_wrong() {
    futures::future::join_all((1..=6).map(whatever_goes_wrong)).await;
}

async fn whatever_goes_wrong(seed: u64) {
    let mut site = Site::start(seed, TROUBLE).await;
    for (index, cpu) in ["1500m", "1500m", "500m", "4"].iter().enumerate() {
        site.pod(&format!("web-{index}"), cpu).await;
    }
    let ports = json!([{"port": 80, "protocol": "TCP"}]);
    site.post(SERVICES, "web", json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": ports})).await;
    for restart in 0..4 {
        tokio::time::sleep(Duration::from_millis(100 * (1 + (seed + restart) % 5))).await;
        site.restart_the_buyer().await;
    }
    site.until_all_run(4).await;
    site.until_the_ledger_is_true().await;
    let balancer = site.cloud.balancers().remove(0);
    let hostname = json!([{"hostname": format!("{}.elb.fake.test", balancer.name)}]);
    let published = |service: &Value| service["status"]["loadBalancer"]["ingress"] == hostname;
    site.cluster.until(&format!("{SERVICES}/web"), "has its address", published).await;

    for index in 0..4 {
        site.cluster.server.delete(&format!("{PODS}/web-{index}")).await.expect(200);
    }
    site.cluster.server.delete(&format!("{SERVICES}/web")).await.expect(200);
    for restart in 0..4 {
        tokio::time::sleep(Duration::from_millis(100 * (1 + (seed + restart) % 3))).await;
        site.restart_the_buyer().await;
    }
    site.until_nothing_is_left().await;
    site.cluster.until_gone(&format!("{SERVICES}/web")).await;
    eventually("no balancer", || async { site.cloud.balancers().is_empty().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_machine_is_drained_and_its_pods_come_up_elsewhere() {
    let site = Site::start(1, Faults::default()).await;
    let mut web: Value = serde_json::from_str(&deployment("web", 2)).unwrap();
    let mut spec = pod_spec("900m");
    spec["containers"][0]["image"] = json!("web:2");
    web["spec"]["template"]["spec"] = spec;
    site.cluster.create("/apis/apps/v1/namespaces/default/deployments", &web.to_string()).await;
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    });
    site.cluster.server.post("/apis/policy/v1/namespaces/default/poddisruptionbudgets", budget).await.expect(201);
    site.until_all_run(2).await;
    let budget = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/web";
    site.cluster.until(budget, "allows one to go", |budget| budget["status"]["disruptionsAllowed"] == 1).await;
    let machines = site.cluster.server.get(MACHINES).await.expect(200);
    let [machine] = items(&machines) else { panic!("they fit on one machine: {machines:#}") };
    let old = machine["metadata"]["name"].as_str().unwrap().to_owned();

    site.cluster.server.delete(&format!("{MACHINES}/{old}")).await.expect(200);
    // Only when the first pod runs elsewhere may the second go.
    let mut least = 2;
    eventually("the end of the old machine", || {
        least = least.min(site.cloud.machines());
        async { (site.cluster.server.get(&format!("{MACHINES}/{old}")).await.code == 404).then_some(()) }
    })
    .await;
    assert_eq!(least, 1, "another machine was there before this one was gone");
    site.until_all_run(2).await;
    let pods = site.cluster.server.get(PODS).await.expect(200);
    assert!(items(&pods).iter().all(|pod| pod["spec"]["nodeName"] != old.as_str()));
    site.until_the_ledger_is_true().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_balancer_leads_to_the_nodes_there_are() {
    let site = Site::start(1, Faults::default()).await;
    let ports = json!([{"port": 80, "protocol": "TCP"}]);
    let spec = json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": ports});
    let service = site.post(SERVICES, "web", spec).await;
    let node_port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    let web = format!("{SERVICES}/web");
    let ingress = |service: &Value| service["status"]["loadBalancer"]["ingress"][0]["hostname"].is_string();
    site.cluster.until(&web, "has its address", ingress).await;
    site.pod("web", "1").await;
    let targets = || site.cloud.balancers().first().map(|balancer| balancer.targets.clone()).unwrap_or_default();
    eventually("the node behind the balancer", || async { (targets().len() == 1).then_some(()) }).await;
    let listener = &site.cloud.balancers()[0].listeners[0];
    assert_eq!((listener.port, u64::from(listener.node_port)), (80, node_port));

    site.cluster.server.delete(&format!("{PODS}/web")).await.expect(200);
    site.until_nothing_is_left().await;
    eventually("nobody behind the balancer", || async { targets().is_empty().then_some(()) }).await;

    site.cluster.server.patch(&web, json!({"spec": {"type": "ClusterIP"}})).await.expect(200);
    eventually("no balancer", || async { site.cloud.balancers().is_empty().then_some(()) }).await;
    site.cluster.until(&web, "has no address", |service| !ingress(service)).await;
    site.cluster.server.delete(&web).await.expect(200);
    site.cluster.until_gone(&web).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_ledger_does_not_know_is_swept() {
    let site = Site::start(1, Faults::default()).await;
    site.pod("web", "1").await;
    site.until_all_run(1).await;
    let machines = site.cluster.server.get(MACHINES).await.expect(200);
    let machine = format!("{MACHINES}/{}", items(&machines)[0]["metadata"]["name"].as_str().unwrap());
    // Somebody tears the line out of the ledger.
    site.cluster.server.delete(&format!("{PODS}/web")).await.expect(200);
    let torn = json!({"metadata": {"finalizers": null}});
    site.cluster.server.delete(&machine).await.expect(200);
    site.cluster.server.patch(&machine, torn).await;
    site.cluster.until_gone(&machine).await;
    eventually("an empty cloud", || async { site.cloud.inventory().is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn the_sample_is_what_the_api_takes() {
    let server = slipway_tests::TestServer::memory().await;
    let sample = include_str!("../../infra/samples/nodepool.yaml");
    for (path, object) in [CLASSES, POOLS].into_iter().zip(sample.split("\n---\n")) {
        let request = Request::post(format!("{path}?fieldValidation=Strict")).header("content-type", "application/yaml");
        let response = server.send(Some(User::admin()), request.body(Body::from(object)).expect("a request")).await;
        slipway_tests::Answer::of(response).await.expect(201);
    }
}
