//! OpenID Connect: tokens of other issuers, whose keys are fetched from them, and whose claims say who asks.

mod claims;
mod configuration;
mod fetch;
mod keys;

pub use configuration::{ConfigurationError, Flags, JwtIssuer};

use super::{Known, Outcome};
use crate::server::ApiServer;
use jsonwebtoken::{Algorithm, Validation};
use keys::Keys;
use serde_json::{Map, Value};

/// How far the issuer's clock may be ahead.
const NOT_BEFORE_LEEWAY_SECONDS: i64 = 300;

/// All issuers that are trusted besides the server itself.
#[derive(Default)]
pub struct Issuers(Vec<Issuer>);

struct Issuer {
    rules: JwtIssuer,
    keys: Keys,
}

impl Issuers {
    /// Nothing is fetched before the first token comes.
    pub fn new(rules: &[JwtIssuer]) -> Result<Self, String> {
        let issuer = |rules: &JwtIssuer| Ok(Issuer { keys: Keys::new(rules)?, rules: rules.clone() });
        Ok(Issuers(rules.iter().map(issuer).collect::<Result<_, String>>()?))
    }

    pub(super) async fn authenticate(&self, server: &ApiServer, token: &str, issuer: &str) -> Outcome {
        let Some(found) = self.0.iter().find(|one| one.rules.url == issuer) else { return Outcome::NotMine };
        match found.verify(token, server.now()).await {
            Ok(claims) => match claims::user(&found.rules, &claims) {
                Ok(user) => {
                    let until = number(&claims, "exp").and_then(|exp| jiff::Timestamp::from_second(exp).ok());
                    Outcome::Known(Known { until, ..Known::here(server, user) })
                }
                Err(why) => Outcome::Refused(why),
            },
            Err(why) => Outcome::Refused(why),
        }
    }
}

impl Issuer {
    /// The claims of a token that the issuer signed for us, and that is not out of date.
    async fn verify(&self, token: &str, now: jiff::Timestamp) -> Result<Map<String, Value>, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| "oidc: malformed jwt".to_owned())?;
        if !self.rules.algorithms.contains(&header.alg) {
            let allowed = &self.rules.algorithms;
            return Err(format!("oidc: id token signed with unsupported algorithm, expected {allowed:?} got {:?}", header.alg));
        }
        if header.crit.is_some() {
            return Err("oidc: the token has critical headers that are not known here".into());
        }
        let claims = self.signed(token, header.kid.as_deref(), header.alg).await?;
        self.check(&claims, now.as_second())?;
        Ok(claims)
    }

    /// The claims, if one of the issuer's keys signed them. A key that is not known yet is asked for.
    async fn signed(&self, token: &str, id: Option<&str>, algorithm: Algorithm) -> Result<Map<String, Value>, String> {
        let mut validation = Validation::new(algorithm);
        // What the claims say is checked afterwards, by the server's own clock.
        (validation.validate_exp, validation.validate_aud) = (false, false);
        validation.required_spec_claims.clear();
        let known = self.keys.get().await?;
        for (round, keys) in [Some(known), None].into_iter().enumerate() {
            let keys = match keys {
                Some(keys) => keys,
                None => match self.keys.newer().await? {
                    Some(keys) => keys,
                    None => break,
                },
            };
            for key in keys.candidates(id, algorithm) {
                if let Ok(data) = jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation) {
                    return Ok(data.claims);
                }
            }
            tracing::debug!(issuer = self.rules.url, round, "no key of the issuer verifies a token");
        }
        Err("oidc: verify token: failed to verify id token signature".into())
    }

    fn check(&self, claims: &Map<String, Value>, now: i64) -> Result<(), String> {
        if claims.get("iss").and_then(Value::as_str) != Some(&self.rules.url) {
            return Err("oidc: verify token: the token is of another issuer".into());
        }
        let audiences: Vec<&str> = match claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => vec![],
        };
        if !audiences.iter().any(|audience| self.rules.audiences.iter().any(|own| own == audience)) {
            return Err(format!("oidc: verify token: expected audience in {:?} got {audiences:?}", self.rules.audiences));
        }
        match number(claims, "exp") {
            Some(exp) if exp > now => {}
            _ => return Err("oidc: verify token: oidc: token is expired".into()),
        }
        let early = claims.contains_key("nbf") && number(claims, "nbf").is_none_or(|at| at > now + NOT_BEFORE_LEEWAY_SECONDS);
        if early {
            return Err("oidc: verify token: oidc: current time is before the nbf (not before) time".into());
        }
        Ok(())
    }
}

/// Seconds, of which there may be fractions.
fn number(claims: &Map<String, Value>, name: &str) -> Option<i64> {
    let value = claims.get(name)?;
    value.as_i64().or_else(|| value.as_f64().filter(|seconds| seconds.is_finite()).map(|seconds| seconds as i64))
}

#[cfg(test)]
mod tests;
