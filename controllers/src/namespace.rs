//! Namespace: when it is deleted, everything in it is deleted, of every kind that the API server serves; then it may go.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::Request;
use kube::Client;
use serde::Deserialize;
use slipway_api::{
    core::{Namespace, NamespaceCondition, NamespaceStatus},
    jiff::Timestamp,
    meta::{ObjectMeta, Time},
};

use crate::{
    apply::Failure,
    caches::Caches,
    discovery::{Discovered, discover},
    plan::{Delete, DeleteCollection, Plan, Step},
    queue::Queue,
    resource::{Key, Object, Resource},
    run::Situation,
};

const FINALIZER: &str = "kubernetes";
/// Content usually goes at once; pods take the time that they were given.
const RETRY: Duration = Duration::from_millis(500);

pub struct Controller {
    pub client: Client,
}

/// What is left of one kind in a namespace.
#[derive(Clone, Debug)]
pub struct Content {
    pub resource: Resource,
    pub deletes_collections: bool,
    pub objects: Vec<ObjectMeta>,
}

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let queue = queue.clone();
        caches.namespaces.on_change(move |_, new| {
            if let Some(namespace) = new.filter(|namespace| namespace.is_deleted()) {
                queue.add(namespace.key());
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let Some(namespace) = situation.caches.namespaces.get(key).filter(|namespace| awaits_us(namespace)) else {
            return Ok(Plan::nothing());
        };
        let contents = match discover(&self.client).await {
            Ok(kinds) => Ok(self.contents(&key.name, kinds).await?),
            Err(error) => Err(error.to_string()),
        };
        Ok(plan(&namespace, contents, situation.failure.as_ref(), situation.now))
    }
}

impl Controller {
    async fn contents(&self, namespace: &str, kinds: Vec<Discovered>) -> Result<Vec<Content>, kube::Error> {
        let mut contents = vec![];
        let mine = |kind: &Discovered| kind.resource.namespaced && kind.can("list") && kind.can("delete");
        for kind in kinds.into_iter().filter(mine) {
            // Events are served by two groups, and they are the same objects.
            if kind.resource.plural == "events" && !kind.resource.group.is_empty() {
                continue;
            }
            let objects = self.list(&kind.resource, namespace).await?;
            if !objects.is_empty() {
                let deletes_collections = kind.can("deletecollection");
                contents.push(Content { resource: kind.resource, deletes_collections, objects });
            }
        }
        Ok(contents)
    }

    async fn list(&self, resource: &Resource, namespace: &str) -> Result<Vec<ObjectMeta>, kube::Error> {
        #[derive(Deserialize)]
        struct List {
            #[serde(default = "Vec::new")]
            items: Vec<Item>,
        }
        #[derive(Deserialize)]
        struct Item {
            metadata: ObjectMeta,
        }
        let request = Request::get(resource.collection(namespace))
            .header("accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json")
            .body(vec![])
            .map_err(kube::Error::HttpError)?;
        match self.client.request::<List>(request).await {
            Ok(list) => Ok(list.items.into_iter().map(|item| item.metadata).collect()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => Ok(vec![]),
            Err(error) => Err(error),
        }
    }
}

fn awaits_us(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
    namespace.is_deleted() && finalizers.into_iter().any(|finalizer| finalizer == FINALIZER)
}

fn plan(namespace: &Namespace, contents: Result<Vec<Content>, String>, failure: Option<&Failure>, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let status = status(namespace, &contents, failure, now);
    let remaining = contents.as_deref().is_ok_and(|contents| !contents.is_empty());
    if remaining || contents.is_err() {
        let reported = Namespace { status: Some(status), ..namespace.clone() };
        plan.push(Step::update_status(namespace, &reported));
        plan.again_in(RETRY);
    }
    let Ok(contents) = contents else { return plan };
    if contents.is_empty() {
        let mut free = namespace.clone();
        if let Some(finalizers) = free.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        plan.push(Step::replace(&free, "finalize"));
        return plan;
    }
    // Pods first: what they use (secrets, network policies) must not go while they run.
    let is_pods = |content: &&Content| content.resource.plural == "pods" && content.resource.group.is_empty();
    match contents.iter().find(is_pods) {
        Some(pods) => delete_all(namespace, pods, &mut plan),
        None => contents.iter().for_each(|content| delete_all(namespace, content, &mut plan)),
    }
    plan
}

fn delete_all(namespace: &Namespace, content: &Content, plan: &mut Plan) {
    let mut standing = content.objects.iter().filter(|object| object.deletion_timestamp.is_none()).peekable();
    if standing.peek().is_none() {
        return;
    }
    if content.deletes_collections {
        plan.push(Step::DeleteCollection(DeleteCollection {
            resource: content.resource.clone(),
            namespace: namespace.name().to_owned(),
        }));
        return;
    }
    for object in standing {
        plan.push(Step::Delete(Delete {
            resource: content.resource.clone(),
            key: Key::of(object),
            uid: object.uid.clone().unwrap_or_default(),
            resource_version: None,
            grace_seconds: None,
            propagation: Some("Background"),
            why: "its namespace is deleted",
            tell: None,
        }));
    }
}

fn status(
    namespace: &Namespace,
    contents: &Result<Vec<Content>, String>,
    failure: Option<&Failure>,
    now: Timestamp,
) -> NamespaceStatus {
    let mut status = namespace.status.clone().unwrap_or_default();
    status.phase = Some("Terminating".into());
    let none = vec![];
    let found = contents.as_ref().unwrap_or(&none);
    let remaining: Vec<String> = found
        .iter()
        .map(|content| {
            let Resource { plural, group, .. } = &content.resource;
            format!("{plural}.{group} has {} resource instances", content.objects.len())
        })
        .collect();
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for object in found.iter().flat_map(|content| &content.objects) {
        for finalizer in object.finalizers.iter().flatten() {
            *finalizers.entry(finalizer).or_default() += 1;
        }
    }
    let finalizers: Vec<String> =
        finalizers.into_iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    let text = |list: &[String]| (!list.is_empty()).then(|| list.join(", "));

    let mut note = |type_: &str, bad: Option<(&str, String)>, good: (&str, &str)| {
        let (value, reason, message) = match bad {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", good.0, good.1.to_owned()),
        };
        set(&mut status, type_, value, reason, message, now);
    };
    note(
        "NamespaceDeletionDiscoveryFailure",
        contents.as_ref().err().map(|why| ("DiscoveryFailed", format!("Discovery failed for some groups, {why}"))),
        ("ResourcesDiscovered", "All resources successfully discovered"),
    );
    note(
        "NamespaceDeletionGroupVersionParsingFailure",
        None,
        ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    );
    note(
        "NamespaceDeletionContentFailure",
        failure.map(|failure| {
            ("ContentDeletionFailed", format!("Failed to delete all resource types, 1 remaining: {}", failure.message))
        }),
        ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
    );
    note(
        "NamespaceContentRemaining",
        text(&remaining).map(|list| ("SomeResourcesRemain", format!("Some resources are remaining: {list}"))),
        ("ContentRemoved", "All content successfully removed"),
    );
    note(
        "NamespaceFinalizersRemaining",
        text(&finalizers)
            .map(|list| ("SomeFinalizersRemain", format!("Some content in the namespace has finalizers remaining: {list}"))),
        ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
    );
    status
}

fn set(status: &mut NamespaceStatus, type_: &str, value: &str, reason: &str, message: String, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter_mut().find(|condition| condition.type_ == type_);
    match known {
        Some(known) => {
            if known.status != value || known.reason.as_deref() != Some(reason) {
                known.last_transition_time = Some(Time(now));
            }
            known.status = value.into();
            known.reason = Some(reason.into());
            known.message = Some(message);
        }
        None => conditions.push(NamespaceCondition {
            type_: type_.into(),
            status: value.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use slipway_api::core::{ConfigMap, Pod};

    fn namespace() -> Namespace {
        let yaml = "{metadata: {name: team, deletionTimestamp: '2026-01-01T00:00:00Z'}, spec: {finalizers: [kubernetes]}}";
        serde_saphyr::from_str(yaml).unwrap()
    }

    fn content<K: Object>(names: &[&str], deletes_collections: bool) -> Content {
        let object = |name: &&str| ObjectMeta {
            name: Some((*name).into()),
            namespace: Some("team".into()),
            finalizers: name.starts_with("held").then(|| vec!["test/hold".into()]),
            ..Default::default()
        };
        Content { resource: K::resource(), deletes_collections, objects: names.iter().map(object).collect() }
    }

    fn check(contents: Result<Vec<Content>, String>, expected: Expect) {
        let plan = plan(&namespace(), contents, None, "2026-01-01T00:00:00Z".parse().unwrap());
        let steps = plan.steps.iter().map(|step| match step {
            Step::Patch(patch) => {
                let conditions = patch.patch["status"]["conditions"].as_array().cloned().unwrap_or_default();
                let bad = conditions.iter().filter(|condition| condition["status"] == "True");
                bad.map(|condition| format!("{}: {}\n", condition["type"], condition["message"])).collect()
            }
            step => format!("{step}\n"),
        });
        expected.assert_eq(&steps.collect::<String>());
    }

    #[test]
    fn pods_go_before_the_rest() {
        let maps = content::<ConfigMap>(&["held", "b"], false);
        check(
            Ok(vec![maps.clone(), content::<Pod>(&["web"], true)]),
            expect![[r#"
            "NamespaceContentRemaining": "Some resources are remaining: configmaps. has 2 resource instances, pods. has 1 resource instances"
            "NamespaceFinalizersRemaining": "Some content in the namespace has finalizers remaining: test/hold in 1 resource instances"
            delete all pods in team
        "#]],
        );
        check(
            Ok(vec![maps]),
            expect![[r#"
            "NamespaceContentRemaining": "Some resources are remaining: configmaps. has 2 resource instances"
            "NamespaceFinalizersRemaining": "Some content in the namespace has finalizers remaining: test/hold in 1 resource instances"
            delete ConfigMap team/held (its namespace is deleted)
            delete ConfigMap team/b (its namespace is deleted)
        "#]],
        );
    }

    #[test]
    fn an_empty_namespace_is_let_go_and_an_unknown_one_is_not() {
        check(
            Ok(vec![]),
            expect![[r#"
            replace Namespace team/finalize
        "#]],
        );
        check(
            Err("no route".into()),
            expect![[r#"
            "NamespaceDeletionDiscoveryFailure": "Discovery failed for some groups, no route"
        "#]],
        );
    }
}
