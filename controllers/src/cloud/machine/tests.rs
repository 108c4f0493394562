use expect_test::expect;
use serde_json::json;
use slipway_api::{
    core::{Node, Pod, Secret},
    slipway::{Machine, MachinePhase},
};
use slipway_cloud::fake::Faults;

use super::super::tests::Site;
use crate::{plan::Step, resource::Object};

/// A Machine that was just written down, for one pod.
fn ordered() -> Site {
    let mut site = Site::reliable();
    site.pool("general", json!({"instanceTypes": ["small"], "zones": ["fake-1a"]}));
    site.pod("web", "1", json!({}));
    let plan = site.world.plan(&site.provisioner, &crate::resource::Key::new("", "pods"));
    plan.steps.iter().for_each(|step| site.world.apply(step));
    site
}

/// With its node, where the pod runs.
fn running() -> Site {
    let mut site = ordered();
    site.rounds(10);
    assert_eq!(phase(&site), MachinePhase::Ready);
    assert_eq!(crate::pods::node(&site.world.list::<Pod>()[0]), site.the_machine().name());
    site
}

fn phase(site: &Site) -> MachinePhase {
    site.the_machine().status.unwrap_or_default().phase
}

fn delete_pod(site: &mut Site) {
    let pod = site.world.list::<Pod>().remove(0);
    site.world.apply(&Step::delete(&pod, "the test says so"));
}

#[test]
fn from_the_order_to_a_node_and_back() {
    let mut site = ordered();
    site.step(expect![[r#"
        create Secret kube-system/bootstrap-token-*
        again in 0s
    "#]]);
    site.step(expect![[r#"
        patch Machine MACHINE/status {"status":{"addresses":[{"address":"10.0.0.2","type":"InternalIP"}],"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"Launched","status":"True","type":"Launched"}],"launchedAt":"2026-01-01T00:00:00Z","nodeName":"MACHINE","phase":"Launched","price":"0.05","providerID":"fake:///fake-1a/i-00000001"}}
        event Normal Launched: Launched small as fake:///fake-1a/i-00000001
        again in 0s
    "#]]);
    site.step(expect![[r#"
        patch Machine MACHINE/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"Launched","status":"True","type":"Launched"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"NodeMissing","status":"False","type":"Registered"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"NodeNotReady","status":"False","type":"Ready"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"PodsRun","status":"False","type":"Empty"}]}}
        again in 0s
    "#]]);
    assert!(site.plan_machine().is_empty());
    site.cloud.tick();
    site.cloud.tick();
    site.nodes_join();
    site.step(expect![[r#"
        patch Node MACHINE {"metadata":{"labels":{"slipway.dev/machine":"MACHINE"}},"spec":{"providerID":"fake:///fake-1a/i-00000001"}}
        patch Machine MACHINE/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"Launched","status":"True","type":"Launched"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"NodeJoined","status":"True","type":"Registered"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"NodeReady","status":"True","type":"Ready"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"PodsRun","status":"False","type":"Empty"}],"phase":"Ready"}}
        again in 0s
    "#]]);
    assert!(site.plan_machine().is_empty(), "a pod waits for the node: it is not empty");
    delete_pod(&mut site);
    site.step(expect![[r#"
        patch Machine MACHINE/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"Launched","status":"True","type":"Launched"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"NodeJoined","status":"True","type":"Registered"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"NodeReady","status":"True","type":"Ready"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"NoPods","status":"True","type":"Empty"}]}}
        again in 0s
    "#]]);
    site.world.pass(10);
    assert!(site.plan_machine().is_empty());
    site.world.pass(10);
    site.step(expect![[r#"
        event Normal Empty: No pods for 20s: the machine is given back
        delete Machine MACHINE (it is empty)
        again in 0s
    "#]]);
    site.step(expect![[r#"
        patch Machine MACHINE/status {"status":{"phase":"Draining"}}
        patch Node MACHINE {"spec":{"unschedulable":true}}
        again in 0s
    "#]]);
    site.step(expect![[r#"
        patch Machine MACHINE/status {"status":{"phase":"Terminating"}}
        again in 0s
    "#]]);
    assert_eq!(site.cloud.machines(), 1);
    site.step(expect![[r#"
        delete Secret kube-system/bootstrap-token-* (its machine is gone)
        delete Node MACHINE (its machine is gone)
        patch Machine MACHINE {"metadata":{"finalizers":[]}}
        again in 0s
    "#]]);
    site.assert_nothing_is_left();
}

#[test]
fn the_script_of_the_machine_joins_it_with_its_own_token() {
    let mut site = ordered();
    site.rounds(2);
    let instance = site.cloud.inventory().remove(0);
    let launch = site.cloud.launched_with(&instance.id).unwrap();
    let machine = site.the_machine();
    assert_eq!((launch.token.as_str(), launch.name.as_str()), (machine.uid(), machine.name()));
    let secret = site.world.list::<Secret>().remove(0);
    let read = |name: &str| String::from_utf8(secret.data.as_ref().unwrap()[name].0.clone()).unwrap();
    let token = format!("--token '{}.{}'", read("token-id"), read("token-secret"));
    for word in [&token, &format!("--node-name '{}'", machine.name()), "--label 'slipway.dev/node-pool=general'"] {
        assert!(launch.user_data.contains(word), "{word} in {}", launch.user_data);
    }
    assert_eq!(launch.subnet.as_deref(), Some("subnet-fake-1a"));
}

#[test]
fn one_that_never_joins_is_given_back_and_bought_anew() {
    let mut site = ordered();
    site.joins = false;
    site.rounds(90);
    let first = site.the_machine();
    assert_eq!((site.cloud.bought(), phase(&site)), (1, MachinePhase::Launched));
    site.rounds(20);
    let second = site.the_machine();
    assert_ne!(first.name(), second.name());
    assert_eq!((site.cloud.bought(), site.cloud.machines()), (2, 1));
    site.joins = true;
    site.rounds(10);
    assert_eq!(phase(&site), MachinePhase::Ready);
}

#[test]
fn a_node_that_never_gets_ready_is_given_back() {
    let mut site = ordered();
    site.rounds(3);
    let starting = json!({"spec": {"taints": [{"key": "cni", "effect": "NoSchedule"}]}});
    // What is to be done at the start of this node is never done.
    site.world.edit::<Machine>(site.the_machine().name(), json!({"spec": {"startupTaints": starting["spec"]["taints"]}}));
    site.nodes_join();
    let name = site.the_machine().name().to_owned();
    site.world.edit::<Node>(&name, starting);
    site.rounds(20);
    assert_eq!(phase(&site), MachinePhase::Registered);
    site.rounds(85);
    assert!(site.world.list::<Machine>().iter().all(|machine| machine.name() != name));
}

#[test]
fn a_refused_one_is_remembered_for_a_while() {
    let mut site = ordered();
    site.cloud.set_quota(0);
    site.step(expect![[r#"
        create Secret kube-system/bootstrap-token-*
        again in 0s
    "#]]);
    site.step(expect![[r#"
        event Warning QuotaExceeded: over the account's quota: VcpuLimitExceeded
        patch Machine MACHINE/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"over the account's quota: VcpuLimitExceeded","reason":"QuotaExceeded","status":"False","type":"Launched"}],"phase":"Pending"}}
        again in 0s
    "#]]);
    site.step(expect![[r#"
        again in 0s
    "#]]);
    site.world.pass(6);
    site.step(expect![[r#"
        delete Machine MACHINE (it could not be launched)
        again in 0s
    "#]]);
    site.step(expect![[r#"
        patch Machine MACHINE/status {"status":{"phase":"Terminating"}}
        again in 0s
    "#]]);
    site.step(expect![[r#"
        delete Secret kube-system/bootstrap-token-* (its machine is gone)
        patch Machine MACHINE {"metadata":{"finalizers":[]}}
        again in 0s
    "#]]);
    assert!(site.world.list::<Machine>().is_empty());
}

#[test]
fn one_without_its_class_is_refused() {
    let mut site = ordered();
    site.world.remove::<slipway_api::slipway::NodeClass>(&crate::resource::Key::new("", "default"));
    site.step(expect![[r#"
        event Warning InvalidRequest: refused: there is no NodeClass default
        patch Machine MACHINE/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"refused: there is no NodeClass default","reason":"InvalidRequest","status":"False","type":"Launched"}],"phase":"Pending"}}
        again in 0s
    "#]]);
}

#[test]
fn a_launch_that_was_not_answered_is_asked_for_again_and_never_twice() {
    let mut site = ordered();
    site.step(expect![[r#"
        create Secret kube-system/bootstrap-token-*
        again in 0s
    "#]]);
    site.cloud.set_faults(Faults { answer_lost: 1.0, ..Faults::default() });
    site.step(expect![[r#"
        event Warning CloudUnavailable: the cloud did not answer: the connection was closed
        patch Machine MACHINE/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the cloud did not answer: the connection was closed","reason":"CloudUnavailable","status":"False","type":"Launched"}],"phase":"Pending"}}
        again in 0s
    "#]]);
    assert_eq!(site.cloud.machines(), 1);
    // By now its token is another one: the same order would not be the same any more.
    let secret = site.world.list::<Secret>().remove(0);
    site.world.apply(&Step::delete(&secret, "the test says so"));
    site.cloud.set_faults(Faults::default());
    site.step(expect![[r#"
        create Secret kube-system/bootstrap-token-*
        again in 0s
    "#]]);
    site.step(expect![[r#"
        patch Machine MACHINE/status {"status":{"addresses":[{"address":"10.0.0.2","type":"InternalIP"}],"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"Launched","status":"True","type":"Launched"}],"launchedAt":"2026-01-01T00:00:00Z","nodeName":"MACHINE","phase":"Launched","price":"0.05","providerID":"fake:///fake-1a/i-00000001"}}
        event Normal Launched: Launched small as fake:///fake-1a/i-00000001
        again in 0s
    "#]]);
    assert_eq!(site.cloud.bought(), 1);
}

#[test]
fn one_that_is_deleted_before_its_launch_is_answered_is_given_back() {
    let mut site = ordered();
    site.step(expect![[r#"
        create Secret kube-system/bootstrap-token-*
        again in 0s
    "#]]);
    site.cloud.set_faults(Faults { answer_lost: 1.0, ..Faults::default() });
    site.step(expect![[r#"
        event Warning CloudUnavailable: the cloud did not answer: the connection was closed
        patch Machine MACHINE/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"the cloud did not answer: the connection was closed","reason":"CloudUnavailable","status":"False","type":"Launched"}],"phase":"Pending"}}
        again in 0s
    "#]]);
    site.cloud.set_faults(Faults { throttled: 1.0, ..Faults::default() });
    let machine = site.the_machine();
    assert_eq!(machine.status.clone().unwrap_or_default().provider_id, None);
    site.delete(&machine);
    delete_pod(&mut site);
    site.step(expect![[r#"
        patch Machine MACHINE/status {"status":{"phase":"Terminating"}}
        again in 0s
    "#]]);
    site.step(expect![[r#"
        again in 0s
    "#]]);
    assert_eq!(site.cloud.machines(), 1);
    site.cloud.set_faults(Faults::default());
    site.step(expect![[r#"
        delete Secret kube-system/bootstrap-token-* (its machine is gone)
        patch Machine MACHINE {"metadata":{"finalizers":[]}}
        again in 0s
    "#]]);
    site.assert_nothing_is_left();
}

#[test]
fn one_that_the_cloud_has_lost_is_written_off() {
    let mut site = running();
    let id = site.cloud.inventory().remove(0).id;
    site.cloud.kill(&id);
    site.step(expect![[r#"
        event Warning InstanceGone: the cloud has no such machine any more
        delete Machine MACHINE (it is of no use)
        again in 0s
    "#]]);
    // Nobody is left to drain it.
    site.step(expect![[r#"
        patch Machine MACHINE/status {"status":{"phase":"Terminating"}}
        again in 0s
    "#]]);
    site.step(expect![[r#"
        delete Secret kube-system/bootstrap-token-* (its machine is gone)
        delete Node MACHINE (its machine is gone)
        patch Machine MACHINE {"metadata":{"finalizers":[]}}
        again in 0s
    "#]]);
    assert!(site.world.list::<Machine>().is_empty() && site.world.list::<Node>().is_empty());
}

#[test]
fn pods_move_before_their_machine_goes() {
    let mut site = running();
    let daemon = json!({
        "metadata": {"name": "agent", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "d", "controller": true}]},
        "spec": {"nodeName": site.the_machine().name(), "containers": [{"name": "c", "image": "agent:1"}]},
    });
    site.world.put::<Pod>(&daemon.to_string());
    let machine = site.the_machine();
    site.delete(&machine);
    let plan = site.plan_machine();
    // Its disruption budget holds the pod: it is asked again and again, and nothing else happens.
    plan.steps.iter().filter(|step| !matches!(step, Step::Evict(_))).for_each(|step| site.world.apply(step));
    expect![[r#"
        evict Pod default/web
        again in 0s
    "#]]
    .assert_eq(&site.plan_machine().to_string());
    assert_eq!(site.cloud.machines(), 1);
    site.step(expect![[r#"
        evict Pod default/web
        again in 0s
    "#]]);
    site.step(expect![[r#"
        patch Machine MACHINE/status {"status":{"phase":"Terminating"}}
        again in 0s
    "#]]);
    site.step(expect![[r#"
        delete Secret kube-system/bootstrap-token-* (its machine is gone)
        delete Node MACHINE (its machine is gone)
        patch Machine MACHINE {"metadata":{"finalizers":[]}}
        again in 0s
    "#]]);
    assert_eq!(site.cloud.machines(), 0);
}

#[test]
fn what_cannot_be_drained_in_time_goes_all_the_same() {
    let mut site = running();
    let machine = site.the_machine();
    site.delete(&machine);
    site.world.pass(101);
    site.step(expect![[r#"
        patch Machine MACHINE/status {"status":{"phase":"Terminating"}}
        again in 0s
    "#]]);
    site.step(expect![[r#"
        delete Secret kube-system/bootstrap-token-* (its machine is gone)
        delete Node MACHINE (its machine is gone)
        patch Machine MACHINE {"metadata":{"finalizers":[]}}
        again in 0s
    "#]]);
    assert_eq!(site.cloud.machines(), 0);
}

#[test]
fn a_node_that_somebody_deletes_takes_its_machine_along() {
    let mut site = running();
    site.joins = false;
    let machine = site.the_machine();
    site.world.remove::<Node>(&machine.key());
    delete_pod(&mut site);
    site.rounds(90);
    assert_eq!(site.the_machine().name(), machine.name());
    site.rounds(20);
    site.assert_nothing_is_left();
}

#[test]
fn a_silent_node_keeps_its_machine() {
    let mut site = running();
    let name = site.the_machine().name().to_owned();
    let silent = json!([{"type": "Ready", "status": "Unknown", "lastTransitionTime": site.world.now.to_string()}]);
    site.world.edit::<Node>(&name, json!({"status": {"conditions": silent}}));
    site.rounds(200);
    assert_eq!(site.the_machine().name(), name);
}

#[test]
fn a_stranger_with_the_name_of_the_node_is_left_alone() {
    let mut site = ordered();
    site.joins = false;
    site.rounds(3);
    let name = site.the_machine().name().to_owned();
    site.world
        .put::<Node>(&json!({"metadata": {"name": name}, "spec": {"providerID": "fake:///fake-1a/i-99999999"}}).to_string());
    site.rounds(3);
    assert_eq!(phase(&site), MachinePhase::Launched);
    let machine = site.the_machine();
    site.delete(&machine);
    delete_pod(&mut site);
    site.rounds(5);
    assert_eq!((site.cloud.machines(), site.world.list::<Node>().len()), (0, 1));
}
