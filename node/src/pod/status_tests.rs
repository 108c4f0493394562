use super::*;
use crate::pod::plan::plan;
use crate::pod::plan::tests::{at, container, observed, pod, sandbox};
use crate::probe::Kind;
use serde_json::json;

fn told(pod: &Pod, observed: &Observed, memory: &Memory) -> PodStatus {
    let plan = plan(pod, observed, memory, at(0));
    let host_ips = ["192.0.2.1".to_owned()];
    status(pod, &Facts { observed, memory, plan: &plan, host_ips: &host_ips, messages: &BTreeMap::new(), now: at(0) })
}

fn condition(status: &PodStatus, kind: &str) -> (String, String) {
    let found = slipway_api::condition::get(status.conditions.as_deref(), kind).unwrap();
    (found.status.clone(), found.reason.clone().unwrap_or_default())
}

fn simple() -> Pod {
    pod(json!({ "containers": [{ "name": "a", "image": "i" }, { "name": "b", "image": "i" }] }))
}

#[test]
fn the_phase_follows_the_containers() {
    let never = |mut pod: Pod| {
        pod.spec.as_mut().unwrap().restart_policy = Some("Never".into());
        pod
    };
    let up = [sandbox(0, true)];
    let of = |pod: &Pod, states: &[(State, i32)]| {
        let containers: Vec<_> =
            ["a", "b"].iter().zip(states).map(|(name, (state, code))| container(name, 0, 0, *state, *code)).collect();
        told(pod, &observed(&up, &containers), &Memory::default()).phase.unwrap()
    };
    let (runs, good, bad) = ((State::Running, 0), (State::Exited, 0), (State::Exited, 1));
    for (states, always, once) in [
        (&[][..], "Pending", "Pending"),
        (&[runs][..], "Pending", "Pending"),
        (&[runs, runs][..], "Running", "Running"),
        (&[runs, bad][..], "Running", "Running"),
        (&[good, good][..], "Running", "Succeeded"),
        (&[good, bad][..], "Running", "Failed"),
    ] {
        assert_eq!((of(&simple(), states).as_str(), of(&never(simple()), states).as_str()), (always, once), "{states:?}");
    }
}

#[test]
fn a_pod_that_ended_stays_so() {
    let mut pod = simple();
    pod.status = Some(serde_json::from_value(json!({ "phase": "Succeeded" })).unwrap());
    assert_eq!(told(&pod, &observed(&[], &[]), &Memory::default()).phase.as_deref(), Some("Succeeded"));
}

#[test]
fn readiness_is_what_probes_and_gates_say() {
    let mut pod = pod(json!({ "readinessGates": [{ "conditionType": "lb" }],
        "containers": [{ "name": "a", "image": "i", "readinessProbe": { "exec": { "command": ["t"] } } }] }));
    let seen = observed(&[sandbox(0, true)], &[container("a", 0, 0, State::Running, 0)]);
    let mut memory = Memory::default();
    let status = told(&pod, &seen, &memory);
    assert_eq!(condition(&status, "Ready"), ("False".into(), "ContainersNotReady".into()));
    memory.probes.set("a0", Kind::Readiness, true);
    let status = told(&pod, &seen, &memory);
    assert_eq!(condition(&status, "ContainersReady").0, "True");
    assert_eq!(condition(&status, "Ready"), ("False".into(), "ReadinessGatesNotReady".into()));
    let gate = json!({ "conditions": [{ "type": "lb", "status": "True" }] });
    pod.status = Some(serde_json::from_value(gate).unwrap());
    let status = told(&pod, &seen, &memory);
    assert_eq!(condition(&status, "Ready").0, "True");
    assert_eq!(condition(&status, "lb").0, "True", "others' conditions stay");
}

#[test]
fn telling_again_changes_nothing() {
    let mut pod = simple();
    let containers =
        [container("a", 2, 0, State::Running, 0), container("a", 1, 0, State::Exited, 3), container("b", 0, 0, State::Exited, 0)];
    let seen = observed(&[sandbox(0, true)], &containers);
    let first = told(&pod, &seen, &Memory::default());
    let list = first.container_statuses.as_ref().unwrap();
    assert_eq!(list[0].restart_count, 2);
    assert_eq!(list[0].last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 3);
    pod.status = Some(serde_json::from_value(serde_json::to_value(&first).unwrap()).unwrap());
    assert_eq!(told(&pod, &seen, &Memory::default()), first);
}

#[test]
fn before_init_containers_are_done_the_others_wait_for_them() {
    let pod = pod(json!({ "initContainers": [{ "name": "x", "image": "i" }], "containers": [{ "name": "a", "image": "i" }] }));
    let status = told(&pod, &observed(&[sandbox(0, true)], &[container("x", 0, 0, State::Running, 0)]), &Memory::default());
    let waiting = |status: &ContainerStatus| status.state.clone().unwrap().waiting.unwrap().reason.unwrap();
    assert_eq!(waiting(&status.container_statuses.as_ref().unwrap()[0]), "PodInitializing");
    assert_eq!(condition(&status, "Initialized"), ("False".into(), "ContainersNotInitialized".into()));
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    let status = told(&pod, &observed(&[sandbox(0, true)], &[container("x", 0, 0, State::Exited, 0)]), &Memory::default());
    assert!(status.init_container_statuses.as_ref().unwrap()[0].ready);
    assert_eq!(condition(&status, "Initialized").0, "True");
}

#[test]
fn a_resize_is_told_of_while_it_lasts() {
    use crate::pod::allocation::{Grant, Pending};
    let list = |cpu: &str| serde_json::from_value(json!({ "requests": { "cpu": cpu } })).unwrap();
    let resources = json!({ "requests": { "cpu": "3" } });
    let pod = pod(json!({ "containers": [{ "name": "a", "image": "i", "resources": resources }] }));
    let seen = observed(&[sandbox(0, true)], &[container("a", 0, 0, State::Running, 0)]);
    let grant = |cpu: &str| Grant { pod: None, containers: [("a".to_owned(), list(cpu))].into() };
    let mut memory = Memory { granted: grant("2"), in_force: grant("1"), ..Memory::default() };
    let pending = Pending { reason: resize::DEFERRED, message: "no room".into() };
    memory.resize.pending = Some(pending);
    let status = told(&pod, &seen, &memory);
    assert_eq!(condition(&status, resize::PENDING), ("True".into(), "Deferred".into()));
    assert_eq!(condition(&status, resize::IN_PROGRESS), ("True".into(), String::new()));
    let first = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(first.resources, Some(list("1")));
    assert_eq!(first.allocated_resources, resource_list("2"));
    memory.resize.failure = Some(("too little".into(), at(5)));
    assert_eq!(condition(&told(&pod, &seen, &memory), resize::IN_PROGRESS).1, "Error");

    // What was told stays no longer than it holds.
    let mut later = pod;
    later.status = Some(serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap());
    let memory = Memory { granted: grant("3"), in_force: grant("3"), ..Memory::default() };
    let kinds = told(&later, &seen, &memory).conditions.unwrap();
    assert!(!kinds.iter().any(|condition| RESIZE.contains(&condition.type_.as_str())), "{kinds:?}");
}

fn resource_list(cpu: &str) -> Option<BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>> {
    serde_json::from_value(json!({ "cpu": cpu })).unwrap()
}

#[test]
fn an_ephemeral_container_is_told_of_beside_the_others() {
    let debug = json!([{ "name": "debug", "image": "i" }]);
    let pod = pod(json!({ "containers": [{ "name": "a", "image": "i" }], "ephemeralContainers": debug }));
    let running = [container("a", 0, 0, State::Running, 0), container("debug", 0, 0, State::Running, 0)];
    let status = told(&pod, &observed(&[sandbox(0, true)], &running), &Memory::default());
    let told = &status.ephemeral_container_statuses.as_ref().unwrap()[0];
    assert!(told.state.as_ref().unwrap().running.is_some());
    assert_eq!((told.ready, told.started, &told.resources), (false, None, &None));
    assert_eq!(condition(&status, "Ready").0, "True");
    assert_eq!(status.container_statuses.unwrap().len(), 1);
}
