//! Tokens of joining nodes: Secrets of type `bootstrap.kubernetes.io/token` in `kube-system`.

use super::{Known, Outcome, User};
use crate::server::{ApiServer, find};
use crate::stored::Snapshot;
use crate::verbs::get::get_cached;
use crate::verbs::object_meta::is_deleting;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP_PREFIX: &str = "system:bootstrappers:";
const GROUP_REST_MAX: usize = 256;

/// `[a-z0-9]{6}.[a-z0-9]{16}`
pub(super) fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

pub(super) async fn authenticate(server: &ApiServer, id: &str, secret: &str) -> Outcome {
    let Some(secrets) = server.strategy("", "v1", "secrets") else { return Outcome::NotMine };
    let name = format!("bootstrap-token-{id}");
    let read = |snapshot: &Snapshot| {
        let revision = find(snapshot, &*secrets, "kube-system", &name)?.mod_revision;
        Some((get_cached(snapshot, &*secrets, "kube-system", &name)?, revision))
    };
    let found = match read(&server.snapshot()) {
        Some(found) => Some(found),
        // The cache may not have seen a new one yet.
        None => match server.cache.fresh().await {
            Ok(snapshot) => read(&snapshot),
            Err(_) => None,
        },
    };
    let Some((object, revision)) = found else { return Outcome::NotMine };
    match user(&object, id, secret, server.now()) {
        Some(user) => {
            let bound = vec![(crate::stored::key(secrets.names(), "kube-system", &name), revision)];
            Outcome::Known(Known { until: expiration(&object).flatten(), bound, ..Known::here(server, user) })
        }
        None => Outcome::NotMine,
    }
}

fn data(object: &Value, key: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(object["data"][key].as_str()?).ok()?).ok()
}

/// `None`: it never expires; `Some(None)`: that cannot be read.
fn expiration(object: &Value) -> Option<Option<jiff::Timestamp>> {
    Some(data(object, "expiration")?.parse().ok())
}

fn user(object: &Value, id: &str, secret: &str, now: jiff::Timestamp) -> Option<User> {
    let right = object["type"] == TYPE
        && !is_deleting(object)
        && data(object, "token-id").as_deref() == Some(id)
        // Hashes are compared, so that the time it takes tells nothing of the secret.
        && data(object, "token-secret").is_some_and(|known| Sha256::digest(known) == Sha256::digest(secret))
        && data(object, "usage-bootstrap-authentication").as_deref() == Some("true");
    let expired = expiration(object).is_some_and(|at| at.is_none_or(|at| at <= now));
    if !right || expired {
        return None;
    }
    let further = data(object, "auth-extra-groups").unwrap_or_default();
    let further: Vec<&str> = further.split(',').filter(|group| !group.is_empty()).collect();
    // One wrong group makes the whole token worthless, as in Kubernetes.
    if !further.iter().all(|group| is_group(group)) {
        return None;
    }
    let mut groups = vec![User::BOOTSTRAPPERS];
    groups.extend(further);
    Some(User::new(&format!("system:bootstrap:{id}"), &groups))
}

/// `system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]`
fn is_group(group: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    group.strip_prefix(GROUP_PREFIX).is_some_and(|rest| {
        rest.len() <= GROUP_REST_MAX
            && rest.bytes().all(|c| plain(c) || c == b':' || c == b'-')
            && rest.bytes().next_back().is_some_and(plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn object(changed: &[(&str, &str)]) -> Value {
        let mut data = serde_json::Map::new();
        let usual = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("expiration", "2026-01-02T00:00:00Z"),
            ("auth-extra-groups", "system:bootstrappers:pool,system:bootstrappers:a:b"),
        ];
        for (key, value) in usual.iter().chain(changed) {
            data.insert((*key).to_owned(), STANDARD.encode(value).into());
        }
        json!({"type": TYPE, "metadata": {}, "data": data})
    }

    fn asked(object: &Value, secret: &str, at: &str) -> Option<Vec<String>> {
        let user = user(object, "abcdef", secret, at.parse().unwrap())?;
        assert_eq!(user.name, "system:bootstrap:abcdef");
        Some(user.groups)
    }

    #[test]
    fn a_bootstrap_token_is_its_secret_until_it_expires() {
        let (secret, day) = ("0123456789abcdef", "2026-01-01T00:00:00Z");
        let groups = asked(&object(&[]), secret, day).unwrap();
        let expected = ["system:bootstrappers", "system:bootstrappers:pool", "system:bootstrappers:a:b", "system:authenticated"];
        assert_eq!(groups, expected);
        assert_eq!(asked(&object(&[]), secret, "2026-01-02T00:00:00Z"), None);
        assert_eq!(asked(&object(&[]), "0123456789abcdee", day), None);
        for wrong in [
            ("usage-bootstrap-authentication", "false"),
            ("expiration", "tomorrow"),
            ("token-id", "abcdee"),
            ("auth-extra-groups", "system:bootstrappers:pool,system:masters"),
            ("auth-extra-groups", "system:bootstrappers:"),
            ("auth-extra-groups", "system:bootstrappers:Pool"),
        ] {
            assert_eq!(asked(&object(&[wrong]), secret, day), None, "{wrong:?}");
        }
        let mut deleted = object(&[]);
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(asked(&deleted, secret, day), None);
    }

    #[test]
    fn a_token_of_another_form_is_no_bootstrap_token() {
        assert!(parts("abcdef.0123456789abcdef").is_some());
        assert!(parts("ABCDEF.0123456789abcdef").is_none());
        assert!(parts("abcdef.0123").is_none());
    }

    proptest! {
        #[test]
        fn any_token_is_taken_apart(token in ".{0,40}") {
            if let Some((id, secret)) = parts(&token) {
                prop_assert_eq!(format!("{id}.{secret}"), token);
            }
        }
    }
}
