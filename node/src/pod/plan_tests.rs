use super::*;
use crate::pod::allocation::Grant;
use crate::pod::observed::Sandbox;
use crate::probe::Kind;
use serde_json::{Value, json};

pub const NOW: i64 = 1_000_000;

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

pub fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": spec })).unwrap()
}

pub fn sandbox(attempt: u32, ready: bool) -> Sandbox {
    Sandbox { id: format!("s{attempt}"), attempt, ready, created_at: at(-100), ips: vec!["10.0.0.1".into()] }
}

/// A container of the sandbox with this number.
pub fn container(name: &str, attempt: u32, sandbox: u32, state: State, exit_code: i32) -> Container {
    let ended = matches!(state, State::Exited | State::Unknown);
    Container {
        id: format!("{name}{attempt}"),
        name: name.into(),
        sandbox: format!("s{sandbox}"),
        attempt,
        state,
        created_at: at(-50),
        started_at: Some(at(-49)),
        finished_at: ended.then(|| at(-3)),
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "i".into(),
        image_id: "i@1".into(),
        hash: "i".into(),
        log_path: String::new(),
    }
}

pub fn observed(sandboxes: &[Sandbox], containers: &[Container]) -> Observed {
    Observed { sandboxes: sandboxes.to_vec(), containers: containers.to_vec() }
}

/// The steps, in short words.
fn steps(plan: &Plan) -> String {
    let word = |step: &Step| match step {
        Step::StartSandbox { attempt } => format!("sandbox {attempt}"),
        Step::StartContainer { name, attempt, .. } => format!("start {name} {attempt}"),
        Step::Kill { id, grace_seconds, .. } => format!("kill {id} {grace_seconds}"),
        Step::Resize { containers } => {
            let names: Vec<&str> = containers.iter().map(|(name, _)| name.as_str()).collect();
            format!("resize [{}]", names.join(" "))
        }
        Step::StopSandbox { id } => format!("stop {id}"),
        Step::RemoveContainer { id } => format!("remove {id}"),
        Step::RemoveSandbox { id } => format!("remove {id}"),
    };
    let words: Vec<String> = plan.steps.iter().map(word).chain(plan.over.then(|| "over".into())).collect();
    words.join(", ")
}

fn planned(pod: &Pod, observed: &Observed) -> String {
    steps(&plan(pod, observed, &Memory::default(), at(0)))
}

const RUNS: State = State::Running;
const ENDED: State = State::Exited;

fn two() -> Pod {
    pod(json!({ "containers": [{ "name": "a", "image": "i" }, { "name": "b", "image": "i" }] }))
}

fn never(mut pod: Pod) -> Pod {
    pod.spec.as_mut().unwrap().restart_policy = Some("Never".into());
    pod
}

#[test]
fn a_new_pod_gets_a_sandbox_and_its_containers() {
    assert_eq!(planned(&two(), &observed(&[], &[])), "sandbox 0, start a 0, start b 0");
    assert_eq!(planned(&two(), &observed(&[sandbox(0, true)], &[container("a", 0, 0, RUNS, 0)])), "start b 0");
}

#[test]
fn a_pod_that_runs_is_left_alone() {
    let all = observed(&[sandbox(0, true)], &[container("a", 0, 0, RUNS, 0), container("b", 3, 0, RUNS, 0)]);
    let plan = plan(&two(), &all, &Memory::default(), at(0));
    assert_eq!(plan, Plan::default());
}

#[test]
fn the_restart_policy_decides_what_starts_again() {
    let ended = |code| observed(&[sandbox(0, true)], &[container("a", 0, 0, ENDED, code), container("b", 0, 0, RUNS, 0)]);
    assert_eq!(planned(&two(), &ended(0)), "start a 1");
    assert_eq!(planned(&never(two()), &ended(1)), "");
    let mut on_failure = two();
    on_failure.spec.as_mut().unwrap().restart_policy = Some("OnFailure".into());
    assert_eq!((planned(&on_failure, &ended(0)), planned(&on_failure, &ended(1))), (String::new(), "start a 1".into()));
    let rules = json!([{ "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } }]);
    let ruled = pod(json!({ "restartPolicy": "Never", "containers": [
        { "name": "a", "image": "i", "restartPolicy": "Never", "restartPolicyRules": rules }, { "name": "b", "image": "i" }] }));
    assert_eq!((planned(&ruled, &ended(42)), planned(&ruled, &ended(41))), ("start a 1".into(), String::new()));
}

#[test]
fn when_all_have_ended_the_sandbox_goes_and_the_pod_is_over() {
    let containers = [container("a", 0, 0, ENDED, 0), container("b", 0, 0, ENDED, 1)];
    assert_eq!(planned(&never(two()), &observed(&[sandbox(0, true)], &containers)), "stop s0");
    assert_eq!(planned(&never(two()), &observed(&[sandbox(0, false)], &containers)), "over");
}

#[test]
fn restarts_are_backed_off_and_the_delay_doubles_until_it_is_forgotten() {
    let pod = pod(json!({ "containers": [{ "name": "a", "image": "i" }] }));
    let mut memory = Memory::default();
    for (crash, wanted) in
        [(0, None), (1, Some(10)), (2, Some(20)), (3, Some(40)), (4, Some(80)), (5, Some(160)), (6, Some(300)), (7, Some(300))]
    {
        let mut ended = container("a", crash, 0, ENDED, 1);
        ended.finished_at = Some(at(0));
        let seen = observed(&[sandbox(0, true)], &[ended.clone()]);
        let planned = plan(&pod, &seen, &memory, at(0));
        match wanted {
            None => assert_eq!(steps(&planned), "start a 1"),
            Some(seconds) => {
                assert_eq!((steps(&planned), planned.wake_at), (String::new(), Some(at(seconds))), "crash {crash}");
                assert_eq!(planned.waiting["a"].reason, "CrashLoopBackOff");
                let message = &planned.waiting["a"].message;
                assert!(message.starts_with(&format!("back-off {} restarting", go_duration(seconds))), "{message}");
                assert_eq!(steps(&plan(&pod, &seen, &memory, at(seconds))), format!("start a {}", crash + 1));
            }
        }
        memory.restarted("a", at(0), at(0));
    }
    let mut long_after = container("a", 8, 0, ENDED, 1);
    long_after.finished_at = Some(at(601));
    let seen = observed(&[sandbox(0, true)], &[long_after]);
    assert_eq!(steps(&plan(&pod, &seen, &memory, at(601))), "start a 9", "it ran for ten minutes");
}

#[test]
fn init_containers_go_one_by_one_and_again_in_a_new_sandbox() {
    let pod = pod(json!({
        "initContainers": [{ "name": "x", "image": "i" }, { "name": "y", "image": "i" }], "containers": [{ "name": "a", "image": "i" }] }));
    let x = container("x", 0, 0, ENDED, 0);
    let y = container("y", 0, 0, ENDED, 0);
    assert_eq!(planned(&pod, &observed(&[], &[])), "sandbox 0, start x 0");
    assert_eq!(planned(&pod, &observed(&[sandbox(0, true)], &[container("x", 0, 0, RUNS, 0)])), "");
    assert_eq!(planned(&pod, &observed(&[sandbox(0, true)], std::slice::from_ref(&x))), "start y 0");
    assert_eq!(planned(&pod, &observed(&[sandbox(0, true)], &[y.clone(), x.clone()])), "start a 0");
    let main = container("a", 0, 0, ENDED, 137);
    assert_eq!(
        planned(&pod, &observed(&[sandbox(0, true)], std::slice::from_ref(&main))),
        "start a 1",
        "init containers may be collected"
    );
    assert_eq!(planned(&pod, &observed(&[sandbox(0, false)], &[main, y, x])), "sandbox 1, start x 1");
    let failed = observed(&[sandbox(0, true)], &[container("x", 0, 0, ENDED, 1)]);
    assert_eq!(planned(&pod, &failed), "start x 1");
    assert_eq!(planned(&never(pod.clone()), &failed), "stop s0");
    let after = observed(&[sandbox(0, false)], &[container("x", 0, 0, ENDED, 1)]);
    assert_eq!(planned(&never(pod), &after), "over");
}

#[test]
fn sidecars_start_before_and_end_after_the_rest() {
    let pod = never(pod(json!({
        "initContainers": [
            { "name": "s", "image": "i", "restartPolicy": "Always", "startupProbe": { "exec": { "command": ["t"] } } },
            { "name": "t", "image": "i", "restartPolicy": "Always" },
        ],
        "containers": [{ "name": "a", "image": "i" }] })));
    let (s, t) = (container("s", 0, 0, RUNS, 0), container("t", 0, 0, RUNS, 0));
    assert_eq!(
        planned(&pod, &observed(&[sandbox(0, true)], std::slice::from_ref(&s))),
        "",
        "until its startup probe has succeeded"
    );
    let mut memory = Memory::default();
    memory.probes.set("s0", Kind::Startup, true);
    let next = |containers: &[Container]| steps(&plan(&pod, &observed(&[sandbox(0, true)], containers), &memory, at(0)));
    assert_eq!(next(std::slice::from_ref(&s)), "start t 0");
    assert_eq!(next(&[t.clone(), s.clone()]), "start a 0");
    assert_eq!(next(&[container("a", 0, 0, RUNS, 0), container("t", 0, 0, ENDED, 1), s.clone()]), "start t 1");
    let ended = container("a", 0, 0, ENDED, 0);
    assert_eq!(next(&[ended.clone(), t.clone(), s.clone()]), "kill t0 30");
    assert_eq!(next(&[ended.clone(), container("t", 0, 0, ENDED, 0), s]), "kill s0 30");
    assert_eq!(next(&[ended, container("t", 0, 0, ENDED, 0), container("s", 0, 0, ENDED, 0)]), "stop s0");
}

#[test]
fn a_deleted_pod_ends_within_its_grace() {
    let mut deleted = two();
    deleted.metadata.deletion_grace_period_seconds = Some(20);
    deleted.metadata.deletion_timestamp = Some(slipway_api::meta::Time(at(12)));
    let both = [container("a", 0, 0, RUNS, 0), container("b", 0, 0, RUNS, 0)];
    assert_eq!(planned(&deleted, &observed(&[sandbox(0, true)], &both)), "kill a0 12, kill b0 12");
    let ended = [container("a", 0, 0, ENDED, 0), container("b", 0, 0, ENDED, 137)];
    assert_eq!(planned(&deleted, &observed(&[sandbox(0, true)], &ended)), "stop s0");
    assert_eq!(planned(&deleted, &observed(&[sandbox(0, false)], &ended)), "over");
    assert_eq!(planned(&deleted, &observed(&[], &[])), "over");
}

#[test]
fn what_has_ended_for_good_is_never_started_again() {
    let mut done = two();
    done.status = Some(serde_json::from_value(json!({ "phase": "Succeeded" })).unwrap());
    assert_eq!(planned(&done, &observed(&[], &[])), "over", "as after the machine's restart");
}

#[test]
fn a_dead_sandbox_is_replaced_after_what_still_runs_in_it_has_ended() {
    let runs = [container("a", 0, 0, RUNS, 0), container("b", 0, 0, ENDED, 1)];
    assert_eq!(planned(&two(), &observed(&[sandbox(0, false)], &runs)), "kill a0 30");
    let ended = [container("a", 0, 0, ENDED, 137), container("b", 0, 0, ENDED, 1)];
    assert_eq!(planned(&two(), &observed(&[sandbox(0, false)], &ended)), "sandbox 1, start a 1, start b 1");
    let again = [container("a", 1, 1, RUNS, 0), container("b", 1, 1, RUNS, 0)];
    assert_eq!(planned(&two(), &observed(&[sandbox(1, true), sandbox(0, false)], &again)), "remove s0");
}

#[test]
fn failed_probes_and_a_new_image_end_a_container() {
    let mut pod = pod(json!({ "terminationGracePeriodSeconds": 7, "containers": [{ "name": "a", "image": "i",
        "livenessProbe": { "exec": { "command": ["t"] }, "terminationGracePeriodSeconds": 3 } }] }));
    let seen = observed(&[sandbox(0, true)], &[container("a", 0, 0, RUNS, 0)]);
    let mut memory = Memory::default();
    memory.probes.set("a0", Kind::Liveness, false);
    let killed = plan(&pod, &seen, &memory, at(0));
    assert_eq!(steps(&killed), "kill a0 3");
    let Step::Kill { why, .. } = &killed.steps[0] else { panic!("no kill") };
    assert_eq!(why, "Container a failed liveness probe, will be restarted");
    pod.spec.as_mut().unwrap().containers[0].image = Some("j".into());
    assert_eq!(planned(&pod, &seen), "kill a0 7");
}

#[test]
fn only_the_last_dead_container_of_a_name_is_kept() {
    let all = [
        container("a", 3, 0, RUNS, 0),
        container("a", 2, 0, ENDED, 1),
        container("a", 1, 0, ENDED, 1),
        container("a", 0, 0, ENDED, 1),
        container("b", 0, 0, RUNS, 0),
    ];
    assert_eq!(planned(&two(), &observed(&[sandbox(0, true)], &all)), "remove a1, remove a0");
}

#[test]
fn a_failed_pull_waits_without_holding_up_the_others() {
    let failure = Failure {
        reason: "ErrImagePull".into(),
        message: "no".into(),
        is_pull: true,
        at: at(-1),
        retry_at: at(9),
        delay: SignedDuration::from_secs(10),
    };
    let memory = Memory { failures: [("a".to_owned(), failure)].into(), ..Memory::default() };
    let seen = observed(&[sandbox(0, true)], &[]);
    let early = plan(&two(), &seen, &memory, at(0));
    assert_eq!((steps(&early).as_str(), early.waiting["a"].reason.as_str()), ("start b 0", "ErrImagePull"));
    let late = plan(&two(), &seen, &memory, at(3));
    assert_eq!((late.waiting["a"].reason.as_str(), late.wake_at), ("ImagePullBackOff", Some(at(9))));
    assert_eq!(steps(&plan(&two(), &seen, &memory, at(9))), "start a 0, start b 0");
}

mod converge {
    use super::*;
    use proptest::prelude::*;

    /// Does the steps as a perfect runtime would; what was started runs, or ends with the code given for its name.
    fn apply(
        plan: &Plan,
        seen: &mut Observed,
        memory: &mut Memory,
        codes: &std::collections::BTreeMap<String, Option<i32>>,
        now: Timestamp,
    ) {
        for step in &plan.steps {
            match step {
                Step::StartSandbox { attempt } => seen.sandboxes.insert(0, sandbox(*attempt, true)),
                Step::StartContainer { name, attempt, after } => {
                    let state = if codes[name].is_some() { ENDED } else { RUNS };
                    let mut made = container(name, *attempt, seen.sandboxes[0].attempt, state, codes[name].unwrap_or(0));
                    made.finished_at = codes[name].map(|_| now);
                    memory.probes.set(&made.id, Kind::Startup, true);
                    if let Some(after) = after {
                        memory.restarted(name, *after, now);
                    }
                    seen.containers.insert(0, made);
                }
                Step::Kill { id, .. } => {
                    let killed = seen.containers.iter_mut().find(|container| container.id == *id).unwrap();
                    assert_eq!(killed.state, RUNS, "only what runs is killed");
                    (killed.state, killed.exit_code, killed.finished_at) = (ENDED, 137, Some(now));
                }
                Step::Resize { .. } => memory.in_force = memory.granted.clone(),
                Step::StopSandbox { id } => {
                    seen.sandboxes.iter_mut().filter(|sandbox| sandbox.id == *id).for_each(|sandbox| sandbox.ready = false)
                }
                Step::RemoveContainer { id } => seen.containers.retain(|container| container.id != *id),
                Step::RemoveSandbox { id } => seen.sandboxes.retain(|sandbox| sandbox.id != *id),
            }
        }
    }

    proptest! {
        /// Whatever the containers do, a pod that may not restart comes to rest, and at rest nothing is planned any more;
        /// one that is deleted always ends with nothing running.
        #[test]
        fn a_pod_comes_to_rest(codes in proptest::collection::vec(proptest::option::of(0..3i32), 5), sidecar: bool, loses_sandbox in 0..8usize) {
            let mut init = json!([{ "name": "x", "image": "i" }, { "name": "s", "image": "i" }]);
            if sidecar {
                init[1]["restartPolicy"] = json!("Always");
            }
            let mut subject = never(pod(json!({ "initContainers": init, "containers": [
                { "name": "a", "image": "i" }, { "name": "b", "image": "i" }, { "name": "c", "image": "i" }] })));
            let mut codes: std::collections::BTreeMap<String, Option<i32>> =
                ["a", "b", "c", "x", "s"].map(str::to_owned).into_iter().zip(codes).collect();
            if sidecar {
                codes.insert("s".into(), None);
            }
            let (mut seen, mut memory) = (Observed::default(), Memory::default());
            let mut rested = false;
            for round in 0..40 {
                if round == loses_sandbox {
                    seen.sandboxes.iter_mut().for_each(|sandbox| sandbox.ready = false);
                }
                let now = at(round as i64 * 1000);
                let next = plan(&subject, &seen, &memory, now);
                rested = next.steps.is_empty();
                apply(&next, &mut seen, &mut memory, &codes, now);
                let ready = seen.sandboxes.iter().filter(|sandbox| sandbox.ready).count();
                prop_assert!(ready <= 1);
            }
            prop_assert!(rested);
            subject.metadata.deletion_timestamp = Some(slipway_api::meta::Time(at(0)));
            for _ in 0..10 {
                let next = plan(&subject, &seen, &memory, at(50_000));
                apply(&next, &mut seen, &mut memory, &codes, at(50_000));
            }
            prop_assert!(seen.running().next().is_none() && plan(&subject, &seen, &memory, at(50_000)).over);
        }
    }
}

fn with_ephemeral(mut pod: Pod) -> Pod {
    let debug = json!([{ "name": "debug", "image": "i", "targetContainerName": "a" }]);
    pod.spec.as_mut().unwrap().ephemeral_containers = Some(serde_json::from_value(debug).unwrap());
    pod
}

#[test]
fn an_ephemeral_container_starts_once_and_ends_with_the_pod() {
    let pod = with_ephemeral(two());
    let both = [container("a", 0, 0, RUNS, 0), container("b", 0, 0, RUNS, 0)];
    let with = |more: Container| observed(&[sandbox(0, true)], &[both.as_slice(), &[more]].concat());
    assert_eq!(planned(&pod, &observed(&[], &[])), "sandbox 0, start a 0, start b 0");
    assert_eq!(planned(&pod, &observed(&[sandbox(0, true)], &both)), "start debug 0");
    assert_eq!(planned(&pod, &observed(&[sandbox(0, true)], &[])), "start debug 0, start a 0, start b 0");
    assert_eq!(planned(&pod, &with(container("debug", 0, 0, RUNS, 0))), "");
    assert_eq!(planned(&pod, &with(container("debug", 0, 0, ENDED, 1))), "");
    let made = container("debug", 0, 0, State::Created, 0);
    assert_eq!(planned(&pod, &with(made)), "remove debug0, start debug 0");
    // Not even in a new sandbox.
    let moved = [container("a", 1, 1, RUNS, 0), container("b", 1, 1, RUNS, 0), container("debug", 0, 0, ENDED, 1)];
    assert_eq!(planned(&pod, &observed(&[sandbox(1, true), sandbox(0, false)], &moved)), "");
    let over = [container("a", 0, 0, ENDED, 0), container("b", 0, 0, ENDED, 0), container("debug", 0, 0, RUNS, 0)];
    assert_eq!(planned(&never(pod.clone()), &observed(&[sandbox(0, true)], &over)), "kill debug0 30");
    assert_eq!(planned(&never(pod), &observed(&[sandbox(0, true)], &over[..2])), "stop s0");
}

/// A pod whose containers were started with these CPUs, and are granted those.
fn granted(pod: &Pod, in_force: &str, granted: &str) -> Memory {
    let of = |cpu: &str| {
        let names = pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| container.name.clone());
        let list = || serde_json::from_value(json!({ "requests": { "cpu": cpu } })).unwrap();
        Grant { pod: None, containers: names.map(|name| (name, list())).collect() }
    };
    Memory { granted: of(granted), in_force: of(in_force), ..Memory::default() }
}

#[test]
fn what_is_granted_is_put_in_force_as_the_policy_says() {
    let policy = json!([{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }]);
    let pod = pod(json!({ "restartPolicy": "OnFailure", "containers": [
        { "name": "a", "image": "i" }, { "name": "b", "image": "i", "resizePolicy": policy }] }));
    let all = observed(&[sandbox(0, true)], &[container("a", 0, 0, RUNS, 0), container("b", 0, 0, RUNS, 0)]);
    let planned = |memory: &Memory, seen: &Observed| steps(&plan(&pod, seen, memory, at(0)));
    assert_eq!(planned(&granted(&pod, "1", "1000m"), &all), "");
    let mut memory = granted(&pod, "1", "2");
    assert_eq!(planned(&memory, &all), "kill b0 30, resize [a]");
    memory.resize.failure = Some(("no".into(), at(5)));
    assert_eq!(planned(&memory, &all), "kill b0 30");
    assert_eq!(plan(&pod, &all, &memory, at(0)).wake_at, Some(at(5)));
    memory.resize = Default::default();
    // It has ended well, and starts again all the same: it was only to get its resources.
    let ended = observed(&[sandbox(0, true)], &[container("a", 0, 0, RUNS, 0), container("b", 0, 0, ENDED, 0)]);
    assert_eq!(planned(&memory, &ended), "resize [a]");
    memory.resize.restarting.insert("b0".into());
    assert_eq!(planned(&memory, &ended), "start b 1, resize [a]");
    memory.resize.is_running = true;
    assert_eq!(planned(&memory, &ended), "start b 1");
    // It runs before it is noted what it has been started with.
    memory.starting.insert("b".into());
    let again = observed(&[sandbox(0, true)], &[container("a", 0, 0, RUNS, 0), container("b", 1, 0, RUNS, 0)]);
    assert_eq!(planned(&memory, &again), "");
}

#[test]
fn a_pods_own_resources_are_put_in_force_too() {
    let pod = pod(json!({ "containers": [{ "name": "a", "image": "i" }] }));
    let seen = observed(&[sandbox(0, true)], &[container("a", 0, 0, RUNS, 0)]);
    let mut memory = granted(&pod, "1", "1");
    memory.granted.pod = serde_json::from_value(json!({ "requests": { "cpu": "2" } })).unwrap();
    assert_eq!(steps(&plan(&pod, &seen, &memory, at(0))), "resize []");
    assert_eq!(steps(&plan(&pod, &observed(&[], &[]), &memory, at(0))), "sandbox 0, start a 0");
}
