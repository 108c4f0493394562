//! What a new machine is started with: the token by which it joins, and the script that does it.

use std::sync::Arc;

use rand::RngExt;
use slipway_api::{
    ByteString,
    core::{Secret, Taint},
    slipway::{CapacityType, LABEL_MACHINE, Machine, NodeClass},
};
use slipway_cloud::{Launch, Subnet, TAG_CLUSTER, TAG_OWNER, bootstrap};

use super::{super::Options, life::View};
use crate::{
    caches::Caches,
    plan::{Plan, Step},
    resource::Object,
};

pub(in crate::cloud) const NAMESPACE: &str = "kube-system";
const TOKEN_TYPE: &str = "bootstrap.kubernetes.io/token";
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The two halves of a bootstrap token.
pub struct Token {
    pub id: String,
    pub secret: String,
}

pub fn random_token() -> Token {
    let mut rng = rand::rng();
    let mut word =
        |length: usize| -> String { (0..length).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect() };
    Token { id: word(6), secret: word(16) }
}

/// The token that was made for the machine. Should there be several, always the same one is taken.
pub fn token_of(machine: &Machine, caches: &Caches) -> Option<Arc<Secret>> {
    caches.bootstrap_secrets.controlled_by(NAMESPACE, machine.uid()).into_iter().find(|secret| !secret.is_deleted())
}

/// Each machine has a token of its own, which lives no longer than the machine may take to join.
pub fn make_token(view: &View<'_>, token: &Token) -> Plan {
    let text = |text: &str| ByteString(text.as_bytes().to_vec());
    let expires = view.now + super::super::signed(view.options.registration_max);
    let mut secret = Secret { type_: Some(TOKEN_TYPE.into()), ..Secret::default() };
    secret.metadata.namespace = Some(NAMESPACE.into());
    secret.metadata.name = Some(format!("bootstrap-token-{}", token.id));
    secret.metadata.labels = Some([(LABEL_MACHINE.to_owned(), view.machine.name().to_owned())].into());
    secret.metadata.owner_references = Some(vec![view.machine.controller_reference()]);
    let data = [
        ("token-id", text(&token.id)),
        ("token-secret", text(&token.secret)),
        ("expiration", text(&expires.to_string())),
        ("usage-bootstrap-authentication", text("true")),
        ("description", text(&format!("for Machine {}", view.machine.name()))),
    ];
    secret.data = Some(data.map(|(name, value)| (name.to_owned(), value)).into());
    let mut plan = Plan::nothing();
    plan.push(Step::create(&secret));
    plan
}

/// The same Machine with the same token is always launched in the same way: so says the cloud's idempotency.
pub fn launch(machine: &Machine, class: &NodeClass, token: &Secret, subnets: &[Subnet], options: &Options) -> Launch {
    let read = |name: &str| {
        let bytes = token.data.as_ref().and_then(|data| data.get(name)).map(|bytes| bytes.0.as_slice()).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    let mut labels = machine.spec.labels.clone();
    labels.insert(LABEL_MACHINE.to_owned(), machine.name().to_owned());
    let join = bootstrap::Join {
        server: options.join_server.clone(),
        ca_pem: options.ca_pem.clone(),
        token: format!("{}.{}", read("token-id"), read("token-secret")),
        node_name: machine.name().to_owned(),
        labels,
        taints: machine.spec.taints.iter().chain(&machine.spec.startup_taints).map(taint).collect(),
        before: class.spec.user_data.clone(),
    };
    let mut tags = class.spec.tags.clone();
    tags.insert(TAG_CLUSTER.to_owned(), options.cluster.clone());
    tags.insert(TAG_OWNER.to_owned(), machine.uid().to_owned());
    Launch {
        token: machine.uid().to_owned(),
        name: machine.name().to_owned(),
        instance_type: machine.spec.instance_type.clone(),
        image: class.spec.image.clone(),
        zone: Some(machine.spec.zone.clone()),
        subnet: subnets.iter().find(|subnet| subnet.zone == machine.spec.zone).map(|subnet| subnet.id.clone()),
        spot: machine.spec.capacity_type == CapacityType::Spot,
        security_groups: class.spec.security_groups.clone(),
        instance_profile: class.spec.instance_profile.clone(),
        key_name: class.spec.key_name.clone(),
        user_data: bootstrap::user_data(&join),
        tags,
    }
}

fn taint(taint: &Taint) -> String {
    match taint.value.as_deref().filter(|value| !value.is_empty()) {
        Some(value) => format!("{}={value}:{}", taint.key, taint.effect),
        None => format!("{}:{}", taint.key, taint.effect),
    }
}
