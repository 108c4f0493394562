use super::*;
use serde_json::json;

const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";

fn schema(name: &str) -> Schema<'static> {
    Schema::Builtin(crate::openapi::Schema::of(name).unwrap())
}

fn write<'w>(schema: Schema<'w>, manager: &'w str, api_version: &'w str) -> Write<'w> {
    Write {
        schema,
        scope: Scope::AllButStatus,
        manager,
        api_version,
        subresource: "",
        now: "2026-01-01T00:00:00Z",
        elsewhere: &NOWHERE,
    }
}

static NOWHERE: Elsewhere = Elsewhere::new();

fn deployment(manager: &str) -> Write<'_> {
    write(schema(DEPLOYMENT), manager, "apps/v1")
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "a"}, "spec": spec})
}

fn containers(list: Value) -> Value {
    config(json!({"template": {"spec": {"containers": list}}}))
}

fn owned_by<'v>(object: &'v Value, manager: &str) -> &'v Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let found = entries.iter().find(|entry| entry["manager"] == manager);
    found.map_or(&Value::Null, |entry| &entry["fieldsV1"])
}

#[test]
fn who_creates_owns_what_it_wrote_but_not_what_is_always_there() {
    let mut new = config(json!({
        "replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "strategy": {"rollingUpdate": {"maxSurge": 1}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
            {"name": "c", "image": "i", "ports": [{"containerPort": 80}], "resources": {}},
        ]}},
    }));
    new["metadata"]["labels"] = json!({"x": "y"});
    new["status"] = json!({"replicas": 3});
    deployment("me").update(None, &mut new);
    assert_eq!(
        new["metadata"]["managedFields"],
        json!([{
            "manager": "me", "operation": "Update", "apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:x": {}}},
                "f:spec": {
                    "f:replicas": {}, "f:selector": {}, "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
                    "f:template": {
                        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                        "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
                            ".": {}, "f:name": {}, "f:image": {}, "f:resources": {},
                            "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                        }}},
                    },
                },
            },
        }])
    );
}

#[test]
fn an_update_takes_what_it_changes_and_loses_what_it_removes() {
    let mut old = config(json!({"replicas": 1, "paused": true, "minReadySeconds": 3}));
    deployment("one").update(None, &mut old);
    old["metadata"]["uid"] = json!("u");
    let mut new = old.clone();
    new["spec"] = json!({"replicas": 2, "minReadySeconds": 3});
    deployment("two").update(Some(&old), &mut new);
    assert_eq!(owned_by(&new, "one"), &json!({"f:spec": {"f:minReadySeconds": {}}}));
    assert_eq!(owned_by(&new, "two"), &json!({"f:spec": {"f:replicas": {}}}));
    let mut same = new.clone();
    Write { now: "2027-01-01T00:00:00Z", ..deployment("three") }.update(Some(&new), &mut same);
    assert_eq!(same, new);
}

#[test]
fn apply_owns_what_it_says_and_removes_what_it_no_longer_says() {
    let first =
        deployment("a").apply(None, &config(json!({"replicas": 1, "paused": true, "minReadySeconds": 3})), false).unwrap();
    assert_eq!(owned_by(&first, "a"), &json!({"f:spec": {"f:minReadySeconds": {}, "f:paused": {}, "f:replicas": {}}}));
    assert_eq!(first["metadata"]["managedFields"][0]["operation"], "Apply");
    let second = deployment("a").apply(Some(&first), &config(json!({"replicas": 2})), false).unwrap();
    assert_eq!(second["spec"], json!({"replicas": 2}));
    assert_eq!(owned_by(&second, "a"), &json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn two_who_want_the_same_share_it_and_two_who_do_not_conflict() {
    let first = deployment("a").apply(None, &config(json!({"replicas": 1})), false).unwrap();
    let shared = deployment("b").apply(Some(&first), &config(json!({"replicas": 1})), false).unwrap();
    assert_eq!(owned_by(&shared, "a"), owned_by(&shared, "b"));
    let error = deployment("b").apply(Some(&shared), &config(json!({"replicas": 2})), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
    let forced = deployment("b").apply(Some(&shared), &config(json!({"replicas": 2})), true).unwrap();
    assert_eq!((owned_by(&forced, "a"), &forced["spec"]["replicas"]), (&Value::Null, &json!(2)));
    // Giving up what another still owns leaves it.
    let given_up = deployment("b").apply(Some(&shared), &config(json!({})), false).unwrap();
    assert_eq!((owned_by(&given_up, "b"), &given_up["spec"]["replicas"]), (&json!({"f:spec": {}}), &json!(1)));
}

#[test]
fn conflicts_are_told_by_manager() {
    let mut live = containers(json!([{"name": "c", "image": "1", "env": [{"name": "E", "value": "1"}]}]));
    live["spec"]["replicas"] = json!(1);
    deployment("updater").update(None, &mut live);
    live["metadata"]["uid"] = json!("u");
    let wanted = containers(json!([{"name": "c", "image": "2", "env": [{"name": "E", "value": "2"}]}]));
    let error = deployment("b").apply(Some(&live), &wanted, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"updater\" using apps/v1:\n\
         - .spec.template.spec.containers[name=\"c\"].image\n\
         - .spec.template.spec.containers[name=\"c\"].env[name=\"E\"].value"
    );
}

#[test]
fn elements_of_lists_have_owners() {
    let one =
        deployment("a").apply(None, &containers(json!([{"name": "c", "image": "1", "ports": [{"containerPort": 80}]}])), false);
    let both = deployment("b")
        .apply(
            Some(&one.unwrap()),
            &containers(json!([{"name": "d", "image": "1"}, {"name": "c", "ports": [{"containerPort": 81, "protocol": "UDP"}]}])),
            false,
        )
        .unwrap();
    let list = |object: &Value| object["spec"]["template"]["spec"]["containers"].clone();
    assert_eq!(
        list(&both),
        json!([
            {"name": "d", "image": "1"},
            {"name": "c", "image": "1", "ports": [{"containerPort": 80}, {"containerPort": 81, "protocol": "UDP"}]},
        ])
    );
    let gone = deployment("b").apply(Some(&both), &containers(json!([])), false).unwrap();
    assert_eq!(list(&gone), json!([{"name": "c", "image": "1", "ports": [{"containerPort": 80}]}]));
    let none = deployment("a").apply(Some(&gone), &config(json!({})), false).unwrap();
    assert_eq!(none.get("spec"), Some(&json!({})));
}

#[test]
fn what_nobody_owned_stays_and_what_stood_in_it_too() {
    let mut live = deployment("a").apply(None, &containers(json!([{"name": "c", "image": "1"}])), false).unwrap();
    // A default, and what a controller wrote without an account.
    live["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    live["spec"]["revisionHistoryLimit"] = json!(10);
    let next = deployment("a").apply(Some(&live), &containers(json!([{"name": "d", "image": "1"}])), false).unwrap();
    assert_eq!(next["spec"]["template"]["spec"]["containers"], json!([{"name": "d", "image": "1"}]));
    assert_eq!(next["spec"]["revisionHistoryLimit"], 10);
}

#[test]
fn atomic_values_have_one_owner() {
    let selector = |labels: Value| config(json!({"selector": {"matchLabels": labels}}));
    let first = deployment("a").apply(None, &selector(json!({"a": "1"})), false).unwrap();
    let error = deployment("b").apply(Some(&first), &selector(json!({"b": "1"})), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"a\": .spec.selector");
    let forced = deployment("b").apply(Some(&first), &selector(json!({"b": "1"})), true).unwrap();
    assert_eq!(forced["spec"]["selector"], json!({"matchLabels": {"b": "1"}}));
}

#[test]
fn a_configuration_is_held_to_the_schema() {
    let why = |config: Value| deployment("a").apply(None, &config, false).unwrap_err().to_string();
    assert_eq!(
        why(config(json!({"foo": 1}))),
        "failed to create typed patch object (a/web; apps/v1, Kind=Deployment): .spec.foo: field not declared in schema"
    );
    let twice = why(containers(json!([{"name": "c"}, {"name": "c"}])));
    assert!(twice.ends_with(": .spec.template.spec.containers: duplicate entries for key [name=\"c\"]"), "{twice}");
    let text = why(config(json!({"replicas": "three", "paused": "no"})));
    assert!(text.ends_with(
        ": errors:\n  .spec.paused: expected boolean, got &{no}\n  .spec.replicas: expected numeric (int or float), got string"
    ) || text.contains(".spec.replicas: expected numeric (int or float), got string"), "{text}");
    let mut owned = config(json!({}));
    owned["metadata"]["managedFields"] = json!([]);
    assert_eq!(why(owned), "metadata.managedFields must be nil");
}

#[test]
fn the_first_apply_finds_those_before_it() {
    let mut live = config(json!({"replicas": 1, "paused": true}));
    live["metadata"]["uid"] = json!("u");
    live["status"] = json!({"replicas": 1});
    let error = deployment("a").apply(Some(&live), &config(json!({"replicas": 2})), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
    );
    let applied = deployment("a").apply(Some(&live), &config(json!({"replicas": 1})), false).unwrap();
    assert_eq!(owned_by(&applied, "before-first-apply"), &json!({"f:spec": {"f:paused": {}, "f:replicas": {}}}));
}

#[test]
fn client_side_applys_annotation_is_believed_and_kept() {
    let last = config(json!({"replicas": 1, "paused": true})).to_string();
    let mut live = config(json!({"replicas": 1, "paused": false}));
    live["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    deployment("kubectl-client-side-apply").update(None, &mut live);
    live["metadata"]["uid"] = json!("u");
    let applied = deployment("kubectl").apply(Some(&live), &config(json!({"replicas": 2})), false).unwrap();
    assert_eq!(applied["spec"]["replicas"], 2);
    let annotation = applied["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(annotation).unwrap(), config(json!({"replicas": 2})));
    // What somebody changed since is a conflict, and so is everything for another manager.
    let error = deployment("kubectl").apply(Some(&live), &config(json!({"replicas": 2, "paused": true})), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.paused"
    );
    assert!(deployment("other").apply(Some(&live), &config(json!({"replicas": 2})), false).is_err());
}

#[test]
fn owners_are_told_by_the_request_forgotten_at_its_wish_and_never_believed_below_a_subresource() {
    let mut live = config(json!({"replicas": 1}));
    deployment("a").update(None, &mut live);
    live["metadata"]["uid"] = json!("u");
    let said = |entries: Value| {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = entries;
        deployment("b").update(Some(&live), &mut new);
        new
    };
    let mine = json!([{"manager": "x", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
    assert_eq!(said(mine.clone())["metadata"]["managedFields"], mine);
    for reset in [json!([]), json!([{}])] {
        assert_eq!(said(reset)["metadata"].get("managedFields"), None);
    }
    let broken = json!([{"manager": "x", "operation": "Frob", "apiVersion": "apps/v1", "fieldsType": "FieldsV1"}]);
    assert_eq!(said(broken), live);
    let mut new = live.clone();
    new["metadata"]["managedFields"] = json!([{}]);
    Write { subresource: "status", scope: Scope::Status { but: &[] }, ..deployment("b") }.update(Some(&live), &mut new);
    assert_eq!(new, live);
    // What is not kept account of is not, until somebody applies.
    let mut untracked = live.clone();
    take_entries(&mut untracked);
    let mut new = untracked.clone();
    new["spec"]["replicas"] = json!(3);
    deployment("b").update(Some(&untracked), &mut new);
    assert_eq!(new["metadata"].get("managedFields"), None);
}

#[test]
fn entries_that_admission_has_broken_are_put_back() {
    let mut object = config(json!({"replicas": 1}));
    deployment("a").update(None, &mut object);
    let before = object["metadata"]["managedFields"].clone();
    assert_eq!(keep_readable(&before, &mut object), None);
    object["metadata"]["managedFields"][0]["operation"] = json!("Frob");
    let warning = keep_readable(&before, &mut object).unwrap();
    assert!(warning.ends_with("please fix your requests: operation must be `Apply` or `Update`"), "{warning}");
    assert_eq!(object["metadata"]["managedFields"], before);
}

#[test]
fn the_status_is_anothers() {
    let mut live = config(json!({"replicas": 1}));
    deployment("a").update(None, &mut live);
    live["metadata"]["uid"] = json!("u");
    let mut new = live.clone();
    new["spec"]["replicas"] = json!(5);
    new["status"] = json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    new["metadata"]["labels"] = json!({"a": "b"});
    Write { subresource: "status", scope: Scope::Status { but: &["labels"] }, ..deployment("controller") }
        .update(Some(&live), &mut new);
    assert_eq!(
        owned_by(&new, "controller"),
        &json!({"f:status": {"f:replicas": {}, "f:conditions": {".": {}, "k:{\"type\":\"Available\"}": {".": {}, "f:status": {}, "f:type": {}}}}})
    );
    assert_eq!(owned_by(&new, "a"), &json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(new["metadata"]["managedFields"][1]["subresource"], "status");
}

#[test]
fn old_updates_are_put_together() {
    let mut live = config(json!({}));
    live["metadata"]["labels"] = json!({"l0": ""});
    deployment("m0").update(None, &mut live);
    live["metadata"]["uid"] = json!("u");
    for at in 1..14 {
        let mut new = live.clone();
        new["metadata"]["labels"][format!("l{at}")] = json!("");
        let (name, now) = (format!("m{at}"), format!("2026-01-{at:02}T00:00:00Z"));
        Write { now: &now, ..deployment(&name) }.update(Some(&live), &mut new);
        live = new;
    }
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    let ancient = entries.iter().find(|entry| entry["manager"] == "ancient-changes").unwrap();
    let labels = ancient["fieldsV1"]["f:metadata"]["f:labels"].as_object().unwrap();
    assert!(["f:l0", "f:l1", "f:l2", "f:l3", "f:l4"].iter().all(|label| labels.contains_key(*label)), "{labels:?}");
}

#[test]
fn a_custom_resource_is_merged_by_its_own_schema() {
    let structural = Structural::of_custom_resource(
        &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
            "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id", "kind"],
                "items": {"type": "object", "properties": {"id": {"type": "integer"}, "kind": {"type": "string", "default": "k"}, "v": {"type": "string"}}}},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "plain": {"type": "array", "items": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        }}}}),
        false,
    );
    let own = |spec: Value| {
        let config = json!({"apiVersion": "x.y/v1", "kind": "Z", "metadata": {"name": "z"}, "spec": spec});
        let applied = write(structural.schema(), "a", "x.y/v1").apply(None, &config, false).map_err(|error| error.to_string())?;
        Ok::<_, String>(owned_by(&applied, "a")["f:spec"].clone())
    };
    assert_eq!(own(json!({"whole": {"a": "1"}})), Ok(json!({"f:whole": {}})));
    assert_eq!(
        own(json!({"keyed": [{"id": 1, "v": "x"}]})),
        Ok(json!({"f:keyed": {"k:{\"id\":1,\"kind\":\"k\"}": {".": {}, "f:id": {}, "f:v": {}}}}))
    );
    assert_eq!(
        own(json!({"set": ["a", "b"], "plain": ["c"]})),
        Ok(json!({"f:set": {"v:\"a\"": {}, "v:\"b\"": {}}, "f:plain": {}}))
    );
    assert_eq!(own(json!({"free": {"a": {"b": [1]}}})), Ok(json!({"f:free": {"f:a": {".": {}, "f:b": {}}}})));
    assert_eq!(own(json!({"port": "http"})), Ok(json!({"f:port": {}})));
    assert_eq!(
        own(json!({"pod": {"metadata": {"labels": {"a": "b"}}, "spec": {"x": 1}}})),
        Ok(json!({"f:pod": {"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {".": {}, "f:x": {}}}}))
    );
    let why = own(json!({"nope": 1, "set": ["a", "a"]})).unwrap_err();
    assert!(
        why.contains(".spec.nope: field not declared in schema") && why.contains("duplicate entries for key [=\"a\"]"),
        "{why}"
    );
    let deduced = write(Schema::Deduced, "a", "x.y/v1").apply(None, &json!({"spec": {"a": {"b": [1]}, "c": 1}}), false);
    assert_eq!(deduced.unwrap().get("spec"), Some(&json!({"a": {"b": [1]}, "c": 1})));
}

#[test]
fn who_scales_owns_the_replicas() {
    let replicas = [Element::field("spec"), Element::field("replicas")];
    let mut live = config(json!({"replicas": 1, "paused": true}));
    deployment("a").update(None, &mut live);
    let parent = Managed::read(&live["metadata"]["managedFields"]).unwrap();
    let mut scale = json!({"metadata": {"uid": "u"}, "spec": {"replicas": 1}});
    put_entries(&mut scale, parent.of_scale(&replicas, "autoscaling/v1").write());
    let mut scaled = scale.clone();
    scaled["spec"]["replicas"] = json!(5);
    let hpa = Write {
        subresource: "scale",
        scope: Scope::All,
        ..write(schema("io.k8s.api.autoscaling.v1.Scale"), "hpa", "autoscaling/v1")
    };
    hpa.update(Some(&scale), &mut scaled);
    let managed = parent.with_scale(Managed::read(&scaled["metadata"]["managedFields"]).unwrap(), &replicas, "apps/v1");
    put_entries(&mut live, managed.write());
    assert_eq!(owned_by(&live, "a"), &json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(owned_by(&live, "hpa"), &json!({"f:spec": {"f:replicas": {}}}));
    // The next apply may leave the replicas out, and they stay; or ask for others, and conflicts.
    let error = deployment("b").apply(Some(&live), &config(json!({"replicas": 2})), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
}
