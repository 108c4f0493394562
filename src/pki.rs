//! The cluster's certificates: a CA of its own under the data directory, and what it has signed.
//!
//! Everything is made once and kept; a leaf is made again when its names change or its end is near.

use anyhow::{Context, Result, anyhow};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const CA_YEARS: i16 = 10;
const LEAF_YEARS: i16 = 1;
/// A leaf with less than this left is signed anew at the next start.
const RENEW_BEFORE_DAYS: i64 = 60;

/// A certificate and its key, both PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    pub cert_pem: String,
    pub key_pem: String,
}

/// The certificates of one cluster, in one directory.
pub struct Pki {
    dir: PathBuf,
    pub ca: Identity,
    /// Signs service-account tokens (ECDSA P-256, PKCS#8).
    pub service_account_key_pem: String,
}

impl Pki {
    /// Opens the directory, and makes the CA and the service-account key when they aren't there.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let ca = match read_identity(dir, "ca")? {
            Some(ca) => ca,
            None => {
                let ca = make_ca()?;
                write_identity(dir, "ca", &ca)?;
                ca
            }
        };
        let key_path = dir.join("sa.key");
        let service_account_key_pem = match fs::read_to_string(&key_path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let pem = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem();
                write_atomically(&key_path, pem.as_bytes(), 0o600)?;
                pem
            }
            Err(error) => return Err(error).context("reading the service-account key"),
        };
        Ok(Pki { dir: dir.to_owned(), ca, service_account_key_pem })
    }

    /// The certificates of the etcd face: a CA of its own, since whoever has a certificate of it may do everything there.
    pub fn etcd(&self) -> Result<Pki> {
        self.with_ca("etcd-ca")
    }

    /// Who signs the certificates of proxies that speak for others: a CA of its own, since no client's certificate may be taken
    /// for a proxy's.
    pub fn front_proxy(&self) -> Result<Pki> {
        self.with_ca("front-proxy-ca")
    }

    fn with_ca(&self, file: &str) -> Result<Pki> {
        let ca = match read_identity(&self.dir, file)? {
            Some(ca) => ca,
            None => {
                let ca = make_ca()?;
                write_identity(&self.dir, file, &ca)?;
                ca
            }
        };
        Ok(Pki { dir: self.dir.clone(), ca, service_account_key_pem: String::new() })
    }

    /// The API server's serving certificate for these DNS names and addresses.
    pub fn server(&self, file: &str, common_name: &str, names: &BTreeSet<String>) -> Result<Identity> {
        self.leaf(file, common_name, &[], names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate: the user is its common name, the groups its organizations.
    pub fn client(&self, file: &str, user: &str, groups: &[&str]) -> Result<Identity> {
        self.leaf(file, user, groups, &BTreeSet::new(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn leaf(
        &self,
        file: &str,
        common_name: &str,
        organizations: &[&str],
        names: &BTreeSet<String>,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Identity> {
        // What the certificate says, kept beside it: when it changes, the certificate is made again.
        let wanted =
            format!("{common_name}\n{}\n{}\n", organizations.join(","), names.iter().cloned().collect::<Vec<_>>().join(","));
        let wanted_path = self.dir.join(format!("{file}.names"));
        let fresh = fs::metadata(self.dir.join(format!("{file}.crt")))
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|made| made.elapsed().ok())
            .is_some_and(|age| (age.as_secs() as i64) < (i64::from(LEAF_YEARS) * 365 - RENEW_BEFORE_DAYS) * 86_400);
        if fresh
            && fs::read_to_string(&wanted_path).is_ok_and(|had| had == wanted)
            && let Some(identity) = read_identity(&self.dir, file)?
        {
            return Ok(identity);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
        params.distinguished_name = distinguished_name(common_name, organizations);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, LEAF_YEARS);
        let issuer = Issuer::from_ca_cert_pem(&self.ca.cert_pem, KeyPair::from_pem(&self.ca.key_pem)?)?;
        let identity = Identity { cert_pem: params.signed_by(&key, &issuer)?.pem(), key_pem: key.serialize_pem() };
        write_identity(&self.dir, file, &identity)?;
        write_atomically(&wanted_path, wanted.as_bytes(), 0o644)?;
        Ok(identity)
    }
}

fn make_ca() -> Result<Identity> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = distinguished_name("slipway-ca", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    valid_for(&mut params, CA_YEARS);
    Ok(Identity { cert_pem: params.self_signed(&key)?.pem(), key_pem: key.serialize_pem() })
}

fn distinguished_name(common_name: &str, organizations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, *organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// From yesterday, so that a clock that is a little behind accepts it.
fn valid_for(params: &mut CertificateParams, years: i16) {
    let today = jiff::Zoned::now().date();
    let from = today.yesterday().unwrap_or(today);
    let day = |date: jiff::civil::Date| rcgen::date_time_ymd(date.year().into(), date.month() as u8, date.day() as u8);
    params.not_before = day(from);
    params.not_after = day(today.saturating_add(jiff::Span::new().years(years)));
}

fn read_identity(dir: &Path, file: &str) -> Result<Option<Identity>> {
    let read = |extension: &str| match fs::read_to_string(dir.join(format!("{file}.{extension}"))) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(anyhow!(error).context(format!("reading {file}.{extension}"))),
    };
    Ok(match (read("crt")?, read("key")?) {
        (Some(cert_pem), Some(key_pem)) => Some(Identity { cert_pem, key_pem }),
        _ => None,
    })
}

/// The key first: a certificate without its key is never found.
fn write_identity(dir: &Path, file: &str, identity: &Identity) -> Result<()> {
    write_atomically(&dir.join(format!("{file}.key")), identity.key_pem.as_bytes(), 0o600)?;
    write_atomically(&dir.join(format!("{file}.crt")), identity.cert_pem.as_bytes(), 0o644)
}

/// Writes a file so that a crash leaves the old one or the new one, whole.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .with_context(|| format!("writing {}", temporary.display()))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path).with_context(|| format!("writing {}", path.display()))
}

/// An administrator's kubeconfig with everything in it.
pub fn kubeconfig(server: &str, ca_pem: &str, user: &str, identity: &Identity) -> String {
    use base64::Engine;
    let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "slipway", "cluster": {"server": server, "certificate-authority-data": encode(ca_pem)}}],
        "users": [{"name": user, "user": {
            "client-certificate-data": encode(&identity.cert_pem),
            "client-key-data": encode(&identity.key_pem),
        }}],
        "contexts": [{"name": "slipway", "context": {"cluster": "slipway", "user": user, "namespace": "default"}}],
        "current-context": "slipway",
    });
    // JSON is YAML, and every reader of kubeconfigs takes it.
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaf_is_kept_until_its_names_change() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let names = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<BTreeSet<_>>();
        let first = pki.server("apiserver", "kube-apiserver", &names(&["localhost", "127.0.0.1"])).unwrap();
        let again =
            Pki::open(dir.path()).unwrap().server("apiserver", "kube-apiserver", &names(&["localhost", "127.0.0.1"])).unwrap();
        assert_eq!(first.cert_pem, again.cert_pem);
        let other = pki.server("apiserver", "kube-apiserver", &names(&["localhost", "127.0.0.1", "10.0.0.1"])).unwrap();
        assert_ne!(first.cert_pem, other.cert_pem);
    }

    #[test]
    fn proxies_have_a_ca_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let front = pki.front_proxy().unwrap();
        assert_ne!(front.ca.cert_pem, pki.ca.cert_pem);
        assert_eq!(Pki::open(dir.path()).unwrap().front_proxy().unwrap().ca.cert_pem, front.ca.cert_pem);
    }

    #[test]
    fn keys_are_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        Pki::open(dir.path()).unwrap();
        for key in ["ca.key", "sa.key"] {
            assert_eq!(fs::metadata(dir.path().join(key)).unwrap().permissions().mode() & 0o777, 0o600, "{key}");
        }
    }
}
