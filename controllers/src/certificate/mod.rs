//! Certificate requests: approves those of node agents, signs what is approved, and clears away what is old.

mod request;
mod signer;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use slipway_api::{
    ByteString,
    certificates::{CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus},
    core::Node,
    jiff::{SignedDuration, Timestamp},
    meta::Time,
};

use crate::{
    access::Access,
    caches::Caches,
    plan::{Plan, Step},
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
};
use request::Request;
pub use signer::Signer;

pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// How long requests are kept: decided ones for whoever waits for them, pending ones for a person to decide.
const DECIDED_MAX: SignedDuration = SignedDuration::from_hours(1);
/// After how long it is asked again whether somebody may have a certificate: a binding may have come.
const REVIEW_AGAIN: Duration = Duration::from_secs(30);
const PENDING_MAX: SignedDuration = SignedDuration::from_hours(24);

pub struct Controller {
    pub signer: Option<Signer>,
    pub access: Box<dyn Access>,
}

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "certificate-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let own = queue.clone();
        caches.certificate_signing_requests.on_change(move |_, new| {
            if let Some(request) = new {
                own.add(request.key());
            }
        });
        // A serving certificate may be asked for before the node has told its addresses.
        let (of_nodes, weak) = (queue.clone(), Arc::downgrade(caches));
        caches.nodes.on_change(move |old, new| {
            let addresses = |node: &Arc<Node>| node.status.as_ref().and_then(|status| status.addresses.clone());
            if old.map(addresses) != new.map(addresses)
                && let Some(caches) = weak.upgrade()
            {
                let requests = caches.certificate_signing_requests.list();
                let pending = requests.iter().filter(|request| conditions(request).is_empty());
                pending
                    .filter(|request| request.spec.signer_name == KUBELET_SERVING)
                    .for_each(|request| of_nodes.add(request.key()));
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let caches = situation.caches;
        let Some(request) = caches.certificate_signing_requests.get(key) else { return Ok(Plan::nothing()) };
        let review = self.review(&request).await?;
        Ok(plan(&request, &review, self.signer.as_ref(), caches, situation.now))
    }
}

/// What the API server says of a request for a node's client certificate.
#[derive(Debug, PartialEq, Eq)]
enum Review {
    /// It is no such request, or it is decided already.
    NotAsked,
    /// With the message of the approval.
    Allowed(&'static str),
    Refused,
}

impl Controller {
    /// Asks whether the one who wants a node's client certificate may have it without anybody's look at it.
    async fn review(&self, csr: &CertificateSigningRequest) -> Result<Review, kube::Error> {
        let open = !csr.is_deleted() && conditions(csr).is_empty() && csr.spec.signer_name == KUBELET_CLIENT;
        let Some(request) = open.then(|| Request::parse(csr).ok()).flatten() else { return Ok(Review::NotAsked) };
        if request.check_for(KUBELET_CLIENT, csr).is_err() {
            return Ok(Review::NotAsked);
        }
        let own = csr.spec.username.as_deref() == Some(&request.common_name);
        if own && self.access.may_create("selfnodeclient", csr).await? {
            return Ok(Review::Allowed("Auto approving self kubelet client certificate after SubjectAccessReview."));
        }
        if self.access.may_create("nodeclient", csr).await? {
            return Ok(Review::Allowed("Auto approving kubelet client certificate after SubjectAccessReview."));
        }
        Ok(Review::Refused)
    }
}

fn plan(csr: &CertificateSigningRequest, review: &Review, signer: Option<&Signer>, caches: &Caches, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    if csr.is_deleted() {
        return plan;
    }
    let expires = expires_at(csr, now);
    if expires <= now {
        plan.push(Step::delete(csr, "it is too old"));
        return plan;
    }
    plan.again_at(now, expires);
    let parsed = Request::parse(csr);
    if conditions(csr).is_empty() {
        if *review == Review::Refused {
            plan.again_in(REVIEW_AGAIN);
        }
        if let Some(why) = parsed.as_ref().ok().and_then(|request| approval(csr, request, review, caches)) {
            let approved = with_condition(csr, "Approved", "AutoApproved", why.to_owned(), now);
            plan.push(Step::update_subresource(csr, &approved, "approval"));
        }
        return plan;
    }
    let issued = csr.status.as_ref().is_some_and(|status| status.certificate.is_some());
    let ours = [KUBELET_CLIENT, KUBELET_SERVING, CLIENT].contains(&csr.spec.signer_name.as_str());
    let Some(signer) = signer.filter(|_| is(csr, "Approved") && !is(csr, "Denied") && !is(csr, "Failed") && !issued && ours)
    else {
        return plan;
    };
    let signed = parsed.and_then(|request| {
        request.check_for(&csr.spec.signer_name, csr)?;
        signer.sign(csr, now)
    });
    let done = match signed {
        Ok(pem) => {
            let mut done = csr.clone();
            done.status.get_or_insert_default().certificate = Some(ByteString(pem.into_bytes()));
            done
        }
        Err(why) => with_condition(csr, "Failed", "SignerValidationFailure", why, now),
    };
    plan.push(Step::update_status(csr, &done));
    plan
}

fn conditions(csr: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    csr.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or(&[])
}

fn is(csr: &CertificateSigningRequest, type_: &str) -> bool {
    conditions(csr).iter().any(|condition| condition.type_ == type_)
}

fn with_condition(
    csr: &CertificateSigningRequest,
    type_: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> CertificateSigningRequest {
    let mut csr = csr.clone();
    let status: &mut CertificateSigningRequestStatus = csr.status.get_or_insert_default();
    status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: type_.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
    csr
}

fn expires_at(csr: &CertificateSigningRequest, now: Timestamp) -> Timestamp {
    let created = csr.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let decided = conditions(csr).iter().filter_map(|condition| condition.last_update_time.as_ref()).map(|time| time.0).max();
    match decided {
        // Approved, but not signed: the signer may come late.
        Some(_)
            if is(csr, "Approved")
                && csr.status.as_ref().is_none_or(|status| status.certificate.is_none())
                && !is(csr, "Failed") =>
        {
            created + PENDING_MAX
        }
        Some(at) => at + DECIDED_MAX,
        None => created + PENDING_MAX,
    }
}

/// Why the request is approved without asking anybody; `None` if a person has to decide.
fn approval(csr: &CertificateSigningRequest, request: &Request, review: &Review, caches: &Caches) -> Option<&'static str> {
    request.check_for(&csr.spec.signer_name, csr).ok()?;
    if let Review::Allowed(why) = review {
        return Some(why);
    }
    let user = csr.spec.username.as_deref().unwrap_or_default();
    let in_group = |group: &str| csr.spec.groups.iter().flatten().any(|known| known == group);
    let own = in_group("system:nodes") && user == request.common_name;
    match csr.spec.signer_name.as_str() {
        KUBELET_SERVING if own && names_are_its_own(request, caches) => {
            Some("Auto approving kubelet serving certificate for the node's own names.")
        }
        _ => None,
    }
}

/// Whether all names that a serving certificate is asked for are addresses of that node.
fn names_are_its_own(request: &Request, caches: &Caches) -> bool {
    let Some(name) = request.common_name.strip_prefix("system:node:") else { return false };
    let Some(node) = caches.nodes.get(&Key::new("", name)) else { return false };
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let mut own: Vec<String> = addresses.map(|address| address.address.clone()).collect();
    own.push(name.to_owned());
    request.names.iter().all(|name| own.contains(name))
}
