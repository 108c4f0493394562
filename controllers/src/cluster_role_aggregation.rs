//! ClusterRoles with an `aggregationRule` have the rules of all ClusterRoles that it selects.

use std::sync::Arc;

use async_trait::async_trait;
use slipway_api::{
    rbac::{ClusterRole, PolicyRule},
    selector::Selector,
};

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
        "clusterrole-aggregation-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let (queue, weak) = (queue.clone(), Arc::downgrade(caches));
        // Whatever changed may have been selected by any of them.
        caches.cluster_roles.on_change(move |_, _| {
            let Some(caches) = weak.upgrade() else { return };
            let gathering = caches.cluster_roles.list().into_iter().filter(|role| role.aggregation_rule.is_some());
            gathering.for_each(|role| queue.add(role.key()));
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let role = situation.caches.cluster_roles.get(key);
        Ok(role.map(|role| plan(&role, situation.caches)).unwrap_or_default())
    }
}

fn plan(role: &ClusterRole, caches: &Caches) -> Plan {
    let mut plan = Plan::nothing();
    let Some(aggregation) = role.aggregation_rule.as_ref().filter(|_| !role.is_deleted()) else { return plan };
    let mut others = caches.cluster_roles.list();
    others.retain(|other| other.name() != role.name());
    others.sort_by(|one, other| one.name().cmp(other.name()));
    let mut rules: Vec<PolicyRule> = vec![];
    for selector in aggregation.cluster_role_selectors.iter().flatten() {
        // Validation lets no other in.
        let Ok(selector) = Selector::from_label_selector(selector) else { continue };
        let selected = others.iter().filter(|other| selector.matches(other.metadata.labels.as_ref()));
        for rule in selected.flat_map(|other| other.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    if role.rules.as_deref().unwrap_or(&[]) != rules {
        plan.push(Step::update(role, &ClusterRole { rules: Some(rules), ..role.clone() }));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;
    use serde_json::json;

    #[test]
    fn a_role_has_the_rules_of_those_that_it_selects() {
        let mut world = World::default();
        let put = |world: &mut World, name: &str, label: &str, resource: &str| {
            let role = json!({
                "metadata": {"name": name, "labels": {"part-of": label}},
                "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}],
            });
            world.put::<ClusterRole>(&role.to_string());
        };
        put(&mut world, "b", "all", "pods");
        put(&mut world, "a", "all", "services");
        put(&mut world, "same", "all", "pods");
        put(&mut world, "other", "none", "secrets");
        let gathering = json!({
            "metadata": {"name": "all", "labels": {"part-of": "all"}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part-of": "all"}}]},
            "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
        });
        world.put::<ClusterRole>(&gathering.to_string());
        let key = Key::new("", "all");
        world.settle(&Controller, &key, expect_test::expect![[r#"
            patch ClusterRole all {"rules":[{"apiGroups":[""],"resources":["services"],"verbs":["get"]},{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}
        "#]]);
        // One that is no longer selected takes its rules along.
        world.edit::<ClusterRole>("a", json!({"metadata": {"labels": null}}));
        world.settle(
            &Controller,
            &key,
            expect_test::expect![[r#"
            patch ClusterRole all {"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}
        "#]],
        );
    }
}
