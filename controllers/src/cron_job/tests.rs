use expect_test::expect;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::World;

/// A cron job that was made an hour before the world's time, and whose last time was a moment ago.
fn cron_job(spec: &str) -> String {
    format!(
        "{{metadata: {{name: report, creationTimestamp: '2025-12-31T23:00:00Z'}}, status: {{lastScheduleTime: '2025-12-31T23:59:00Z'}}, \
         spec: {{{spec}, concurrencyPolicy: Allow, successfulJobsHistoryLimit: 3, failedJobsHistoryLimit: 1, \
         jobTemplate: {{metadata: {{labels: {{app: report}}, annotations: {{a: b}}}}, \
         spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: 'report:1'}}]}}}}}}}}}}}}"
    )
}

fn key() -> Key {
    Key::new("default", "report")
}

fn work(_: &World) -> Vec<(&'static dyn crate::run::Controller, Key)> {
    vec![(&Controller, key())]
}

fn end(world: &mut World, job: &Job, condition: &str) {
    let now = world.now.to_string();
    let status = json!({"startTime": now, "completionTime": now, "conditions": [{"type": condition, "status": "True"}]});
    world.edit::<Job>(job.name(), json!({"status": status}));
}

fn edit(world: &mut World, spec: serde_json::Value) {
    world.edit::<CronJob>("report", json!({"spec": spec}));
}

#[test]
fn a_job_is_made_noted_and_seen_to_end() {
    let mut world = World::default();
    world.put::<CronJob>(&cron_job("schedule: '*/5 * * * *'"));
    let plan = world.plan(&Controller, &key());
    let Step::Create(create) = &plan.steps[0] else { panic!("{plan}") };
    assert_eq!(create.object["metadata"]["annotations"], json!({"a": "b", SCHEDULED_TIMESTAMP: "2026-01-01T00:00:00Z"}));
    assert_eq!(create.object["metadata"]["labels"], json!({"app": "report"}));
    assert_eq!(create.object["metadata"]["ownerReferences"][0]["kind"], "CronJob");
    world.step(
        &Controller,
        &key(),
        expect![[r#"
            create Job default/report-29453760
            event Normal SuccessfulCreate: Created job report-29453760
            again in 301s
        "#]],
    );
    world.settle(&Controller, &key(), expect![[r#"
        patch CronJob default/report/status {"status":{"active":[{"apiVersion":"batch/v1","kind":"Job","name":"report-29453760","namespace":"default","resourceVersion":"3","uid":"uid-report-29453760"}],"lastScheduleTime":"2026-01-01T00:00:00Z"}}
        again in 301s
    "#]]);
    let job = world.list::<Job>()[0].clone();
    world.pass(40);
    end(&mut world, &job, "Complete");
    world.settle(
        &Controller,
        &key(),
        expect![[r#"
            patch CronJob default/report/status {"status":{"active":null,"lastSuccessfulTime":"2026-01-01T00:00:40Z"}}
            event Normal SawCompletedJob: Saw completed job: report-29453760, condition: Complete
            again in 261s
        "#]],
    );
}

#[test]
fn one_that_still_runs_is_left_waited_for_or_replaced() {
    let mut world = World::default();
    world.put::<CronJob>(&cron_job("schedule: '* * * * *'"));
    world.converge(&work, &|_| {}, &[]);
    world.pass(60);
    edit(&mut world, json!({"concurrencyPolicy": "Forbid"}));
    world.check(
        &Controller,
        &key(),
        expect![[r#"
            event Normal JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid
            again in 58s
        "#]],
    );
    edit(&mut world, json!({"concurrencyPolicy": "Replace"}));
    world.step(
        &Controller,
        &key(),
        expect![[r#"
            delete Job default/report-29453760 (the next one takes its place)
            event Normal SuccessfulDelete: Deleted job report-29453760
            patch CronJob default/report/status {"status":{"active":null}}
            create Job default/report-29453761
            event Normal SuccessfulCreate: Created job report-29453761
            again in 58s
        "#]],
    );
    world.settle(&Controller, &key(), expect![[r#"
        patch CronJob default/report/status {"status":{"active":[{"apiVersion":"batch/v1","kind":"Job","name":"report-29453761","namespace":"default","resourceVersion":"9","uid":"uid-report-29453761"}],"lastScheduleTime":"2026-01-01T00:01:00Z"}}
        again in 58s
    "#]]);
    world.pass(60);
    edit(&mut world, json!({"concurrencyPolicy": "Allow"}));
    world.converge(&work, &|_| {}, &[]);
    assert_eq!(world.list::<Job>().len(), 2, "both run");
}

#[test]
fn the_history_is_kept_short() {
    let mut world = World::default();
    world.put::<CronJob>(&cron_job("schedule: '* * * * *', suspend: true"));
    let owner = world.get::<CronJob>(&key()).controller_reference();
    for (minute, condition) in ["Complete", "Failed", "Complete", "Complete", "Failed", "Complete"].into_iter().enumerate() {
        let metadata = json!({"name": format!("j{minute}"), "ownerReferences": [owner]});
        let start = format!("2025-12-31T23:0{minute}:00Z");
        let status = json!({"startTime": start, "completionTime": start, "conditions": [{"type": condition, "status": "True"}]});
        world.put::<Job>(&json!({"metadata": metadata, "spec": {"template": {}}, "status": status}).to_string());
    }
    world.settle(
        &Controller,
        &key(),
        expect![[r#"
            patch CronJob default/report/status {"status":{"lastSuccessfulTime":"2025-12-31T23:05:00Z"}}
            delete Job default/j0 (the history is long enough)
            delete Job default/j1 (the history is long enough)
            event Normal SuccessfulDelete: Deleted job j0
            event Normal SuccessfulDelete: Deleted job j1
        "#]],
    );
}

#[test]
fn times_that_were_missed() {
    let mut world = World::default();
    world.put::<CronJob>(&cron_job("schedule: '0 * * * *', startingDeadlineSeconds: 200"));
    world.pass(200);
    world.step(
        &Controller,
        &key(),
        expect![[r#"
            again in 3401s
        "#]],
    );
    edit(&mut world, json!({"startingDeadlineSeconds": 201}));
    world.check(
        &Controller,
        &key(),
        expect![[r#"
            create Job default/report-29453760
            event Normal SuccessfulCreate: Created job report-29453760
            again in 3401s
        "#]],
    );
    edit(&mut world, json!({"startingDeadlineSeconds": null, "schedule": "* * * * *"}));
    world.pass(3 * 3600);
    world.check(
        &Controller,
        &key(),
        expect![[r#"
            event Warning TooManyMissedTimes: too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew
            create Job default/report-29453943
            event Normal SuccessfulCreate: Created job report-29453943
            again in 41s
        "#]],
    );
}

#[test]
fn steps_of_every_are_counted_from_the_last_time() {
    let mut world = World::default();
    world.put::<CronJob>(&cron_job("schedule: '@every 7m'"));
    world.check(
        &Controller,
        &key(),
        expect![[r#"
            again in 361s
        "#]],
    );
    world.pass(31 * 60);
    world.check(
        &Controller,
        &key(),
        expect![[r#"
            create Job default/report-29453787
            event Normal SuccessfulCreate: Created job report-29453787
            again in 181s
        "#]],
    );
}

#[test]
fn schedules_that_lead_to_nothing() {
    let mut world = World::default();
    world.put::<CronJob>(&cron_job("schedule: '0 0 30 2 *'"));
    world.check(
        &Controller,
        &key(),
        expect![[r#"
        event Warning InvalidSchedule: invalid schedule: 0 0 30 2 * : time difference between two schedules is less than 1 second
    "#]],
    );
    edit(&mut world, json!({"schedule": "x"}));
    world.check(
        &Controller,
        &key(),
        expect![[r#"
            event Warning UnparseableSchedule: unparseable schedule: "x" : expected exactly 5 fields, found 1: [x]
        "#]],
    );
    edit(&mut world, json!({"timeZone": "Atlantis/Capital"}));
    world.check(
        &Controller,
        &key(),
        expect![[r#"
            event Warning UnknownTimeZone: invalid timeZone: "Atlantis/Capital": unknown time zone Atlantis/Capital
        "#]],
    );
    edit(&mut world, json!({"timeZone": "Asia/Tokyo", "schedule": "30 8 * * *"}));
    world.pass(-30 * 60);
    let plan = world.plan(&Controller, &key());
    assert!(plan.steps.is_empty(), "{plan}");
    edit(&mut world, json!({"suspend": true, "schedule": "* * * * *"}));
    world.pass(3600);
    world.check(&Controller, &key(), expect![""]);
}

#[test]
fn the_time_is_written_in_the_zone() {
    let mut world = World::default();
    world.put::<CronJob>(&cron_job("schedule: '0 9 * * *', timeZone: Asia/Tokyo"));
    let plan = world.plan(&Controller, &key());
    let Step::Create(create) = &plan.steps[0] else { panic!("{plan}") };
    assert_eq!(create.object["metadata"]["annotations"][SCHEDULED_TIMESTAMP], "2026-01-01T09:00:00+09:00");
}

#[test]
fn jobs_that_others_made_and_took_away() {
    let mut world = World::default();
    world.put::<CronJob>(&cron_job("schedule: '0 0 1 2 *'"));
    world.edit::<CronJob>("report", json!({"status": {"active": [{"name": "gone", "uid": "x", "namespace": "default"}]}}));
    let owner = world.get::<CronJob>(&key()).controller_reference();
    let forged = json!({"name": "report-29453761", "ownerReferences": [owner],
        "annotations": {SCHEDULED_TIMESTAMP: "2026-01-01T00:01:00Z"}});
    world.put::<Job>(&json!({"metadata": forged, "spec": {"template": {}}}).to_string());
    world.check(
        &Controller,
        &key(),
        expect![[r#"
            patch CronJob default/report/status {"status":{"active":null}}
            event Normal MissingJob: Active job went missing: gone
            event Warning UnexpectedJob: Saw a job that the controller did not create or forgot: report-29453761
            again in 2678401s
        "#]],
    );
}

#[test]
fn a_failure_is_told() {
    let mut world = World::default();
    world.put::<CronJob>(&cron_job("schedule: '* * * * *'"));
    world.failure = Some(Failure { reason: "FailedCreate", message: "jobs.batch \"x\" is forbidden".into() });
    world.check(
        &Controller,
        &key(),
        expect![[r#"
            event Warning FailedCreate: Error creating job: jobs.batch "x" is forbidden
            create Job default/report-29453760
            event Normal SuccessfulCreate: Created job report-29453760
            again in 61s
        "#]],
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Wherever it dies, a time gets one job, and with Forbid and Replace no two run at once.
    #[test]
    fn it_gets_there_from_wherever_it_dies(
        policy in prop::sample::select(vec!["Allow", "Forbid", "Replace"]), cuts in prop::collection::vec(0usize..6, 0..12),
    ) {
        let mut world = World::default();
        world.put::<CronJob>(&cron_job("schedule: '*/5 * * * *'"));
        edit(&mut world, json!({"concurrencyPolicy": policy}));
        let alone = |world: &mut World| {
            let running = world.list::<Job>().iter().filter(|job| job::finished(job).is_none()).count();
            assert!(policy == "Allow" || running <= 1, "{running} run at once");
        };
        world.converge(&work, &alone, &cuts);
        world.pass(300);
        world.converge(&work, &alone, &cuts);
        let running: Vec<Job> = world.list::<Job>().into_iter().filter(|job| job::finished(job).is_none()).collect();
        prop_assert_eq!(running.len(), if policy == "Allow" { 2 } else { 1 });
        for job in &running {
            end(&mut world, job, "Complete");
        }
        // What Forbid kept waiting is made up for.
        world.converge(&work, &alone, &cuts);
        let made = world.list::<Job>().len();
        prop_assert_eq!(made, if policy == "Replace" { 1 } else { 2 });
        let status = world.get::<CronJob>(&key()).status.clone().unwrap();
        prop_assert_eq!(status.active.map_or(0, |active| active.len()), if policy == "Forbid" { 1 } else { 0 });
        prop_assert_eq!(status.last_schedule_time.unwrap().0.to_string(), "2026-01-01T00:05:00Z");
    }
}
