//! `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`, as Kubernetes' `--encryption-provider-config` reads it.

use super::{Encryption, Key, Provider, Resources, Rule};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";
/// As long as AES' keys may be.
const SECRET_BYTES: [usize; 3] = [16, 24, 32];

/// What is wrong with a configuration. Never shows a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct ConfigurationError {
    pub field: String,
    pub why: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct Keys {
    #[serde(default)]
    keys: Vec<NamedSecret>,
}

#[derive(Deserialize)]
struct NamedSecret {
    #[serde(default)]
    name: String,
    #[serde(default)]
    secret: String,
}

fn wrong(field: impl Into<String>, why: impl Into<String>) -> ConfigurationError {
    ConfigurationError { field: field.into(), why: why.into() }
}

impl Encryption {
    /// Reads a configuration, YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, ConfigurationError> {
        // The parser's own message may quote the line that it fails at, which may be a key.
        let file: File = serde_saphyr::from_str(text).map_err(|_| wrong(KIND, "it cannot be read as such"))?;
        if file.api_version != API_VERSION || file.kind != KIND {
            return Err(wrong("kind", format!("expected {KIND} of {API_VERSION}")));
        }
        if file.resources.is_empty() {
            return Err(wrong("resources", "at least one is required"));
        }
        let rules = file.resources.iter().enumerate().map(|(n, entry)| rule(&format!("resources[{n}]"), entry));
        Ok(Encryption { rules: rules.collect::<Result<_, _>>()?, ..Encryption::default() })
    }

    /// A configuration that seals Secrets under a new random key, and still reads those that were stored plainly.
    pub fn new_configuration(key_name: &str) -> String {
        let secret = STANDARD.encode(rand::random::<[u8; 32]>());
        let file = serde_json::json!({
            "apiVersion": API_VERSION, "kind": KIND,
            "resources": [{
                "resources": ["secrets"],
                "providers": [{"aesgcm": {"keys": [{"name": key_name, "secret": secret}]}}, {"identity": {}}],
            }],
        });
        // JSON is YAML, and every reader of such a file takes it.
        format!("{file:#}\n")
    }
}

fn rule(field: &str, entry: &Entry) -> Result<Rule, ConfigurationError> {
    if entry.resources.is_empty() {
        return Err(wrong(format!("{field}.resources"), "at least one is required"));
    }
    if entry.providers.is_empty() {
        return Err(wrong(format!("{field}.providers"), "at least one is required"));
    }
    let resources = entry.resources.iter().enumerate().map(|(n, text)| resources(&format!("{field}.resources[{n}]"), text));
    let providers = entry.providers.iter().enumerate().map(|(n, one)| provider(&format!("{field}.providers[{n}]"), one));
    Ok(Rule { resources: resources.collect::<Result<_, _>>()?, providers: providers.collect::<Result<_, _>>()? })
}

/// `secrets`, `deployments.apps`, `*.apps`, `*.` (the core group), `*.*`.
fn resources(field: &str, text: &str) -> Result<Resources, ConfigurationError> {
    let (plural, group) = text.split_once('.').unwrap_or((text, ""));
    match (plural, group) {
        ("", _) => Err(wrong(field, "a resource must have a name")),
        ("*", "*") => Ok(Resources::All),
        ("*", _) if !text.contains('.') => Err(wrong(field, "use '*.' for all of the core group and '*.*' for everything")),
        ("*", group) => Ok(Resources::Group(group.to_owned())),
        (plural, group) if plural.contains('*') || group.contains('*') || plural.contains('/') => {
            Err(wrong(field, format!("{text:?} is no resource")))
        }
        (plural, group) => Ok(Resources::One { group: group.to_owned(), plural: plural.to_owned() }),
    }
}

fn provider(field: &str, one: &BTreeMap<String, Value>) -> Result<Provider, ConfigurationError> {
    let mut kinds = one.iter();
    let (Some((kind, value)), None) = (kinds.next(), kinds.next()) else {
        return Err(wrong(field, "must have exactly one kind of provider"));
    };
    match kind.as_str() {
        "identity" => Ok(Provider::Identity),
        "aesgcm" => {
            let field = format!("{field}.aesgcm");
            let keys: Keys =
                serde_json::from_value(value.clone()).map_err(|_| wrong(&field, "it has no readable list of keys"))?;
            if keys.keys.is_empty() {
                return Err(wrong(format!("{field}.keys"), "at least one is required"));
            }
            let keys = keys.keys.iter().enumerate().map(|(n, one)| key(&format!("{field}.keys[{n}]"), one));
            Ok(Provider::AesGcm(keys.collect::<Result<_, _>>()?))
        }
        other => Err(wrong(field, format!("the provider {other:?} is not supported: use aesgcm or identity"))),
    }
}

fn key(field: &str, one: &NamedSecret) -> Result<Key, ConfigurationError> {
    if one.name.is_empty() || one.name.contains(':') {
        return Err(wrong(format!("{field}.name"), "a key must have a name without a colon"));
    }
    let secret = STANDARD.decode(one.secret.trim()).map_err(|_| wrong(format!("{field}.secret"), "must be base64 encoded"))?;
    if !SECRET_BYTES.contains(&secret.len()) {
        let why = format!("a key must have 16, 24 or 32 bytes, this one has {}", secret.len());
        return Err(wrong(format!("{field}.secret"), why));
    }
    Ok(Key { name: one.name.clone(), secret })
}
