//! What a certificate request asks for, and whether its signer may grant it.

use slipway_api::certificates::CertificateSigningRequest;
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

use super::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING};

#[derive(Debug, Default)]
pub struct Request {
    pub common_name: String,
    organizations: Vec<String>,
    /// DNS names and IP addresses.
    pub names: Vec<String>,
    /// E-mail addresses and URIs, which no signer here grants.
    foreign_names: usize,
}

impl Request {
    pub fn parse(csr: &CertificateSigningRequest) -> Result<Request, String> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(&csr.spec.request.0)
            .map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
        let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
        let subject = &parsed.certification_request_info.subject;
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().unwrap_or_default().to_owned();
        let mut request = Request {
            common_name: subject.iter_common_name().next().map(text).unwrap_or_default(),
            organizations: subject.iter_organization().map(text).collect(),
            ..Request::default()
        };
        for extension in parsed.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => request.names.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => request.names.extend(ip(bytes)),
                    _ => request.foreign_names += 1,
                }
            }
        }
        Ok(request)
    }

    /// The rules of the signers, as Kubernetes has them.
    pub fn check_for(&self, signer: &str, csr: &CertificateSigningRequest) -> Result<(), String> {
        let usages: Vec<&str> = csr.spec.usages.iter().flatten().map(String::as_str).collect();
        match signer {
            KUBELET_CLIENT => {
                self.check_node()?;
                if !self.names.is_empty() || self.foreign_names > 0 {
                    return Err("DNS, email, IP and URI subjectAltNames are not allowed".into());
                }
                check_usages(&usages, "client auth")
            }
            KUBELET_SERVING => {
                self.check_node()?;
                if self.foreign_names > 0 {
                    return Err("email and URI subjectAltNames are not allowed".into());
                }
                if self.names.is_empty() {
                    return Err("at least one DNS or IP subjectAltName is required".into());
                }
                check_usages(&usages, "server auth")
            }
            CLIENT => check_usages(&usages, "client auth"),
            other => Err(format!("{other} is not signed here")),
        }
    }

    fn check_node(&self) -> Result<(), String> {
        if self.organizations != ["system:nodes"] {
            return Err("subject organization is not system:nodes".into());
        }
        if self.common_name.strip_prefix("system:node:").is_none_or(str::is_empty) {
            return Err("subject common name does not begin with system:node:".into());
        }
        Ok(())
    }
}

fn check_usages(usages: &[&str], purpose: &str) -> Result<(), String> {
    let allowed = |usage: &&str| ["digital signature", "key encipherment", purpose].contains(usage);
    if usages.iter().all(allowed) && usages.contains(&purpose) {
        Ok(())
    } else {
        Err(format!("usages did not match [digital signature key encipherment {purpose}]"))
    }
}

fn ip(bytes: &[u8]) -> Option<String> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| std::net::Ipv4Addr::from(bytes).to_string()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        _ => None,
    }
}
