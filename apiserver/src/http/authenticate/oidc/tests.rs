use super::claims::user;
use super::keys::Set;
use super::*;
use jsonwebtoken::{EncodingKey, Header};
use proptest::prelude::*;
use serde_json::json;

const OWN: &str = "https://kubernetes.default.svc.cluster.local";

fn rules(rest: &Value) -> Result<JwtIssuer, String> {
    let mut jwt = json!({
        "issuer": {"url": "https://issuer", "audiences": ["me"]},
        "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
    });
    json_patch::merge(&mut jwt, rest);
    let file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [jwt]});
    let issuers = JwtIssuer::parse(&file.to_string(), OWN).map_err(|error| error.to_string())?;
    Ok(issuers.into_iter().next().unwrap())
}

fn mapped(rest: &Value, claims: Value) -> Result<super::super::User, String> {
    user(&rules(rest).unwrap(), claims.as_object().unwrap())
}

#[test]
fn claims_say_who_it_is() {
    let rest = json!({"claimMappings": {
        "username": {"claim": "name", "prefix": "oidc:"}, "groups": {"claim": "roles", "prefix": "r:"}, "uid": {"claim": "sub"},
        "extra": [{"key": "acme.io/tenant", "valueExpression": "claims.tenant"}],
    }});
    let found = mapped(&rest, json!({"name": "jane", "roles": ["a", "b"], "sub": "u", "jti": "7", "tenant": "t"})).unwrap();
    assert_eq!((found.name.as_str(), found.uid.as_str()), ("oidc:jane", "u"));
    assert_eq!(found.groups, ["r:a", "r:b", "system:authenticated"]);
    assert_eq!(found.extra["acme.io/tenant"], ["t"]);
    assert_eq!(found.extra["authentication.kubernetes.io/credential-id"], ["JTI=7"]);
    let one = mapped(&rest, json!({"name": "jane", "roles": "a", "sub": "u", "tenant": ""})).unwrap();
    assert_eq!((one.groups, one.extra.len()), (vec!["r:a".to_owned(), "system:authenticated".to_owned()], 0));
    for wrong in [
        json!({"sub": "u", "tenant": ""}),
        json!({"name": "", "sub": "u", "tenant": ""}),
        json!({"name": 7, "sub": "u", "tenant": ""}),
        json!({"name": "jane", "tenant": ""}),
        json!({"name": "jane", "sub": "u"}),
        json!({"name": "jane", "sub": "u", "tenant": "", "roles": 7}),
        json!({"name": "jane", "sub": "u", "tenant": "", "roles": ["a", 7]}),
    ] {
        assert!(mapped(&rest, wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn an_address_counts_when_it_is_verified() {
    let rest = json!({"claimMappings": {"username": {"claim": "email"}}});
    let name = |claims: Value| mapped(&rest, claims).map(|user| user.name);
    assert_eq!(name(json!({"email": "a@b", "email_verified": true})).as_deref(), Ok("a@b"));
    assert_eq!(name(json!({"email": "a@b"})).as_deref(), Ok("a@b"));
    assert_eq!(name(json!({"email": "a@b", "email_verified": false})), Err("oidc: email not verified".into()));
    assert_eq!(name(json!({"email": "a@b", "email_verified": "true"})), Err("oidc: email not verified".into()));
    let by_expression = json!({"claimMappings": {"username": {"claim": null, "prefix": null, "expression": "claims.email"}}});
    assert!(rules(&by_expression).unwrap_err().contains("claims.email_verified must be used"));
}

#[test]
fn expressions_map_and_refuse() {
    let rest = json!({
        "claimMappings": {
            "username": {"claim": null, "prefix": null, "expression": "'x:' + claims.sub"},
            "groups": {"expression": "claims.roles.split(',')"},
        },
        "claimValidationRules": [
            {"claim": "hd", "requiredValue": "example.com"},
            {"expression": "claims.exp - claims.nbf <= 86400", "message": "too long a life"},
        ],
        "userValidationRules": [{"expression": "!user.username.startsWith('x:system:')", "message": "reserved"}],
    });
    let claims = |sub: &str, hd: &str, exp: i64| json!({"sub": sub, "hd": hd, "exp": exp, "nbf": 0, "roles": "a,b,"});
    let found = mapped(&rest, claims("jane", "example.com", 100)).unwrap();
    assert_eq!((found.name.as_str(), found.groups.len()), ("x:jane", 3));
    let error = |claims: Value| mapped(&rest, claims).unwrap_err();
    assert!(error(claims("jane", "other.com", 100)).contains("required claim hd value does not match"));
    assert!(error(claims("jane", "example.com", 100_000)).ends_with("failed: too long a life"));
    assert!(error(claims("system:admin", "example.com", 100)).ends_with("failed: reserved"));
}

#[test]
fn a_wrong_configuration_is_refused() {
    for (rest, part) in [
        (json!({"issuer": {"url": "http://issuer"}}), "URL scheme must be https"),
        (json!({"issuer": {"url": OWN}}), "disallowed issuers"),
        (json!({"issuer": {"audiences": []}}), "at least one audience is required"),
        (json!({"issuer": {"audiences": ["a", "b"]}}), "must be MatchAny"),
        (json!({"issuer": {"discoveryURL": "https://issuer/"}}), "must be different from URL"),
        (json!({"claimMappings": {"username": {"claim": null, "prefix": null}}}), "claim or expression is required"),
        (json!({"claimMappings": {"username": {"prefix": null}}}), "prefix is required"),
        (json!({"claimMappings": {"groups": {"claim": "a", "expression": "b"}}}), "can't both be set"),
        (json!({"claimMappings": {"uid": {"expression": "claims."}}}), "compilation failed"),
        (json!({"claimMappings": {"extra": [{"key": "x.kubernetes.io/a", "valueExpression": "'a'"}]}}), "domain-prefixed"),
        (json!({"userValidationRules": [{"expression": "'a'"}]}), "must evaluate to bool"),
        (json!({"surprise": 1}), "surprise"),
    ] {
        let error = rules(&rest).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn flags_say_the_same_as_a_file() {
    let flags = || Flags { issuer_url: "https://issuer".into(), client_id: "me".into(), ..Flags::default() };
    let name = |flags: Flags, claims: Value| {
        user(&JwtIssuer::from_flags(flags).unwrap(), claims.as_object().unwrap()).map(|user| user.name)
    };
    assert_eq!(name(flags(), json!({"sub": "jane"})).as_deref(), Ok("https://issuer#jane"));
    assert_eq!(name(Flags { username_prefix: Some("-".into()), ..flags() }, json!({"sub": "jane"})).as_deref(), Ok("jane"));
    assert_eq!(name(Flags { username_claim: "email".into(), ..flags() }, json!({"email": "a@b"})).as_deref(), Ok("a@b"));
    let required = Flags { required_claims: [("hd".to_owned(), "x".to_owned())].into(), ..flags() };
    assert!(name(required.clone(), json!({"sub": "jane"})).is_err());
    assert!(name(required, json!({"sub": "jane", "hd": "x"})).is_ok());
    assert_eq!(JwtIssuer::from_flags(flags()).unwrap().algorithms, [Algorithm::RS256]);
    assert!(JwtIssuer::from_flags(Flags { signing_algorithms: vec!["HS256".into()], ..flags() }).is_err());
    assert!(JwtIssuer::from_flags(Flags { client_id: String::new(), ..flags() }).is_err());
}

#[test]
fn secrets_and_unreadable_keys_are_not_used() {
    let key = json!({"kty": "EC", "crv": "P-256", "kid": "a", "alg": "ES256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
    let mut encrypts = key.clone();
    encrypts["use"] = json!("enc");
    let set = Set::read(&json!({"keys": [key, encrypts, {"kty": "oct", "k": "c2VjcmV0", "kid": "a"}, {"kty": "?"}, 7]}));
    assert_eq!(set.candidates(Some("a"), Algorithm::ES256).count(), 1);
    assert_eq!(set.candidates(None, Algorithm::ES256).count(), 1);
    assert_eq!(set.candidates(Some("b"), Algorithm::ES256).count(), 0);
    assert_eq!(set.candidates(Some("a"), Algorithm::HS256).count(), 0);
    assert_eq!(set.candidates(Some("a"), Algorithm::ES384).count(), 0);
    assert_eq!(Set::read(&json!("no set")).candidates(None, Algorithm::ES256).count(), 0);
}

#[test]
fn time_and_audience_are_checked() {
    let issuer = Issuer {
        keys: Keys::new(&rules(&json!({"issuer": {"certificateAuthority": ca()}})).unwrap()).unwrap(),
        rules: rules(&json!({})).unwrap(),
    };
    let check = |claims: Value| issuer.check(claims.as_object().unwrap(), 1_000).err().unwrap_or_default();
    assert_eq!(check(json!({"iss": "https://issuer", "aud": "me", "exp": 1_001})), "");
    assert_eq!(check(json!({"iss": "https://issuer", "aud": ["you", "me"], "exp": 1_001.5, "nbf": 1_200})), "");
    for (claims, part) in [
        (json!({"iss": "https://other", "aud": "me", "exp": 1_001}), "another issuer"),
        (json!({"iss": "https://issuer", "aud": "you", "exp": 1_001}), "expected audience"),
        (json!({"iss": "https://issuer", "exp": 1_001}), "expected audience"),
        (json!({"iss": "https://issuer", "aud": "me", "exp": 1_000}), "expired"),
        (json!({"iss": "https://issuer", "aud": "me"}), "expired"),
        (json!({"iss": "https://issuer", "aud": "me", "exp": "9999"}), "expired"),
        (json!({"iss": "https://issuer", "aud": "me", "exp": 2_000, "nbf": 1_400}), "not before"),
        (json!({"iss": "https://issuer", "aud": "me", "exp": 2_000, "nbf": "soon"}), "not before"),
    ] {
        assert!(check(claims.clone()).contains(part), "{claims}");
    }
}

fn ca() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap().pem()
}

#[tokio::test]
async fn an_algorithm_that_is_no_signature_is_refused_before_any_key_is_asked_for() {
    let rules = rules(&json!({"issuer": {"certificateAuthority": ca()}})).unwrap();
    let issuer = Issuer { keys: Keys::new(&rules).unwrap(), rules };
    let now = jiff::Timestamp::UNIX_EPOCH;
    let secret = EncodingKey::from_secret(b"secret");
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &json!({"iss": "https://issuer"}), &secret).unwrap();
    assert!(issuer.verify(&token, now).await.unwrap_err().contains("unsupported algorithm"));
    // {"alg":"none"}
    assert_eq!(issuer.verify("eyJhbGciOiJub25lIn0.e30.", now).await, Err("oidc: malformed jwt".into()));
}

proptest! {
    #[test]
    fn any_text_is_a_configuration_or_refused(text in "\\PC{0,60}", deep in 0usize..300) {
        for jwt in [text.clone(), "[".repeat(deep), format!("[{{issuer: {{url: {text:?}, audiences: [{text:?}]}}, claimMappings: {{username: {{expression: {text:?}}}}}}}]"), "{a: ".repeat(deep)] {
            let _ = JwtIssuer::parse(&jwt, OWN);
            let _ = JwtIssuer::parse(&format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: {jwt}\n"), OWN);
        }
    }

    #[test]
    fn any_claims_make_a_user_or_none(name in ".*", roles in proptest::collection::vec(".{0,10}", 0..4), deep in 0..40_usize) {
        let mut nested = json!(name.clone());
        for _ in 0..deep {
            nested = json!([nested]);
        }
        let rest = json!({"claimMappings": {"groups": {"claim": "roles", "prefix": ""}}});
        let found = mapped(&rest, json!({"sub": name, "roles": roles, "other": nested}));
        prop_assert_eq!(found.is_ok(), !name.is_empty());
        prop_assert_eq!(mapped(&rest, json!({"sub": "a", "roles": nested})).is_ok(), deep <= 1);
    }
}
