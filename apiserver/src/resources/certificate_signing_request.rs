//! CertificateSigningRequest: someone asks for a certificate; someone else approves, and a signer issues it.

use super::{fill, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age, bump_generation, human_duration, keep, keep_all_but_status};
use serde_json::{Value, json};
pub use slipway_api::certificates::CertificateSigningRequest;
use x509_parser::prelude::FromDer;

const SECONDS_MIN: i32 = 600;
/// What the `approval` subresource decides; the signer may not.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

impl Kind for CertificateSigningRequest {
    const NAMES: Names = Names {
        short: &["csr"],
        namespaced: false,
        status: true,
        ..Names::namespaced(
            "certificates.k8s.io",
            "v1",
            "CertificateSigningRequest",
            "certificatesigningrequests",
            "certificatesigningrequest",
        )
    };
    const STATUS_KEEPS: &'static [&'static str] = crate::kind::METADATA;

    /// What was asked for doesn't change any more.
    fn prepare_update(object: &mut Value, old: &Value) {
        keep(object, old, "spec");
        keep(object, old, "status");
        bump_generation(object, old);
    }

    /// A signer brings the certificate and its own conditions, and leaves the decision as it is.
    fn prepare_status_update(object: &mut Value, old: &Value) {
        keep_all_but_status(object, old);
        let decided = |condition: &Value| DECISIONS.contains(&fill::text(condition, "type"));
        let list = |object: &Value| object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let mut conditions: Vec<Value> = list(old).into_iter().filter(|condition| decided(condition)).collect();
        conditions.extend(list(object).into_iter().filter(|condition| !decided(condition)));
        if !conditions.is_empty() {
            object["status"]["conditions"] = conditions.into();
        }
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = &self.spec;
        if spec.request.0.is_empty() {
            errors.push(Invalid::required("spec.request", ""));
        } else if let Some(why) = why_no_request(&spec.request.0) {
            errors.push(Invalid::value("spec.request", &json!(spec.request), &why));
        }
        let usages = spec.usages.as_deref().unwrap_or(&[]);
        if usages.is_empty() {
            errors.push(Invalid::required("spec.usages", "usages is required"));
        }
        for (index, usage) in usages.iter().enumerate() {
            let at = format!("spec.usages[{index}]");
            if !USAGES.contains(&usage.as_str()) {
                errors.push(Invalid::not_supported(at, &json!(usage), &USAGES));
            } else if usages[..index].contains(usage) {
                errors.push(Invalid::duplicate(at, &json!(usage)));
            }
        }
        check_signer(&spec.signer_name, &mut errors);
        if let Some(seconds) = spec.expiration_seconds.filter(|seconds| *seconds < SECONDS_MIN) {
            let why = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(Invalid::value("spec.expirationSeconds", &json!(seconds), why));
        }
        errors
    }

    fn validate_status_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        let (new, old) = (self.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
        if old.certificate.is_some() && new.certificate != old.certificate {
            let why = "updates may not modify existing certificate content";
            errors.push(Invalid::forbidden("status.certificate", why));
        }
        let conditions = new.conditions.as_deref().unwrap_or(&[]);
        for kept in old.conditions.iter().flatten() {
            let decides = DECISIONS.contains(&kept.type_.as_str());
            if decides && !conditions.iter().any(|condition| condition.type_ == kept.type_) {
                let why = format!("updates may not remove a condition of type {:?}", kept.type_);
                errors.push(Invalid::forbidden("status.conditions", &why));
            }
        }
        for (index, condition) in conditions.iter().enumerate() {
            let at = format!("status.conditions[{index}]");
            match condition.type_.as_str() {
                "" => errors.push(Invalid::required(format!("{at}.type"), "")),
                kind if DECISIONS.contains(&kind) || kind == "Failed" => {
                    rules::one_of(&format!("{at}.status"), Some(&condition.status), &["True"], &mut errors);
                }
                _ => {
                    let supported = ["False", "True", "Unknown"];
                    rules::one_of(&format!("{at}.status"), Some(&condition.status), &supported, &mut errors);
                }
            }
            if conditions[..index].iter().any(|other| other.type_ == condition.type_) {
                errors.push(Invalid::duplicate(format!("{at}.type"), &json!(condition.type_)));
            }
            if DECISIONS
                .iter()
                .any(|other| *other != condition.type_ && conditions[..index].iter().any(|one| one.type_ == *other))
                && DECISIONS.contains(&condition.type_.as_str())
            {
                let why = "Approved and Denied conditions are mutually exclusive";
                errors.push(Invalid::value(format!("{at}.type"), &json!(condition.type_), why));
            }
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::AGE,
            Column::text("SignerName", "Who is asked to sign."),
            Column::text("Requestor", "Who asks."),
            Column::text("RequestedDuration", "How long the certificate shall hold."),
            Column::text("Condition", "What was decided, and whether it was issued."),
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let duration = self.spec.expiration_seconds.map(|seconds| human_duration(seconds.into()));
        vec![
            show::name(object),
            age(object, now),
            show::or_none(Some(&self.spec.signer_name)),
            json!(self.spec.username.as_deref().unwrap_or("")),
            show::or_none(duration.as_deref()),
            json!(condition(self)),
        ]
    }

    const SELECTABLE: &'static [&'static str] = &["spec.signerName"];

    fn selectable_fields(object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", fill::text(&object["spec"], "signerName").to_owned())]
    }
}

fn condition(request: &CertificateSigningRequest) -> String {
    let status = request.status.clone().unwrap_or_default();
    let has = |kind: &str| status.conditions.iter().flatten().any(|condition| condition.type_ == kind);
    let mut text = match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    }
    .to_owned();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if status.certificate.is_some_and(|certificate| !certificate.0.is_empty()) {
        text.push_str(",Issued");
    }
    text
}

fn why_no_request(bytes: &[u8]) -> Option<String> {
    let (rest, pem) = match x509_parser::pem::parse_x509_pem(bytes) {
        Ok(parsed) => parsed,
        Err(_) => return Some("PEM block type must be CERTIFICATE REQUEST".to_owned()),
    };
    if pem.label != "CERTIFICATE REQUEST" {
        return Some("PEM block type must be CERTIFICATE REQUEST".to_owned());
    }
    if !rest.iter().all(u8::is_ascii_whitespace) {
        return Some("must contain a single PEM block".to_owned());
    }
    let parsed = x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents);
    parsed.err().map(|error| error.to_string())
}

fn check_signer(signer: &str, errors: &mut Vec<Invalid>) {
    let at = "spec.signerName";
    let Some((domain, path)) = signer.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        if signer.is_empty() {
            errors.push(Invalid::required(at, ""));
        } else {
            let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.push(Invalid::value(at, &json!(signer), why));
        }
        return;
    };
    for why in slipway_api::name::dns1123_subdomain(domain) {
        errors.push(Invalid::value(at, &json!(domain), &format!("validating label {domain:?}: {why}")));
    }
    if !domain.contains('.') {
        errors.push(Invalid::value(at, &json!(domain), "should be a domain with at least two segments separated by dots"));
    }
    for why in path.split('.').flat_map(slipway_api::name::dns1123_label) {
        errors.push(Invalid::value(at, &json!(path), &format!("validating label {path:?}: {why}")));
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde_json::{Value, json};

    fn request(spec: Value) -> Value {
        let mut it = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "r"},
            "spec": {"signerName": "kubernetes.io/kubelet-serving", "usages": ["server auth"]}});
        it["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        it
    }

    fn signed() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let request = rcgen::CertificateParams::new(vec!["n1".to_owned()]).unwrap().serialize_request(&key).unwrap();
        STANDARD.encode(request.pem().unwrap())
    }

    #[test]
    fn requests_are_read() {
        let strategy = Builtin::<super::CertificateSigningRequest>::new();
        let texts = |it: Value| {
            let errors = strategy.validate(&it);
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>()
        };
        assert_eq!(texts(request(json!({"request": signed()}))), Vec::<String>::new());
        assert_eq!(
            texts(request(json!({"request": "bm9wZQ==", "usages": [], "signerName": "nope", "expirationSeconds": 5}))),
            [
                "spec.request: Invalid value: \"bm9wZQ==\": PEM block type must be CERTIFICATE REQUEST",
                "spec.usages: Required value: usages is required",
                "spec.signerName: Invalid value: \"nope\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
                "spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)",
            ]
        );
    }

    #[test]
    fn a_signer_does_not_decide() {
        let strategy = Builtin::<super::CertificateSigningRequest>::new();
        let mut old = request(json!({"request": signed()}));
        old["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        let mut new = old.clone();
        new["spec"]["signerName"] = json!("a.b/c");
        new["status"] = json!({"certificate": "YQ==", "conditions": [{"type": "Denied", "status": "True"}]});
        strategy.prepare_status_update(&mut new, &old);
        assert_eq!(new["status"]["conditions"], json!([{"type": "Approved", "status": "True"}]));
        assert_eq!(new["spec"], old["spec"]);
        assert_eq!(strategy.validate_status_update(&new, &old), []);
        let row = strategy.row(&new, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[5], "Approved,Issued");
        assert_eq!(strategy.validate_status_update(&old, &new)[0].field, "status.certificate");
    }
}
