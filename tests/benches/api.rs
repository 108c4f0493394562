//! What the API costs through HTTPS, with authentication, RBAC and admission: creates, updates, gets, lists of all pods plain
//! and compressed, watches with many watchers, and memory.
//!
//! `cargo bench -p slipway-tests --bench api -- [--pods 10000,50000] [--watchers 100,1000] [--url URL --ca FILE --token TOKEN
//! [--pid PID,PID]]`, or by `SLIPWAY_BENCH_URL`, `_CA`, `_TOKEN` and `_PID`. Without a URL it starts an API server over a private
//! Postgres as a process of its own. Any other server is measured in a namespace that the bench makes and deletes; with the
//! numbers of its processes on this machine (its store's too, if that shall count) their CPU and memory are told as well.

use futures::{StreamExt, TryStreamExt};
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use slipway_apiserver::http::authenticate::User;
use slipway_apiserver::http::serve::tls;
use slipway_apiserver::{ApiServer, Options};
use slipway_store::postgres::{Postgres, private::Private};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The binary's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Who asks: somebody with a ClusterRoleBinding, so that RBAC is on the way.
const USER: &str = "bench";
const IN_FLIGHT: usize = 32;
const LISTS: usize = 10;
/// How many of the pods are updated and read one by one.
const SINGLE: usize = 10_000;
/// Changes that are made one after the other, each waited for at all watchers; and those that are made at once.
const CHANGES_APART: usize = 100;
const CHANGES_TOGETHER: usize = 1_000;
/// API servers let no more than 100 requests be open on one connection.
const WATCHES_PER_CONNECTION: usize = 50;

struct Arguments {
    /// The lists that are measured have so many pods, growing.
    pods: Vec<usize>,
    watchers: Vec<usize>,
    url: Option<String>,
    ca: Option<String>,
    token: Option<String>,
    pids: Vec<u32>,
}

fn arguments() -> Arguments {
    let all: Vec<String> = std::env::args().collect();
    let flag = |name: &str| all.iter().position(|argument| argument == name).and_then(|at| all.get(at + 1)).cloned();
    let value = |name: &str| {
        let variable = format!("SLIPWAY_BENCH_{}", name.to_uppercase());
        flag(&format!("--{name}")).or_else(|| std::env::var(variable).ok())
    };
    let numbers = |name: &str, default: &str| -> Vec<usize> {
        let text = value(name).unwrap_or_else(|| default.into());
        text.split(',').filter(|part| !part.is_empty()).map(|part| part.parse().expect("numbers")).collect()
    };
    Arguments {
        pods: numbers("pods", "10000,50000"),
        watchers: numbers("watchers", "100,1000"),
        pids: numbers("pid", "").into_iter().map(|pid| pid as u32).collect(),
        url: value("url"),
        ca: value("ca"),
        token: value("token"),
    }
}

// === the server as a process of its own ===

/// Serves until the input ends. Says where, and writes its certificate into the folder.
async fn serve(folder: &Path) {
    let private = Private::start(&folder.join("postgres")).await.expect("Postgres starts");
    let store = Postgres::connect(&private.url(), Default::default()).await.expect("the store opens");
    let user = User::new(USER, &[User::AUTHENTICATED]);
    let options = Options { static_tokens: vec![(token(folder), user)], ..Options::default() };
    let server = ApiServer::start(store, options).await.expect("the server starts");
    let binding = json!({
        "metadata": {"name": USER},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
    });
    let bind = Request::post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings").header("content-type", "application/json");
    let bind = bind.body(binding.to_string().into_bytes()).expect("a request");
    server.client(User::admin()).request_text(bind).await.expect("the binding is made");
    let key = KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).expect("names").self_signed(&key).expect("a certificate");
    std::fs::write(folder.join("ca.pem"), certificate.pem()).expect("the certificate is written");
    let tls = tls(&certificate.pem(), &key.serialize_pem(), None).expect("TLS");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("https://{}", listener.local_addr().expect("an address"));
    let shutdown = CancellationToken::new();
    let end = shutdown.clone();
    std::thread::spawn(move || {
        std::io::stdin().read_to_end(&mut vec![]).ok();
        end.cancel();
    });
    server.serve(listener, tls, shutdown).await;
    private.stop().await.expect("Postgres stops");
}

/// Nobody else knows the folder's name before the server runs.
fn token(folder: &Path) -> String {
    format!("bench-{}", folder.file_name().expect("a name").to_string_lossy())
}

struct Server {
    process: Child,
    folder: tempfile::TempDir,
    url: String,
}

impl Server {
    fn start() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::Builder::new().prefix("slipway-bench-api-").tempdir().expect("a folder");
        // Postgres runs as another user, who must be able to get there.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("the folder is ours");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg("--serve").arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the server starts");
        let mut url = String::new();
        BufReader::new(process.stdout.take().expect("its output")).read_line(&mut url).expect("it says where it is");
        Server { process, folder, url: url.trim().to_owned() }
    }
}

/// CPU seconds that the processes have used so far.
fn cpu_of(pids: &[u32]) -> f64 {
    let ticks = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
        let fields: Vec<f64> =
            stat.rsplit(')').next().expect("a line").split_whitespace().filter_map(|field| field.parse().ok()).collect();
        // The state before them is a letter.
        fields[10] + fields[11]
    };
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    pids.iter().map(ticks).sum::<f64>() / per_second as f64
}

/// Resident megabytes of the processes.
fn memory_of(pids: &[u32]) -> f64 {
    let kilobytes = |pid: &u32| -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    pids.iter().map(kilobytes).sum::<f64>() / 1024.0
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().ok();
    }
}

// === the client ===

#[derive(Clone)]
struct Bench {
    client: Client,
    /// URL, CA and token.
    place: Arc<[String; 3]>,
    /// The path of those that are made and read.
    objects: String,
    /// What they are called in the figures, and the one of a number.
    kind: &'static str,
    one: fn(usize) -> Value,
    pids: Arc<[u32]>,
}

impl Bench {
    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> http::Response<Body> {
        self.send_accepting("identity", method, path, body).await
    }

    async fn send_accepting(&self, encoding: &str, method: Method, path: &str, body: Option<Value>) -> http::Response<Body> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let request = request.header("accept-encoding", encoding);
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string().into_bytes()));
        self.client.send(request.body(body).expect("a request")).await.expect("the server answers")
    }

    /// The answer's length; fails unless it is a success.
    async fn exchange(&self, method: Method, path: &str, body: Option<Value>) -> usize {
        self.exchange_accepting("identity", method, path, body).await
    }

    async fn exchange_accepting(&self, encoding: &str, method: Method, path: &str, body: Option<Value>) -> usize {
        let answer = self.send_accepting(encoding, method, path, body).await;
        let code = answer.status();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        assert!(code.is_success(), "{path}: {code}: {}", String::from_utf8_lossy(&bytes));
        bytes.len()
    }

    fn path(&self, index: usize) -> String {
        format!("{}/pod-{index}", self.objects)
    }

    fn cpu(&self) -> f64 {
        cpu_of(&self.pids)
    }

    /// Runs all of `requests`, some at a time, and prints what they took.
    async fn measure<F: Future<Output = usize>>(&self, what: &str, in_flight: usize, requests: impl Iterator<Item = F>) {
        let (start, cpu) = (Instant::now(), self.cpu());
        let timed = requests.map(|request| async {
            let start = Instant::now();
            let bytes = request.await;
            (start.elapsed(), bytes)
        });
        let all: Vec<(Duration, usize)> = futures::stream::iter(timed).buffer_unordered(in_flight).collect().await;
        let seconds = start.elapsed().as_secs_f64();
        let (times, sizes): (Vec<Duration>, Vec<usize>) = all.into_iter().unzip();
        let megabytes = sizes.iter().sum::<usize>() as f64 / 1e6;
        self.print(what, times, times_a_second(&sizes, seconds), megabytes / seconds, cpu);
    }

    fn print(&self, what: &str, mut times: Vec<Duration>, rate: f64, megabytes: f64, cpu: f64) {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        let each = match self.pids.is_empty() {
            false => format!(", {:.0} µs of the server's CPU each", (self.cpu() - cpu) / times.len() as f64 * 1e6),
            true => String::new(),
        };
        println!(
            "api: {}: {what}: {rate:.0}/s, p50 {:.1} ms, p99 {:.1} ms, {megabytes:.1} MB/s{each}",
            self.kind,
            at(50),
            at(99)
        );
    }
}

fn times_a_second<T>(all: &[T], seconds: f64) -> f64 {
    all.len() as f64 / seconds
}

/// Deliveries to all watchers together.
#[derive(Default)]
struct Delivered {
    count: AtomicU64,
    some: Notify,
}

impl Delivered {
    async fn reach(&self, count: u64) {
        loop {
            let next = self.some.notified();
            if self.count.load(Ordering::Acquire) >= count {
                return;
            }
            next.await;
        }
    }
}

async fn watch(bench: &Bench, revision: &str, delivered: Arc<Delivered>, every: u64) -> tokio::task::JoinHandle<()> {
    let path = format!("{}?watch=1&resourceVersion={revision}", bench.objects);
    let answer = bench.send(Method::GET, &path, None).await;
    assert!(answer.status().is_success(), "a watch is answered with {}", answer.status());
    let mut body = answer.into_body().into_data_stream();
    tokio::spawn(async move {
        while let Ok(Some(chunk)) = body.try_next().await {
            let lines = chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
            let before = delivered.count.fetch_add(lines, Ordering::AcqRel);
            if before / every != (before + lines) / every {
                delivered.some.notify_one();
            }
        }
    })
}

async fn fan_out(bench: &Bench, watchers: usize) {
    let list = bench.send(Method::GET, &format!("{}?limit=1", bench.objects), None).await;
    let list: Value = serde_json::from_slice(&list.into_body().collect().await.expect("a list").to_bytes()).expect("JSON");
    let revision = list["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    let (delivered, each) = (Arc::new(Delivered::default()), watchers as u64);
    let mut connections = vec![];
    for _ in (0..watchers).step_by(WATCHES_PER_CONNECTION) {
        connections.push(Bench { client: connect(&bench.place).await, ..bench.clone() });
    }
    // No more at once than an API server lets one client begin.
    let opening = (0..watchers)
        .map(|watcher| watch(&connections[watcher / WATCHES_PER_CONNECTION], &revision, Arc::clone(&delivered), each));
    let watching: Vec<_> = futures::stream::iter(opening).buffer_unordered(IN_FLIGHT).collect().await;
    let change = |index: usize| {
        // Of each round its own, or nothing would change in the second.
        let change = json!({"metadata": {"annotations": {"bench": format!("{index} of {watchers}")}}});
        async move { bench.exchange(Method::PATCH, &bench.path(index), Some(change)).await }
    };
    // The first change finds all watches open.
    change(0).await;
    delivered.reach(each).await;

    let (start, cpu) = (Instant::now(), bench.cpu());
    let mut times = vec![];
    for index in 1..=CHANGES_APART {
        let start = Instant::now();
        change(index).await;
        delivered.reach(each * (index as u64 + 1)).await;
        times.push(start.elapsed());
    }
    let rate = times_a_second(&times, start.elapsed().as_secs_f64());
    bench.print(&format!("a change until the last of {watchers} watchers has it"), times, rate, 0.0, cpu);

    let (start, cpu) = (Instant::now(), bench.cpu());
    let changes = (1..=CHANGES_TOGETHER).map(|index| change(CHANGES_APART + index));
    futures::stream::iter(changes).buffer_unordered(IN_FLIGHT).collect::<Vec<_>>().await;
    delivered.reach(each * (1 + CHANGES_APART + CHANGES_TOGETHER) as u64).await;
    let (seconds, deliveries) = (start.elapsed().as_secs_f64(), (CHANGES_TOGETHER * watchers) as f64);
    let used = (bench.cpu() - cpu) / deliveries * 1e6;
    let used = if !bench.pids.is_empty() { format!(", {used:.1} µs of the server's CPU each") } else { String::new() };
    println!("api: {}: watch: {:.0} deliveries/s to {watchers} watchers{used}", bench.kind, deliveries / seconds);
    watching.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A connection of its own.
async fn connect([url, ca, token]: &[String; 3]) -> Client {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": url, "certificate-authority": ca}}],
        "users": [{"name": "bench", "user": {"token": token}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    });
    let config = serde_json::from_value(config).expect("a kubeconfig");
    let mut config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.expect("the kubeconfig is right");
    config.read_timeout = None;
    Client::try_from(config).expect("a client")
}

/// A pod such as Deployments make: some 3 kB with what the server fills in.
fn pod(index: usize) -> Value {
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "http"}, "periodSeconds": 5, "failureThreshold": 3});
    let variable = |name: &str, field: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}});
    json!({
        "metadata": {
            "name": format!("pod-{index}"),
            "labels": {"app": "web", "pod-template-hash": "6d4b75cb6d", "app.kubernetes.io/part-of": "shop"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
        },
        "spec": {
            // Nobody's, so that they are not run.
            "schedulerName": "nobody",
            "containers": [{
                "name": "web", "image": "registry.example.com/shop/web:1.4.2", "args": ["--listen", ":8080", "--verbose"],
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [variable("POD_NAME", "metadata.name"), variable("POD_IP", "status.podIP"), {"name": "MODE", "value": "production"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "livenessProbe": probe("/healthz"), "readinessProbe": probe("/readyz"),
                "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}, {"name": "cache", "mountPath": "/var/cache"}],
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true},
            }],
            "volumes": [{"name": "config", "configMap": {"name": "web"}}, {"name": "cache", "emptyDir": {}}],
            "securityContext": {"fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        },
    })
}

async fn run(arguments: Arguments) {
    let (place, server) = match &arguments.url {
        Some(url) => {
            let ca = arguments.ca.clone().expect("--ca names the server's certificate authority");
            ([url.clone(), ca, arguments.token.clone().expect("--token")], None)
        }
        None => {
            let server = Server::start();
            let ca = server.folder.path().join("ca.pem").to_string_lossy().into_owned();
            ([server.url.clone(), ca, token(server.folder.path())], Some(server))
        }
    };
    let namespace = format!("slipway-bench-{}", std::process::id());
    let own = format!("/api/v1/namespaces/{namespace}");
    let pids = server.as_ref().map_or(arguments.pids, |server| vec![server.process.id()]);
    let client = connect(&place).await;
    let bench = Bench { client, place: place.into(), objects: format!("{own}/pods"), kind: "pods", one: pod, pids: pids.into() };
    let named = json!({"metadata": {"name": namespace}});
    bench.exchange(Method::POST, "/api/v1/namespaces", Some(named)).await;
    // Where a controller makes it, it is there already.
    bench.send(Method::POST, &format!("{own}/serviceaccounts"), Some(json!({"metadata": {"name": "default"}}))).await;
    let at_rest = memory_of(&bench.pids);

    let mut made = 0;
    for (round, pods) in arguments.pods.iter().map(|pods| (*pods).max(1 + CHANGES_APART + CHANGES_TOGETHER)).enumerate() {
        let create = |index: usize| bench.exchange(Method::POST, &bench.objects, Some((bench.one)(index)));
        bench.measure(&format!("create, {IN_FLIGHT} at a time"), IN_FLIGHT, (made..pods).map(create)).await;
        made = pods;
        if round == 0 {
            singly(&bench, pods.min(SINGLE)).await;
        }
        lists(&bench, pods).await;
        if !bench.pids.is_empty() {
            let now = memory_of(&bench.pids);
            let each = (now - at_rest) / pods as f64 * 1e4;
            println!("api: memory: {at_rest:.0} MB at rest, {now:.0} MB with {pods} pods: {each:.0} MB per 10,000");
        }
        if round == 0 {
            for watchers in &arguments.watchers {
                fan_out(&bench, *watchers).await;
            }
            custom(&bench, &namespace, pods, arguments.watchers.first().copied()).await;
        }
    }
    if server.is_none() {
        bench.exchange(Method::DELETE, &format!("{}?gracePeriodSeconds=0", bench.objects), None).await;
        bench.exchange(Method::DELETE, &own, None).await;
    }
}

/// The same of a custom kind whose objects are as large: they shall be as fast as built-in ones.
async fn custom(pods: &Bench, namespace: &str, count: usize, watchers: Option<usize>) {
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    const NAME: &str = "shops.bench.slipway.test";
    pods.exchange(Method::POST, DEFINITIONS, Some(definition(NAME))).await;
    let objects = format!("/apis/bench.slipway.test/v1/namespaces/{namespace}/shops");
    let custom = Bench { objects, kind: "custom", one: shop, ..pods.clone() };
    // Served a moment after it is made.
    while !custom.send(Method::GET, &custom.objects, None).await.status().is_success() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let create = |index: usize| custom.exchange(Method::POST, &custom.objects, Some(shop(index)));
    custom.measure(&format!("create, {IN_FLIGHT} at a time"), IN_FLIGHT, (0..count).map(create)).await;
    singly(&custom, count.min(SINGLE)).await;
    lists(&custom, count).await;
    if let Some(watchers) = watchers {
        fan_out(&custom, watchers).await;
    }
    pods.exchange(Method::DELETE, &format!("{DEFINITIONS}/{NAME}"), None).await;
}

/// With a schema for all that [`shop`] has.
fn definition(name: &str) -> Value {
    fn schema(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let properties: serde_json::Map<String, Value> =
                    fields.iter().map(|(name, value)| (name.clone(), schema(value))).collect();
                json!({"type": "object", "properties": properties})
            }
            Value::Array(items) => {
                let item = items.iter().map(schema).reduce(|mut all, more| {
                    if let (Some(all), Some(more)) = (all["properties"].as_object_mut(), more["properties"].as_object()) {
                        all.extend(more.clone());
                    }
                    all
                });
                json!({"type": "array", "items": item.unwrap_or(json!({"type": "string"}))})
            }
            Value::Bool(_) => json!({"type": "boolean"}),
            Value::Number(_) => json!({"type": "integer"}),
            _ => json!({"type": "string"}),
        }
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
        "spec": {
            "group": "bench.slipway.test", "scope": "Namespaced",
            "names": {"kind": "Shop", "plural": "shops", "singular": "shop"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": schema(&pod(0)["spec"])},
            }}}],
        },
    })
}

fn shop(index: usize) -> Value {
    let mut shop = pod(index);
    shop["apiVersion"] = json!("bench.slipway.test/v1");
    shop["kind"] = json!("Shop");
    shop
}

async fn singly(bench: &Bench, pods: usize) {
    let paths: Vec<String> = (0..pods).map(|index| bench.path(index)).collect();
    let list = bench.send(Method::GET, &bench.objects, None).await.into_body().collect().await.expect("a list").to_bytes();
    let list: Value = serde_json::from_slice(&list).expect("JSON");
    let mut all = list["items"].as_array().expect("pods").clone();
    drop(list);
    all.truncate(pods);
    let updates = all.into_iter().map(|mut pod| {
        pod["metadata"]["annotations"]["updated"] = json!("yes");
        let path = format!("{}/{}", bench.objects, pod["metadata"]["name"].as_str().expect("a name"));
        async move { bench.exchange(Method::PUT, &path, Some(pod)).await }
    });
    bench.measure(&format!("update, {IN_FLIGHT} at a time"), IN_FLIGHT, updates).await;
    let get = |path: String| async move { bench.exchange(Method::GET, &path, None).await };
    bench.measure(&format!("get, consistent, {IN_FLIGHT} at a time"), IN_FLIGHT, paths.iter().cloned().map(get)).await;
    let cached = paths.iter().map(|path| get(format!("{path}?resourceVersion=0")));
    bench.measure(&format!("get, cached, {IN_FLIGHT} at a time"), IN_FLIGHT, cached).await;
}

async fn lists(bench: &Bench, pods: usize) {
    let list = |encoding: &'static str, query: &str| {
        let path = format!("{}{query}", bench.objects);
        async move { bench.exchange_accepting(encoding, Method::GET, &path, None).await }
    };
    bench.measure(&format!("list of {pods}"), 1, (0..LISTS).map(|_| list("identity", ""))).await;
    let cached = (0..LISTS).map(|_| list("identity", "?resourceVersion=0"));
    bench.measure(&format!("list of {pods}, cached"), 1, cached).await;
    bench.measure(&format!("list of {pods}, gzip, the first"), 1, (0..1).map(|_| list("gzip", ""))).await;
    bench.measure(&format!("list of {pods}, gzip, again"), 1, (0..LISTS).map(|_| list("gzip", ""))).await;
}

fn main() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let all: Vec<String> = std::env::args().collect();
    if let [_, flag, folder] = all.as_slice()
        && flag == "--serve"
    {
        return runtime.block_on(serve(Path::new(folder)));
    }
    runtime.block_on(run(arguments()));
    std::io::stdout().flush().ok();
}
