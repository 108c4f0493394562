//! Every namespace has a service account named `default`.

use std::sync::Arc;

use async_trait::async_trait;
use slipway_api::core::{Namespace, ServiceAccount};

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
        "service-account-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        watch_namespaces(caches, queue);
        let accounts = queue.clone();
        caches.service_accounts.on_change(move |old, new| {
            if let (Some(old), None) = (old, new) {
                accounts.add(Key::new("", old.namespace()));
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        Ok(plan(&key.name, situation.caches))
    }
}

/// For controllers that keep one object in each namespace.
pub fn watch_namespaces(caches: &Caches, queue: &Arc<Queue>) {
    let queue = queue.clone();
    caches.namespaces.on_change(move |_, new| {
        if let Some(namespace) = new {
            queue.add(namespace.key());
        }
    });
}

/// The namespace, unless it is on its way out: then nothing can be created in it any more.
pub fn live_namespace(name: &str, caches: &Caches) -> Option<Arc<Namespace>> {
    caches.namespaces.get(&Key::new("", name)).filter(|namespace| !namespace.is_deleted())
}

fn plan(namespace: &str, caches: &Caches) -> Plan {
    let mut plan = Plan::nothing();
    if live_namespace(namespace, caches).is_some() && caches.service_accounts.get(&Key::new(namespace, "default")).is_none() {
        let mut account = ServiceAccount::default();
        account.metadata.namespace = Some(namespace.to_owned());
        account.metadata.name = Some("default".to_owned());
        plan.push(Step::create(&account));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn a_namespace_gets_its_account_back_but_not_while_it_is_deleted() {
        let mut world = World::default();
        world.put::<Namespace>("metadata: {name: team}");
        world.settle(&Controller, &Key::new("", "team"), expect_test::expect!["create ServiceAccount team/default\n"]);
        world.put::<Namespace>("metadata: {name: leaving, deletionTimestamp: '2026-01-01T00:00:00Z'}");
        world.settle(&Controller, &Key::new("", "leaving"), expect_test::expect![""]);
    }
}
