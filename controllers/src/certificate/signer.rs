//! Signs certificate requests with the cluster's authority.

use std::time::Duration;

use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber};
use slipway_api::{certificates::CertificateSigningRequest, jiff::Timestamp};

/// As long as a certificate may last at most, and lasts if nothing else is asked for.
const LIFETIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const LIFETIME_MIN: Duration = Duration::from_secs(600);
/// Clocks of machines differ.
const BACKDATED: Duration = Duration::from_secs(300);

pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
}

impl Signer {
    pub fn new(certificate_pem: &str, key_pem: &str) -> Result<Signer, rcgen::Error> {
        let key = KeyPair::from_pem(key_pem)?;
        Ok(Signer { issuer: Issuer::from_ca_cert_pem(certificate_pem, key)? })
    }

    /// The certificate (PEM) for the request's key, subject and names, and for the usages that the object names.
    pub fn sign(&self, csr: &CertificateSigningRequest, now: Timestamp) -> Result<String, String> {
        let pem = std::str::from_utf8(&csr.spec.request.0).map_err(|error| error.to_string())?;
        let mut request = CertificateSigningRequestParams::from_pem(pem).map_err(|error| error.to_string())?;
        let asked = csr.spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        let lifetime = asked.unwrap_or(LIFETIME_MAX).clamp(LIFETIME_MIN, LIFETIME_MAX);
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let now = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
        let params = &mut request.params;
        params.not_before = epoch + now.saturating_sub(BACKDATED);
        params.not_after = epoch + now + lifetime;
        params.is_ca = IsCa::ExplicitNoCa;
        params.serial_number = Some(SerialNumber::from_slice(&rand::random::<[u8; 16]>()));
        params.use_authority_key_identifier_extension = true;
        params.key_usages.clear();
        params.extended_key_usages.clear();
        for usage in csr.spec.usages.iter().flatten() {
            match usage.as_str() {
                "digital signature" => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
                "key encipherment" => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                "client auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
                "server auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
                other => return Err(format!("usage {other} is not granted")),
            }
        }
        Ok(request.signed_by(&self.issuer).map_err(|error| error.to_string())?.pem())
    }
}
