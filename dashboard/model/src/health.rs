//! How apps, pods and nodes are doing, in a word and a colour.

use crate::{condition, list, number, replicas, text};
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tone {
    Ok,
    Busy,
    Bad,
    Idle,
}

impl Tone {
    /// The style's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Tone::Ok => "ok",
            Tone::Busy => "busy",
            Tone::Bad => "bad",
            Tone::Idle => "idle",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Health {
    pub tone: Tone,
    pub word: String,
    /// Why, if there is more to say.
    pub why: Option<String>,
}

fn health(tone: Tone, word: &str, why: impl Into<String>) -> Health {
    let why = Some(why.into()).filter(|why| !why.is_empty());
    Health { tone, word: word.into(), why }
}

/// The health of a Deployment, given its pods: one that can't start is told at once, long before the rollout's deadline.
pub fn app_health(deployment: &Value, pods: &[&Value]) -> Health {
    if is_deleting(deployment) {
        return health(Tone::Busy, "Deleting", "");
    }
    let wanted = replicas(deployment);
    let (ready, updated) = (number(deployment, "/status/readyReplicas"), number(deployment, "/status/updatedReplicas"));
    let observed = number(deployment, "/status/observedGeneration") >= number(deployment, "/metadata/generation");
    if wanted == 0 && number(deployment, "/status/replicas") == 0 {
        return health(Tone::Idle, "Stopped", "");
    }
    if observed && ready >= wanted && updated >= wanted && number(deployment, "/status/replicas") == wanted {
        return health(Tone::Ok, "Running", "");
    }
    if let Some(bad) = pods.iter().map(|pod| pod_health(pod)).find(|pod| pod.tone == Tone::Bad) {
        let why = bad.why.map_or_else(|| bad.word.clone(), |why| format!("{}: {why}", bad.word));
        return health(Tone::Bad, "Failing", why);
    }
    if let Some(("False", "ProgressDeadlineExceeded", message)) = condition(deployment, "Progressing") {
        return health(Tone::Bad, "Stuck", message);
    }
    if let Some(("True", _, message)) = condition(deployment, "ReplicaFailure") {
        return health(Tone::Bad, "Failing", message);
    }
    let waiting = pods.iter().map(|pod| pod_health(pod)).find(|pod| pod.word == "Waiting for a node").and_then(|pod| pod.why);
    health(Tone::Busy, "Rolling out", waiting.unwrap_or_else(|| format!("{ready} of {wanted} ready")))
}

fn is_deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// The word that `kubectl get pods` shows where something is wrong, a plain one elsewhere.
pub fn pod_health(pod: &Value) -> Health {
    if is_deleting(pod) {
        return health(Tone::Busy, "Terminating", "");
    }
    let statuses = list(pod, "/status/initContainerStatuses").iter().chain(list(pod, "/status/containerStatuses"));
    for status in statuses {
        let reason = text(status, "/state/waiting/reason");
        if !matches!(reason, "" | "ContainerCreating" | "PodInitializing") {
            return health(Tone::Bad, reason, waiting_message(status));
        }
        let code = number(status, "/state/terminated/exitCode");
        if code != 0 {
            let reason = text(status, "/state/terminated/reason");
            return health(Tone::Bad, if reason.is_empty() { "Error" } else { reason }, format!("exit code {code}"));
        }
    }
    match text(pod, "/status/phase") {
        "Running" if condition(pod, "Ready").is_some_and(|(status, ..)| status == "True") => health(Tone::Ok, "Ready", ""),
        "Running" => health(Tone::Busy, "Not ready", ""),
        "Succeeded" => health(Tone::Idle, "Completed", ""),
        "Failed" => {
            let reason = text(pod, "/status/reason");
            health(Tone::Bad, if reason.is_empty() { "Failed" } else { reason }, text(pod, "/status/message"))
        }
        _ => match condition(pod, "PodScheduled") {
            Some(("False", _, message)) => health(Tone::Busy, "Waiting for a node", message),
            _ => health(Tone::Busy, "Starting", ""),
        },
    }
}

/// Why a container waits; after a crash also how it ended.
fn waiting_message(status: &Value) -> String {
    let message = text(status, "/state/waiting/message");
    let ended = status.pointer("/lastState/terminated/exitCode").and_then(Value::as_i64);
    match ended {
        Some(code) if message.is_empty() => format!("it ended with exit code {code}"),
        Some(code) => format!("{message} (it ended with exit code {code})"),
        None => message.to_owned(),
    }
}

pub fn node_health(node: &Value) -> Health {
    match condition(node, "Ready") {
        Some(("True", ..)) if node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) => {
            health(Tone::Idle, "Cordoned", "It takes no new pods.")
        }
        Some(("True", ..)) => health(Tone::Ok, "Ready", ""),
        Some((_, _, message)) => health(Tone::Bad, "Not ready", message),
        None => health(Tone::Busy, "Joining", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn app(replicas: i64, status: Value) -> Value {
        json!({"metadata": {"generation": 2}, "spec": {"replicas": replicas}, "status": status})
    }

    fn said(health: Health) -> (Tone, String, String) {
        (health.tone, health.word, health.why.unwrap_or_default())
    }

    #[test]
    fn an_app_runs_once_all_its_new_pods_are_ready() {
        let done = json!({"observedGeneration": 2, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2});
        assert_eq!(app_health(&app(2, done.clone()), &[]).word, "Running");
        let mut older = done.clone();
        older["observedGeneration"] = 1.into();
        assert_eq!(app_health(&app(2, older), &[]).word, "Rolling out");
        let mut surplus = done;
        surplus["replicas"] = 3.into();
        assert_eq!(said(app_health(&app(2, surplus), &[])), (Tone::Busy, "Rolling out".into(), "2 of 2 ready".into()));
        assert_eq!(app_health(&app(0, json!({"observedGeneration": 2})), &[]).word, "Stopped");
    }

    #[test]
    fn an_app_whose_pod_cannot_start_fails_and_says_why() {
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}});
        let pod = json!({"status": {"phase": "Pending", "containerStatuses": [{"state": waiting}]}});
        let told = said(app_health(&app(1, json!({"observedGeneration": 2, "replicas": 1})), &[&pod]));
        assert_eq!(told, (Tone::Bad, "Failing".into(), "ImagePullBackOff: Back-off pulling image".into()));
    }

    #[test]
    fn a_crashed_pod_says_how_it_ended() {
        let status = json!({"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
            "lastState": {"terminated": {"exitCode": 3}}});
        let pod = json!({"status": {"phase": "Running", "containerStatuses": [status]}});
        let wanted = (Tone::Bad, "CrashLoopBackOff".into(), "back-off 10s (it ended with exit code 3)".into());
        assert_eq!(said(pod_health(&pod)), wanted);
    }

    #[test]
    fn a_pod_without_a_node_says_what_the_scheduler_said() {
        let condition = json!({"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"});
        let pod = json!({"status": {"phase": "Pending", "conditions": [condition]}});
        assert_eq!(said(pod_health(&pod)), (Tone::Busy, "Waiting for a node".into(), "0/1 nodes are available".into()));
        let told = said(app_health(&app(1, json!({"replicas": 1})), &[&pod]));
        assert_eq!(told, (Tone::Busy, "Rolling out".into(), "0/1 nodes are available".into()));
    }

    #[test]
    fn a_silent_node_is_not_ready_even_if_cordoned() {
        let node = |status: &str, cordoned: bool| json!({"spec": {"unschedulable": cordoned}, "status": {"conditions": [{"type": "Ready", "status": status}]}});
        let words = [("True", false), ("True", true), ("Unknown", true)].map(|(status, c)| node_health(&node(status, c)).word);
        assert_eq!(words, ["Ready", "Cordoned", "Not ready"]);
    }
}
