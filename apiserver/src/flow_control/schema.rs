//! Which level a request belongs to, and which flow of it: FlowSchemas and PriorityLevelConfigurations, compiled.

use super::queues::Limits;
use crate::http::authenticate::User;
use crate::http::request_info::{RequestInfo, Verb};
use serde_json::Value;
use slipway_api::flowcontrol::{FlowSchema, PolicyRulesWithSubjects, PriorityLevelConfiguration, ResourcePolicyRule, Subject};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

/// The schemas in the order in which they are asked, and the levels' limits.
#[derive(Default)]
pub struct Plan {
    schemas: Vec<FlowSchema>,
    pub levels: BTreeMap<String, Limits>,
    /// Of the levels' objects.
    uids: BTreeMap<String, String>,
}

/// Where a request belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    pub level: String,
    pub schema_uid: String,
    pub level_uid: String,
    /// The same for all requests that share one hand of queues.
    pub hash: u64,
}

impl Plan {
    /// `seats` are shared among the levels by their shares.
    pub fn of(schemas: impl Iterator<Item = Value>, levels: impl Iterator<Item = Value>, seats: u32) -> Plan {
        let levels: Vec<PriorityLevelConfiguration> = levels.filter_map(|level| serde_json::from_value(level).ok()).collect();
        let shares: i64 = levels.iter().map(|level| i64::from(shares_of(level))).sum();
        let mut plan = Plan::default();
        for level in levels {
            let name = level.metadata.name.clone().unwrap_or_default();
            plan.uids.insert(name.clone(), level.metadata.uid.clone().unwrap_or_default());
            plan.levels.insert(name, limits(&level, shares.max(1), seats));
        }
        plan.schemas = schemas.filter_map(|schema| serde_json::from_value(schema).ok()).collect();
        let precedence = |schema: &FlowSchema| schema.spec.matching_precedence.unwrap_or(1000);
        plan.schemas.retain(|schema| plan.levels.contains_key(&schema.spec.priority_level_configuration.name));
        plan.schemas.sort_by(|one, other| (precedence(one), &one.metadata.name).cmp(&(precedence(other), &other.metadata.name)));
        plan
    }

    /// The first schema that matches; `None` only before there are any.
    pub fn classify(&self, user: &User, info: &RequestInfo) -> Option<Flow> {
        let matching = |schema: &&FlowSchema| schema.spec.rules.iter().flatten().any(|rule| matches(rule, user, info));
        let schema = self.schemas.iter().find(matching)?;
        let spec = &schema.spec;
        let distinguisher = match spec.distinguisher_method.as_ref().map(|method| method.type_.as_str()) {
            Some("ByUser") => user.name.as_str(),
            Some("ByNamespace") => info.namespace.as_deref().unwrap_or_default(),
            _ => "",
        };
        let mut hasher = std::hash::DefaultHasher::new();
        (&schema.metadata.name, distinguisher).hash(&mut hasher);
        let level = spec.priority_level_configuration.name.clone();
        Some(Flow {
            level_uid: self.uids.get(&level).cloned().unwrap_or_default(),
            level,
            schema_uid: schema.metadata.uid.clone().unwrap_or_default(),
            hash: hasher.finish(),
        })
    }
}

fn shares_of(level: &PriorityLevelConfiguration) -> i32 {
    let spec = &level.spec;
    match (&spec.limited, &spec.exempt) {
        (Some(limited), _) => limited.nominal_concurrency_shares.unwrap_or(30),
        (None, Some(exempt)) => exempt.nominal_concurrency_shares.unwrap_or(0),
        (None, None) => 0,
    }
}

fn limits(level: &PriorityLevelConfiguration, all: i64, seats: u32) -> Limits {
    let part = |number: i64, of: i64| u32::try_from((number + of - 1) / of).unwrap_or(u32::MAX);
    let nominal = part(i64::from(seats) * i64::from(shares_of(level).max(0)), all);
    let percent = |percent: i32| part(i64::from(nominal) * i64::from(percent.max(0)), 100);
    let limited = level.spec.limited.as_ref();
    let queuing = limited.and_then(|limited| limited.limit_response.queuing.as_ref());
    let count = |value: Option<i32>, default: usize| value.map_or(default, |value| usize::try_from(value).unwrap_or(0));
    Limits {
        exempt: limited.is_none(),
        nominal,
        lendable: percent(limited.and_then(|limited| limited.lendable_percent).unwrap_or(0)),
        borrowing: limited.and_then(|limited| limited.borrowing_limit_percent).map_or(u32::MAX / 4, percent),
        queues: queuing.map_or(0, |queuing| count(queuing.queues, 64).min(QUEUES_MAX)),
        hand: queuing.map_or(1, |queuing| count(queuing.hand_size, 8)),
        queue_length: queuing.map_or(0, |queuing| count(queuing.queue_length_limit, 50)),
    }
}

/// However many are asked for: each takes memory.
const QUEUES_MAX: usize = 10_000;

fn matches(rules: &PolicyRulesWithSubjects, user: &User, info: &RequestInfo) -> bool {
    if !rules.subjects.iter().any(|subject| is_subject(subject, user)) {
        return false;
    }
    let verb = |verbs: &[String]| has(verbs, info.verb.as_str());
    if info.is_resource {
        return rules.resource_rules.iter().flatten().any(|rule| verb(&rule.verbs) && is_resource(rule, info));
    }
    let path = |paths: &[String]| {
        paths.iter().any(|path| match path.strip_suffix('*') {
            Some(start) => info.path.starts_with(start),
            None => *path == info.path,
        })
    };
    rules.non_resource_rules.iter().flatten().any(|rule| verb(&rule.verbs) && path(&rule.non_resource_urls))
}

fn has(values: &[String], value: &str) -> bool {
    values.iter().any(|one| one == "*" || one == value)
}

fn is_resource(rule: &ResourcePolicyRule, info: &RequestInfo) -> bool {
    let resource = match info.subresource.as_str() {
        "" => info.resource.clone(),
        subresource => format!("{}/{subresource}", info.resource),
    };
    // A namespace itself counts as of the cluster.
    let namespace = info.namespace.as_deref().filter(|_| info.resource != "namespaces").unwrap_or_default();
    let place = match namespace {
        "" => rule.cluster_scope == Some(true),
        namespace => has(rule.namespaces.as_deref().unwrap_or(&[]), namespace),
    };
    has(&rule.api_groups, &info.group) && has(&rule.resources, &resource) && place
}

fn is_subject(subject: &Subject, user: &User) -> bool {
    let account = || {
        let account = subject.service_account.as_ref()?;
        let (namespace, name) = user.name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        Some(namespace == account.namespace && (account.name == "*" || account.name == name))
    };
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|wanted| wanted.name == "*" || wanted.name == user.name),
        "Group" => subject.group.as_ref().is_some_and(|wanted| wanted.name == "*" || user.is_in(&wanted.name)),
        "ServiceAccount" => account().unwrap_or(false),
        _ => false,
    }
}

/// So many objects of a list take one seat, and no list more than so many seats, as in kube-apiserver.
const OBJECTS_A_SEAT: usize = 100;
const SEATS_MAX: usize = 10;

/// How many seats a request takes: a list, and a watch that begins with one, more than others. `counted` tells how many
/// objects there are of a kind.
pub fn width(info: &RequestInfo, counted: impl Fn(&str, &str) -> usize) -> u32 {
    let query = &info.query;
    let lists = match info.verb {
        Verb::List => true,
        Verb::Watch => query.flag("sendInitialEvents") || matches!(query.get("resourceVersion"), None | Some("0")),
        _ => false,
    };
    if !lists || info.name.is_some() {
        return 1;
    }
    let objects = counted(&info.group, &info.resource);
    let limit = query.get("limit").and_then(|limit| limit.parse::<usize>().ok()).filter(|limit| *limit > 0);
    // One that selects looks at more objects than it shows.
    let selects = query.get("labelSelector").is_some() || query.get("fieldSelector").is_some();
    let shown = limit.filter(|_| !selects).map_or(objects, |limit| limit.min(objects));
    u32::try_from(shown.div_ceil(OBJECTS_A_SEAT).clamp(1, SEATS_MAX)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow_control::bootstrap;
    use http::Method;

    fn classified(user: &User, method: Method, path: &str) -> String {
        let plan = Plan::of(bootstrap::schemas().into_iter(), bootstrap::levels().into_iter(), 600);
        let flow = plan.classify(user, &RequestInfo::parse(&method, &path.parse().unwrap())).unwrap();
        flow.level
    }

    #[test]
    fn the_suggested_schemas_sort_requests_as_kubernetes_does() {
        let node = User::new("system:node:n1", &["system:nodes"]);
        let manager = User::new("system:kube-controller-manager", &[]);
        let account = User::new("system:serviceaccount:team:ci", &["system:serviceaccounts", "system:serviceaccounts:team"]);
        let pods = "/api/v1/namespaces/team/pods";
        assert_eq!(classified(&User::admin(), Method::GET, pods), "exempt");
        assert_eq!(classified(&node, Method::GET, pods), "system");
        assert_eq!(classified(&node, Method::PUT, "/api/v1/nodes/n1/status"), "node-high");
        assert_eq!(
            classified(&node, Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"),
            "node-high"
        );
        assert_eq!(classified(&manager, Method::GET, pods), "workload-high");
        assert_eq!(
            classified(&manager, Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kcm"),
            "leader-election"
        );
        assert_eq!(classified(&account, Method::GET, pods), "workload-low");
        assert_eq!(classified(&User::new("jane", &[]), Method::GET, pods), "global-default");
        assert_eq!(classified(&User::anonymous(), Method::GET, "/healthz"), "exempt");
    }

    #[test]
    fn seats_are_shared_out() {
        let plan = Plan::of(bootstrap::schemas().into_iter(), bootstrap::levels().into_iter(), 600);
        assert!(plan.levels["exempt"].exempt);
        // 30 of 245 shares.
        assert_eq!((plan.levels["system"].nominal, plan.levels["system"].lendable), (74, 25));
        assert_eq!((plan.levels["catch-all"].queues, plan.levels["catch-all"].nominal), (0, 13));
    }

    #[test]
    fn lists_are_as_wide_as_what_they_show() {
        let width = |path: &str| super::width(&RequestInfo::parse(&Method::GET, &path.parse().unwrap()), |_, _| 550);
        assert_eq!(width("/api/v1/pods"), 6);
        assert_eq!(width("/api/v1/pods?limit=100"), 1);
        assert_eq!(width("/api/v1/pods?limit=100&labelSelector=a"), 6);
        assert_eq!(width("/api/v1/namespaces/a/pods/b"), 1);
        assert_eq!(width("/api/v1/pods?watch=1"), 6);
        assert_eq!(width("/api/v1/pods?watch=1&resourceVersion=77"), 1);
        assert_eq!(super::width(&RequestInfo::parse(&Method::GET, &"/api/v1/pods".parse().unwrap()), |_, _| 1 << 20), 10);
    }
}
