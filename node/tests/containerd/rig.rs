//! A cluster of one node: API server, agent, containerd, and an image made here.

use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use slipway_apiserver::http::authenticate::User;
use slipway_apiserver::{ApiServer, Options as ApiOptions};
use slipway_node::runtime::Runtime;
use slipway_node::runtime::cri::Cri;
use slipway_node::{Containerd, Options};
use slipway_store::memory::Memory;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const NODE: &str = "node-1";
pub const NODE_IP: &str = "172.31.250.1";
pub const IMAGE: &str = "slipway.test/busybox:1";
/// Long enough for a machine that does ten other things.
pub const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);

pub struct Rig {
    pub client: kube::Client,
    /// The same over HTTPS, which upgrades need.
    pub remote: kube::Client,
    /// The agent's own server, asked as the API server asks it.
    pub agent_client: kube::Client,
    pub runtime: Arc<dyn Runtime>,
    pub data_dir: PathBuf,
    _api: Arc<ApiServer>,
    options: Options,
    agent: Mutex<Option<(CancellationToken, JoinHandle<()>)>>,
}

struct Ca {
    pem: String,
    key: String,
}

impl Ca {
    fn new() -> Ca {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test-ca");
        Ca { pem: params.self_signed(&key).expect("a certificate").pem(), key: key.serialize_pem() }
    }

    fn sign(&self, common_name: &str, organization: &str, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).expect("names");
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.distinguished_name.push(DnType::CommonName, common_name);
        let issuer = Issuer::from_ca_cert_pem(&self.pem, KeyPair::from_pem(&self.key).expect("a key")).expect("an issuer");
        (params.signed_by(&key, &issuer).expect("a certificate").pem(), key.serialize_pem())
    }
}

impl Rig {
    pub async fn start(data_dir: &Path) -> Rig {
        let ca = Ca::new();
        let account_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key").serialize_pem();
        let api_options = ApiOptions {
            client_ca_pem: Some(ca.pem.clone()),
            service_account_key_pem: Some(account_key),
            kubelet_client_identity: Some(ca.sign("kube-apiserver-kubelet-client", "system:masters", &["apiserver"])),
            kubelet_ca_pem: Some(ca.pem.clone()),
            ..ApiOptions::default()
        };
        let api = ApiServer::start(Memory::new(), api_options).await.expect("the API server starts");
        let client = api.client(User::admin());
        let remote = serve(&api, &ca).await;
        let agent_client = https_client(&ca, &format!("https://{NODE_IP}:10250"));
        let options = Options {
            serving: Some(ca.sign("node", "system:nodes", &[NODE, NODE_IP])),
            client_ca_pem: ca.pem.clone(),
            // Nobody answers there: a pull fails at once, and asks no registry of the world.
            registry_mirrors: BTreeMap::from([("_default".to_owned(), "http://127.0.0.1:1".to_owned())]),
            ..Options::new(NODE, NODE_IP.parse().expect("an address"), data_dir.to_owned())
        };
        let containerd = Containerd::new(data_dir, options.registry_mirrors.clone());
        containerd.ensure().await.expect("containerd starts");
        let archive = data_dir.join("busybox.tar");
        std::fs::write(&archive, image()).expect("the image is written");
        containerd.import(&archive).await.expect("the image is imported");
        let runtime: Arc<dyn Runtime> = Arc::new(Cri::new(&containerd.socket()));
        let node_client = api.client(User::new(&format!("system:node:{NODE}"), &["system:nodes"]));
        let rig = Rig {
            client,
            remote,
            agent_client,
            runtime,
            data_dir: data_dir.to_owned(),
            _api: api,
            options,
            agent: Mutex::new(None),
        };
        rig.prepare().await;
        rig.start_agent(node_client.clone()).await;
        rig.network().await;
        rig
    }

    /// What controllers do in a whole cluster.
    async fn prepare(&self) {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), "default");
        let map = serde_json::from_value(json!({ "metadata": { "name": "kube-root-ca.crt" }, "data": { "ca.crt": "root" } }));
        maps.create(&PostParams::default(), &map.expect("a map")).await.expect("the root's certificate");
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(self.client.clone(), "default");
        let account = serde_json::from_value(json!({ "metadata": { "name": "default" } })).expect("an account");
        let _ = accounts.create(&PostParams::default(), &account).await;
    }

    async fn network(&self) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        self.until("the node is registered", async || nodes.get_opt(NODE).await.ok().flatten()).await;
        let cidr = json!({ "spec": { "podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.0/24"] } });
        nodes.patch(NODE, &PatchParams::default(), &Patch::Merge(cidr)).await.expect("the node's share");
        self.until("the node is ready", async || {
            let node = nodes.get(NODE).await.ok()?;
            slipway_api::condition::is_true(node.status?.conditions.as_deref(), "Ready").then_some(())
        })
        .await;
    }

    pub async fn start_agent(&self, client: kube::Client) {
        let (stop, options) = (CancellationToken::new(), self.options.clone());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = slipway_node::run(client, options, stopped).await {
                eprintln!("the agent ended: {error:?}");
            }
        });
        *self.agent.lock().await = Some((stop, task));
    }

    pub async fn stop(&self) {
        if let Some((stop, task)) = self.agent.lock().await.take() {
            stop.cancel();
            let _ = task.await;
        }
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// A pod of the default namespace, bound to the node.
    pub async fn create(&self, name: &str, mut spec: serde_json::Value) -> Pod {
        spec["nodeName"] = json!(NODE);
        let pod = serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).expect("a pod");
        self.pods().create(&PostParams::default(), &pod).await.expect("the pod is created")
    }

    pub async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            if tokio::time::Instant::now() > deadline {
                let pods = self.pods().list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
                let seen: Vec<_> = pods.iter().map(|pod| json!([pod.metadata.name, pod.status])).collect();
                panic!("waited in vain until {what}; pods: {}", serde_json::to_string_pretty(&seen).unwrap_or_default());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub async fn pod_until(&self, name: &str, what: &str, holds: impl Fn(&Pod) -> bool) -> Pod {
        self.until(what, async || self.pods().get(name).await.ok().filter(&holds)).await
    }

    pub async fn phase(&self, name: &str, phase: &str) -> Pod {
        self.pod_until(name, &format!("{name} is {phase}"), |pod| slipway_api::pod::phase(pod) == phase).await
    }

    pub async fn delete(&self, name: &str, grace_seconds: u32) {
        let how = DeleteParams { grace_period_seconds: Some(grace_seconds), ..DeleteParams::default() };
        self.pods().delete(name, &how).await.expect("the pod is deleted");
        self.until(&format!("{name} is gone"), async || self.pods().get_opt(name).await.ok()?.is_none().then_some(())).await;
    }

    pub async fn logs(&self, name: &str) -> String {
        self.pods().logs(name, &kube::api::LogParams::default()).await.unwrap_or_else(|error| format!("no log: {error}"))
    }

    pub async fn events(&self, name: &str) -> Vec<Event> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let mut list = events.list(&ListParams::default()).await.expect("events").items;
        list.retain(|event| event.involved_object.name.as_deref() == Some(name));
        list
    }

    pub async fn event(&self, name: &str, reason: &str) -> Event {
        self.until(&format!("{name} has an event {reason}"), async || {
            self.events(name).await.into_iter().find(|event| event.reason.as_deref() == Some(reason))
        })
        .await
    }

    pub fn node_client(&self) -> kube::Client {
        self._api.client(User::new(&format!("system:node:{NODE}"), &["system:nodes"]))
    }
}

/// Serves the API over HTTPS, and returns an administrator's client for it.
async fn serve(api: &Arc<ApiServer>, ca: &Ca) -> kube::Client {
    use rustls_pki_types::PrivateKeyDer;
    use rustls_pki_types::pem::PemObject;
    let (certificate, key) = ca.sign("apiserver", "none", &[NODE_IP]);
    let mut roots = rustls::RootCertStore::empty();
    ders(&ca.pem).into_iter().for_each(|der| roots.add(der).expect("a root"));
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build();
    let tls = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier.expect("a verifier"))
        .with_single_cert(ders(&certificate), PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key"))
        .expect("a server's TLS");
    let listener = tokio::net::TcpListener::bind((NODE_IP, 0)).await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    tokio::spawn(api.clone().serve(listener, Arc::new(tls), CancellationToken::new()));
    https_client(ca, &url)
}

fn ders(pem: &str) -> Vec<rustls_pki_types::CertificateDer<'static>> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>().expect("certificates")
}

/// A client with an administrator's certificate.
fn https_client(ca: &Ca, url: &str) -> kube::Client {
    use base64::Engine;
    let (certificate, key) = ca.sign("kubernetes-admin", "system:masters", &[]);
    let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    let mut config = kube::Config::new(url.parse().expect("a URL"));
    config.root_cert = Some(ders(&ca.pem).into_iter().map(|der| der.to_vec()).collect());
    config.auth_info.client_certificate_data = Some(encode(&certificate));
    config.auth_info.client_key_data = Some(encode(&key).into());
    kube::Client::try_from(config).expect("a client")
}

fn image() -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").expect("busybox");
    let sh = b"#!/bin/busybox sh\n/bin/busybox --install -s /bin 2>/dev/null\nexec /bin/busybox sh \"$@\"\n";
    let passwd = b"root:x:0:0:root:/root:/bin/sh\n";
    let files: [(&str, u32, &[u8]); 3] =
        [("bin/busybox", 0o755, &busybox), ("bin/run", 0o755, sh), ("etc/passwd", 0o644, passwd)];
    slipway_node::runtime::pause::oci_archive(IMAGE, &files, json!({ "Env": ["PATH=/bin"] }))
}
