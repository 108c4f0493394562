//! Every namespace has a ConfigMap `kube-root-ca.crt`, with which pods check who serves them the API.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use slipway_api::core::ConfigMap;

use crate::{
    caches::Caches,
    plan::{Plan, Step},
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
    service_account::{live_namespace, watch_namespaces},
};

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

pub struct Controller {
    pub pem: String,
}

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        watch_namespaces(caches, queue);
        let maps = queue.clone();
        caches.root_ca_config_maps.on_change(move |old, new| {
            if let Some(map) = new.or(old) {
                maps.add(Key::new("", map.namespace()));
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        Ok(plan(&key.name, &self.pem, situation.caches))
    }
}

fn plan(namespace: &str, pem: &str, caches: &Caches) -> Plan {
    let mut plan = Plan::nothing();
    if live_namespace(namespace, caches).is_none() || pem.is_empty() {
        return plan;
    }
    let data = BTreeMap::from([("ca.crt".to_owned(), pem.to_owned())]);
    match caches.root_ca_config_maps.get(&Key::new(namespace, NAME)) {
        Some(map) if map.data.as_ref() == Some(&data) => {}
        Some(map) => plan.push(Step::update(&*map, &ConfigMap { data: Some(data), ..ConfigMap::clone(&map) })),
        None => {
            let mut map = ConfigMap { data: Some(data), ..ConfigMap::default() };
            map.metadata.namespace = Some(namespace.to_owned());
            map.metadata.name = Some(NAME.to_owned());
            map.metadata.annotations = Some([("kubernetes.io/description".to_owned(), DESCRIPTION.to_owned())].into());
            plan.push(Step::create(&map));
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;
    use expect_test::expect;
    use slipway_api::core::Namespace;

    #[test]
    fn the_bundle_is_made_and_put_right() {
        let mut world = World::default();
        world.put::<Namespace>("metadata: {name: team}");
        let key = Key::new("", "team");
        world.settle(&Controller { pem: "one".into() }, &key, expect!["create ConfigMap team/kube-root-ca.crt\n"]);
        let changed = expect![[r#"
            patch ConfigMap team/kube-root-ca.crt {"data":{"ca.crt":"two"}}
        "#]];
        world.settle(&Controller { pem: "two".into() }, &key, changed);
    }
}
