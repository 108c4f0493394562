//! Tokens of service accounts, asked for pod by pod and renewed before they expire.

use jiff::{SignedDuration, Timestamp};
use kube::{Api, Client};
use parking_lot::Mutex;
use slipway_api::authentication::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use slipway_api::core::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use std::collections::HashMap;

const LIFETIME_DEFAULT: i64 = 3600;
/// Renewed when a fifth of its life is left, and daily at the latest.
const RENEW_AFTER_MAX: SignedDuration = SignedDuration::from_hours(24);

#[derive(Debug, Clone)]
pub struct Token {
    pub token: String,
    pub refresh_at: Timestamp,
}

/// By pod, audience and lifetime.
type Key = (String, String, i64);

#[derive(Debug, Default)]
pub struct Tokens(Mutex<HashMap<Key, Token>>);

impl Tokens {
    pub async fn get(&self, client: &Client, pod: &Pod, source: &ServiceAccountTokenProjection) -> Result<Token, String> {
        let now = Timestamp::now();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let audience = source.audience.clone().unwrap_or_default();
        let lifetime = source.expiration_seconds.unwrap_or(LIFETIME_DEFAULT);
        let key = (uid, audience, lifetime);
        let before = self.0.lock().get(&key).cloned();
        if let Some(token) = before.as_ref().filter(|token| token.refresh_at > now) {
            return Ok(token.clone());
        }
        match request(client, pod, source, lifetime, now).await {
            Ok(token) => {
                self.0.lock().insert(key, token.clone());
                Ok(token)
            }
            // The old one is still good for a while.
            Err(why) => before.ok_or(why),
        }
    }

    pub fn forget(&self, uid: &str) {
        self.0.lock().retain(|(of, ..), _| of != uid);
    }
}

async fn request(
    client: &Client,
    pod: &Pod,
    source: &ServiceAccountTokenProjection,
    lifetime: i64,
    now: Timestamp,
) -> Result<Token, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).filter(|name| !name.is_empty());
    let account = account.unwrap_or("default");
    let wanted = TokenRequest {
        metadata: Default::default(),
        spec: Some(TokenRequestSpec {
            audiences: source.audience.clone().filter(|audience| !audience.is_empty()).map(|audience| vec![audience]),
            expiration_seconds: Some(lifetime),
            bound_object_ref: Some(BoundObjectReference {
                kind: Some("Pod".into()),
                api_version: Some("v1".into()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            ..Default::default()
        }),
        status: None,
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let answer = accounts.create_token_request(account, &Default::default(), &wanted).await;
    let answer = answer.map_err(|error| format!("failed to fetch token: {error}"))?;
    let status = answer.status.ok_or("failed to fetch token: the answer has none")?;
    let (token, expires) = status.token.zip(status.expiration_timestamp).ok_or("failed to fetch token: the answer has none")?;
    let life = expires.0.duration_since(now);
    let renew_after = (life * 4 / 5).min(RENEW_AFTER_MAX);
    Ok(Token { token, refresh_at: now.saturating_add(renew_after).unwrap_or(now) })
}
