//! Client certificates: the common name is the user, the organisations are the groups.

use super::{CREDENTIAL_ID, User};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::asn1_rs::Oid;

/// The attribute of a subject that holds a user's UID, by Kubernetes' number at IANA.
const UID: &[u64] = &[1, 3, 6, 1, 4, 1, 57683, 2];

/// Who shows a certificate, which the handshake has verified; the listener puts it into each request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// `None`: it is no user's, but a proxy's.
    pub(super) user: Option<User>,
    /// The common name, if the certificate is signed by whoever signs those of proxies that speak for others.
    pub(super) proxy: Option<String>,
    /// A connection may outlive its certificate. In seconds since 1970.
    pub(super) not_after: i64,
}

/// Who signs which certificates.
#[derive(Clone, Default)]
pub struct Authorities {
    users: Option<Arc<dyn ClientCertVerifier>>,
    proxies: Option<Arc<dyn ClientCertVerifier>>,
}

impl Authorities {
    /// Without a CA for proxies, every certificate that passed the handshake is a user's.
    pub fn new(users: Option<&str>, proxies: Option<&str>) -> Result<Self, String> {
        let verifier = |pem: &str| WebPkiClientVerifier::builder(roots(pem)?.into()).build().map_err(|error| error.to_string());
        Ok(Authorities { users: users.map(verifier).transpose()?, proxies: proxies.map(verifier).transpose()? })
    }

    /// Whose chain it is. The handshake has verified it against one of the authorities.
    pub(crate) fn peer(&self, chain: &[CertificateDer<'_>]) -> Option<Peer> {
        let (first, rest) = chain.split_first()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(first).ok()?;
        let not_after = certificate.validity().not_after.timestamp();
        let signed = |by: &Arc<dyn ClientCertVerifier>| by.verify_client_cert(first, rest, UnixTime::now()).is_ok();
        let Some(proxies) = &self.proxies else {
            return Some(Peer { user: Some(user(&certificate, first)?), proxy: None, not_after });
        };
        let is_user = self.users.as_ref().is_some_and(signed);
        let user = if is_user { user(&certificate, first) } else { None };
        let proxy = if signed(proxies) { common_name(&certificate).map(str::to_owned) } else { None };
        (user.is_some() || proxy.is_some()).then_some(Peer { user, proxy, not_after })
    }
}

/// The certificates of a PEM file.
pub(crate) fn roots(pem: &str) -> Result<rustls::RootCertStore, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    certificate.subject().iter_common_name().next()?.as_str().ok().filter(|name| !name.is_empty())
}

fn user(certificate: &X509Certificate<'_>, der: &[u8]) -> Option<User> {
    let subject = certificate.subject();
    let groups: Vec<&str> = subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
    let mut user = User::new(common_name(certificate)?, &groups);
    let oid = Oid::from(UID).expect("the numbers of a known attribute");
    let mut uids = subject.iter_by_oid(&oid).filter_map(|uid| uid.as_str().ok());
    user.uid = uids.next().unwrap_or_default().to_owned();
    if uids.next().is_some() {
        return None;
    }
    let hash = Sha256::digest(der).iter().fold(String::from("X509SHA256="), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text can always be written to");
        text
    });
    user.extra.insert(CREDENTIAL_ID.to_owned(), vec![hash]);
    Some(user)
}

impl User {
    /// CN and O of a client certificate that was verified already.
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        user(&certificate, der)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        names.iter().for_each(|(kind, name)| params.distinguished_name.push(kind.clone(), *name));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_subject_says_who_it_is() {
        let uid = DnType::CustomDnType(UID.to_vec());
        let der = certificate(&[(DnType::CommonName, "jane"), (DnType::OrganizationName, "people"), (uid, "u-1")]);
        let user = User::of_certificate(&der).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "u-1"));
        assert_eq!(user.groups, ["people", "system:authenticated"]);
        let id = &user.extra[CREDENTIAL_ID][0];
        assert_eq!((id.len(), &id[..11]), (11 + 64, "X509SHA256="));
    }

    #[test]
    fn nobody_without_a_name() {
        assert_eq!(User::of_certificate(&certificate(&[(DnType::OrganizationName, "system:masters")])), None);
        assert_eq!(User::of_certificate(&certificate(&[(DnType::CommonName, "")])), None);
    }

    proptest! {
        #[test]
        fn garbage_is_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(User::of_certificate(&bytes), None);
        }

        #[test]
        fn a_damaged_certificate_does_not_panic(at: prop::sample::Index, flip in 1u8.., length: prop::sample::Index) {
            let mut der = certificate(&[(DnType::CommonName, "jane"), (DnType::OrganizationName, "people")]);
            let at = at.index(der.len());
            der[at] ^= flip;
            User::of_certificate(&der);
            der.truncate(length.index(der.len()));
            prop_assert_eq!(User::of_certificate(&der), None);
        }
    }
}
