//! Gives each node its part of the range that pods get their addresses from (`spec.podCIDR`).

use std::{collections::HashSet, net::Ipv4Addr, sync::Arc};

use async_trait::async_trait;
use slipway_api::core::Node;

use crate::{
    Error,
    caches::Caches,
    plan::{Plan, Step},
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
};

/// The nodes are planned together, under one key, so that no two get the same range.
const ALL: &str = "nodes";

pub struct Controller {
    first: u32,
    mask: u8,
    /// How many ranges there are.
    count: u32,
}

impl Controller {
    pub fn new(cidr: &str, mask: u8) -> Result<Controller, Error> {
        let invalid = || Error::PodCidr(cidr.to_owned());
        let (address, bits) = cidr.split_once('/').ok_or_else(invalid)?;
        let address: Ipv4Addr = address.parse().map_err(|_| invalid())?;
        let bits: u8 = bits.parse().map_err(|_| invalid())?;
        if bits == 0 || bits > mask || mask > 30 {
            return Err(invalid());
        }
        let network = u32::from(address) & (u32::MAX << (32 - bits));
        Ok(Controller { first: network, mask, count: 1 << (mask - bits) })
    }

    fn range(&self, index: u32) -> String {
        format!("{}/{}", Ipv4Addr::from(self.first + (index << (32 - self.mask))), self.mask)
    }

    fn plan_all(&self, caches: &Caches) -> Plan {
        let mut plan = Plan::nothing();
        let nodes = caches.nodes.list();
        let taken: HashSet<&str> =
            nodes.iter().filter_map(|node| node.spec.as_ref()?.pod_cidr.as_deref()).filter(|cidr| !cidr.is_empty()).collect();
        let mut free = (0..self.count).map(|index| self.range(index)).filter(|range| !taken.contains(range.as_str()));
        for node in nodes.iter().filter(|node| needs_range(node)) {
            match free.next() {
                Some(range) => {
                    let mut given = Node::clone(node);
                    let spec = given.spec.get_or_insert_default();
                    spec.pod_cidr = Some(range.clone());
                    spec.pod_cidrs = Some(vec![range]);
                    // Heartbeats change the node all the time; the field can be set only once anyway.
                    plan.push(Step::update(&**node, &given).map(Step::whatever_the_revision));
                }
                None => {
                    let message = format!("Node {} status is now: CIDRNotAvailable", node.name());
                    plan.push(Step::event(&**node, "CIDRNotAvailable", message));
                }
            }
        }
        plan
    }
}

fn needs_range(node: &Node) -> bool {
    !node.is_deleted() && node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref()).unwrap_or_default().is_empty()
}

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let queue = queue.clone();
        caches.nodes.on_change(move |old, new| {
            // A node that is gone gives its range back.
            if new.is_none_or(|node| needs_range(node) && old.is_none_or(|old| !needs_range(old))) {
                queue.add(Key::new("", ALL));
            }
        });
    }

    async fn plan(&self, _: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        Ok(self.plan_all(situation.caches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;
    use expect_test::expect;

    #[test]
    fn each_node_gets_a_range_of_its_own_and_a_range_comes_back() {
        let controller = Controller::new("10.244.0.0/22", 24).unwrap();
        let mut world = World::default();
        world.put::<Node>("{metadata: {name: a}, spec: {podCIDR: 10.244.1.0/24}}");
        for name in ["b", "c", "d"] {
            world.put::<Node>(&format!("metadata: {{name: {name}}}"));
        }
        let key = Key::new("", ALL);
        world.settle(
            &controller,
            &key,
            expect![[r#"
            patch Node b {"spec":{"podCIDR":"10.244.0.0/24","podCIDRs":["10.244.0.0/24"]}}
            patch Node c {"spec":{"podCIDR":"10.244.2.0/24","podCIDRs":["10.244.2.0/24"]}}
            patch Node d {"spec":{"podCIDR":"10.244.3.0/24","podCIDRs":["10.244.3.0/24"]}}
        "#]],
        );
        world.put::<Node>("metadata: {name: e}");
        world.check(
            &controller,
            &key,
            expect![[r#"
            event Normal CIDRNotAvailable: Node e status is now: CIDRNotAvailable
        "#]],
        );
        world.remove::<Node>(&Key::new("", "a"));
        world.settle(
            &controller,
            &key,
            expect![[r#"
            patch Node e {"spec":{"podCIDR":"10.244.1.0/24","podCIDRs":["10.244.1.0/24"]}}
        "#]],
        );
    }

    #[test]
    fn a_wrong_range_is_refused() {
        for cidr in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/28", "fd00::/64"] {
            assert!(Controller::new(cidr, 24).is_err(), "{cidr}");
        }
    }
}
