//! The way to extension servers: HTTPS to an endpoint of the Service, under the Service's name, with the certificate that shows
//! who asks. Connections are kept.

use super::api_service::{Remote, Trust};
use crate::admission::webhook::client::roots;
use axum::body::Body;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Ways that are kept; they are made anew when more are needed.
const TRANSPORTS_MAX: usize = 256;
/// An endpoint that does not accept a connection by then is taken to be away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(90);
const IDLE_PER_HOST: usize = 25;

type Https = Client<HttpsConnector<HttpConnector>, Body>;

#[derive(Clone)]
pub(super) struct Transport {
    pub client: Https,
    /// Over HTTP/1.1 alone: a connection of HTTP/2 cannot become another protocol's.
    pub upgrading: Https,
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub(super) struct Transports {
    identity: Option<Identity>,
    kept: Mutex<HashMap<Remote, Transport>>,
}

impl Transports {
    pub fn new(identity: Option<&(String, String)>) -> Result<Self, String> {
        let parse = |(chain, key): &(String, String)| {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| error.to_string())?;
            Ok::<Identity, String>((chain.map_err(|error| error.to_string())?, key))
        };
        Ok(Transports { identity: identity.map(parse).transpose()?, kept: Mutex::default() })
    }

    pub fn to(&self, remote: &Remote) -> Result<Transport, String> {
        if let Some(transport) = self.kept.lock().get(remote) {
            return Ok(transport.clone());
        }
        let name = format!("{}.{}.svc", remote.service, remote.namespace);
        let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
        let config = self.config(&remote.trust)?;
        let transport = Transport { client: client(config.clone(), name.clone(), false), upgrading: client(config, name, true) };
        let mut kept = self.kept.lock();
        if kept.len() >= TRANSPORTS_MAX {
            kept.clear();
        }
        kept.insert(remote.clone(), transport.clone());
        Ok(transport)
    }

    fn config(&self, trust: &Trust) -> Result<rustls::ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match trust {
            Trust::Bundle(bundle) => builder.with_root_certificates(roots(bundle)?),
            Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        };
        match &self.identity {
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(|error| error.to_string())
            }
            None => Ok(builder.with_no_client_auth()),
        }
    }
}

fn client(config: rustls::ClientConfig, name: ServerName<'static>, upgrading: bool) -> Https {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let builder = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .with_server_name_resolver(FixedServerNameResolver::new(name));
    let https =
        if upgrading { builder.enable_http1().wrap_connector(tcp) } else { builder.enable_all_versions().wrap_connector(tcp) };
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .build(https)
}

/// `insecureSkipTLSVerify`: the connection is encrypted, to whoever is there.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
