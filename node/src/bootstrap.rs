//! How a node gets its certificates: a request for each, signed through the API.

use crate::{Error, Options};
use jiff::Timestamp;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt};
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use rustls_pki_types::pem::PemObject;
use slipway_api::ByteString;
use slipway_api::certificates::{CertificateSigningRequest, CertificateSigningRequestSpec};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

const POLL: Duration = Duration::from_millis(500);
const ISSUE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// A certificate is renewed when this part of its life is over.
const RENEW_AT_PERCENT: i64 = 80;
const RETRY_SECONDS: i64 = 60;

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// What a new machine is told so that it can join.
#[derive(Debug, Clone)]
pub struct Join {
    /// As `https://10.0.0.1:6443`.
    pub server: String,
    /// What the server's certificate is checked against.
    pub ca_pem: String,
    /// `id.secret`; needed until the machine has a certificate.
    pub token: Option<String>,
    pub node_name: String,
    pub data_dir: PathBuf,
}

/// A client as `system:node:NAME`: with the stored certificate, or with one that the token gets.
pub async fn join(join: &Join) -> Result<Client, Error> {
    let identity = match load(&join.data_dir) {
        Some(identity) if life(&identity).is_some_and(|(_, until)| until > Timestamp::now()) => identity,
        _ => {
            let token =
                join.token.clone().ok_or_else(|| Error::Join("a token is needed until the node has a certificate".into()))?;
            let client = client(join, None, Some(token))?;
            let identity = node_identity(&client, &join.node_name).await?;
            store(&join.data_dir, &identity).map_err(Error::Files)?;
            identity
        }
    };
    client(join, Some(&identity), None)
}

/// Waits until the node's client certificate is due, and renews it. The caller then builds its client anew by [`join`].
pub async fn rotate(join: &Join, client: &Client) -> Result<(), Error> {
    let identity = load(&join.data_dir).ok_or_else(|| Error::Join("the node's certificate is gone".into()))?;
    due(&identity).await;
    let fresh = node_identity(client, &join.node_name).await?;
    store(&join.data_dir, &fresh).map_err(Error::Files)
}

async fn node_identity(client: &Client, node_name: &str) -> Result<Identity, Error> {
    let signer = "kubernetes.io/kube-apiserver-client-kubelet";
    request(client, node_name, signer, &["digital signature", "client auth"], &[], &CancellationToken::new()).await
}

/// A certificate for the agent's server.
pub async fn serving(client: &Client, options: &Options, stop: &CancellationToken) -> Result<Identity, Error> {
    let ips = [options.node_ip];
    request(client, &options.node_name, "kubernetes.io/kubelet-serving", &["digital signature", "server auth"], &ips, stop).await
}

fn client(join: &Join, identity: Option<&Identity>, token: Option<String>) -> Result<Client, Error> {
    use base64::Engine;
    let wrong = |error: &dyn std::fmt::Display| Error::Join(error.to_string());
    let server: http::Uri = join.server.parse().map_err(|error: http::uri::InvalidUri| wrong(&error))?;
    let mut config = kube::Config::new(server);
    let roots = rustls_pki_types::CertificateDer::pem_slice_iter(join.ca_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    config.root_cert = Some(roots.map_err(|error| wrong(&error))?.into_iter().map(|der| der.to_vec()).collect());
    config.auth_info.token = token.map(Into::into);
    if let Some(identity) = identity {
        let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
        config.auth_info.client_certificate_data = Some(encode(&identity.certificate_pem));
        config.auth_info.client_key_data = Some(encode(&identity.key_pem).into());
    }
    Client::try_from(config).map_err(Error::from)
}

/// Asks for a certificate, and waits until someone approved and signed it.
async fn request(
    client: &Client,
    node_name: &str,
    signer: &str,
    usages: &[&str],
    ips: &[IpAddr],
    stop: &CancellationToken,
) -> Result<Identity, Error> {
    let wrong = |error: rcgen::Error| Error::Join(error.to_string());
    let key = KeyPair::generate().map_err(wrong)?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    parameters.distinguished_name.push(DnType::CommonName, format!("system:node:{node_name}"));
    if !ips.is_empty() {
        parameters.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(node_name).map_err(wrong)?));
        parameters.subject_alt_names.extend(ips.iter().map(|ip| SanType::IpAddress(*ip)));
    }
    let pem = parameters.serialize_request(&key).map_err(wrong)?.pem().map_err(wrong)?;
    let mut csr = CertificateSigningRequest::default();
    csr.metadata.generate_name = Some("csr-".into());
    csr.spec = CertificateSigningRequestSpec {
        request: ByteString(pem.into_bytes()),
        signer_name: signer.into(),
        usages: Some(usages.iter().map(|usage| (*usage).to_owned()).collect()),
        ..Default::default()
    };
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let made = requests.create(&PostParams::default(), &csr).await?;
    let name = made.name_any();
    let deadline = tokio::time::Instant::now() + ISSUE_TIMEOUT;
    while tokio::time::Instant::now() < deadline {
        let status = requests.get(&name).await?.status.unwrap_or_default();
        let turned_down =
            status.conditions.iter().flatten().find(|condition| matches!(condition.type_.as_str(), "Denied" | "Failed"));
        if let Some(condition) = turned_down {
            return Err(Error::Join(format!("{name} was not signed: {}", condition.message.clone().unwrap_or_default())));
        }
        if let Some(certificate) = status.certificate {
            let certificate_pem = String::from_utf8(certificate.0).map_err(|error| Error::Join(error.to_string()))?;
            return Ok(Identity { certificate_pem, key_pem: key.serialize_pem() });
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = stop.cancelled() => break,
        }
    }
    let _ = requests.delete(&name, &DeleteParams::default()).await;
    Err(Error::Join(format!("{name} was not signed in time")))
}

fn life(identity: &Identity) -> Option<(Timestamp, Timestamp)> {
    let der = rustls_pki_types::CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let validity = certificate.validity();
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((at(validity.not_before)?, at(validity.not_after)?))
}

/// Sleeps until the certificate is to be renewed.
pub async fn due(identity: &Identity) {
    let now = Timestamp::now();
    let seconds = life(identity).map_or(RETRY_SECONDS, |(from, until)| {
        let at = from.as_second() + (until.as_second() - from.as_second()) * RENEW_AT_PERCENT / 100;
        (at - now.as_second()).max(RETRY_SECONDS)
    });
    tokio::time::sleep(Duration::from_secs(seconds.max(0) as u64)).await;
}

fn files(data_dir: &Path) -> (PathBuf, PathBuf) {
    let dir = data_dir.join("pki");
    (dir.join("node.crt"), dir.join("node.key"))
}

fn load(data_dir: &Path) -> Option<Identity> {
    let (certificate, key) = files(data_dir);
    Some(Identity { certificate_pem: fs::read_to_string(certificate).ok()?, key_pem: fs::read_to_string(key).ok()? })
}

/// The key first, under a name of its own, so that a crash leaves no pair that doesn't fit.
fn store(data_dir: &Path, identity: &Identity) -> std::io::Result<()> {
    let (certificate, key) = files(data_dir);
    fs::create_dir_all(data_dir.join("pki"))?;
    for (path, text) in [(&key, &identity.key_pem), (&certificate, &identity.certificate_pem)] {
        let fresh = path.with_extension("new");
        let _ = fs::remove_file(&fresh);
        let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&fresh)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
    }
    fs::rename(key.with_extension("new"), &key)?;
    fs::rename(certificate.with_extension("new"), &certificate)
}
