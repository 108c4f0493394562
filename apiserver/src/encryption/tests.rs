use super::*;
use proptest::prelude::*;

const KEY: &str = "/core/secrets/default/s";

fn configuration(resources: &str, providers: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: {resources}\n  providers: {providers}\n"
    )
}

/// 32 times the byte, in base64.
fn secret(byte: u8) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode([byte; 32])
}

fn keys(names: &[(&str, u8)]) -> String {
    let keys: Vec<String> = names.iter().map(|(name, byte)| format!("{{name: {name}, secret: {}}}", secret(*byte))).collect();
    format!("{{aesgcm: {{keys: [{}]}}}}", keys.join(", "))
}

fn parse(resources: &str, providers: &str) -> Encryption {
    Encryption::parse(&configuration(resources, providers)).unwrap()
}

fn sealed(encryption: &Encryption, key: &str, plain: &'static str) -> Bytes {
    encryption.seal(key, Bytes::from_static(plain.as_bytes()))
}

fn opened(encryption: &Encryption, key: &str, stored: &[u8]) -> Result<(String, bool), Unreadable> {
    let opened = encryption.open(key, stored)?;
    Ok((String::from_utf8(opened.bytes.into_owned()).unwrap(), opened.outdated))
}

#[test]
fn what_is_sealed_shows_nothing_and_is_opened_by_its_key_alone() {
    let one = parse("[secrets]", &format!("[{}]", keys(&[("a", 1)])));
    let stored = sealed(&one, KEY, "{\"data\":\"hunter2\"}");
    assert!(stored.starts_with(b"slipway:enc:aesgcm:v1:a:"));
    assert!(memchr::memmem::find(&stored, b"hunter2").is_none());
    assert_ne!(stored, sealed(&one, KEY, "{\"data\":\"hunter2\"}"), "every write has a key of its own");
    assert_eq!(opened(&one, KEY, &stored), Ok(("{\"data\":\"hunter2\"}".into(), false)));
    let other = parse("[secrets]", &format!("[{}]", keys(&[("b", 1)])));
    assert_eq!(opened(&other, KEY, &stored), Err(Unreadable::NoKey("a".into())));
    let wrong = parse("[secrets]", &format!("[{}]", keys(&[("a", 2)])));
    assert_eq!(opened(&wrong, KEY, &stored), Err(Unreadable::Tampered));
    assert_eq!(opened(&Encryption::default(), KEY, &stored), Err(Unreadable::NoKey("a".into())));
    assert!(other.met_unreadable() && !one.met_unreadable());
}

#[test]
fn a_value_is_bound_to_its_object() {
    let one = parse("[secrets]", &format!("[{}]", keys(&[("a", 1)])));
    let stored = sealed(&one, KEY, "{}");
    assert_eq!(opened(&one, "/core/secrets/default/t", &stored), Err(Unreadable::Tampered));
}

#[test]
fn the_first_key_writes_and_all_read() {
    let old = parse("[secrets]", &format!("[{}]", keys(&[("a", 1)])));
    let both = parse("[secrets]", &format!("[{}, {{identity: {{}}}}]", keys(&[("b", 2), ("a", 1)])));
    let stored = sealed(&old, KEY, "{}");
    assert_eq!(opened(&both, KEY, &stored), Ok(("{}".into(), true)));
    let anew = sealed(&both, KEY, "{}");
    assert!(anew.starts_with(b"slipway:enc:aesgcm:v1:b:"));
    assert_eq!(opened(&both, KEY, &anew), Ok(("{}".into(), false)));
    assert_eq!(opened(&both, KEY, b"{\"plain\":1}"), Ok(("{\"plain\":1}".into(), true)));
    assert_eq!(opened(&old, KEY, b"{}"), Err(Unreadable::Plain));
    let undone = parse("[secrets]", &format!("[{{identity: {{}}}}, {}]", keys(&[("b", 2)])));
    assert_eq!(sealed(&undone, KEY, "{}"), "{}");
    assert_eq!(opened(&undone, KEY, &anew), Ok(("{}".into(), true)));
}

#[test]
fn resources_are_named_as_kubernetes_names_them() {
    let seals = |resources: &str, key: &str| {
        sealed(&parse(resources, &format!("[{}]", keys(&[("a", 1)]))), key, "{}").starts_with(SEALED)
    };
    let (secret, map, deployment, allocation) =
        ("/core/secrets/a/s", "/core/configmaps/a/m", "/apps/deployments/a/d", "/allocations/nodeports/30000");
    assert!(seals("[secrets]", secret) && !seals("[secrets]", map) && !seals("[secrets]", deployment));
    assert!(seals("[deployments.apps]", deployment) && !seals("['*.apps']", secret) && seals("['*.apps']", deployment));
    assert!(seals("['*.']", map) && !seals("['*.']", deployment));
    assert!(seals("['*.*']", map) && seals("['*.*']", deployment) && !seals("['*.*']", allocation));
}

#[test]
fn a_wrong_configuration_is_refused_and_its_keys_are_not_shown() {
    let error = |text: &str| Encryption::parse(text).unwrap_err().to_string();
    let of = |providers: &str| error(&configuration("[secrets]", providers));
    assert_eq!(error("kind: x\napiVersion: v1"), "kind: expected EncryptionConfiguration of apiserver.config.k8s.io/v1");
    assert_eq!(of("[]"), "resources[0].providers: at least one is required");
    assert_eq!(of("[{kms: {}}]"), "resources[0].providers[0]: the provider \"kms\" is not supported: use aesgcm or identity");
    let short = "[{aesgcm: {keys: [{name: a, secret: c2VjcmV0}]}}]";
    assert_eq!(of(short), "resources[0].providers[0].aesgcm.keys[0].secret: a key must have 16, 24 or 32 bytes, this one has 6");
    assert_eq!(
        of("[{aesgcm: {keys: [{name: a, secret: 'not?base64'}]}}]"),
        "resources[0].providers[0].aesgcm.keys[0].secret: must be base64 encoded"
    );
    assert_eq!(error("resources: [{providers: [{aesgcm: hunter2"), "EncryptionConfiguration: it cannot be read as such");
    assert!(error(&configuration("['*']", "[{identity: {}}]")).contains("'*.*'"));
    assert!(Encryption::parse(&Encryption::new_configuration("k")).is_ok());
}

proptest! {
    #[test]
    fn whatever_is_stored_opening_it_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), prefixed: bool) {
        let one = parse("[secrets]", &format!("[{}, {{identity: {{}}}}]", keys(&[("a", 1)])));
        let stored = if prefixed { [b"slipway:enc:aesgcm:v1:a:", &bytes[..]].concat() } else { bytes };
        let opened = one.open(KEY, &stored);
        prop_assert!(!prefixed || opened.is_err());
    }

    #[test]
    fn one_changed_byte_is_noticed(plain in ".{0,100}", at: prop::sample::Index, flip in 1u8..) {
        let one = parse("[secrets]", &format!("[{}]", keys(&[("a", 1)])));
        let mut stored = one.seal(KEY, Bytes::from(plain)).to_vec();
        let at = at.index(stored.len());
        stored[at] ^= flip;
        prop_assert!(one.open(KEY, &stored).is_err());
    }

    /// And what is refused does not show what may be a key.
    #[test]
    fn any_text_is_a_configuration_or_refused(text in "\\PC{0,60}", deep in 0usize..300) {
        for providers in [text.clone(), "[".repeat(deep), format!("[{{aesgcm: {{keys: [{{name: a, secret: {text:?}}}]}}}}]"), "{a: ".repeat(deep)] {
            let _ = Encryption::parse(&providers);
            let refused = Encryption::parse(&configuration("[secrets]", &providers)).err().map(|error| error.to_string()).unwrap_or_default();
            prop_assert!(text.len() < 8 || !refused.contains(&text), "{}", refused);
        }
    }
}
