//! One attempt of a probe, or of a lifecycle hook over HTTP.

use super::grpc;
use crate::runtime::{Error, Runtime};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use slipway_api::IntOrString;
use slipway_api::core::{Container, HTTPGetAction, Probe};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// What a probe prints is quoted in events up to here.
const OUTPUT_BYTES_MAX: usize = 10 << 10;
const USER_AGENT: &str = "kube-probe/1.37";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure(String),
    /// It could not be asked; that counts neither way.
    Unknown(String),
}

/// Whom to ask.
#[derive(Debug, Clone)]
pub struct Target {
    pub container: String,
    pub ip: String,
}

pub async fn check(runtime: &dyn Runtime, container: &Container, probe: &Probe, target: &Target) -> Outcome {
    let timeout = Duration::from_secs(probe.timeout_seconds.unwrap_or(1).max(1) as u64);
    let attempt = async {
        if let Some(exec) = &probe.exec {
            return exec_check(runtime, &target.container, exec.command.clone().unwrap_or_default(), timeout).await;
        }
        if let Some(get) = &probe.http_get {
            return http_check(container, get, &target.ip).await;
        }
        if let Some(tcp) = &probe.tcp_socket {
            let Some(port) = port_of(container, &tcp.port) else { return Outcome::Unknown(no_port(&tcp.port)) };
            let host = tcp.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| target.ip.clone());
            return match TcpStream::connect((host.as_str(), port)).await {
                Ok(_) => Outcome::Success,
                Err(error) => Outcome::Failure(format!("dial tcp {host}:{port}: connect: {}", plain(&error))),
            };
        }
        if let Some(ask) = &probe.grpc {
            return grpc::check(&target.ip, ask.port as u16, ask.service.clone().unwrap_or_default()).await;
        }
        Outcome::Unknown("missing probe handler".into())
    };
    // The runtime keeps the time of a command itself, and says so in its own words.
    let limit = if probe.exec.is_some() { timeout + Duration::from_secs(30) } else { timeout };
    match tokio::time::timeout(limit, attempt).await {
        Ok(outcome) => outcome,
        Err(_) if probe.http_get.is_some() => {
            Outcome::Failure("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into())
        }
        Err(_) if probe.grpc.is_some() => {
            Outcome::Failure(format!("timeout: health rpc did not complete within {}s", timeout.as_secs()))
        }
        Err(_) => Outcome::Failure("i/o timeout".into()),
    }
}

/// An I/O error without Rust's error number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

async fn exec_check(runtime: &dyn Runtime, id: &str, command: Vec<String>, timeout: Duration) -> Outcome {
    match runtime.exec_sync(id, command, timeout).await {
        Ok(output) if output.exit_code == 0 => Outcome::Success,
        Ok(output) => {
            let mut said = output.stdout;
            said.extend(output.stderr);
            said.truncate(OUTPUT_BYTES_MAX);
            Outcome::Failure(String::from_utf8_lossy(&said).into_owned())
        }
        Err(Error::Timeout { .. }) => Outcome::Failure(format!("command timed out after {}s", timeout.as_secs())),
        Err(error) => Outcome::Unknown(error.to_string()),
    }
}

/// A port by number or by the name that the container gives it.
pub fn port_of(container: &Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.map_or_else(|| name.parse().ok(), |port| u16::try_from(port.container_port).ok())
        }
    }
}

fn no_port(port: &IntOrString) -> String {
    format!("port {port:?} is not one of the container's")
}

async fn http_check(container: &Container, get: &HTTPGetAction, ip: &str) -> Outcome {
    match http_get(container, get, ip).await {
        Ok((status, _)) if (200..400).contains(&status) => Outcome::Success,
        Ok((status, _)) => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
        Err(why) => Outcome::Failure(why),
    }
}

/// One GET; redirects are not followed. Certificates aren't verified: it is the pod that is asked for its health.
pub async fn http_get(container: &Container, get: &HTTPGetAction, ip: &str) -> Result<(u16, Bytes), String> {
    let port = port_of(container, &get.port).ok_or_else(|| no_port(&get.port))?;
    let host = get.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| ip.to_owned());
    let https = get.scheme.as_deref() == Some("HTTPS");
    let path = get.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let url = format!("{}://{bracketed}:{port}{path}", if https { "https" } else { "http" });
    let fail = |why: String| format!("Get \"{url}\": {why}");
    let mut request = http::Request::builder().uri(&path);
    for header in get.http_headers.iter().flatten() {
        request = request.header(header.name.as_str(), header.value.as_str());
    }
    let headers = request.headers_ref().cloned().unwrap_or_default();
    for (name, value) in [("host", format!("{bracketed}:{port}")), ("user-agent", USER_AGENT.into()), ("accept", "*/*".into())] {
        if !headers.contains_key(name) {
            request = request.header(name, value);
        }
    }
    let request = request.header("connection", "close").body(Empty::<Bytes>::new()).map_err(|error| fail(error.to_string()))?;
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|error| fail(format!("dial tcp {bracketed}:{port}: connect: {}", plain(&error))))?;
    if https {
        let config = rustls::ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_no_client_auth();
        let name = rustls_pki_types::ServerName::try_from(host).map_err(|error| fail(error.to_string()))?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        return send(stream.map_err(|error| fail(error.to_string()))?, request).await.map_err(fail);
    }
    send(stream, request).await.map_err(fail)
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: http::Request<Empty<Bytes>>,
) -> Result<(u16, Bytes), String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), OUTPUT_BYTES_MAX).collect().await;
        Ok((status, body.map(|body| body.to_bytes()).unwrap_or_default()))
    };
    let answer = answer.await;
    driver.abort();
    answer
}

#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
