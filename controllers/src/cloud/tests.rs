mod site;

use expect_test::expect;
use proptest::prelude::*;
use serde_json::json;
use slipway_api::{
    core::{Node, Pod, Service},
    slipway::{Machine, NodePool},
};
use slipway_cloud::fake::Faults;

pub use self::site::Site;
use self::site::apply;
use super::refusal;
use crate::resource::{Key, Object};

#[test]
fn the_cheapest_type_that_fits_is_bought() {
    let mut site = Site::reliable();
    site.pool("general", json!({"instanceTypes": ["huge", "large", "small"]}));
    site.pod("web", "500m", json!({}));
    site.buy(expect![[r#"
        general small fake-1a on-demand: web
    "#]]);
    site.pod("big", "6", json!({}));
    site.buy(expect![[r#"
        general large fake-1b on-demand: big
        general small fake-1a on-demand: web
    "#]]);
    site.pod("gigantic", "100", json!({}));
    expect![[r#"
        gigantic NotTriggerScaleUp: pod didn't trigger scale-up: no instance type of the NodePools is large enough
    "#]]
    .assert_eq(&site.told());
}

#[test]
fn pods_share_machines_so_that_they_cost_least() {
    let mut site = Site::reliable();
    site.pool("general", json!({"instanceTypes": ["large", "small"]}));
    for index in 0..4 {
        site.pod(&format!("web{index}"), "1500m", json!({}));
    }
    // Four small ones would cost 0.20, and half of each would be left over.
    site.buy(expect![[r#"
        general large fake-1a on-demand: web0,web1,web2,web3
    "#]]);

    let mut site = Site::reliable();
    site.pool("general", json!({"instanceTypes": ["large", "small"]}));
    for index in 0..5 {
        site.pod(&format!("web{index}"), "400m", json!({}));
    }
    site.buy(expect![[r#"
        general small fake-1a on-demand: web0,web1,web2,web3,web4
    "#]]);
}

#[test]
fn a_pod_that_comes_later_goes_to_the_machine_that_is_on_its_way() {
    let mut site = Site::reliable();
    site.pool("general", json!({"instanceTypes": ["small"]}));
    site.pod("first", "500m", json!({}));
    site.buy(expect![[r#"
        general small fake-1a on-demand: first
    "#]]);
    site.pod("second", "1", json!({}));
    site.pod("third", "1", json!({}));
    site.buy(expect![[r#"
        general small fake-1a on-demand: first
        general small fake-1b on-demand: third
    "#]]);
}

#[test]
fn selectors_and_taints_choose_the_pool_and_the_zone() {
    let mut site = Site::reliable();
    site.pool("general", json!({"instanceTypes": ["small", "arm-small"], "zones": ["fake-1a"]}));
    let taint = json!([{"key": "dedicated", "value": "batch", "effect": "NoSchedule"}]);
    site.pool("batch", json!({"instanceTypes": ["large"], "template": {"labels": {"disk": "ssd"}, "taints": taint}}));
    let tolerant = json!([{"key": "dedicated", "operator": "Exists"}]);
    site.pod("intel", "1", json!({"nodeSelector": {"kubernetes.io/arch": "amd64"}}));
    site.pod(
        "batch",
        "1",
        json!({"nodeSelector": {"disk": "ssd", "topology.kubernetes.io/zone": "fake-1b"}, "tolerations": tolerant}),
    );
    site.pod("strict", "1", json!({"nodeSelector": {"disk": "ssd"}}));
    site.pod("elsewhere", "1", json!({"nodeSelector": {"topology.kubernetes.io/zone": "fake-1c"}}));
    let term = json!({"matchExpressions": [{"key": "slipway.dev/node-pool", "operator": "In", "values": ["general"]}]});
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}});
    site.pod("affine", "1", json!({"affinity": {"nodeAffinity": required}}));
    expect![[r#"
        affine TriggeredScaleUp: pod triggered scale-up: Machine general-9276f2e4e4 (small, fake-1a)
        intel TriggeredScaleUp: pod triggered scale-up: Machine general-9276f2e4e4 (small, fake-1a)
        batch TriggeredScaleUp: pod triggered scale-up: Machine batch-db7de23285 (large, fake-1b)
        elsewhere NotTriggerScaleUp: pod didn't trigger scale-up: no NodePool has the labels that the pod selects, without a taint that it doesn't tolerate
        strict NotTriggerScaleUp: pod didn't trigger scale-up: no NodePool has the labels that the pod selects, without a taint that it doesn't tolerate
    "#]].assert_eq(&site.told());
    site.buy(expect![[r#"
        batch large fake-1b on-demand: batch
        general small fake-1a on-demand: affine,intel
    "#]]);
}

#[test]
fn pods_that_avoid_each_other_get_machines_of_their_own() {
    let mut site = Site::reliable();
    site.pool("general", json!({"instanceTypes": ["large"]}));
    let term = json!({"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "kubernetes.io/hostname"});
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}});
    site.pod("db1", "1", apart.clone());
    site.pod("db2", "1", apart);
    let port = json!([{"name": "c", "image": "web:1", "ports": [{"containerPort": 80, "hostPort": 80}]}]);
    site.pod("edge1", "1", json!({"containers": port}));
    site.pod("edge2", "1", json!({"containers": port}));
    // Zones are filled evenly.
    site.buy(expect![[r#"
        general large fake-1a on-demand: db1,edge1
        general large fake-1b on-demand: db2,edge2
    "#]]);
}

#[test]
fn limits_hold_and_the_rest_is_told_why() {
    for (limits, machines) in [
        (json!({"machines": 2}), 2),
        (json!({"cpu": "5"}), 2),
        (json!({"memory": "8Gi"}), 2),
        (json!({"moneyPerHour": "0.12"}), 2),
        (json!({}), 3),
    ] {
        let mut site = Site::reliable();
        site.pool("general", json!({"instanceTypes": ["small"], "limits": limits}));
        for index in 0..3 {
            site.pod(&format!("web{index}"), "1500m", json!({}));
        }
        let plan = site.plan_purchases();
        apply(&mut site.world, &plan, usize::MAX);
        assert_eq!(site.world.list::<Machine>().len(), machines, "{limits}");
        let told =
            plan.to_string().contains("NotTriggerScaleUp: pod didn't trigger scale-up: the limits of the NodePools are reached");
        assert_eq!(told, machines < 3, "{limits}: {plan}");
    }
}

#[test]
fn daemons_take_their_part_of_every_machine() {
    let mut site = Site::reliable();
    site.pool("general", json!({"instanceTypes": ["small", "large"]}));
    site.world.put::<slipway_api::apps::DaemonSet>(
        "{metadata: {name: agent}, spec: {selector: {matchLabels: {app: agent}}, template: {metadata: {labels: {app: agent}}, \
         spec: {containers: [{name: a, image: 'a:1', resources: {requests: {cpu: 600m}}}]}}}}",
    );
    site.pod("web", "1500m", json!({}));
    site.buy(expect![[r#"
        general large fake-1a on-demand: web
    "#]]);
}

#[test]
fn what_a_type_turns_out_to_have_is_remembered() {
    let mut site = Site::reliable();
    site.pool("general", json!({"instanceTypes": ["small", "large"]}));
    site.pod("web", "1", json!({}));
    site.rounds(20);
    // A small machine is sold with 4096Mi; 3768Mi are expected to be left, and its node has 3800Mi.
    let asks = |memory: &str| json!([{"name": "c", "image": "web:1", "resources": {"requests": {"memory": memory}}}]);
    site.delete_pods();
    site.rounds(60);
    site.assert_nothing_is_left();
    site.pod("fits", "1", json!({"containers": asks("3790Mi")}));
    site.buy(expect![[r#"
        general small fake-1a on-demand: fits
    "#]]);
    site.pod("not", "1", json!({"containers": asks("3801Mi")}));
    site.buy(expect![[r#"
        general large fake-1b on-demand: not
        general small fake-1a on-demand: fits
    "#]]);
}

#[test]
fn another_zone_is_tried_when_the_scheduler_leaves_the_room_unused() {
    let mut site = Site::reliable();
    site.pool("general", json!({"instanceTypes": ["small"]}));
    let key = Key::new("default", "web");
    // For a reason that only the scheduler knows.
    let gate = json!({"schedulerName": "nobody's"});
    site.pod("web", "1", gate);
    let status = site.world.get::<Pod>(&key).status.clone();
    let mut bought = vec![];
    for _ in 0..60 {
        site.round(|| usize::MAX);
        let back = json!({"spec": {"nodeName": null}, "status": status});
        site.world.edit::<Pod>("web", back);
        bought.push(site.world.list::<Machine>().len());
    }
    assert_eq!(bought.iter().max(), Some(&2), "{bought:?}");
    expect![[r#"
        general small fake-1a on-demand: web
        general small fake-1b on-demand: web
    "#]]
    .assert_eq(&site.ledger());
    site.provisioner.forget_what_was_told();
    expect![[r#"
        web NotTriggerScaleUp: pod didn't trigger scale-up: the scheduler leaves the room unused that was bought for it in fake-1a, fake-1b
    "#]].assert_eq(&site.told());
    site.delete_pods();
    site.rounds(60);
    site.assert_nothing_is_left();
}

#[test]
fn what_is_refused_is_bought_as_another_type() {
    let mut site = Site::new(1, Faults { no_capacity: 1.0, ..Faults::default() });
    site.pool("general", json!({"instanceTypes": ["small", "large"], "zones": ["fake-1a"]}));
    site.pod("web", "1", json!({}));
    site.rounds(4);
    // The first is out of capacity, and so is the second; both are kept for a while, so that they are not tried again.
    expect![[r#"
        general large fake-1a on-demand: web InsufficientCapacity
        general small fake-1a on-demand: web InsufficientCapacity
    "#]]
    .assert_eq(&site.ledger());
    site.cloud.set_faults(Faults::default());
    site.rounds(20);
    expect![[r#"
        general small fake-1a on-demand: web
    "#]]
    .assert_eq(&site.ledger());
    assert_eq!(site.cloud.machines(), 1);
    assert_eq!(crate::pods::node(&site.world.list::<Pod>()[0]), site.the_machine().name());
}

#[test]
fn spot_is_preferred_where_it_is_allowed() {
    let mut site = Site::reliable();
    site.pool("general", json!({"instanceTypes": ["small"], "capacityTypes": ["on-demand", "spot"]}));
    site.pod("web", "1", json!({}));
    site.buy(expect![[r#"
        general small fake-1a spot: web
    "#]]);
}

#[test]
fn a_pool_counts_what_it_has() {
    let mut site = Site::reliable();
    site.pool("general", json!({"instanceTypes": ["small"]}));
    site.pod("web", "1", json!({}));
    site.rounds(20);
    let status = site.world.get::<NodePool>(&Key::new("", "general")).status.clone().unwrap();
    expect![[r#"{"machines":1,"resources":{"cpu":"2","memory":"4Gi"}}"#]].assert_eq(&serde_json::to_string(&status).unwrap());
}

#[test]
fn what_nobody_owns_is_swept_and_what_others_made_is_left() {
    let mut site = Site::reliable();
    site.pool("general", json!({"instanceTypes": ["small"]}));
    site.pod("web", "1", json!({}));
    site.rounds(20);
    // Somebody removes the finalizer by force: the machine is nobody's.
    let machine = site.the_machine();
    site.delete_pods();
    site.world.remove::<Machine>(&machine.key());
    assert_eq!(site.cloud.machines(), 1);
    let sweep = |site: &Site| site.world.plan(&site.sweep, &Key::new("", "cloud"));
    sweep(&site);
    assert_eq!(site.cloud.machines(), 1, "the caches may be behind the cloud: who is suspected is looked at again");
    sweep(&site);
    assert_eq!(site.cloud.machines(), 0);
}

#[test]
fn a_load_balancer_follows_its_service() {
    let mut site = Site::reliable();
    site.pool("general", json!({"instanceTypes": ["small"]}));
    let key = Key::new("default", "web");
    site.service("web", json!({}));
    site.world.step(
        &site.balancers,
        &key,
        expect![[r#"
        patch Service default/web {"metadata":{"finalizers":["service.kubernetes.io/load-balancer-cleanup"]}}
    "#]],
    );
    site.world.step(
        &site.balancers,
        &key,
        expect![[r#"
        event Normal EnsuringLoadBalancer: Ensuring load balancer
        patch Service default/web/status {"status":{"loadBalancer":{"ingress":[{"hostname":"auidweb.elb.fake.test"}]}}}
        event Normal EnsuredLoadBalancer: Ensured load balancer
        again in 600s
    "#]],
    );
    site.world.check(
        &site.balancers,
        &key,
        expect![[r#"
        again in 601s
    "#]],
    );
    assert_eq!(site.cloud.balancers()[0].targets, Vec::<String>::new());

    // A node comes and goes.
    site.pod("web", "1", json!({}));
    site.rounds(10);
    assert_eq!(site.cloud.balancers()[0].targets, ["i-00000001"]);
    let machine = site.the_machine();
    site.delete(&machine);
    site.world.step(
        &site.balancers,
        &key,
        expect![[r#"
        event Normal UpdatedLoadBalancer: Updated load balancer with new hosts
        again in 600s
    "#]],
    );
    assert_eq!(site.cloud.balancers()[0].targets, Vec::<String>::new());

    // A port changes, and a cloud that does not answer is asked again.
    let ports = json!([{"port": 443, "protocol": "TCP", "nodePort": 30443}, {"port": 53, "protocol": "UDP", "nodePort": 30053}]);
    site.world.edit::<Service>("web", json!({"spec": {"ports": ports}}));
    site.cloud.set_faults(Faults { throttled: 1.0, ..Faults::default() });
    site.world.step(&site.balancers, &key, expect![[r#"
        event Normal EnsuringLoadBalancer: Ensuring load balancer
        event Warning SyncLoadBalancerFailed: Error syncing load balancer: failed to ensure load balancer: the cloud did not answer: RequestLimitExceeded
        again in 1s
    "#]]);
    site.cloud.set_faults(Faults::default());
    site.world.step(
        &site.balancers,
        &key,
        expect![[r#"
        again in 600s
    "#]],
    );
    let listeners: Vec<_> = site.cloud.balancers()[0].listeners.iter().map(|one| (one.port, one.node_port)).collect();
    assert_eq!(listeners, [(443, 30443), (53, 30053)]);

    // Another type of Service needs none.
    site.world.edit::<Service>("web", json!({"spec": {"type": "ClusterIP"}}));
    site.world.settle(
        &site.balancers,
        &key,
        expect![[r#"
        event Normal DeletingLoadBalancer: Deleting load balancer
        patch Service default/web/status {"status":{"loadBalancer":null}}
        event Normal DeletedLoadBalancer: Deleted load balancer
        patch Service default/web {"metadata":{"finalizers":[]}}
    "#]],
    );
    assert_eq!(site.cloud.balancers(), []);

    // It is held until the balancer is gone.
    site.world.edit::<Service>("web", json!({"spec": {"type": "LoadBalancer"}}));
    site.rounds(3);
    assert_eq!(site.cloud.balancers().len(), 1);
    let service = site.world.get::<Service>(&key);
    site.delete(&*service);
    site.cloud.set_faults(Faults { throttled: 1.0, ..Faults::default() });
    site.world.step(&site.balancers, &key, expect![[r#"
        event Normal DeletingLoadBalancer: Deleting load balancer
        event Warning SyncLoadBalancerFailed: Error syncing load balancer: failed to delete load balancer: the cloud did not answer: RequestLimitExceeded
        again in 1s
    "#]]);
    site.cloud.set_faults(Faults::default());
    site.world.step(
        &site.balancers,
        &key,
        expect![[r#"
        event Normal DeletingLoadBalancer: Deleting load balancer
        patch Service default/web/status {"status":{"loadBalancer":null}}
        event Normal DeletedLoadBalancer: Deleted load balancer
        patch Service default/web {"metadata":{"finalizers":[]}}
    "#]],
    );
    assert!(site.world.list::<Service>().is_empty() && site.cloud.balancers().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the cloud does, and wherever the process dies: the pods get their machines, none is bought that isn't in the
    /// ledger, and nothing is left in the end.
    #[test]
    fn it_converges_and_leaves_nothing(
        seed: u64,
        sizes in proptest::collection::vec(100u32..3000, 1..7),
        cuts in proptest::collection::vec(0usize..5, 0..60),
        throttled in 0.0..0.5, answer_lost in 0.0..0.5, no_capacity in 0.0..0.5, stop_ticks in 0u64..4,
    ) {
        let mut site = Site::new(seed, Faults { throttled, answer_lost, no_capacity });
        site.cloud.set_stop_ticks(stop_ticks);
        site.pool("general", json!({"instanceTypes": ["small", "large"]}));
        for (index, size) in sizes.iter().enumerate() {
            site.pod(&format!("web{index}"), &format!("{size}m"), json!({}));
        }
        site.service("web", json!({}));
        let cuts = std::cell::RefCell::new(cuts.into_iter());
        (0..30).for_each(|_| site.round(|| cuts.borrow_mut().next().unwrap_or(usize::MAX)));
        site.cloud.set_faults(Faults::default());
        site.rounds(30);
        prop_assert!(site.world.list::<Pod>().iter().all(|pod| !crate::pods::node(pod).is_empty()), "{}", site.ledger());
        let nodes = site.world.list::<Node>().len();
        let mut machines = site.world.list::<Machine>();
        machines.retain(|machine| !machine.is_deleted() && refusal(machine).is_none());
        prop_assert_eq!((nodes, site.cloud.machines()), (machines.len(), machines.len()));
        prop_assert_eq!(site.cloud.balancers()[0].targets.len(), nodes);
        let again = site.plan_purchases();
        prop_assert!(again.is_empty(), "planned again it is not empty:\n{again}");

        site.delete_pods();
        let service = site.world.get::<Service>(&Key::new("default", "web"));
        site.delete(&*service);
        site.cloud.set_faults(Faults { throttled, answer_lost, no_capacity });
        site.rounds(60);
        site.cloud.set_faults(Faults::default());
        site.rounds(20);
        site.assert_nothing_is_left();
    }
}
