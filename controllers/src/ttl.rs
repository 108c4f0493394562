//! Tells node agents how long they may use a Secret or ConfigMap without asking again: longer, the more nodes there are.

use std::sync::Arc;

use async_trait::async_trait;
use slipway_api::core::Node;

use crate::{
    caches::Caches,
    plan::{Plan, Step},
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
};

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";
/// (seconds, from so many nodes, back to the next lower one below so many)
const BOUNDARIES: [(u32, usize, usize); 5] = [(0, 0, 0), (15, 101, 90), (30, 501, 450), (60, 1001, 900), (300, 2001, 1800)];

pub struct Controller;

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "ttl-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let queue = queue.clone();
        caches.nodes.on_change(move |old, new| {
            if let Some(node) = new.filter(|node| old.is_none() || current(node).is_none()) {
                queue.add(node.key());
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let node = situation.caches.nodes.get(key);
        Ok(node.map(|node| plan(&node, situation.caches.nodes.len())).unwrap_or_default())
    }
}

fn current(node: &Node) -> Option<u32> {
    node.annotation(ANNOTATION)?.parse().ok()
}

fn plan(node: &Node, nodes: usize) -> Plan {
    let mut plan = Plan::nothing();
    let up = BOUNDARIES.iter().rev().find(|(_, from, _)| nodes >= *from).map_or(0, |(seconds, ..)| *seconds);
    let down = BOUNDARIES.iter().rev().find(|(_, _, until)| nodes >= *until).map_or(0, |(seconds, ..)| *seconds);
    // Between the two bounds what is written stays, so that it does not change to and fro.
    let wanted = current(node).map_or(up, |current| current.clamp(up, down));
    if current(node) != Some(wanted) {
        let mut told = node.clone();
        told.metadata.annotations.get_or_insert_default().insert(ANNOTATION.into(), wanted.to_string());
        plan.push(Step::update(node, &told).map(Step::whatever_the_revision));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_grows_with_the_cluster_and_does_not_flap() {
        for (now, nodes, wanted) in [
            (None, 1, "0"),
            (None, 600, "30"),
            (Some("0"), 101, "15"),
            (Some("15"), 95, "-"),
            (Some("15"), 89, "0"),
            (Some("300"), 1900, "-"),
        ] {
            let mut node = Node::default();
            node.metadata.annotations = now.map(|now| [(ANNOTATION.to_owned(), now.to_owned())].into());
            let text = plan(&node, nodes).to_string();
            let told = if wanted == "-" { text.is_empty() } else { text.contains(&format!("\"{wanted}\"")) };
            assert!(told, "{now:?} {nodes}: {text}");
        }
    }
}
