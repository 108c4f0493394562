//! Who is asking: a client certificate, a bearer token (static, of a service account, or of a joining node), or nobody.

use crate::http::error::Status;
use crate::server::ApiServer;
use crate::verbs::get::get_cached;
use crate::verbs::object_meta::is_deleting;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header;
use http::request::Parts;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// A browser cannot set headers on a WebSocket: the token comes as a subprotocol of this name.
const PROTOCOL_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// A caller, however it was proven who they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub const MASTERS: &'static str = "system:masters";
    pub const AUTHENTICATED: &'static str = "system:authenticated";
    pub const UNAUTHENTICATED: &'static str = "system:unauthenticated";
    pub const NODES: &'static str = "system:nodes";
    pub const ANONYMOUS: &'static str = "system:anonymous";
    pub const BOOTSTRAPPERS: &'static str = "system:bootstrappers";

    pub fn new(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        groups.push(Self::AUTHENTICATED.to_owned());
        User { name: name.to_owned(), groups, ..User::default() }
    }

    /// Somebody who may do everything.
    pub fn admin() -> Self {
        Self::new("kubernetes-admin", &[Self::MASTERS])
    }

    /// The API server itself, as bootstrap and admission act.
    pub fn apiserver() -> Self {
        Self::new("system:apiserver", &[Self::MASTERS])
    }

    pub fn anonymous() -> Self {
        User { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()], ..User::default() }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The node's name, if this is a node agent.
    pub fn node(&self) -> Option<&str> {
        self.name.strip_prefix("system:node:").filter(|_| self.is_in("system:nodes"))
    }

    /// CN and O of a client certificate that was verified already.
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?;
        let groups: Vec<&str> = subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
        Some(Self::new(name, &groups))
    }
}

/// The verified client certificate of a connection; the listener puts it into each request.
#[derive(Debug, Clone)]
pub struct PeerUser(pub User);

/// Where a connection comes from; the listener puts it into each request.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub std::net::SocketAddr);

/// Who asks. A caller within the process has put a `User` into the request; nobody outside can. Without any credential
/// it is `system:anonymous`; a wrong credential is a 401.
pub async fn authenticate(server: &ApiServer, parts: &Parts) -> Result<User, Status> {
    if let Some(user) = parts.extensions.get::<User>() {
        return Ok(user.clone());
    }
    if let Some(PeerUser(user)) = parts.extensions.get::<PeerUser>() {
        return Ok(user.clone());
    }
    let Some(token) = token(parts) else { return Ok(User::anonymous()) };
    of_token(server, &token).await.ok_or_else(Status::unauthorized)
}

fn token(parts: &Parts) -> Option<String> {
    let text = |name| parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    if let Some(authorization) = text(header::AUTHORIZATION).next() {
        let (scheme, token) = authorization.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned());
    }
    let protocols = text(header::SEC_WEBSOCKET_PROTOCOL).flat_map(|value| value.split(','));
    let encoded = protocols.map(str::trim).find_map(|protocol| protocol.strip_prefix(PROTOCOL_TOKEN))?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

/// Who a bearer token stands for.
pub async fn of_token(server: &ApiServer, token: &str) -> Option<User> {
    let hash = Sha256::digest(token);
    // Hashes are compared, so that the time it takes tells nothing of the token.
    let known = server.options.static_tokens.iter().find(|(known, _)| Sha256::digest(known) == hash);
    if let Some((_, user)) = known {
        return Some(user.clone());
    }
    if let Some(user) = server.sessions.user(token, server.now()) {
        return Some(user);
    }
    if let Some((id, secret)) = bootstrap_parts(token) {
        return bootstrap(server, id, secret).await;
    }
    let (user, _) = of_service_account(server, token, &[&server.options.service_account_issuer]).await?;
    Some(user)
}

/// Who a token stands for, and for which of `audiences` it is good (empty: for this server).
pub async fn for_audiences(server: &ApiServer, token: &str, audiences: &[String]) -> Option<(User, Vec<String>)> {
    let own = &server.options.service_account_issuer;
    if audiences.is_empty() || audiences.contains(own) {
        // What is not a service account's token is meant for this server alone.
        let user = of_token(server, token).await;
        if let Some(user) = user {
            return Some((user, vec![own.clone()]));
        }
    }
    if audiences.is_empty() {
        return None;
    }
    let audiences: Vec<&str> = audiences.iter().map(String::as_str).collect();
    let (user, mut good) = of_service_account(server, token, &audiences).await?;
    good.retain(|audience| audiences.contains(&audience.as_str()));
    Some((user, good))
}

/// Whose token it is and for whom, if it was signed here for one of `audiences` and what it is bound to is still there.
async fn of_service_account(server: &ApiServer, token: &str, audiences: &[&str]) -> Option<(User, Vec<String>)> {
    let signer = server.signer.as_ref()?;
    let claims = signer.verify(token, audiences, server.now()).ok()?;
    // The cache may not have seen a new account or pod yet.
    if !claims.is_live(server, &server.snapshot()) && !claims.is_live(server, &server.cache.fresh().await.ok()?) {
        return None;
    }
    let bound = &claims.private;
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{}", bound.namespace)];
    let mut user = User::new(&claims.sub, &groups);
    user.uid = bound.serviceaccount.uid.clone();
    let mut extra = |key: &str, value: String| user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
    extra("credential-id", format!("JTI={}", claims.jti));
    for (what, named) in [("pod", &bound.pod), ("node", &bound.node)] {
        if let Some(named) = named {
            extra(&format!("{what}-name"), named.name.clone());
            extra(&format!("{what}-uid"), named.uid.clone());
        }
    }
    Some((user, claims.aud))
}

/// `[a-z0-9]{6}.[a-z0-9]{16}`
fn bootstrap_parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// A joining node's token: a Secret of type `bootstrap.kubernetes.io/token` in `kube-system`.
async fn bootstrap(server: &ApiServer, id: &str, secret: &str) -> Option<User> {
    let secrets = server.strategy("", "v1", "secrets")?;
    let name = format!("bootstrap-token-{id}");
    let find = |snapshot: &crate::stored::Snapshot| get_cached(snapshot, &*secrets, "kube-system", &name);
    let object = match find(&server.snapshot()) {
        Some(object) => object,
        None => find(&server.cache.fresh().await.ok()?)?,
    };
    bootstrap_user(&object, id, secret, server.now())
}

fn bootstrap_user(object: &Value, id: &str, secret: &str, now: jiff::Timestamp) -> Option<User> {
    let data = |key: &str| {
        let decoded = STANDARD.decode(object["data"][key].as_str()?).ok()?;
        String::from_utf8(decoded).ok()
    };
    let right = object["type"] == "bootstrap.kubernetes.io/token"
        && !is_deleting(object)
        && data("token-id").as_deref() == Some(id)
        && data("token-secret").is_some_and(|known| Sha256::digest(known) == Sha256::digest(secret))
        && data("usage-bootstrap-authentication").as_deref() == Some("true");
    let expired = data("expiration").is_some_and(|text| text.parse::<jiff::Timestamp>().map_or(true, |at| at <= now));
    if !right || expired {
        return None;
    }
    let further = data("auth-extra-groups").unwrap_or_default();
    let mut groups = vec![User::BOOTSTRAPPERS];
    groups.extend(further.split(',').map(str::trim).filter(|group| group.starts_with("system:bootstrappers:")));
    Some(User::new(&format!("system:bootstrap:{id}"), &groups))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_bootstrap_token_is_its_secret_until_it_expires() {
        let b64 = |text: &str| STANDARD.encode(text);
        let object = json!({"type": "bootstrap.kubernetes.io/token", "metadata": {}, "data": {
            "token-id": b64("abcdef"), "token-secret": b64("0123456789abcdef"),
            "usage-bootstrap-authentication": b64("true"), "expiration": b64("2026-01-02T00:00:00Z"),
            "auth-extra-groups": b64("system:bootstrappers:pool,system:masters"),
        }});
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        let user = bootstrap_user(&object, "abcdef", "0123456789abcdef", at("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, ["system:bootstrappers", "system:bootstrappers:pool", "system:authenticated"]);
        assert_eq!(bootstrap_user(&object, "abcdef", "0123456789abcdef", at("2026-01-02T00:00:00Z")), None);
        assert_eq!(bootstrap_user(&object, "abcdef", "0123456789abcdee", at("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn a_token_of_another_form_is_no_bootstrap_token() {
        assert!(bootstrap_parts("abcdef.0123456789abcdef").is_some());
        assert!(bootstrap_parts("ABCDEF.0123456789abcdef").is_none());
        assert!(bootstrap_parts("abcdef.0123").is_none());
    }
}
