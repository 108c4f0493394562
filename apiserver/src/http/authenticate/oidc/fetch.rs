//! A small document over HTTPS.

use axum::body::Body;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const TIMEOUT: Duration = Duration::from_secs(10);
const BYTES_MAX: usize = 1024 * 1024;
/// Where systems keep the authorities that everybody trusts.
const SYSTEM_ROOTS: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// TLS that trusts the given authority, or the system's.
pub(super) fn tls(ca_pem: Option<&str>) -> Result<TlsConnector, String> {
    let system = || SYSTEM_ROOTS.iter().find_map(|path| std::fs::read_to_string(path).ok());
    let pem = ca_pem.map(str::to_owned).or_else(system).ok_or("this system has no list of certificate authorities")?;
    let roots = super::super::certificate::roots(&pem)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The JSON at `url`.
pub(super) async fn json(tls: &TlsConnector, url: &str) -> Result<serde_json::Value, String> {
    let fetched = tokio::time::timeout(TIMEOUT, get(tls, url)).await;
    fetched.map_err(|_| "it did not answer in time".to_owned()).flatten().map_err(|why| format!("get {url}: {why}"))
}

async fn get(tls: &TlsConnector, url: &str) -> Result<serde_json::Value, String> {
    let uri: Uri = url.parse().map_err(|_| "it is no URL".to_owned())?;
    if uri.scheme_str() != Some("https") {
        return Err("it must be https".into());
    }
    let host = uri.host().ok_or("it has no host")?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let tcp = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await.map_err(|error| error.to_string())?;
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let stream = tls.connect(name, tcp).await.map_err(|error| error.to_string())?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, uri.authority().map(ToString::to_string).unwrap_or_default())
        .header(header::ACCEPT, "application/json")
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    if response.status() != StatusCode::OK {
        return Err(format!("it answered {}", response.status()));
    }
    let body = Limited::new(response.into_body(), BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
    connection.abort();
    serde_json::from_slice(&body.to_bytes()).map_err(|_| "it is no JSON".to_owned())
}
