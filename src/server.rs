//! Wiring of the API server: a store, certificates, listeners.

use crate::pki::{Identity, Pki, kubeconfig, write_atomically};
use crate::{cli, security};
use anyhow::{Context, Result};
use slipway_apiserver::ApiServer;
use slipway_apiserver::http::authenticate::request_header::RequestHeader;
use slipway_store::Store;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub const SERVICE_CIDR: &str = "10.96.0.0/16";
pub const POD_CIDR: &str = "10.244.0.0/16";
pub const CLUSTER_DNS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 96, 0, 10);
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// The first address of the service range, at which every pod finds the API.
pub const KUBERNETES_SERVICE: &str = "10.96.0.1";

/// The cluster's own EncryptionConfiguration, beside its certificates.
pub const ENCRYPTION: &str = "encryption.yaml";

/// As whom the API server shows itself to extension servers.
const FRONT_PROXY: &str = "front-proxy-client";

/// What the API server is given besides its store. Flags may say otherwise: see `security`.
pub fn options(pki: &Pki, advertise: Option<SocketAddr>) -> Result<slipway_apiserver::Options> {
    let kubelet_client = pki.client("kubelet-client", "kube-apiserver-kubelet-client", &["system:masters"])?;
    let front_proxy = pki.front_proxy()?;
    let proxy_client = front_proxy.client(FRONT_PROXY, FRONT_PROXY, &[])?;
    Ok(slipway_apiserver::Options {
        proxy_client_identity: Some((proxy_client.cert_pem, proxy_client.key_pem)),
        request_header: Some(RequestHeader {
            client_ca_pem: front_proxy.ca.cert_pem,
            allowed_names: vec![FRONT_PROXY.into()],
            ..RequestHeader::default()
        }),
        service_cidr: SERVICE_CIDR.into(),
        advertise,
        client_ca_pem: Some(pki.ca.cert_pem.clone()),
        service_account_key_pem: Some(pki.service_account_key_pem.clone()),
        kubelet_ca_pem: Some(pki.ca.cert_pem.clone()),
        kubelet_client_identity: Some((kubelet_client.cert_pem, kubelet_client.key_pem)),
        ..slipway_apiserver::Options::default()
    })
}

/// The serving side of TLS: clients may show a certificate of the cluster's CA (proxies one of theirs), and need not.
pub fn tls(
    pki: &Pki,
    listen: SocketAddr,
    further: impl IntoIterator<Item = String>,
    proxies: Option<&RequestHeader>,
) -> Result<Arc<rustls::ServerConfig>> {
    let mut names: BTreeSet<String> =
        ["localhost", "127.0.0.1", KUBERNETES_SERVICE, "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
            .map(String::from)
            .into();
    names.insert(format!("kubernetes.default.svc.{CLUSTER_DOMAIN}"));
    if !listen.ip().is_unspecified() {
        names.insert(listen.ip().to_string());
    }
    names.extend(further);
    let identity = pki.server("apiserver", "kube-apiserver", &names)?;
    let mut client_ca = pki.ca.cert_pem.clone();
    if let Some(rule) = proxies {
        client_ca += &rule.client_ca_pem;
    }
    slipway_apiserver::http::serve::tls(&identity.cert_pem, &identity.key_pem, Some(&client_ca))
        .context("the serving side of TLS")
}

/// An administrator's certificate, and the kubeconfig that holds it.
pub fn admin_kubeconfig(pki: &Pki, server: &str) -> Result<(Identity, String)> {
    let admin = pki.client("admin", "kubernetes-admin", &["system:masters"])?;
    let config = kubeconfig(server, &pki.ca.cert_pem, "kubernetes-admin", &admin);
    Ok((admin, config))
}

pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))
}

/// Serves the store as an etcd until `shutdown`, to those who have a certificate of its CA.
async fn serve_etcd(
    store: Arc<dyn Store>,
    pki: &Pki,
    listen: SocketAddr,
    further: impl IntoIterator<Item = String>,
    shutdown: CancellationToken,
) -> Result<tokio::task::JoinHandle<()>> {
    use slipway_store::etcd::{Face, Options};
    let pki = pki.etcd()?;
    let mut names: BTreeSet<String> = ["localhost", "127.0.0.1"].map(String::from).into();
    names.extend(further);
    if !listen.ip().is_unspecified() {
        names.insert(listen.ip().to_string());
    }
    let serving = pki.server("etcd-server", "etcd", &names)?;
    pki.client("etcd-client", "etcd-client", &[])?;
    let tls = slipway_apiserver::http::serve::tls_for_certificates(&serving.cert_pem, &serving.key_pem, &pki.ca.cert_pem)
        .context("the etcd face's side of TLS")?;
    let listener = bind(listen).await?;
    let options = Options { client_urls: vec![format!("https://{listen}")], ..Options::default() };
    let face = Face::start(store, options).await.context("starting the etcd face")?;
    tracing::info!(address = %listen, "serving etcd's API");
    Ok(tokio::spawn(async move {
        if let Err(error) = face.serve(listener, Some(tls), shutdown).await {
            tracing::error!(error = &error as &dyn std::error::Error, "the etcd face ended");
        }
    }))
}

/// `slipway apiserver`.
pub async fn run(flags: cli::Apiserver, shutdown: CancellationToken) -> Result<()> {
    let pki = Pki::open(&flags.pki_dir)?;
    let store = slipway_store::postgres::Postgres::connect(&flags.postgres, slipway_store::postgres::Options::default())
        .await
        .context("connecting to Postgres")?;
    let advertise = flags.advertise_address.map(|ip: IpAddr| SocketAddr::new(ip, flags.listen.port()));
    let store: Arc<dyn Store> = store;
    let mut options = options(&pki, advertise)?;
    // One that `up` made is used. It is not made here: servers that share a database must share their keys.
    let own = Some(flags.pki_dir.join(ENCRYPTION)).filter(|path| path.exists());
    security::apply(&mut options, &flags.security, own.as_deref())?;
    let (audit, trail) = security::audit(&flags.security, &flags.postgres).await?;
    options.audit = Arc::new(audit);
    let api = ApiServer::start(store.clone(), options).await.context("starting the API server")?;
    let names = flags.names.iter().cloned().chain(flags.advertise_address.map(|ip| ip.to_string()));
    if let Some(listen) = flags.etcd_listen {
        serve_etcd(store, &pki, listen, names.clone(), shutdown.clone()).await?;
    }
    let tls = tls(&pki, flags.listen, names, api.options.request_header.as_ref())?;
    let listener = bind(flags.listen).await?;
    if let Some(path) = &flags.write_kubeconfig {
        let host = flags.advertise_address.unwrap_or_else(|| match flags.listen.ip() {
            ip if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            ip => ip,
        });
        let (_, config) = admin_kubeconfig(&pki, &format!("https://{}", SocketAddr::new(host, flags.listen.port())))?;
        write_atomically(path, config.as_bytes(), 0o600)?;
    }
    tracing::info!(address = %flags.listen, "serving the API");
    let router = crate::dashboard::router(&api);
    api.serve_router(router, listener, tls, shutdown).await;
    if let Some(trail) = trail {
        trail.close().await;
    }
    Ok(())
}
