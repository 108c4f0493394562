//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or cannot be reached, unless it says
//! otherwise.

use super::{AdmissionContext, Operation, Plugin, Reservations};
use crate::http::error::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    async fn admit(
        &self,
        context: &AdmissionContext<'_>,
        object: &mut Value,
        _reservations: &mut Reservations,
    ) -> Result<(), Status> {
        if context.writes("", "pods", &[Operation::Create, Operation::Update]) {
            tolerate(object);
        }
        Ok(())
    }
}

fn tolerate(pod: &mut Value) {
    let Some(spec) = pod["spec"].as_object_mut() else { return };
    let mut tolerations = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    let count = tolerations.len();
    for key in TAINTS {
        let tolerated = tolerations.iter().take(count).any(|toleration| {
            let text = |field: &str| toleration[field].as_str().unwrap_or_default();
            (text("key") == key || text("key").is_empty()) && matches!(text("effect"), "" | "NoExecute")
        });
        if !tolerated {
            tolerations.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
        }
    }
    if tolerations.len() != count {
        spec.insert("tolerations".into(), tolerations.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_taints_are_tolerated_once() {
        let mut pod = json!({"spec": {}});
        tolerate(&mut pod);
        let keys: Vec<&Value> = pod["spec"]["tolerations"].as_array().unwrap().iter().map(|one| &one["key"]).collect();
        assert_eq!(keys, TAINTS);
        let before = pod.clone();
        tolerate(&mut pod);
        assert_eq!(pod, before);
    }

    #[test]
    fn what_the_pod_says_itself_stands() {
        let own =
            json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
        let mut pod = json!({"spec": {"tolerations": [own]}});
        tolerate(&mut pod);
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
        let mut all = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        tolerate(&mut all);
        assert_eq!(all["spec"]["tolerations"].as_array().unwrap().len(), 1);
    }
}
