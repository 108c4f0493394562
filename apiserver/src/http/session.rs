//! Sessions of the dashboard: a one-time code, exchanged for a bearer token that lasts for a working day.
//!
//! They live in this process alone: who was signed in when it restarts signs in again.

use crate::http::authenticate::User;
use crate::http::error::Status;
use crate::server::ApiServer;
use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use rand::RngExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// The link is used by a person who has just read it.
const CODE_LIFE: SignedDuration = SignedDuration::from_hours(1);
const SESSION_LIFE: SignedDuration = SignedDuration::from_hours(12);
/// Codes and sessions kept at most, each; the oldest goes first.
const KEPT_MAX: usize = 1_000;

type Hash = [u8; 32];

/// What is kept is a hash: neither codes nor tokens can be read out of the process.
#[derive(Default)]
pub struct Sessions {
    codes: Mutex<HashMap<Hash, (User, Timestamp)>>,
    sessions: Mutex<HashMap<Hash, (User, Timestamp)>>,
}

impl Sessions {
    /// A code that signs `user` in, once.
    pub fn issue_code(&self, user: User, now: Timestamp) -> String {
        keep(&self.codes, user, now, CODE_LIFE)
    }

    /// A session's token for a code, which is used up by that.
    pub fn redeem(&self, code: &str, now: Timestamp) -> Option<String> {
        let (user, until) = self.codes.lock().remove(&hash(code))?;
        (now < until).then(|| keep(&self.sessions, user, now, SESSION_LIFE))
    }

    /// Who a session's token stands for.
    pub fn user(&self, token: &str, now: Timestamp) -> Option<User> {
        let sessions = self.sessions.lock();
        let (user, until) = sessions.get(&hash(token))?;
        (now < *until).then(|| user.clone())
    }

    /// Forgets a session.
    pub fn end(&self, token: &str) {
        self.sessions.lock().remove(&hash(token));
    }
}

fn keep(map: &Mutex<HashMap<Hash, (User, Timestamp)>>, user: User, now: Timestamp, life: SignedDuration) -> String {
    let secret = URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; 32]>());
    let mut map = map.lock();
    map.retain(|_, (_, until)| now < *until);
    if map.len() >= KEPT_MAX
        && let Some(oldest) = map.iter().min_by_key(|(_, (_, until))| *until).map(|(hash, _)| *hash)
    {
        map.remove(&oldest);
    }
    map.insert(hash(&secret), (user, now.saturating_add(life).unwrap_or(now)));
    secret
}

fn hash(secret: &str) -> Hash {
    Sha256::digest(secret).into()
}

/// `POST /dashboard/session` with `{"code": …}`: answers `{"token": …}`.
pub async fn redeem(State(server): State<Arc<ApiServer>>, Json(body): Json<Value>) -> Result<Json<Value>, Status> {
    let code = body["code"].as_str().unwrap_or_default();
    let token = server.sessions.redeem(code, server.now()).ok_or_else(Status::unauthorized)?;
    Ok(Json(json!({"token": token})))
}

/// `DELETE /dashboard/session` with a session's token: nobody is signed in by it any more. Of another token it takes no notice.
pub async fn end(State(server): State<Arc<ApiServer>>, headers: HeaderMap) -> Json<Value> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Some(token) = authorization.strip_prefix("Bearer ") {
        server.sessions.end(token.trim());
    }
    Json(json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_signs_in_once_and_a_session_ends() {
        let (sessions, now) = (Sessions::default(), Timestamp::UNIX_EPOCH);
        let code = sessions.issue_code(User::admin(), now);
        let token = sessions.redeem(&code, now).unwrap();
        assert_eq!(sessions.redeem(&code, now), None);
        assert_eq!(sessions.user(&token, now), Some(User::admin()));
        assert_eq!(sessions.user(&token, now + SESSION_LIFE), None);
        assert_eq!(sessions.user(&code, now), None);
    }

    #[test]
    fn a_session_that_was_ended_is_nobodys() {
        let (sessions, now) = (Sessions::default(), Timestamp::UNIX_EPOCH);
        let token = sessions.redeem(&sessions.issue_code(User::admin(), now), now).unwrap();
        sessions.end("another");
        assert!(sessions.user(&token, now).is_some());
        sessions.end(&token);
        assert_eq!(sessions.user(&token, now), None);
    }

    #[test]
    fn a_code_that_was_not_used_in_time_is_refused() {
        let (sessions, now) = (Sessions::default(), Timestamp::UNIX_EPOCH);
        let code = sessions.issue_code(User::admin(), now);
        assert_eq!(sessions.redeem(&code, now + CODE_LIFE), None);
    }
}
