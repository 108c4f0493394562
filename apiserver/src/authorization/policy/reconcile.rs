//! Brings the stored roles and bindings up to the defaults.

use super::{AUTO_UPDATE, bindings, roles};
use crate::authorization::rbac::{GROUP, Rule, missing};
use crate::http::authenticate::User;
use crate::http::error::Status;
use crate::server::{ApiServer, find};
use crate::verbs::{DeleteOptions, Preconditions, Target, create_object, delete_object, guaranteed_update};
use futures::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

/// Objects that are written at once: a store groups them.
const CONCURRENT: usize = 32;

/// Roles first, so that no binding is without one.
pub async fn run(server: &ApiServer) -> Result<(), Status> {
    let keep_all =
        |objects: Vec<Value>| stream::iter(objects).map(Ok).try_for_each_concurrent(CONCURRENT, |object| keep(server, object));
    keep_all(roles().iter().map(super::DefaultRole::object).collect()).await?;
    keep_all(bindings().iter().map(super::DefaultBinding::object).collect()).await?;
    // Who is served first may rely on them already.
    server.cache.fresh().await.map(|_| ()).map_err(|error| Status::internal(&error))
}

async fn keep(server: &ApiServer, wanted: Value) -> Result<(), Status> {
    let text = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let plural = format!("{}s", text("/kind").to_lowercase());
    let Some(strategy) = server.strategy(GROUP, "v1", &plural) else { return Ok(()) };
    let (namespace, name, user) = (text("/metadata/namespace"), text("/metadata/name"), User::apiserver());
    let target = Target::new(server, &*strategy, &user, &namespace, &name);
    if find(&server.snapshot(), &*strategy, &namespace, &name).is_none() {
        match create_object(&target, wanted.clone()).await {
            // Another server was faster.
            Err(status) if status.code == StatusCode::CONFLICT => {}
            created => return created.map(|_| ()),
        }
    }
    let kept = guaranteed_update(&target, &Preconditions::default(), |stored| Ok(reconciled(stored, &wanted))).await?;
    if kept.get("roleRef") == wanted.get("roleRef") || !is_kept(&kept) {
        return Ok(());
    }
    // What a binding binds to cannot be changed.
    delete_object(&target, &DeleteOptions::default()).await?;
    create_object(&target, wanted.clone()).await.map(|_| ())
}

fn is_kept(stored: &Value) -> bool {
    stored["metadata"]["annotations"].get(AUTO_UPDATE).is_none_or(|value| value != "false")
}

/// The stored object with what it lacks of the wanted one.
fn reconciled(mut stored: Value, wanted: &Value) -> Value {
    if !is_kept(&stored) {
        return stored;
    }
    for field in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][field].as_object().into_iter().flatten() {
            if stored["metadata"][field].get(key).is_none() {
                stored["metadata"][field][key] = value.clone();
            }
        }
    }
    if let Some(selectors) = wanted["aggregationRule"]["clusterRoleSelectors"].as_array() {
        add_missing(&mut stored["aggregationRule"]["clusterRoleSelectors"], selectors);
    } else if wanted.get("roleRef").is_some() {
        let subjects = wanted["subjects"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !subjects.is_empty() {
            add_missing(&mut stored["subjects"], subjects);
        }
    } else {
        let rules = |object: &Value| Vec::<Rule>::deserialize(&object["rules"]).unwrap_or_default();
        let lacks = missing(&rules(&stored), &rules(wanted));
        if !lacks.is_empty() {
            let lacks: Vec<Value> = lacks.iter().map(|rule| json!(rule)).collect();
            add_missing(&mut stored["rules"], &lacks);
        }
    }
    stored
}

fn add_missing(list: &mut Value, wanted: &[Value]) {
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else { return };
    for one in wanted {
        if !list.contains(one) {
            list.push(one.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(rules: Value, annotations: Value) -> Value {
        json!({"kind": "ClusterRole", "metadata": {"name": "r", "annotations": annotations}, "rules": rules})
    }

    #[test]
    fn what_is_missing_comes_back_and_what_was_added_stays() {
        let rule = |verbs: &[&str], resource: &str| json!({"verbs": verbs, "apiGroups": [""], "resources": [resource]});
        let wanted = role(json!([rule(&["get", "list"], "pods")]), json!({AUTO_UPDATE: "true", "a": "ours"}));
        let own = role(json!([rule(&["get"], "pods"), rule(&["get"], "secrets")]), json!({"a": "theirs"}));
        let kept = reconciled(own.clone(), &wanted);
        assert_eq!(kept["rules"], json!([rule(&["get"], "pods"), rule(&["get"], "secrets"), rule(&["list"], "pods")]));
        assert_eq!(kept["metadata"]["annotations"], json!({AUTO_UPDATE: "true", "a": "theirs"}));
        assert_eq!(reconciled(kept.clone(), &wanted), kept);
        let mut left_alone = own;
        left_alone["metadata"]["annotations"][AUTO_UPDATE] = "false".into();
        assert_eq!(reconciled(left_alone.clone(), &wanted), left_alone);
    }

    #[test]
    fn subjects_and_selectors_come_back() {
        let binding = |subjects: Value| json!({"metadata": {"labels": {}, "annotations": {}}, "roleRef": {"name": "r"}, "subjects": subjects});
        let (one, other) = (json!({"kind": "User", "name": "a"}), json!({"kind": "User", "name": "b"}));
        assert_eq!(reconciled(binding(json!([other])), &binding(json!([one])))["subjects"], json!([other, one]));
        assert_eq!(reconciled(binding(Value::Null), &binding(json!([one])))["subjects"], json!([one]));
        let gathering =
            |selectors: Value| json!({"metadata": {}, "aggregationRule": {"clusterRoleSelectors": selectors}, "rules": []});
        assert_eq!(
            reconciled(gathering(json!([{"a": 1}])), &gathering(json!([{"b": 2}])))["aggregationRule"]["clusterRoleSelectors"],
            json!([{"a": 1}, {"b": 2}])
        );
    }
}
