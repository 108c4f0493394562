//! `serviceaccounts/token`: signs tokens for service accounts, and publishes the key that verifies them.

use crate::http::Call;
use crate::http::error::{Invalid, Status};
use crate::http::notes;
use crate::http::respond;
use crate::server::ApiServer;
use crate::verbs;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const EXPIRATION_DEFAULT: i64 = 3_600;
const EXPIRATION_MIN: i64 = 600;
const EXPIRATION_MAX: i64 = 1 << 32;
/// How far clocks of replicas may be apart.
const LEEWAY_SECONDS: u64 = 5;

/// What a service account's token says.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Claims {
    pub iss: String,
    pub sub: String,
    pub aud: Vec<String>,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub private: Private,
}

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Private {
    pub namespace: String,
    pub serviceaccount: Named,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pod: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub secret: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<Named>,
}

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    pub uid: String,
}

/// Who is said to have signed the tokens that lie in Secrets.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// What such a token says.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct LegacyClaims {
    pub sub: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub uid: String,
}

/// The key that signs and verifies, with its public half as a JSON web key.
pub struct Signer {
    encoding: EncodingKey,
    decoding: DecodingKey,
    key_id: String,
    jwk: Value,
    pub issuer: String,
}

impl Signer {
    /// `key_pem` is an EC P-256 key in PKCS#8.
    pub fn new(key_pem: &str, issuer: &str) -> Result<Self, String> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| error.to_string())?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der());
        let pair = pair.map_err(|error| error.to_string())?;
        // An uncompressed point: 4, then the two coordinates of 32 bytes each.
        let point = pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(point));
        let encoding = EncodingKey::from_ec_pem(key_pem.as_bytes()).map_err(|error| error.to_string())?;
        let decoding = DecodingKey::from_ec_components(&x, &y).map_err(|error| error.to_string())?;
        let jwk = json!({"use": "sig", "kty": "EC", "kid": key_id, "crv": "P-256", "alg": "ES256", "x": x, "y": y});
        Ok(Signer { encoding, decoding, key_id, jwk, issuer: issuer.to_owned() })
    }

    pub fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        header.typ = None;
        jsonwebtoken::encode(&header, claims, &self.encoding)
    }

    /// The claims of a token that this key signed, and that is not out of date. For whom it is good, and whether what it is
    /// bound to still exists, are other questions.
    pub fn verify(&self, token: &str, now: jiff::Timestamp) -> Result<Claims, String> {
        let claims: Claims = self.signed(token, &self.issuer)?;
        let (now, leeway) = (now.as_second(), LEEWAY_SECONDS as i64);
        if claims.exp + leeway < now {
            return Err("service account token has expired".into());
        }
        if claims.nbf - leeway > now {
            return Err("service account token is not valid yet".into());
        }
        Ok(claims)
    }

    /// The same of a token that lies in a Secret, and never expires.
    pub fn verify_legacy(&self, token: &str) -> Result<LegacyClaims, String> {
        self.signed(token, LEGACY_ISSUER)
    }

    fn signed<T: serde::de::DeserializeOwned>(&self, token: &str, issuer: &str) -> Result<T, String> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[issuer]);
        validation.set_required_spec_claims(&["iss"]);
        // The server's own clock is asked, and it knows for whom the token has to be.
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        let data = jsonwebtoken::decode::<T>(token, &self.decoding, &validation).map_err(|error| error.to_string())?;
        if data.header.crit.is_some() {
            return Err("the token has critical headers that are not known here".into());
        }
        Ok(data.claims)
    }
}

/// POST `serviceaccounts/NAME/token`.
pub async fn create(call: Call) -> Result<Response, Status> {
    let accept = call.accept()?;
    let dry_run = call.info.query.dry_run()?;
    let body = call.read_body().await?;
    let mut request = super::parse_body(call.content_type(), &body)?;
    let signer = call.server.signer.clone().ok_or_else(Status::no_such_path)?;
    check_name(&request, call.name(), call.namespace())?;
    let account = verbs::get_object(&call.server, &*call.strategy, call.namespace(), call.name()).await?;

    let seconds = match &request["spec"]["expirationSeconds"] {
        Value::Null => EXPIRATION_DEFAULT,
        value => value.as_i64().ok_or_else(|| Status::bad_request("spec.expirationSeconds must be an integer"))?,
    };
    let why = match seconds {
        s if s < EXPIRATION_MIN => Some("may not specify a duration less than 10 minutes"),
        s if s > EXPIRATION_MAX => Some("may not specify a duration larger than 2^32 seconds"),
        _ => None,
    };
    if let Some(why) = why {
        let error = Invalid::value("spec.expirationSeconds", &json!(seconds), why);
        return Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", &[error]));
    }
    let audiences: Vec<String> = match request["spec"]["audiences"].as_array() {
        Some(list) if !list.is_empty() => list.iter().filter_map(|one| one.as_str()).map(str::to_owned).collect(),
        _ => vec![signer.issuer.clone()],
    };
    let named = |object: &Value| Named {
        name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        uid: object["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
    };
    let mut private =
        Private { namespace: call.namespace().to_owned(), serviceaccount: named(&account), pod: None, secret: None, node: None };
    crate::admission::check_token(&call, &request)?;
    let bound = request["spec"]["boundObjectRef"].clone();
    if bound.is_object() {
        bind(&call, &bound, &mut private).await?;
    }
    let now = call.server.now();
    let expires = now.as_second() + seconds;
    let claims = Claims {
        iss: signer.issuer.clone(),
        sub: format!("system:serviceaccount:{}:{}", call.namespace(), call.name()),
        aud: audiences.clone(),
        iat: now.as_second(),
        nbf: now.as_second(),
        exp: expires,
        jti: uuid::Uuid::new_v4().to_string(),
        private,
    };
    notes::annotate("authentication.kubernetes.io/issued-credential-id", format!("JTI={}", claims.jti));
    let token = if dry_run { String::new() } else { signer.sign(&claims).map_err(|error| Status::internal(&error))? };
    let expires = jiff::Timestamp::from_second(expires).map_err(|error| Status::internal(&error))?;
    request["kind"] = "TokenRequest".into();
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["metadata"] = json!({
        "name": call.name(), "namespace": call.namespace(), "creationTimestamp": verbs::object_meta::timestamp(now),
    });
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = json!(seconds);
    request["status"] = json!({"token": token, "expirationTimestamp": verbs::object_meta::timestamp(expires)});
    Ok(respond::value(accept, StatusCode::CREATED, &request))
}

/// The request may name the account, but no other than the path does.
fn check_name(request: &Value, name: &str, namespace: &str) -> Result<(), Status> {
    let text = |field: &str| request["metadata"][field].as_str().unwrap_or_default();
    if !["", name].contains(&text("name")) {
        let own = text("name");
        return Err(Status::bad_request(format!("the name of the object ({own}) does not match the name on the URL ({name})")));
    }
    if !["", namespace].contains(&text("namespace")) {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(why));
    }
    Ok(())
}

/// Binds the token to a pod (and its node), a secret or a node, which must exist and be the one that is meant.
async fn bind(call: &Call, bound: &Value, private: &mut Private) -> Result<(), Status> {
    let text = |field: &str| bound[field].as_str().unwrap_or_default();
    let (kind, name, uid) = (text("kind"), text("name"), text("uid"));
    let (plural, namespace) = match (kind, text("apiVersion")) {
        ("Pod", "v1") => ("pods", call.namespace()),
        ("Secret", "v1") => ("secrets", call.namespace()),
        ("Node", "v1") => ("nodes", ""),
        (kind, version) => {
            return Err(Status::bad_request(format!("cannot bind token to object of type {version}, Kind={kind}")));
        }
    };
    let strategy = call.server.strategy("", "v1", plural).ok_or_else(|| Status::not_found("", plural, name))?.clone();
    let object = verbs::get_object(&call.server, &*strategy, namespace, name).await?;
    let current = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    if !uid.is_empty() && uid != current {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. \
             The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", kind, name, &why));
    }
    let named = Named { name: name.to_owned(), uid: current };
    match plural {
        "pods" => {
            let account = object["spec"]["serviceAccountName"].as_str().unwrap_or_default();
            if account != call.name() {
                let why = "cannot bind token for serviceaccount";
                let message = format!("{why} \"{}\" to pod running with different serviceaccount name.", call.name());
                return Err(Status::bad_request(message));
            }
            if let (Some(node), Some(nodes)) = (object["spec"]["nodeName"].as_str(), call.server.strategy("", "v1", "nodes")) {
                let found = verbs::get::get_cached(&call.server.snapshot(), &*nodes, "", node);
                let uid = found.and_then(|node| node["metadata"]["uid"].as_str().map(str::to_owned)).unwrap_or_default();
                private.node = Some(Named { name: node.to_owned(), uid });
            }
            private.pod = Some(named);
        }
        "secrets" => private.secret = Some(named),
        _ => private.node = Some(named),
    }
    Ok(())
}

// === what verifies tokens elsewhere ===

/// Answers `/openid/v1/jwks` and `/.well-known/openid-configuration`; `None` for any other path.
pub fn respond(server: &ApiServer, request: &Parts) -> Option<Result<Response, Status>> {
    let signer = server.signer.as_ref();
    let (content_type, document) = match (request.uri.path(), signer) {
        ("/openid/v1/jwks", Some(signer)) => ("application/jwk-set+json", json!({"keys": [signer.jwk]})),
        ("/.well-known/openid-configuration", Some(signer)) => {
            let base = match server.options.advertise {
                Some(address) => format!("https://{address}"),
                None => signer.issuer.clone(),
            };
            let document = json!({
                "issuer": signer.issuer, "jwks_uri": format!("{base}/openid/v1/jwks"),
                "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            });
            ("application/json", document)
        }
        _ => return None,
    };
    let mut response = Response::new(Body::from(document.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Some(Ok(response))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(exp: i64) -> Claims {
        let named = |name: &str| Named { name: name.into(), uid: "u".into() };
        Claims {
            iss: "https://issuer".into(),
            sub: "system:serviceaccount:a:b".into(),
            aud: vec!["x".into()],
            iat: 100,
            nbf: 100,
            exp,
            jti: "j".into(),
            private: Private {
                namespace: "a".into(),
                serviceaccount: named("b"),
                pod: Some(named("p")),
                secret: None,
                node: None,
            },
        }
    }

    #[test]
    fn a_token_is_what_was_signed_until_it_expires() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        let signer = Signer::new(&key, "https://issuer").unwrap();
        let token = signer.sign(&claims(1_000)).unwrap();
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        assert_eq!(signer.verify(&token, at(500)), Ok(claims(1_000)));
        assert!(signer.verify(&token, at(1_100)).is_err());
        assert!(signer.verify(&token, at(50)).is_err());
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        assert!(Signer::new(&other, "https://issuer").unwrap().verify(&token, at(500)).is_err());
        assert!(Signer::new(&key, "https://other").unwrap().verify(&token, at(500)).is_err());
    }
}
