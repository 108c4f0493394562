use expect_test::expect;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::World;

fn job(rest: &str) -> String {
    format!(
        "{{metadata: {{name: sum}}, spec: {{selector: {{matchLabels: {{job: sum}}}}, {rest}, \
         template: {{metadata: {{labels: {{job: sum}}}}, spec: {{restartPolicy: Never, containers: [{{name: c, image: 'sum:1'}}]}}}}}}}}"
    )
}

fn key() -> Key {
    Key::new("default", "sum")
}

fn work(_: &World) -> Vec<(&'static dyn crate::run::Controller, Key)> {
    vec![(&Controller, key())]
}

fn end(world: &mut World, pod: &Pod, phase: &str) {
    let code = i32::from(phase == "Failed");
    let terminated = json!({"exitCode": code, "finishedAt": world.now.to_string()});
    let status =
        json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": terminated}});
    world.edit::<Pod>(pod.name(), json!({"status": {"phase": phase, "containerStatuses": [status]}}));
}

/// Nodes on which every pod ends at once, with success or not.
fn all_end(phase: &'static str) -> impl Fn(&mut World) {
    move |world| {
        for pod in world.list::<Pod>().iter().filter(|pod| pods::is_active(pod)) {
            end(world, pod, phase);
        }
    }
}

fn summary(world: &World) -> String {
    let status = world.get::<Job>(&key()).status.clone().unwrap();
    let conditions = status.conditions.iter().flatten();
    let conditions: Vec<String> =
        conditions.map(|c| format!("{}={} {}", c.type_, c.status, c.reason.clone().unwrap_or_default())).collect();
    let held = world.list::<Pod>().iter().filter(|pod| counting::is_tracked(pod)).count();
    format!(
        "succeeded {} failed {} active {} held {held} indexes {:?}; {}",
        status.succeeded.unwrap_or(0),
        status.failed.unwrap_or(0),
        status.active.unwrap_or(0),
        status.completed_indexes.unwrap_or_default(),
        conditions.join(", ")
    )
}

#[test]
fn a_job_runs_to_its_end() {
    let mut world = World::default();
    world.put::<Job>(&job("completions: 3, parallelism: 2"));
    world.step(&Controller, &key(), expect![[r#"
        patch Job default/sum/status {"status":{"ready":0,"startTime":"2026-01-01T00:00:00Z","terminating":0,"uncountedTerminatedPods":{}}}
        create Pod default/sum-*
        create Pod default/sum-*
    "#]]);
    let pod = world.list::<Pod>()[0].clone();
    end(&mut world, &pod, "Succeeded");
    world.step(
        &Controller,
        &key(),
        expect![[r#"
        patch Job default/sum/status {"status":{"active":1,"uncountedTerminatedPods":{"succeeded":["uid-sum-1"]}}}
        create Pod default/sum-*
    "#]],
    );
    world.step(
        &Controller,
        &key(),
        expect![[r#"
        patch Job default/sum/status {"status":{"active":2}}
        patch Pod default/sum-1 {"metadata":{"finalizers":null}}
    "#]],
    );
    world.converge(&work, &all_end("Succeeded"), &[]);
    expect![[r#"succeeded 3 failed 0 active 0 held 0 indexes ""; SuccessCriteriaMet=True CompletionsReached, Complete=True CompletionsReached"#]].assert_eq(&summary(&world));
}

#[test]
fn failures_back_off_up_to_the_limit() {
    let mut world = World::default();
    world.put::<Job>(&job("completions: 1, parallelism: 1, backoffLimit: 2"));
    let mut made = vec![];
    for second in 0..60 {
        let plan = world.plan(&Controller, &key());
        plan.steps.iter().for_each(|step| world.apply(step));
        if world.list::<Pod>().len() > made.len() {
            made.push(second);
        }
        all_end("Failed")(&mut world);
        world.pass(1);
    }
    assert_eq!(made, [0, 10, 30], "after 10, then 20 seconds");
    expect![[r#"succeeded 0 failed 3 active 0 held 0 indexes ""; FailureTarget=True BackoffLimitExceeded, Failed=True BackoffLimitExceeded"#]].assert_eq(&summary(&world));
}

#[test]
fn the_deadline_stops_what_runs() {
    let mut world = World::default();
    world.put::<Job>(&job("completions: 2, parallelism: 2, activeDeadlineSeconds: 30"));
    world.converge(&work, &|_| {}, &[]);
    world.pass(31);
    world.converge(&work, &|_| {}, &[]);
    expect![[
        r#"succeeded 0 failed 2 active 0 held 0 indexes ""; FailureTarget=True DeadlineExceeded, Failed=True DeadlineExceeded"#
    ]]
    .assert_eq(&summary(&world));
    assert_eq!(world.list::<Pod>().len(), 0);
}

#[test]
fn indexes_are_completed_one_by_one() {
    let mut world = World::default();
    world.put::<Job>(&job("completions: 4, parallelism: 2, completionMode: Indexed"));
    world.converge(&work, &|_| {}, &[]);
    let pod = &world.list::<Pod>()[1];
    let env = &pod.spec.as_ref().unwrap().containers[0].env.as_ref().unwrap()[0];
    assert_eq!((index::of(pod), env.name.as_str()), (Some(1), "JOB_COMPLETION_INDEX"));
    let pod = pod.clone();
    end(&mut world, &pod, "Succeeded");
    world.converge(&work, &|_| {}, &[]);
    expect![[r#"succeeded 1 failed 0 active 2 held 2 indexes "1"; "#]].assert_eq(&summary(&world));
    world.converge(&work, &all_end("Succeeded"), &[]);
    expect![[r#"succeeded 4 failed 0 active 0 held 0 indexes "0-3"; SuccessCriteriaMet=True CompletionsReached, Complete=True CompletionsReached"#]].assert_eq(&summary(&world));
}

#[test]
fn a_suspended_job_has_no_pods_and_they_do_not_count_as_failed() {
    let mut world = World::default();
    world.put::<Job>(&job("completions: 2, parallelism: 2"));
    world.converge(&work, &|_| {}, &[]);
    world.edit::<Job>("sum", json!({"spec": {"suspend": true}}));
    world.converge(&work, &|_| {}, &[]);
    expect![[r#"succeeded 0 failed 0 active 0 held 0 indexes ""; Suspended=True JobSuspended"#]].assert_eq(&summary(&world));
    world.edit::<Job>("sum", json!({"spec": {"suspend": false}}));
    world.converge(&work, &all_end("Succeeded"), &[]);
    expect![[r#"succeeded 2 failed 0 active 0 held 0 indexes ""; Suspended=False JobResumed, SuccessCriteriaMet=True CompletionsReached, Complete=True CompletionsReached"#]].assert_eq(&summary(&world));
}

#[test]
fn the_failure_policy_ignores_or_fails() {
    let mut world = World::default();
    let rules = "podFailurePolicy: {rules: [{action: Ignore, onPodConditions: [{type: DisruptionTarget}]}, \
                 {action: FailJob, onExitCodes: {operator: In, values: [1]}}]}";
    world.put::<Job>(&job(&format!("completions: 1, parallelism: 1, backoffLimit: 0, {rules}")));
    world.converge(&work, &|_| {}, &[]);
    let pod = world.list::<Pod>()[0].clone();
    let disrupted = json!([{"type": "DisruptionTarget", "status": "True"}]);
    world.edit::<Pod>(pod.name(), json!({"status": {"phase": "Failed", "conditions": disrupted}}));
    world.converge(&work, &|_| {}, &[]);
    world.pass(15);
    world.converge(&work, &|_| {}, &[]);
    expect![[r#"succeeded 0 failed 0 active 1 held 1 indexes ""; "#]].assert_eq(&summary(&world));
    world.converge(&work, &all_end("Failed"), &[]);
    expect![[
        r#"succeeded 0 failed 1 active 0 held 0 indexes ""; FailureTarget=True PodFailurePolicy, Failed=True PodFailurePolicy"#
    ]]
    .assert_eq(&summary(&world));
}

#[test]
fn after_its_time_to_live_it_goes() {
    let mut world = World::default();
    world.put::<Job>(&job("completions: 1, parallelism: 1, ttlSecondsAfterFinished: 100"));
    world.converge(&work, &all_end("Succeeded"), &[]);
    world.check(
        &Controller,
        &key(),
        expect![[r#"
        again in 99s
    "#]],
    );
    world.pass(101);
    world.step(
        &Controller,
        &key(),
        expect![[r#"
        delete Job default/sum (its time to live is over)
    "#]],
    );
    assert!(world.plan(&Controller, &key()).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// However often the process dies in between, every pod that ended is counted, and counted once.
    #[test]
    fn counts_each_pod_once_wherever_it_is_interrupted(
        parallelism in 1i32..4,
        completions in 1i32..6,
        indexed in any::<bool>(),
        cuts in proptest::collection::vec(0usize..4, 0..20),
    ) {
        let mut world = World::default();
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        world.put::<Job>(&job(&format!("completions: {completions}, parallelism: {parallelism}, completionMode: {mode}")));
        world.converge(&work, &all_end("Succeeded"), &cuts);
        let job = world.get::<Job>(&key());
        let status = job.status.clone().unwrap();
        prop_assert_eq!(status.succeeded, Some(completions));
        prop_assert_eq!(world.list::<Pod>().len() as i32, completions, "no pod too many was made");
        prop_assert_eq!(status.failed, None);
        prop_assert!(outcome::is_finished(&status));
        prop_assert!(world.list::<Pod>().iter().all(|pod| !counting::is_tracked(pod)));
    }
}
