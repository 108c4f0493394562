//! Who the agent's server is, and whom it answers.

use crate::bootstrap;
use crate::{Error, Options};
use kube::Client;
use parking_lot::RwLock;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The one who may ask though it is no administrator.
const API_SERVER: &str = "kube-apiserver-kubelet-client";
const MASTERS: &str = "system:masters";

/// The acceptor with the certificate of the day.
#[derive(Clone)]
pub struct Acceptor(Arc<RwLock<TlsAcceptor>>);

impl Acceptor {
    pub fn current(&self) -> TlsAcceptor {
        self.0.read().clone()
    }
}

pub async fn acceptor(options: &Options, client: Client, shutdown: CancellationToken) -> Result<Acceptor, Error> {
    if let Some((certificate, key)) = &options.serving {
        return Ok(Acceptor(Arc::new(RwLock::new(config(certificate, key, &options.client_ca_pem)?))));
    }
    let identity = bootstrap::serving(&client, options, &shutdown).await?;
    let first = config(&identity.certificate_pem, &identity.key_pem, &options.client_ca_pem)?;
    let acceptor = Acceptor(Arc::new(RwLock::new(first)));
    let (renewed, options) = (acceptor.clone(), options.clone());
    tokio::spawn(async move {
        let mut identity = identity;
        loop {
            tokio::select! {
                () = bootstrap::due(&identity) => {}
                () = shutdown.cancelled() => return,
            }
            match bootstrap::serving(&client, &options, &shutdown).await {
                Ok(fresh) => {
                    if let Ok(config) = config(&fresh.certificate_pem, &fresh.key_pem, &options.client_ca_pem) {
                        *renewed.0.write() = config;
                    }
                    identity = fresh;
                }
                Err(error) => tracing::warn!(%error, "renewing the serving certificate"),
            }
        }
    });
    Ok(acceptor)
}

fn config(certificate_pem: &str, key_pem: &str, client_ca_pem: &str) -> Result<TlsAcceptor, Error> {
    let wrong = |error: &dyn std::fmt::Display| Error::Server(error.to_string());
    let chain = |pem: &str| CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| wrong(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in chain(client_ca_pem).map_err(|error| wrong(&error))? {
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| wrong(&error))?;
    let builder = if roots.is_empty() {
        // Without a CA nobody can show who it is, so nobody is answered.
        builder.with_no_client_auth()
    } else {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated().build();
        builder.with_client_cert_verifier(verifier.map_err(|error| wrong(&error))?)
    };
    let chain = chain(certificate_pem).map_err(|error| wrong(&error))?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| wrong(&error))?;
    // Upgrades, which exec needs, are of HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Whether the verified certificate of the peer names an administrator or the API server.
pub fn is_allowed(connection: &ServerConnection) -> bool {
    let Some(leaf) = connection.peer_certificates().and_then(|chain| chain.first()) else { return false };
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return false };
    let subject = certificate.subject();
    let master = subject.iter_organization().any(|name| name.as_str() == Ok(MASTERS));
    master || subject.iter_common_name().any(|name| name.as_str() == Ok(API_SERVER))
}
