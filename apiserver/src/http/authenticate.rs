//! Who is asking: a proxy for somebody, a client certificate, a bearer token (static, of a session, of a joining node, of a
//! service account, or of another issuer), or nobody.

mod bootstrap_token;
pub mod certificate;
pub mod oidc;
pub mod request_header;
mod service_account;
mod verified;

pub use certificate::Peer;
pub use verified::Verified;

use crate::http::error::Status;
use crate::server::ApiServer;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header;
use http::request::Parts;
use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// In `extra`: by which credential the caller was known.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// Longer ones are not looked at. Tokens of other issuers may list many groups.
const TOKEN_BYTES_MAX: usize = 64 * 1024;
const INVALID: &str = "invalid bearer token";
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
}

/// Where a connection comes from; the listener puts it into each request.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub std::net::SocketAddr);

/// What is known of a caller, and for how long.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub user: User,
    /// For whom the credential is good, of those that were asked for.
    pub audiences: Vec<String>,
    until: Option<Timestamp>,
    /// The objects that the credential depends on, by key and revision.
    bound: Vec<(String, i64)>,
}

impl Known {
    /// By a credential that is good for this server alone.
    fn here(server: &ApiServer, user: User) -> Self {
        Known { user, audiences: vec![server.options.service_account_issuer.clone()], until: None, bound: vec![] }
    }
}

/// What one way of proving who one is makes of a credential.
enum Outcome {
    NotMine,
    Refused(String),
    Known(Known),
}

impl From<Result<Known, String>> for Outcome {
    fn from(result: Result<Known, String>) -> Self {
        match result {
            Ok(known) => Outcome::Known(known),
            Err(why) => Outcome::Refused(why),
        }
    }
}

/// Who asks. A caller within the process has put a `User` into the request; nobody outside can. Without any credential
/// it is `system:anonymous`; a wrong credential is a 401. The credential is taken off the request, so that it goes no further.
pub async fn authenticate(server: &Arc<ApiServer>, parts: &mut Parts) -> Result<User, Status> {
    if let Some(user) = parts.extensions.get::<User>() {
        return Ok(user.clone());
    }
    let peer = parts.extensions.get::<Peer>().cloned();
    // A connection may outlive the certificate that it was opened with.
    let outlived = peer.as_ref().is_some_and(|peer| peer.not_after < server.now().as_second());
    let peer = peer.filter(|_| !outlived);
    if let (Some(rule), Some(peer)) = (&server.options.request_header, &peer)
        && let Some(user) = rule.user(peer, &parts.headers)
    {
        rule.strip(&mut parts.headers);
        return user;
    }
    if let Some(user) = peer.and_then(|peer| peer.user) {
        return Ok(user);
    }
    match token(parts) {
        Some(token) => match of_token(server, &token, &[]).await {
            Ok(known) => {
                parts.headers.remove(header::AUTHORIZATION);
                Ok(known.user)
            }
            Err(why) => {
                tracing::debug!(why, "a request could not be authenticated");
                Err(Status::unauthorized())
            }
        },
        None if outlived => Err(Status::unauthorized()),
        None => Ok(User::anonymous()),
    }
}

fn token(parts: &Parts) -> Option<String> {
    let text = |name| parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    if let Some(authorization) = text(header::AUTHORIZATION).next() {
        let (scheme, token) = authorization.trim_start().split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned()).filter(|token| !token.is_empty());
    }
    let protocols = text(header::SEC_WEBSOCKET_PROTOCOL).flat_map(|value| value.split(','));
    let encoded = protocols.map(str::trim).find_map(|protocol| protocol.strip_prefix(PROTOCOL_TOKEN))?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok().filter(|token| !token.is_empty())
}

/// Who a bearer token stands for, and for which of `audiences` it is good (empty: for this server). Else why not.
pub async fn of_token(server: &Arc<ApiServer>, token: &str, audiences: &[String]) -> Result<Known, String> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(INVALID.into());
    }
    let now = server.now();
    // What is not a service account's token is meant for this server alone.
    let here = audiences.is_empty() || audiences.contains(&server.options.service_account_issuer);
    if here && let Some(user) = of_secret(server, token, now) {
        return Ok(Known::here(server, user));
    }
    let hash = verified::hash(token, audiences);
    if let Some(known) = server.verified.find(&hash, &server.snapshot(), now) {
        return Ok(known);
    }
    let issuer = issuer(token);
    let outcome = match (bootstrap_token::parts(token), &issuer) {
        (Some((id, secret)), _) if here => bootstrap_token::authenticate(server, id, secret).await,
        (_, Some(issuer)) => match service_account::authenticate(server, token, issuer, audiences).await {
            Outcome::NotMine if here => server.jwt_issuers.authenticate(server, token, issuer).await,
            outcome => outcome,
        },
        _ => Outcome::NotMine,
    };
    match outcome {
        Outcome::Known(known) => {
            // The use of one that lies in a Secret is told of each time.
            if issuer.as_deref() != Some(crate::subresources::token::LEGACY_ISSUER) {
                server.verified.keep(hash, &known, now);
            }
            Ok(known)
        }
        Outcome::Refused(why) => Err(format!("[{INVALID}, {why}]")),
        Outcome::NotMine => Err(INVALID.into()),
    }
}

/// Tokens that mean nothing but what this server remembers of them.
fn of_secret(server: &ApiServer, token: &str, now: Timestamp) -> Option<User> {
    let hash = Sha256::digest(token);
    // Hashes are compared, so that the time it takes tells nothing of the token.
    let known = server.options.static_tokens.iter().find(|(known, _)| Sha256::digest(known) == hash);
    known.map(|(_, user)| user.clone()).or_else(|| server.sessions.user(token, now))
}

/// Who says that they have signed a JSON web token. Nothing is believed yet: it only tells whose key to try.
fn issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Payload {
        iss: String,
    }
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload: Payload = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    Some(payload.iss)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(name: &str, value: &str) -> Parts {
        http::Request::builder().header(name, value).body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_token_comes_in_a_header_or_as_a_protocol() {
        let bearer = |value| token(&parts("authorization", value));
        assert_eq!(bearer("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(bearer("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!((bearer("Bearer "), bearer("Bearer"), bearer("Basic abc"), bearer("")), (None, None, None, None));
        let protocol = format!("v4.channel.k8s.io, {PROTOCOL_TOKEN}{}", URL_SAFE_NO_PAD.encode("abc"));
        assert_eq!(token(&parts("sec-websocket-protocol", &protocol)).as_deref(), Some("abc"));
        assert_eq!(token(&parts("sec-websocket-protocol", &format!("{PROTOCOL_TOKEN}?"))), None);
    }

    proptest! {
        #[test]
        fn any_token_has_an_issuer_or_none(token in "[ -~]{0,60}", payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            issuer(&token);
            issuer(&format!("a.{}.b", URL_SAFE_NO_PAD.encode(payload)));
        }
    }
}
