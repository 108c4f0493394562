//! An issuer's keys: found by its discovery document, kept, and fetched anew when they are old or one is missing.

use super::JwtIssuer;
use super::fetch;
use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

/// A key that the issuer has withdrawn is believed no longer than this.
const FRESH: Duration = Duration::from_secs(600);
/// Tokens with made-up keys don't make the server ask more often.
const ASK_EVERY: Duration = Duration::from_secs(1);
const KEYS_MAX: usize = 100;

pub(super) struct Keys {
    url: String,
    discovery: String,
    tls: TlsConnector,
    known: ArcSwapOption<Set>,
    /// When the issuer was last asked, and what it was that went wrong.
    asked: Mutex<Option<(Instant, Option<String>)>>,
}

/// A JSON web key set.
pub(super) struct Set {
    keys: Vec<(Option<String>, Jwk, DecodingKey)>,
    since: Instant,
}

impl Keys {
    pub(super) fn new(rules: &JwtIssuer) -> Result<Self, String> {
        let at_issuer = || format!("{}/.well-known/openid-configuration", rules.url.trim_end_matches('/'));
        Ok(Keys {
            url: rules.url.clone(),
            discovery: rules.discovery_url.clone().unwrap_or_else(at_issuer),
            tls: fetch::tls(rules.certificate_authority.as_deref())?,
            known: ArcSwapOption::empty(),
            asked: Mutex::new(None),
        })
    }

    /// What is known; asked for if nothing is, or it is old. An issuer that does not answer does not make what is known
    /// worthless.
    pub(super) async fn get(&self) -> Result<Arc<Set>, String> {
        match self.known.load_full() {
            Some(set) if set.since.elapsed() < FRESH => Ok(set),
            Some(old) => Ok(self.ask(old.since).await.ok().flatten().unwrap_or(old)),
            None => self.ask(Instant::now()).await?.ok_or_else(|| "oidc: authenticator not initialized".to_owned()),
        }
    }

    /// Asks for keys that came since; `None`: the issuer was asked only just now.
    pub(super) async fn newer(&self) -> Result<Option<Arc<Set>>, String> {
        let since = self.known.load_full().map_or_else(Instant::now, |set| set.since);
        self.ask(since).await
    }

    /// One asks for all that wait. `seen` is when the caller's keys are from.
    async fn ask(&self, seen: Instant) -> Result<Option<Arc<Set>>, String> {
        let mut asked = self.asked.lock().await;
        if let Some(set) = self.known.load_full()
            && set.since > seen
        {
            return Ok(Some(set));
        }
        if let Some((at, why)) = &*asked
            && at.elapsed() < ASK_EVERY
        {
            return why.clone().map_or(Ok(None), Err);
        }
        let fetched = self.fetch().await;
        *asked = Some((Instant::now(), fetched.as_ref().err().cloned()));
        match fetched {
            Ok(set) => {
                let set = Arc::new(set);
                self.known.store(Some(Arc::clone(&set)));
                Ok(Some(set))
            }
            Err(why) => {
                tracing::warn!(issuer = self.url, why, "the keys of an OpenID issuer could not be fetched");
                Err(why)
            }
        }
    }

    async fn fetch(&self) -> Result<Set, String> {
        let document = fetch::json(&self.tls, &self.discovery).await.map_err(|why| format!("oidc: {why}"))?;
        if document["issuer"] != self.url.as_str() {
            let (expected, got) = (&self.url, &document["issuer"]);
            return Err(format!("oidc: issuer did not match the issuer returned by provider, expected {expected:?} got {got}"));
        }
        let url = document["jwks_uri"].as_str().ok_or("oidc: the discovery document has no jwks_uri")?;
        let keys = fetch::json(&self.tls, url).await.map_err(|why| format!("oidc: {why}"))?;
        Ok(Set::read(&keys))
    }
}

impl Set {
    /// Keys that cannot be read, or are not for signatures, are left out.
    pub(super) fn read(document: &Value) -> Self {
        let list = document["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        let keys = list.iter().take(KEYS_MAX).filter_map(|value| {
            let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
            let encrypts = matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption));
            // A secret that is published signs nothing.
            let symmetric = matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
            let key = DecodingKey::from_jwk(&jwk).ok().filter(|_| !encrypts && !symmetric)?;
            Some((jwk.common.key_id.clone(), jwk, key))
        });
        Set { keys: keys.collect(), since: Instant::now() }
    }

    /// The keys that may have signed: of this id if the token names one, and for this algorithm.
    pub(super) fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &DecodingKey> {
        let fits = move |jwk: &Jwk, key: &DecodingKey| {
            let named = jwk.common.key_algorithm.is_none_or(|of| format!("{of:?}") == format!("{algorithm:?}"));
            named && key.family().algorithms().contains(&algorithm)
        };
        let of_id = move |own: &Option<String>| id.is_none() || own.is_none() || own.as_deref() == id;
        self.keys.iter().filter(move |(own, jwk, key)| of_id(own) && fits(jwk, key)).map(|(.., key)| key)
    }
}
