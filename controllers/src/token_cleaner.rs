//! Deletes bootstrap tokens whose time is over.

use std::sync::Arc;

use async_trait::async_trait;
use slipway_api::{core::Secret, jiff::Timestamp};

use crate::{
    caches::Caches,
    plan::{Plan, Step},
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
};

pub struct Controller;

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "token-cleaner"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let queue = queue.clone();
        caches.bootstrap_secrets.on_change(move |_, new| {
            if let Some(secret) = new {
                queue.add(secret.key());
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let secret = situation.caches.bootstrap_secrets.get(key);
        Ok(secret.map(|secret| plan(&secret, situation.now)).unwrap_or_default())
    }
}

fn plan(secret: &Secret, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    match expiration(secret) {
        Some(at) if at <= now => plan.push(Step::delete(secret, "the token has expired")),
        Some(at) => plan.again_at(now, at),
        None => {}
    }
    plan
}

fn expiration(secret: &Secret) -> Option<Timestamp> {
    let text = secret.data.as_ref()?.get("expiration")?;
    std::str::from_utf8(&text.0).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use slipway_api::ByteString;

    #[test]
    fn a_token_goes_when_its_time_is_over() {
        let mut secret = Secret::default();
        secret.metadata.name = Some("bootstrap-token-abcdef".into());
        let expires = |text: &str| Some([("expiration".to_owned(), ByteString(text.into()))].into());
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        expect![[""]].assert_eq(&plan(&secret, now).to_string());
        secret.data = expires("2026-01-01T00:01:00Z");
        expect![[r#"
            again in 61s
        "#]]
        .assert_eq(&plan(&secret, now).to_string());
        secret.data = expires("2025-12-31T23:59:59+00:00");
        expect![[r#"
            delete Secret bootstrap-token-abcdef (the token has expired)
        "#]]
        .assert_eq(&plan(&secret, now).to_string());
    }
}
