//! Which issuers are trusted, and what their claims mean: `AuthenticationConfiguration` of `apiserver.config.k8s.io`, or
//! the flags `--oidc-*`.

use crate::cel::{Environment, Program, Type};
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

const API_VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
const ISSUERS_MAX: usize = 64;
/// All that are signatures by a private key.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// One issuer, and how its tokens are read.
#[derive(Debug, Clone)]
pub struct JwtIssuer {
    pub(super) url: String,
    pub(super) discovery_url: Option<String>,
    /// PEM; `None`: the system's.
    pub(super) certificate_authority: Option<String>,
    pub(super) audiences: Vec<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) claim_rules: Vec<ClaimRule>,
    pub(super) username: Mapping,
    pub(super) groups: Option<Mapping>,
    pub(super) uid: Option<Mapping>,
    pub(super) extra: Vec<(String, Arc<Program>)>,
    pub(super) user_rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
pub(super) enum Mapping {
    Claim { name: String, prefix: String },
    Expression(Arc<Program>),
}

#[derive(Debug, Clone)]
pub(super) enum ClaimRule {
    Equals { name: String, value: String },
    Holds(Rule),
}

#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) program: Arc<Program>,
    pub(super) source: String,
    pub(super) message: String,
}

/// The flags `--oidc-*` of kube-apiserver.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub issuer_url: String,
    pub client_id: String,
    /// Empty: `sub`.
    pub username_claim: String,
    /// `None`: the issuer's URL and `#`, but for the claim `email`; `-`: none.
    pub username_prefix: Option<String>,
    pub groups_claim: Option<String>,
    pub groups_prefix: String,
    pub required_claims: BTreeMap<String, String>,
    /// PEM.
    pub ca: Option<String>,
    /// Empty: RS256.
    pub signing_algorithms: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct ConfigurationError {
    pub field: String,
    pub why: String,
}

fn wrong(field: impl Into<String>, why: impl Into<String>) -> ConfigurationError {
    ConfigurationError { field: field.into(), why: why.into() }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<Jwt>,
    #[serde(default)]
    anonymous: Option<serde_json::Value>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Jwt {
    issuer: IssuerEntry,
    claim_validation_rules: Vec<ClaimValidationRule>,
    claim_mappings: ClaimMappings,
    user_validation_rules: Vec<ValidationRule>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct IssuerEntry {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: Option<String>,
    certificate_authority: Option<String>,
    audiences: Vec<String>,
    audience_match_policy: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ClaimValidationRule {
    claim: String,
    required_value: String,
    expression: String,
    message: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ClaimMappings {
    username: PrefixedClaim,
    groups: PrefixedClaim,
    uid: PrefixedClaim,
    extra: Vec<ExtraMapping>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct PrefixedClaim {
    claim: String,
    prefix: Option<String>,
    expression: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ExtraMapping {
    key: String,
    value_expression: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ValidationRule {
    expression: String,
    message: String,
}

impl JwtIssuer {
    /// The issuers of an AuthenticationConfiguration, YAML or JSON. `own` is the server's own issuer.
    pub fn parse(text: &str, own: &str) -> Result<Vec<Self>, ConfigurationError> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| wrong("AuthenticationConfiguration", error.to_string()))?;
        if file.kind != "AuthenticationConfiguration" || !API_VERSIONS.contains(&file.api_version.as_str()) {
            return Err(wrong("kind", "expected AuthenticationConfiguration of apiserver.config.k8s.io/v1"));
        }
        if file.anonymous.is_some() {
            return Err(wrong("anonymous", "is not configurable: without a credential only health and version are served"));
        }
        if file.jwt.len() > ISSUERS_MAX {
            return Err(wrong("jwt", format!("must have at most {ISSUERS_MAX} items")));
        }
        let read = file.jwt.iter().enumerate().map(|(n, jwt)| issuer(&format!("jwt[{n}]"), jwt, own));
        let issuers: Vec<Self> = read.collect::<Result<_, _>>()?;
        for (n, issuer) in issuers.iter().enumerate() {
            if issuers[..n].iter().any(|other| other.url == issuer.url) {
                return Err(wrong(format!("jwt[{n}].issuer.url"), format!("Duplicate value: {:?}", issuer.url)));
            }
        }
        Ok(issuers)
    }

    /// What the flags say.
    pub fn from_flags(flags: Flags) -> Result<Self, ConfigurationError> {
        check_url("--oidc-issuer-url", &flags.issuer_url)?;
        if flags.client_id.is_empty() {
            return Err(wrong("--oidc-client-id", "must be set with --oidc-issuer-url"));
        }
        let name = if flags.username_claim.is_empty() { "sub".to_owned() } else { flags.username_claim };
        let prefix = match flags.username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) if !prefix.is_empty() => prefix.to_owned(),
            _ if name == "email" => String::new(),
            _ => format!("{}#", flags.issuer_url),
        };
        let by_name = |name: &String| {
            let found = ALGORITHMS.iter().find(|algorithm| format!("{algorithm:?}") == *name);
            found.copied().ok_or_else(|| wrong("--oidc-signing-algs", format!("{name:?} is not supported")))
        };
        let algorithms = match flags.signing_algorithms.as_slice() {
            [] => vec![Algorithm::RS256],
            names => names.iter().map(by_name).collect::<Result<_, _>>()?,
        };
        let required = flags.required_claims.into_iter().map(|(name, value)| ClaimRule::Equals { name, value });
        Ok(JwtIssuer {
            url: flags.issuer_url,
            discovery_url: None,
            certificate_authority: flags.ca,
            audiences: vec![flags.client_id],
            algorithms,
            claim_rules: required.collect(),
            username: Mapping::Claim { name, prefix },
            groups: flags.groups_claim.map(|name| Mapping::Claim { name, prefix: flags.groups_prefix }),
            uid: None,
            extra: vec![],
            user_rules: vec![],
        })
    }
}

fn check_url(field: &str, url: &str) -> Result<(), ConfigurationError> {
    let why = match url.parse::<http::Uri>() {
        _ if url.is_empty() => "URL is required",
        Ok(uri) if uri.scheme_str() != Some("https") => "URL scheme must be https",
        Ok(uri) if uri.query().is_some() || url.contains('#') => "URL must not contain a query or a fragment",
        Ok(uri) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            "URL must not contain a username or password"
        }
        Ok(_) => return Ok(()),
        Err(_) => "must be a URL",
    };
    Err(wrong(field, why))
}

fn issuer(field: &str, jwt: &Jwt, own: &str) -> Result<JwtIssuer, ConfigurationError> {
    let entry = &jwt.issuer;
    check_url(&format!("{field}.issuer.url"), &entry.url)?;
    if entry.url == own {
        return Err(wrong(format!("{field}.issuer.url"), "URL must not overlap with disallowed issuers: it is the server's own"));
    }
    if let Some(url) = &entry.discovery_url {
        check_url(&format!("{field}.issuer.discoveryURL"), url)?;
        if url.trim_end_matches('/') == entry.url.trim_end_matches('/') {
            return Err(wrong(format!("{field}.issuer.discoveryURL"), "discoveryURL must be different from URL"));
        }
    }
    if entry.audiences.is_empty() || entry.audiences.iter().any(String::is_empty) {
        return Err(wrong(format!("{field}.issuer.audiences"), "at least one audience is required, and none may be empty"));
    }
    let policy = entry.audience_match_policy.as_deref().unwrap_or_default();
    if !["", "MatchAny"].contains(&policy) || (entry.audiences.len() > 1 && policy.is_empty()) {
        return Err(wrong(format!("{field}.issuer.audienceMatchPolicy"), "must be MatchAny for multiple audiences"));
    }
    let mappings = &jwt.claim_mappings;
    let at = |rest: &str| format!("{field}.claimMappings.{rest}");
    let username = mapping(&at("username"), &mappings.username, true)?
        .ok_or_else(|| wrong(at("username"), "claim or expression is required"))?;
    check_verified_email(field, jwt)?;
    let extra = mappings.extra.iter().enumerate().map(|(n, one)| extra(&at(&format!("extra[{n}]")), one));
    let claim_rules = jwt.claim_validation_rules.iter().enumerate();
    let claim_rules = claim_rules.map(|(n, one)| claim_rule(&format!("{field}.claimValidationRules[{n}]"), one));
    let user_rules = jwt.user_validation_rules.iter().enumerate().map(|(n, one)| {
        let field = format!("{field}.userValidationRules[{n}].expression");
        rule(&field, &one.expression, &one.message, "user")
    });
    Ok(JwtIssuer {
        url: entry.url.clone(),
        discovery_url: entry.discovery_url.clone(),
        certificate_authority: entry.certificate_authority.clone().filter(|pem| !pem.is_empty()),
        audiences: entry.audiences.clone(),
        algorithms: ALGORITHMS.to_vec(),
        claim_rules: claim_rules.collect::<Result<_, _>>()?,
        username,
        groups: mapping(&at("groups"), &mappings.groups, true)?,
        uid: mapping(&at("uid"), &mappings.uid, false)?,
        extra: extra.collect::<Result<_, _>>()?,
        user_rules: user_rules.collect::<Result<_, _>>()?,
    })
}

/// An address that nobody has proven to be theirs is no name.
fn check_verified_email(field: &str, jwt: &Jwt) -> Result<(), ConfigurationError> {
    let expressions = jwt.claim_validation_rules.iter().map(|rule| &rule.expression);
    let extra = jwt.claim_mappings.extra.iter().map(|one| &one.value_expression);
    let username = &jwt.claim_mappings.username.expression;
    let uses = username.replace("claims.email_verified", "").contains("claims.email");
    let checks = expressions.chain(extra).chain([username]).any(|text| text.contains("claims.email_verified"));
    if uses && !checks {
        let why = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression \
                   or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";
        return Err(wrong(format!("{field}.claimMappings.username.expression"), why));
    }
    Ok(())
}

fn mapping(field: &str, one: &PrefixedClaim, prefixed: bool) -> Result<Option<Mapping>, ConfigurationError> {
    match (one.claim.as_str(), one.expression.as_str()) {
        ("", "") if one.prefix.is_some() => Err(wrong(format!("{field}.prefix"), "prefix can't be set when there is no claim")),
        ("", "") => Ok(None),
        ("", source) if one.prefix.is_some() => {
            Err(wrong(format!("{field}.prefix"), format!("prefix can't be set when expression {source:?} is set")))
        }
        ("", source) => Ok(Some(Mapping::Expression(compile(&format!("{field}.expression"), source, "claims")?))),
        (name, "") => match &one.prefix {
            None if prefixed => {
                Err(wrong(format!("{field}.prefix"), "prefix is required when claim is set. It can be set to \"\""))
            }
            prefix => Ok(Some(Mapping::Claim { name: name.to_owned(), prefix: prefix.clone().unwrap_or_default() })),
        },
        _ => Err(wrong(field, "claim and expression can't both be set")),
    }
}

fn extra(field: &str, one: &ExtraMapping) -> Result<(String, Arc<Program>), ConfigurationError> {
    let key = &one.key;
    let reserved = ["k8s.io", "kubernetes.io"].iter().any(|of| {
        let domain = key.split('/').next().unwrap_or_default();
        domain == *of || domain.ends_with(&format!(".{of}"))
    });
    if !key.contains('/') || key.to_lowercase() != *key || reserved {
        let why = "key must be a domain-prefixed path in small letters (as \"acme.io/foo\"), and not of k8s.io or kubernetes.io";
        return Err(wrong(format!("{field}.key"), why));
    }
    Ok((key.clone(), compile(&format!("{field}.valueExpression"), &one.value_expression, "claims")?))
}

fn claim_rule(field: &str, one: &ClaimValidationRule) -> Result<ClaimRule, ConfigurationError> {
    match (one.claim.as_str(), one.expression.as_str()) {
        ("", "") => Err(wrong(field, "claim or expression is required")),
        (name, "") if one.message.is_empty() => {
            Ok(ClaimRule::Equals { name: name.to_owned(), value: one.required_value.clone() })
        }
        ("", source) if one.required_value.is_empty() => {
            Ok(ClaimRule::Holds(rule(&format!("{field}.expression"), source, &one.message, "claims")?))
        }
        _ => Err(wrong(field, "claim goes with requiredValue, expression with message, and not both")),
    }
}

fn rule(field: &str, source: &str, message: &str, variable: &str) -> Result<Rule, ConfigurationError> {
    let program = compile(field, source, variable)?;
    if !matches!(program.output(), Type::Bool | Type::Dyn) {
        return Err(wrong(field, "must evaluate to bool"));
    }
    Ok(Rule { program, source: source.to_owned(), message: message.to_owned() })
}

fn compile(field: &str, source: &str, variable: &str) -> Result<Arc<Program>, ConfigurationError> {
    if source.is_empty() {
        return Err(wrong(field, "expression is required"));
    }
    let environment = Environment::new().variable(variable, Type::map(Type::String, Type::Dyn));
    Program::compile(source, &environment).map(Arc::new).map_err(|error| wrong(field, error.to_string()))
}
