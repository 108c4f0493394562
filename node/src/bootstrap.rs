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
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const POLL: Duration = Duration::from_millis(500);
const ISSUE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// A certificate is renewed when this part of its life is over.
const RENEW_AT_PERCENT: i64 = 80;
const RETRY_SECONDS: i64 = 60;
/// The files of the two certificates: as whom the agent calls, and as whom it answers.
const CLIENT: &str = "node";
const SERVING: &str = "serving";

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

/// Whether the machine has a certificate of its own already, and needs no token.
pub fn has_joined(data_dir: &Path) -> bool {
    load(data_dir, CLIENT).is_some()
}

/// A client as `system:node:NAME`: with the stored certificate, or with one that the token gets.
pub async fn join(join: &Join) -> Result<Client, Error> {
    let usable = |identity: &Identity| {
        let valid = life(identity).is_some_and(|(_, until)| until > Timestamp::now());
        valid && is_of(identity, &join.node_name, &join.ca_pem)
    };
    let identity = match load(&join.data_dir, CLIENT).filter(usable) {
        Some(identity) => identity,
        None => {
            let token =
                join.token.clone().ok_or_else(|| Error::Join("a token is needed until the node has a certificate".into()))?;
            let client = client(join, None, Some(token))?;
            let identity = node_identity(&client, &join.node_name).await?;
            store(&join.data_dir, CLIENT, &identity).map_err(Error::Files)?;
            identity
        }
    };
    client(join, Some(&identity), None)
}

/// Waits until the node's client certificate is due, and renews it. The caller then builds its client anew by [`join`].
pub async fn rotate(join: &Join, client: &Client) -> Result<(), Error> {
    let identity = load(&join.data_dir, CLIENT).ok_or_else(|| Error::Join("the node's certificate is gone".into()))?;
    due(&identity).await;
    let fresh = node_identity(client, &join.node_name).await?;
    store(&join.data_dir, CLIENT, &fresh).map_err(Error::Files)
}

async fn node_identity(client: &Client, node_name: &str) -> Result<Identity, Error> {
    let signer = "kubernetes.io/kube-apiserver-client-kubelet";
    request(client, node_name, signer, &["digital signature", "client auth"], &[], &CancellationToken::new()).await
}

/// A certificate for the agent's server: the stored one, or a new one when that is due or is for another address.
pub async fn serving(client: &Client, options: &Options, stop: &CancellationToken) -> Result<Identity, Error> {
    let usable = |identity: &Identity| {
        is_of(identity, &options.node_name, &options.client_ca_pem)
            && names(identity, options.node_ip)
            && renewal_in(identity, Timestamp::now()) > 0
    };
    if let Some(identity) = load(&options.data_dir, SERVING).filter(usable) {
        return Ok(identity);
    }
    let (signer, usages) = ("kubernetes.io/kubelet-serving", ["digital signature", "server auth"]);
    let identity = request(client, &options.node_name, signer, &usages, &[options.node_ip], stop).await?;
    store(&options.data_dir, SERVING, &identity).map_err(Error::Files)?;
    Ok(identity)
}

fn client(join: &Join, identity: Option<&Identity>, token: Option<String>) -> Result<Client, Error> {
    use base64::Engine;
    let wrong = |error: &dyn std::fmt::Display| Error::Join(error.to_string());
    let server: http::Uri = join.server.parse().map_err(|error: http::uri::InvalidUri| wrong(&error))?;
    let mut config = kube::Config::new(server);
    let agent = concat!("kubelet/", env!("CARGO_PKG_VERSION"));
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(agent)));
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
    let (from, until) = read(identity, |certificate| {
        let validity = certificate.validity();
        (validity.not_before.timestamp(), validity.not_after.timestamp())
    })?;
    Some((Timestamp::from_second(from).ok()?, Timestamp::from_second(until).ok()?))
}

/// Sleeps until the certificate is to be renewed.
pub async fn due(identity: &Identity) {
    let seconds = renewal_in(identity, Timestamp::now()).max(RETRY_SECONDS);
    tokio::time::sleep(Duration::from_secs(seconds.max(0) as u64)).await;
}

/// In how many seconds; of what can't be read, at once.
fn renewal_in(identity: &Identity, now: Timestamp) -> i64 {
    life(identity).map_or(0, |(from, until)| {
        let at = from.as_second() + (until.as_second() - from.as_second()) * RENEW_AT_PERCENT / 100;
        at - now.as_second()
    })
}

/// Whether it is the node's, and signed by the cluster's CA of today (where that is known).
fn is_of(identity: &Identity, node_name: &str, ca_pem: &str) -> bool {
    let mut authorities = rustls_pki_types::CertificateDer::pem_slice_iter(ca_pem.as_bytes()).flatten();
    let user = format!("system:node:{node_name}");
    read(identity, |certificate| {
        let signed = |ca: rustls_pki_types::CertificateDer<'_>| {
            let Ok((_, ca)) = X509Certificate::from_der(&ca) else { return false };
            certificate.verify_signature(Some(ca.public_key())).is_ok()
        };
        let own = certificate.subject().iter_common_name().any(|name| name.as_str() == Ok(&user));
        own && (ca_pem.is_empty() || authorities.any(signed))
    })
    .unwrap_or(false)
}

/// Whether it is for this address.
fn names(identity: &Identity, ip: IpAddr) -> bool {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    read(identity, |certificate| {
        let names = certificate.subject_alternative_name().ok().flatten();
        names.is_some_and(|names| names.value.general_names.contains(&GeneralName::IPAddress(&octets)))
    })
    .unwrap_or(false)
}

fn read<R>(identity: &Identity, of: impl FnOnce(&X509Certificate<'_>) -> R) -> Option<R> {
    let der = rustls_pki_types::CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Some(of(&certificate))
}

fn files(data_dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let dir = data_dir.join("pki");
    (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")))
}

fn load(data_dir: &Path, name: &str) -> Option<Identity> {
    let (certificate, key) = files(data_dir, name);
    Some(Identity { certificate_pem: fs::read_to_string(certificate).ok()?, key_pem: fs::read_to_string(key).ok()? })
}

/// The key first, under a name of its own, so that a crash leaves no pair that doesn't fit.
fn store(data_dir: &Path, name: &str, identity: &Identity) -> std::io::Result<()> {
    let (certificate, key) = files(data_dir, name);
    fs::create_dir_all(data_dir.join("pki"))?;
    for (path, text) in [(&key, &identity.key_pem), (&certificate, &identity.certificate_pem)] {
        let fresh = draft(path);
        let _ = fs::remove_file(&fresh);
        let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&fresh)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
    }
    fs::rename(draft(&key), &key)?;
    fs::rename(draft(&certificate), &certificate)
}

fn draft(path: &Path) -> PathBuf {
    path.with_added_extension("new")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> (String, rcgen::Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).unwrap().pem();
        (pem.clone(), rcgen::Issuer::from_ca_cert_pem(&pem, key).unwrap())
    }

    fn identity(issuer: &rcgen::Issuer<'_, KeyPair>, names: &[&str]) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, "system:node:a");
        Identity { certificate_pem: parameters.signed_by(&key, issuer).unwrap().pem(), key_pem: key.serialize_pem() }
    }

    #[test]
    fn what_is_kept_is_used_only_by_its_node_in_its_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let ((ca, issuer), (other_ca, _)) = (authority(), authority());
        store(dir.path(), CLIENT, &identity(&issuer, &[])).unwrap();
        store(dir.path(), SERVING, &identity(&issuer, &["a", "10.0.0.1"])).unwrap();
        assert!(has_joined(dir.path()));
        let (client, serving) = (load(dir.path(), CLIENT).unwrap(), load(dir.path(), SERVING).unwrap());
        assert!(is_of(&client, "a", &ca) && is_of(&serving, "a", &ca) && is_of(&client, "a", ""));
        assert!(!is_of(&client, "b", &ca), "another node's");
        assert!(!is_of(&client, "a", &other_ca), "of a cluster that was here before");
        assert!(names(&serving, [10, 0, 0, 1].into()) && !names(&serving, [10, 0, 0, 2].into()), "the address has changed");
    }
}
