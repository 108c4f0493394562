//! Priority: makes of a pod's `priorityClassName` the number that the scheduler compares.

use super::{AdmissionContext, Operation, Plugin, Reservations};
use crate::http::error::Status;
use crate::server::{ApiServer, find};
use crate::stored::{self, Entry};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::sync::Arc;

/// The classes that every cluster has, known even before their objects are written.
const SYSTEM: [(&str, i64); 2] = [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
const PREEMPT: &str = "PreemptLowerPriority";

pub(super) struct Priority;

#[async_trait]
impl Plugin for Priority {
    async fn admit(
        &self,
        context: &AdmissionContext<'_>,
        object: &mut Value,
        _reservations: &mut Reservations,
    ) -> Result<(), Status> {
        if context.writes("", "pods", &[Operation::Create]) {
            let name = object["spec"]["priorityClassName"].as_str().filter(|name| !name.is_empty());
            let classes = classes(context.server, name)?;
            resolve(object, &classes).map_err(|why| context.forbidden(object, &why))?;
        } else if context.writes("", "pods", &[Operation::Update])
            && let Some(old) = context.old
            && let Some(spec) = object["spec"].as_object_mut()
        {
            // Decided when the pod was created; a client that sends the pod back without it does not take it away.
            for field in ["priority", "preemptionPolicy"] {
                if let (false, Some(value)) = (spec.contains_key(field), old["spec"].get(field)) {
                    spec.insert(field.into(), value.clone());
                }
            }
        }
        Ok(())
    }

    async fn validate(&self, context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
        let written = context.writes("scheduling.k8s.io", "priorityclasses", &[Operation::Create, Operation::Update]);
        if !written || object["globalDefault"] != true {
            return Ok(());
        }
        let other = classes(context.server, None)?
            .into_iter()
            .find(|class| class["globalDefault"] == true && class["metadata"]["name"] != object["metadata"]["name"]);
        match other {
            Some(other) => {
                let name = other["metadata"]["name"].as_str().unwrap_or_default();
                let why = format!("PriorityClass {name} is already marked as default. Only one default can exist");
                Err(context.forbidden(object, &why))
            }
            None => Ok(()),
        }
    }
}

/// The PriorityClass of that name; without one, those that may be the default.
fn classes(server: &ApiServer, name: Option<&str>) -> Result<Vec<Value>, Status> {
    let Some(strategy) = server.strategy("scheduling.k8s.io", "v1", "priorityclasses") else { return Ok(vec![]) };
    let snapshot = server.snapshot();
    let decode = |entry: &Arc<Entry>| stored::decode(&*strategy, &entry.bytes).map_err(|error| Status::internal(&error));
    if let Some(name) = name {
        return find(&snapshot, &*strategy, "", name).map(decode).into_iter().collect();
    }
    let prefix = stored::prefix(strategy.names(), None);
    // Most clusters have none, and nothing is read.
    let may_be_default = |entry: &&Arc<Entry>| memchr::memmem::find(&entry.bytes, br#""globalDefault":true"#).is_some();
    stored::below(&snapshot, &prefix, "").filter(may_be_default).map(decode).collect()
}

fn resolve(pod: &mut Value, classes: &[Value]) -> Result<(), String> {
    let name = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let class = if name.is_empty() {
        let defaults = classes.iter().filter(|class| class["globalDefault"] == true);
        defaults.min_by_key(|class| class["value"].as_i64())
    } else {
        classes.iter().find(|class| class["metadata"]["name"] == name.as_str())
    };
    let system = SYSTEM.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let value = match (class, system) {
        (Some(class), _) => class["value"].as_i64().unwrap_or(0),
        (None, Some(value)) => value,
        (None, None) if name.is_empty() => 0,
        (None, None) => return Err(format!("no PriorityClass with name {name} was found")),
    };
    let policy = class.and_then(|class| class["preemptionPolicy"].as_str()).unwrap_or(PREEMPT);
    if let Some(own) = pod["spec"]["priority"].as_i64().filter(|own| *own != value) {
        return Err(format!(
            "the integer value of priority ({own}) must not be provided in pod spec; \
             priority admission controller computed {value} from the given PriorityClass name"
        ));
    }
    if let Some(own) = pod["spec"]["preemptionPolicy"].as_str().filter(|own| *own != policy) {
        return Err(format!(
            "the string value of PreemptionPolicy ({own}) must not be provided in pod spec; \
             priority admission controller computed {policy} from the given PriorityClass name"
        ));
    }
    let Some(spec) = pod["spec"].as_object_mut() else { return Ok(()) };
    if let (true, Some(class)) = (name.is_empty(), class) {
        spec.insert("priorityClassName".into(), class["metadata"]["name"].clone());
    }
    spec.insert("priority".into(), json!(value));
    spec.insert("preemptionPolicy".into(), json!(policy));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(spec: Value) -> Result<Value, String> {
        let classes = [
            json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}),
            json!({"metadata": {"name": "usual"}, "value": 5, "globalDefault": true}),
        ];
        let mut pod = json!({"spec": spec});
        resolve(&mut pod, &classes).map(|()| pod["spec"].clone())
    }

    #[test]
    fn a_class_gives_priority_and_policy() {
        let high = json!({"priorityClassName": "high", "priority": 1000, "preemptionPolicy": "Never"});
        assert_eq!(resolved(json!({"priorityClassName": "high"})), Ok(high.clone()));
        assert_eq!(resolved(high.clone()), Ok(high));
        let usual = json!({"priorityClassName": "usual", "priority": 5, "preemptionPolicy": PREEMPT});
        assert_eq!(resolved(json!({})), Ok(usual));
        assert_eq!(resolved(json!({"priorityClassName": "system-node-critical"})).unwrap()["priority"], 2_000_001_000);
    }

    #[test]
    fn an_unknown_class_and_a_number_of_ones_own_are_refused() {
        assert_eq!(resolved(json!({"priorityClassName": "no"})), Err("no PriorityClass with name no was found".into()));
        let error = resolved(json!({"priorityClassName": "high", "priority": 7})).unwrap_err();
        assert!(error.starts_with("the integer value of priority (7) must not be provided"), "{error}");
        assert!(resolved(json!({"priorityClassName": "high", "preemptionPolicy": PREEMPT})).is_err());
    }
}
