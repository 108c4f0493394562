//! Tokens of service accounts: those that TokenRequest signs, and those that lie in Secrets.

use super::{CREDENTIAL_ID, Known, Outcome, User};
use crate::http::notes;
use crate::server::{ApiServer, find};
use crate::stored::{self, Entry, Snapshot};
use crate::subresources::token::{Claims, LEGACY_ISSUER, LegacyClaims, Named};
use crate::verbs::{Preconditions, Target, guaranteed_update};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a token is bound to counts as there for so long after it was to be gone, as in Kubernetes.
const DELETION_LEEWAY: SignedDuration = SignedDuration::from_secs(60);
const INVALIDATED: &str = "service account token has been invalidated";
const LEGACY_INVALIDATED: &str = "Token has been invalidated";
/// When a token in a Secret was last used, as a day; and that it was declared to be of no use any more.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

pub(super) async fn authenticate(server: &Arc<ApiServer>, token: &str, issuer: &str, audiences: &[String]) -> Outcome {
    let Some(signer) = &server.signer else { return Outcome::NotMine };
    if issuer == LEGACY_ISSUER {
        return match signer.verify_legacy(token) {
            Ok(claims) => legacy(server, token, &claims, audiences).await.into(),
            Err(why) => Outcome::Refused(why),
        };
    }
    if issuer != signer.issuer {
        return Outcome::NotMine;
    }
    let claims = match signer.verify(token, server.now()) {
        Ok(claims) => claims,
        Err(why) => return Outcome::Refused(why),
    };
    let (own, asked) = (&[server.options.service_account_issuer.clone()][..], audiences);
    let asked = if asked.is_empty() { own } else { asked };
    let good: Vec<String> = claims.aud.iter().filter(|audience| asked.contains(audience)).cloned().collect();
    if good.is_empty() {
        let why = format!("token audiences {:?} is invalid for the target audiences {asked:?}", claims.aud);
        return Outcome::Refused(why);
    }
    match bound(server, &claims).await {
        Ok(bound) => Outcome::Known(known(&claims, good, bound)),
        Err(why) => Outcome::Refused(why),
    }
}

/// What a token depends on: until when, and which objects at which revisions.
#[derive(Default)]
struct Bound {
    until: Option<Timestamp>,
    objects: Vec<(String, i64)>,
}

impl Bound {
    fn ends(&mut self, at: Timestamp) {
        self.until = Some(self.until.map_or(at, |until| until.min(at)));
    }
}

fn known(claims: &Claims, audiences: Vec<String>, mut bound: Bound) -> Known {
    let private = &claims.private;
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{}", private.namespace)];
    let mut user = User::new(&claims.sub, &groups);
    user.uid = private.serviceaccount.uid.clone();
    user.extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={}", claims.jti)]);
    for (what, named) in [("pod", &private.pod), ("node", &private.node)] {
        if let Some(named) = named {
            let mut extra = |key: &str, value: &String| {
                user.extra.insert(format!("authentication.kubernetes.io/{what}-{key}"), vec![value.clone()])
            };
            extra("name", &named.name);
            extra("uid", &named.uid);
        }
    }
    if let Ok(end) = Timestamp::from_second(claims.exp) {
        bound.ends(end);
    }
    Known { user, audiences, until: bound.until, bound: bound.objects }
}

/// The cache may not have seen a new account or pod yet: a refusal is final only once the store's newest state was read.
async fn bound(server: &ApiServer, claims: &Claims) -> Result<Bound, String> {
    match look(server, &server.snapshot(), claims) {
        Ok(bound) => Ok(bound),
        Err(_) => look(server, &server.cache.fresh().await.map_err(|error| error.to_string())?, claims),
    }
}

/// Whether the service account, and the pod, secret or node that the token is bound to, are still those that it was made
/// for.
fn look(server: &ApiServer, snapshot: &Snapshot, claims: &Claims) -> Result<Bound, String> {
    let private = &claims.private;
    let mut bound = Bound::default();
    let mut check = |plural: &str, namespace: &str, named: &Named| {
        live(server, snapshot, (plural, namespace, &named.name), &named.uid, &mut bound)
    };
    check("serviceaccounts", &private.namespace, &private.serviceaccount).map_err(|dead| match dead {
        Dead::Gone => format!("serviceaccounts {:?} not found", private.serviceaccount.name),
        Dead::Deleted => format!("service account {}/{} has been deleted", private.namespace, private.serviceaccount.name),
        Dead::Other(uid) => {
            format!("service account UID ({uid}) does not match claim ({})", private.serviceaccount.uid)
        }
    })?;
    let told = |what: &'static str, claim: &Named| {
        let claim = claim.uid.clone();
        move |dead: Dead| match dead {
            Dead::Gone | Dead::Deleted => INVALIDATED.to_owned(),
            Dead::Other(uid) => format!("{what} UID ({uid}) does not match service account {what} ref claim ({claim})"),
        }
    };
    if let Some(pod) = &private.pod {
        check("pods", &private.namespace, pod).map_err(told("pod", pod))?;
    }
    if let Some(secret) = &private.secret {
        check("secrets", &private.namespace, secret).map_err(told("secret", secret))?;
    }
    // A pod's token names its node too; only a token bound to the node alone ends with it.
    if let (None, Some(node)) = (&private.pod, &private.node) {
        check("nodes", "", node).map_err(told("node", node))?;
    }
    Ok(bound)
}

/// Why what a token is bound to does not count.
enum Dead {
    Gone,
    Deleted,
    /// There is another of that name, with this UID.
    Other(String),
}

/// Of an object, what a token depends on.
#[derive(Deserialize, Default)]
struct Identity {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    uid: String,
    deletion_timestamp: Option<Timestamp>,
}

type Place<'a> = (&'a str, &'a str, &'a str);

fn live(server: &ApiServer, snapshot: &Snapshot, place: Place<'_>, uid: &str, bound: &mut Bound) -> Result<(), Dead> {
    let entry = entry(server, snapshot, place).ok_or(Dead::Gone)?;
    let Identity { metadata } = serde_json::from_slice(&entry.bytes).map_err(|_| Dead::Gone)?;
    if let Some(deleted) = metadata.deletion_timestamp {
        let end = deleted.saturating_add(DELETION_LEEWAY).unwrap_or(deleted);
        if end < server.now() {
            return Err(Dead::Deleted);
        }
        bound.ends(end);
    }
    if metadata.uid != uid {
        return Err(Dead::Other(metadata.uid));
    }
    bound.objects.push((entry.key.to_string(), entry.mod_revision));
    Ok(())
}

fn entry(server: &ApiServer, snapshot: &Snapshot, (plural, namespace, name): Place<'_>) -> Option<Arc<Entry>> {
    let strategy = server.strategy("", "v1", plural)?;
    find(snapshot, &*strategy, namespace, name).cloned()
}

// === tokens that lie in Secrets ===

async fn legacy(server: &Arc<ApiServer>, token: &str, claims: &LegacyClaims, audiences: &[String]) -> Result<Known, String> {
    // Such a token names no audience: it is for this server alone.
    let own = &server.options.service_account_issuer;
    if !audiences.is_empty() && !audiences.contains(own) {
        return Err(format!("token audiences [{own:?}] is invalid for the target audiences {audiences:?}"));
    }
    let checked = match look_legacy(server, &server.snapshot(), token, claims) {
        Ok(checked) => checked,
        Err(_) => {
            let fresh = server.cache.fresh().await.map_err(|error| error.to_string())?;
            look_legacy(server, &fresh, token, claims)?
        }
    };
    let Checked { mut known, secret, generated } = checked;
    known.audiences = vec![own.clone()];
    notes::annotate("authentication.k8s.io/legacy-token", known.user.name.clone());
    if generated {
        notes::warn(
            "Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated \
             secret-based tokens.",
        );
    }
    note_use(server, claims, &secret);
    Ok(known)
}

struct Checked {
    known: Known,
    secret: Value,
    /// Whether the service account lists the Secret: those were made by controllers of old.
    generated: bool,
}

fn look_legacy(server: &ApiServer, snapshot: &Snapshot, token: &str, claims: &LegacyClaims) -> Result<Checked, String> {
    let mut bound = Bound::default();
    let namespace = claims.namespace.as_str();
    let found = entry(server, snapshot, ("secrets", namespace, &claims.secret)).ok_or(LEGACY_INVALIDATED)?;
    stored::check_readable(&found).map_err(|status| status.message)?;
    let secret: Value = serde_json::from_slice(&found.bytes).map_err(|_| LEGACY_INVALIDATED)?;
    if crate::verbs::object_meta::is_deleting(&secret) {
        return Err(LEGACY_INVALIDATED.into());
    }
    let kept = secret["data"]["token"].as_str().and_then(|text| STANDARD.decode(text).ok());
    if kept.as_deref() != Some(token.as_bytes()) {
        return Err("Token does not match server's copy".into());
    }
    if secret["metadata"]["labels"].get(INVALID_SINCE).is_some() {
        return Err(format!(
            "the token in secret {namespace}/{} for service account {namespace}/{} has been marked invalid. Use tokens from the \
             TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret \
             to temporarily allow use of this token",
            claims.secret, claims.account
        ));
    }
    bound.objects.push((found.key.to_string(), found.mod_revision));
    let place = ("serviceaccounts", namespace, claims.account.as_str());
    live(server, snapshot, place, &claims.uid, &mut bound).map_err(|dead| match dead {
        Dead::Gone => format!("serviceaccounts {:?} not found", claims.account),
        Dead::Deleted => format!("ServiceAccount {namespace}/{} has been deleted", claims.account),
        Dead::Other(uid) => format!("ServiceAccount UID ({uid}) does not match claim ({})", claims.uid),
    })?;
    let account = entry(server, snapshot, place).and_then(|entry| serde_json::from_slice::<Value>(&entry.bytes).ok());
    let listed = account.unwrap_or_default()["secrets"].as_array().cloned().unwrap_or_default();
    let generated = listed.iter().any(|one| one["name"] == claims.secret.as_str());
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")];
    let mut user = User::new(&claims.sub, &groups);
    (user.uid, user.extra) = (claims.uid.clone(), BTreeMap::new());
    let known = Known { user, audiences: vec![], until: bound.until, bound: bound.objects };
    Ok(Checked { known, secret, generated })
}

/// Writes the day on which the token was last used, once a day.
fn note_use(server: &Arc<ApiServer>, claims: &LegacyClaims, secret: &Value) {
    let day = server.now().strftime("%Y-%m-%d").to_string();
    if secret["metadata"]["labels"][LAST_USED] == day.as_str() {
        return;
    }
    let (server, namespace, name) = (Arc::clone(server), claims.namespace.clone(), claims.secret.clone());
    // The caller need not wait for it.
    tokio::spawn(async move {
        let Some(strategy) = server.strategy("", "v1", "secrets") else { return };
        let user = User::apiserver();
        let target = Target::new(&server, &*strategy, &user, &namespace, &name);
        let anything = Preconditions::default();
        let labelled = guaranteed_update(&target, &anything, |mut secret| {
            secret["metadata"]["labels"][LAST_USED] = day.as_str().into();
            Ok(secret)
        });
        if let Err(status) = labelled.await {
            tracing::debug!(status.message, "the use of a token could not be noted");
        }
    });
}
