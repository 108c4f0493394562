//! The listener: TLS, HTTP/1.1 and HTTP/2 on one port, upgrades, and an ordered end.

use crate::http::authenticate::PeerAddress;
use crate::http::authenticate::certificate::{Authorities, roots};
use crate::http::idle::{Activity, Answer};
use crate::http::limits;
use crate::server::{ApiServer, Error};
use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// A client that has not finished its handshake by then is cut off.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that has not sent its request's head by then is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests may go on after the shutdown began.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that is idle has to take leave.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to wait when the process has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const CONNECTIONS_MAX: usize = 20_000;
/// One client's watches share a connection, and one that finds no free stream waits for ever.
const STREAMS_PER_CONNECTION_MAX: u32 = 2_000;
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
/// A list is written in chunks; a window below their size would make the sender wait for the reader each time.
const SEND_BUFFER_BYTES: usize = 1024 * 1024;
const HEADERS_MAX: usize = 128;

/// TLS with the given identity, and with client certificates of `client_ca_pem`, which are not demanded. Where
/// proxies may speak for others, it holds their CA too.
pub fn tls(cert_pem: &str, key_pem: &str, client_ca_pem: Option<&str>) -> Result<Arc<rustls::ServerConfig>, Error> {
    configure(cert_pem, key_pem, client_ca_pem, false)
}

/// The same for those alone who have a certificate of this CA.
pub fn tls_for_certificates(cert_pem: &str, key_pem: &str, client_ca_pem: &str) -> Result<Arc<rustls::ServerConfig>, Error> {
    configure(cert_pem, key_pem, Some(client_ca_pem), true)
}

fn configure(
    cert_pem: &str,
    key_pem: &str,
    client_ca_pem: Option<&str>,
    is_required: bool,
) -> Result<Arc<rustls::ServerConfig>, Error> {
    let wrong = |what: &'static str, why: &dyn std::fmt::Display| Error::Options { what, why: why.to_string() };
    let chain = CertificateDer::pem_slice_iter(cert_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| wrong("the serving certificate", &error))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| wrong("the serving key", &error))?;
    let builder = match client_ca_pem {
        None => rustls::ServerConfig::builder().with_no_client_auth(),
        Some(pem) => {
            let roots = roots(pem).map_err(|error| wrong("the client CA", &error))?;
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
            let verifier = if is_required { verifier } else { verifier.allow_unauthenticated() };
            rustls::ServerConfig::builder()
                .with_client_cert_verifier(verifier.build().map_err(|error| wrong("the client CA", &error))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| wrong("the serving identity", &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl ApiServer {
    /// Serves the API until `shutdown`; then ends watches, and waits for what is still being answered.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Arc<rustls::ServerConfig>, shutdown: CancellationToken) {
        let router = self.router();
        self.serve_router(router, listener, tls, shutdown).await;
    }

    /// The same with a router around the API's own, as the one that has the dashboard.
    pub async fn serve_router(
        self: Arc<Self>,
        router: Router,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        shutdown: CancellationToken,
    ) {
        let acceptor = TlsAcceptor::from(tls);
        let connections = TaskTracker::new();
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = accept(&listener, &permits) => accepted,
            };
            let Some((stream, permit)) = accepted else { continue };
            let (acceptor, router, shutdown) = (acceptor.clone(), router.clone(), shutdown.clone());
            let authorities = self.authorities.clone();
            connections.spawn(async move {
                serve_connection(stream, acceptor, router, authorities, shutdown).await;
                drop(permit);
            });
        }
        drop(listener);
        self.close();
        connections.close();
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, connections.wait()).await.is_err() {
            tracing::warn!(left = connections.len(), "connections were still open at the end of the shutdown");
        }
    }
}

async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    router: Router,
    authorities: Authorities,
    shutdown: CancellationToken,
) {
    // Without it a small answer could wait for the acknowledgement of the one before. A failure costs only that.
    stream.set_nodelay(true).ok();
    let address = stream.peer_addr().ok().map(PeerAddress);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let peer = certificates.and_then(|chain| authorities.peer(chain));
    let activity = Activity::new();
    let seen = activity.clone();
    let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
        let open = seen.request();
        if let Some(address) = address {
            request.extensions_mut().insert(address);
        }
        if let Some(peer) = peer.clone() {
            request.extensions_mut().insert(peer);
        }
        let answer = router.clone().oneshot(request);
        async move { answer.await.map(|response| response.map(|body| Answer::new(body, open))) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(limits::HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(limits::HEADER_BYTES_MAX as u32)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(KEEP_ALIVE_EVERY);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = activity.ceased() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(LEAVE_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
