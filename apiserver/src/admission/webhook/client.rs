//! The way to webhooks: HTTPS, verified by the bundle that the configuration names, over connections that are kept.

use super::resolve;
use crate::server::ApiServer;
use base64::Engine;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use std::collections::HashMap;
use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The longest answer of an admission webhook that is read; a patch is no longer than what may be stored.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// What of a wrong answer is passed on in the error.
const SHOWN_MAX: usize = 256;
/// Ways that are kept; they are made anew when more are needed.
const CLIENTS_MAX: usize = 256;
const IDLE: Duration = Duration::from_secs(90);
const IDLE_PER_HOST: usize = 25;
/// Where certificate authorities lie, for those without a bundle.
const SYSTEM_ROOTS: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// `clientConfig`: of an admission webhook, and of a conversion webhook.
#[derive(Debug, Clone)]
pub struct Target {
    /// As it is shown in errors, with the timeout in its query.
    shown: String,
    place: Place,
    bundle: Arc<[u8]>,
}

#[derive(Debug, Clone)]
enum Place {
    Url(String),
    Service { namespace: String, name: String, port: u16, path: String },
}

type Https = Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>;

/// Resolves every name to the address that the Service was found at; without one, asks the system.
#[derive(Clone, Default)]
struct Resolver {
    address: Arc<Mutex<Option<SocketAddr>>>,
}

#[derive(Clone)]
struct Way {
    client: Https,
    resolver: Resolver,
}

/// By bundle and, for Services, by namespace, name and port.
type Ways = HashMap<(Arc<[u8]>, String), Way>;

#[derive(Default)]
pub struct Clients {
    ways: Mutex<Ways>,
}

impl Target {
    pub fn of(config: &Value, timeout_seconds: u64) -> Target {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let bundle = base64::engine::general_purpose::STANDARD.decode(text(&config["caBundle"])).unwrap_or_default();
        let service = &config["service"];
        let place = if service.is_object() {
            let path = text(&service["path"]);
            Place::Service {
                namespace: text(&service["namespace"]),
                name: text(&service["name"]),
                port: service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
                path: if path.is_empty() { "/".into() } else { path },
            }
        } else {
            Place::Url(text(&config["url"]))
        };
        let base = match &place {
            Place::Url(url) => url.clone(),
            Place::Service { namespace, name, port, path } => format!("https://{name}.{namespace}.svc:{port}{path}"),
        };
        Target { shown: format!("{base}?timeout={timeout_seconds}s"), place, bundle: bundle.into() }
    }

    /// What is asked for. Without a port the resolver's is taken.
    fn uri(&self) -> String {
        let query = self.shown.rsplit_once('?').map_or("", |(_, query)| query);
        match &self.place {
            Place::Url(_) => self.shown.clone(),
            Place::Service { namespace, name, path, .. } => format!("https://{name}.{namespace}.svc{path}?{query}"),
        }
    }

    fn key(&self) -> (Arc<[u8]>, String) {
        let place = match &self.place {
            Place::Url(_) => String::new(),
            Place::Service { namespace, name, port, .. } => format!("{namespace}/{name}:{port}"),
        };
        (Arc::clone(&self.bundle), place)
    }
}

impl Clients {
    /// Posts a body and answers with the one that comes back; `Err` says in Go's words what went wrong.
    /// One of more than `answer_max` bytes is not read.
    pub async fn call(
        &self,
        server: &ApiServer,
        target: &Target,
        timeout: Duration,
        body: Bytes,
        answer_max: usize,
    ) -> Result<Bytes, String> {
        let way = self.way(target)?;
        if let Place::Service { namespace, name, port, .. } = &target.place {
            *way.resolver.address.lock() = Some(resolve::service(server, namespace, name, *port)?);
        }
        let request = Request::builder()
            .method(Method::POST)
            .uri(target.uri())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, "kube-apiserver-admission")
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let posted = |why: &str| format!("Post \"{}\": {why}", target.shown);
        match tokio::time::timeout(timeout, exchange(&way.client, request, answer_max)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(Failed::Transport(why))) => Err(posted(&why)),
            Ok(Err(Failed::Answer(why))) => Err(why),
            Err(_) => Err(posted("context deadline exceeded")),
        }
    }

    fn way(&self, target: &Target) -> Result<Way, String> {
        let key = target.key();
        if let Some(way) = self.ways.lock().get(&key) {
            return Ok(way.clone());
        }
        let way = Way::new(&target.bundle)?;
        let mut ways = self.ways.lock();
        if ways.len() >= CLIENTS_MAX {
            ways.clear();
        }
        ways.insert(key, way.clone());
        Ok(way)
    }
}

enum Failed {
    Transport(String),
    Answer(String),
}

async fn exchange(client: &Https, request: Request<Full<Bytes>>, answer_max: usize) -> Result<Bytes, Failed> {
    let response = client.request(request).await.map_err(|error| Failed::Transport(in_words(&error)))?;
    let code = response.status();
    let body = Limited::new(response.into_body(), answer_max).collect().await;
    let body = body.map_err(|error| Failed::Answer(format!("the answer could not be read: {error}")))?.to_bytes();
    if code.is_success() {
        return Ok(body);
    }
    let text: String = String::from_utf8_lossy(&body).chars().take(SHOWN_MAX).collect();
    Err(Failed::Answer(match code {
        StatusCode::NOT_FOUND => "the server could not find the requested resource".into(),
        StatusCode::UNAUTHORIZED => "the server has asked for the client to provide credentials".into(),
        StatusCode::FORBIDDEN => "forbidden".to_owned() + if text.is_empty() { "" } else { ": " } + &text,
        code if code.is_server_error() => {
            format!("an error on the server ({text:?}) has prevented the request from succeeding")
        }
        code => format!("the server responded with the status code {} but did not return more information", code.as_u16()),
    }))
}

/// What Go would say of it.
pub(crate) fn in_words(error: &hyper_util::client::legacy::Error) -> String {
    let mut chain = vec![];
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return tls_in_words(tls);
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            if let Some(tls) = tls_within(io) {
                return tls_in_words(tls);
            }
            match io.kind() {
                std::io::ErrorKind::ConnectionRefused => return "dial tcp: connect: connection refused".into(),
                std::io::ErrorKind::ConnectionReset => return "read: connection reset by peer".into(),
                std::io::ErrorKind::UnexpectedEof => return "EOF".into(),
                _ => {}
            }
        }
        if let Some(http) = error.downcast_ref::<hyper::Error>()
            && http.is_incomplete_message()
        {
            return "EOF".into();
        }
        chain.push(error.to_string());
        cause = error.source();
    }
    if chain.is_empty() { error.to_string() } else { chain.join(": ") }
}

/// An error of input may stand in another one.
fn tls_within(error: &std::io::Error) -> Option<&rustls::Error> {
    let mut inner = error.get_ref()?;
    loop {
        if let Some(tls) = inner.downcast_ref() {
            return Some(tls);
        }
        inner = inner.downcast_ref::<std::io::Error>()?.get_ref()?;
    }
}

fn tls_in_words(error: &rustls::Error) -> String {
    use rustls::CertificateError as C;
    let failed = "tls: failed to verify certificate: x509: ";
    match error {
        // A bad signature: by another authority of the same name.
        rustls::Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            format!("{failed}certificate signed by unknown authority")
        }
        rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            format!("{failed}certificate has expired or is not yet valid")
        }
        rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            format!("{failed}certificate is not valid for the name asked for")
        }
        rustls::Error::InvalidCertificate(other) => format!("{failed}{other}"),
        other => format!("tls: {other}"),
    }
}

impl Way {
    fn new(bundle: &[u8]) -> Result<Way, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots(bundle)?)
            .with_no_client_auth();
        let resolver = Resolver::default();
        let mut tcp = HttpConnector::new_with_resolver(resolver.clone());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_only()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .build(https);
        Ok(Way { client, resolver })
    }
}

pub(crate) fn roots(bundle: &[u8]) -> Result<rustls::RootCertStore, String> {
    let mut roots = rustls::RootCertStore::empty();
    let system;
    let pem = if bundle.is_empty() {
        let named = std::env::var("SSL_CERT_FILE").ok();
        let mut places = named.iter().map(String::as_str).chain(SYSTEM_ROOTS);
        system = places.find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
        &system
    } else {
        bundle
    };
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let added =
            certificate.map_err(|error| error.to_string()).and_then(|der| roots.add(der).map_err(|error| error.to_string()));
        // One odd authority of the system's is no reason to trust none.
        if let (Err(error), false) = (added, bundle.is_empty()) {
            return Err(format!("unable to load root certificates: {error}"));
        }
    }
    Ok(roots)
}

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let known = *self.address.lock();
        Box::pin(async move {
            match known {
                Some(address) => Ok(vec![address].into_iter()),
                None => Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.collect::<Vec<_>>().into_iter()),
            }
        })
    }
}
