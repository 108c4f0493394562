//! Certificate requests: who may approve and sign for which signer, and what nobody may be granted.

use super::{AdmissionContext, Operation, Plugin};
use crate::authorization::{Attributes, decide};
use crate::http::authenticate::User;
use crate::http::error::Status;
use crate::verbs::Target;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use x509_parser::prelude::FromDer;

const GROUP: &str = "certificates.k8s.io";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

pub(super) struct Certificate;

#[async_trait]
impl Plugin for Certificate {
    async fn validate(&self, context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
        let names = context.strategy.names();
        if (names.group, names.plural) != (GROUP, "certificatesigningrequests") {
            return Ok(());
        }
        match (context.operation, context.subresource) {
            // A certificate of that group could not be taken back by any binding.
            (Operation::Create, "") if object["spec"]["signerName"] == CLIENT && asks_for_masters(&object["spec"]["request"]) => {
                let why = format!("use of {CLIENT} signer with {} group is not allowed", User::MASTERS);
                Err(context.forbidden(object, &why))
            }
            (Operation::Update, "status") => {
                let signs = |field: &str| context.old.is_some_and(|old| old["status"].get(field) != object["status"].get(field));
                if !signs("certificate") && !signs("conditions") {
                    return Ok(());
                }
                let target = Target::new(context.server, context.strategy, context.user, context.namespace, context.name);
                check_signer(&target, "sign", context.old.unwrap_or(object))
            }
            _ => Ok(()),
        }
    }
}

/// Whether the user may `approve` or `sign` what `request` asks of its signer: by its name or, for all of a domain, by
/// `example.com/*`.
pub fn check_signer(target: &Target<'_>, verb: &'static str, request: &Value) -> Result<(), Status> {
    let signer = request["spec"]["signerName"].as_str().unwrap_or_default();
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    let may = |name: &str| {
        let asked = Attributes { name, ..Attributes::resource(verb, GROUP, "signers") };
        decide(target.server, target.user, &asked).allowed
    };
    if may(signer) || may(&domain) {
        return Ok(());
    }
    let plural = target.strategy.names().plural;
    let message = format!(
        "{plural}.{GROUP} {:?} is forbidden: user not permitted to {verb} requests with signerName {signer:?}",
        target.name
    );
    Err(Status::forbidden(message).with_details(json!({"name": target.name, "group": GROUP, "kind": plural})))
}

fn asks_for_masters(request: &Value) -> bool {
    let Some(pem) = request.as_str().and_then(|text| STANDARD.decode(text).ok()) else { return false };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&pem) else { return false };
    let Ok((_, parsed)) = x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents) else {
        return false;
    };
    let mut groups = parsed.certification_request_info.subject.iter_organization();
    groups.any(|group| group.as_str() == Ok(User::MASTERS))
}
