//! `audit.k8s.io/v1 Policy`: how much is told of which request.

use crate::http::authenticate::User;
use crate::http::request_info::RequestInfo;
use serde::Deserialize;

/// What is told when there is somebody to tell but no policy: all that was changed or refused by whom, and what people read; not
/// what the cluster's own parts read all the time.
const DEFAULT: &str = r#"{
    "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "verbs": ["get", "list", "watch"], "userGroups": ["system:nodes", "system:serviceaccounts"]},
        {"level": "None", "verbs": ["get", "list", "watch"], "users": [
            "system:apiserver", "system:kube-scheduler", "system:kube-controller-manager", "system:kube-proxy",
            "system:cloud-controller-manager", "system:anonymous", "system:simulated-nodes"
        ]},
        {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/api*", "/openapi*"]},
        {"level": "None", "resources": [
            {"group": "", "resources": ["events"]}, {"group": "events.k8s.io", "resources": ["events"]},
            {"group": "coordination.k8s.io", "resources": ["leases"]}
        ]},
        {"level": "None", "users": ["system:simulated-nodes"]},
        {"level": "None", "userGroups": ["system:nodes"], "resources": [
            {"group": "", "resources": ["nodes/status", "pods/status"]}
        ]},
        {"level": "Metadata"}
    ]
}"#;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Stage {
    RequestReceived,
    /// Only of what lasts, as watches.
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

/// Rules, of which the first that matches counts. The default has none, and tells nothing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Rule {
    level: Option<Level>,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(String);

/// What the policy makes of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

impl Decision {
    pub fn omits(&self, stage: Stage) -> bool {
        self.omit_stages.contains(&stage)
    }
}

impl Policy {
    /// See `DEFAULT`.
    pub fn builtin() -> Self {
        Self::parse(DEFAULT).expect("the policy that is built in can be read, as a test shows")
    }

    /// Reads a policy, YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct File {
            api_version: String,
            kind: String,
            #[serde(default, rename = "metadata")]
            _metadata: serde_json::Value,
            #[serde(default)]
            rules: Vec<Rule>,
            #[serde(default)]
            omit_stages: Vec<Stage>,
            #[serde(default)]
            omit_managed_fields: bool,
        }
        let file: File = serde_saphyr::from_str(text).map_err(|error| PolicyError(error.to_string()))?;
        if file.kind != "Policy" || file.api_version != "audit.k8s.io/v1" {
            return Err(PolicyError("expected a Policy of audit.k8s.io/v1".into()));
        }
        if file.rules.is_empty() {
            return Err(PolicyError("loaded illegal policy with 0 rules".into()));
        }
        for (n, rule) in file.rules.iter().enumerate() {
            rule.check().map_err(|why| PolicyError(format!("rules[{n}].{why}")))?;
        }
        Ok(Policy { rules: file.rules, omit_stages: file.omit_stages, omit_managed_fields: file.omit_managed_fields })
    }

    /// Whether it tells nothing of any request.
    pub fn is_silent(&self) -> bool {
        self.rules.iter().all(|rule| rule.level == Some(Level::None))
    }

    /// `verb` is the method, in small letters, of a request for no resource.
    pub(crate) fn decide(&self, user: Option<&User>, verb: &str, info: &RequestInfo) -> Decision {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(user, verb, info)) else { return Decision::default() };
        Decision {
            level: rule.level.unwrap_or_default(),
            omit_stages: [&self.omit_stages[..], &rule.omit_stages].concat(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        if self.level.is_none() {
            return Err("level: Required value".into());
        }
        let of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if !self.non_resource_urls.is_empty() && of_resources {
            return Err("nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs".into());
        }
        for url in &self.non_resource_urls {
            if url != "*" && !url.starts_with('/') {
                return Err(format!("nonResourceURLs: {url:?} must begin with a '/' character"));
            }
            if url.trim_end_matches('*').contains('*') || url.ends_with("**") {
                return Err(format!("nonResourceURLs: {url:?} may contain wildcards '*' at the end only"));
            }
        }
        for of in &self.resources {
            if of.group.contains('/') || of.group.chars().any(char::is_uppercase) {
                return Err(format!("resources: {:?} is no API group: a group goes without its version", of.group));
            }
            if !of.resource_names.is_empty() && of.resources.is_empty() {
                return Err("resources: using resourceNames requires at least one resource".into());
            }
        }
        Ok(())
    }

    fn matches(&self, user: Option<&User>, verb: &str, info: &RequestInfo) -> bool {
        let has = |list: &[String], text: &str| list.iter().any(|one| one == text);
        if !self.users.is_empty() && !user.is_some_and(|user| has(&self.users, &user.name)) {
            return false;
        }
        if !self.user_groups.is_empty() && !user.is_some_and(|user| user.groups.iter().any(|own| has(&self.user_groups, own))) {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, verb) {
            return false;
        }
        if !self.resources.is_empty() || !self.namespaces.is_empty() {
            let placed = self.namespaces.is_empty() || has(&self.namespaces, info.namespace.as_deref().unwrap_or_default());
            let named = self.resources.is_empty() || self.resources.iter().any(|of| of.matches(info));
            return info.is_resource && placed && named;
        }
        if !self.non_resource_urls.is_empty() {
            let covers = |url: &String| match url.strip_suffix('*') {
                Some(start) => info.path.starts_with(start),
                None => info.path == *url,
            };
            return !info.is_resource && self.non_resource_urls.iter().any(covers);
        }
        true
    }
}

impl GroupResources {
    fn matches(&self, info: &RequestInfo) -> bool {
        if self.group != info.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let name = info.name.as_deref().unwrap_or_default();
        if !self.resource_names.is_empty() && !self.resource_names.iter().any(|one| one == name) {
            return false;
        }
        let (plural, sub) = (info.resource.as_str(), info.subresource.as_str());
        self.resources.iter().any(|pattern| match pattern.split_once('/') {
            None => pattern == "*" || (sub.is_empty() && pattern == plural),
            Some(("*", of)) => !sub.is_empty() && of == sub,
            Some((of, "*")) => of == plural,
            Some((of, under)) => of == plural && under == sub,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;
    use proptest::prelude::*;

    fn level(policy: &Policy, user: &User, method: Method, path: &str) -> &'static str {
        let info = RequestInfo::parse(&method, &path.parse().unwrap());
        let verb = if info.is_resource { info.verb.as_str().to_owned() } else { method.as_str().to_lowercase() };
        policy.decide(Some(user), &verb, &info).level.as_str()
    }

    fn policy(rules: &str) -> Policy {
        Policy::parse(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: {rules}\n")).unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let policy = policy(
            "[{level: None, users: ['system:kube-proxy'], verbs: [watch], resources: [{group: '', resources: [endpoints, services]}]},
              {level: None, userGroups: ['system:authenticated'], nonResourceURLs: ['/api*', /version]},
              {level: Request, resources: [{group: '', resources: [configmaps]}], namespaces: [kube-system]},
              {level: Metadata, resources: [{group: '', resources: [secrets, configmaps]}]},
              {level: RequestResponse, resources: [{group: apps}]},
              {level: Request, resources: [{group: '', resources: ['pods/*', '*/status', nodes], resourceNames: [n1]}]}]",
        );
        let jane = User::new("jane", &[]);
        let get = |path| level(&policy, &jane, Method::GET, path);
        assert_eq!(level(&policy, &User::new("system:kube-proxy", &[]), Method::GET, "/api/v1/services?watch=1"), "None");
        assert_eq!(get("/api/v1/services?watch=1"), "None");
        assert_eq!(get("/apis"), "None");
        assert_eq!(get("/metrics"), "None");
        assert_eq!(get("/api/v1/namespaces/kube-system/configmaps"), "Request");
        assert_eq!(get("/api/v1/namespaces/a/configmaps"), "Metadata");
        assert_eq!(get("/api/v1/secrets"), "Metadata");
        assert_eq!(get("/apis/apps/v1/deployments"), "RequestResponse");
        assert_eq!(get("/api/v1/namespaces/a/pods/n1"), "Request");
        assert_eq!(get("/api/v1/namespaces/a/pods/n2/log"), "None");
        assert_eq!(get("/api/v1/namespaces/a/pods/n1/log"), "Request");
        assert_eq!(get("/api/v1/namespaces/n1/status"), "Request");
        assert_eq!(get("/api/v1/nodes/n1"), "Request");
        assert_eq!(get("/api/v1/nodes/n1/proxy"), "None");
    }

    #[test]
    fn stages_and_managed_fields_are_left_out_by_rule_and_policy() {
        let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nomitManagedFields: true\n\
                    rules: [{level: Metadata, verbs: [get], omitStages: [Panic], omitManagedFields: false}, {level: Metadata}]\n";
        let policy = Policy::parse(text).unwrap();
        let info = RequestInfo::parse(&Method::GET, &"/api/v1/nodes/a".parse().unwrap());
        let decided = policy.decide(None, "get", &info);
        assert_eq!(decided.omit_stages, [Stage::RequestReceived, Stage::Panic]);
        assert!(!decided.omit_managed_fields);
        assert!(policy.decide(None, "delete", &info).omit_managed_fields);
    }

    #[test]
    fn a_wrong_policy_is_refused() {
        let error = |rules: &str| {
            Policy::parse(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: {rules}\n")).unwrap_err().to_string()
        };
        assert_eq!(error("[]"), "loaded illegal policy with 0 rules");
        assert_eq!(error("[{users: [a]}]"), "rules[0].level: Required value");
        assert!(error("[{level: Everything}]").contains("Everything"));
        assert!(error("[{level: None, nonResourceURLs: [/a], namespaces: [b]}]").contains("cannot apply to both"));
        assert!(error("[{level: None, nonResourceURLs: [a]}]").contains("must begin with"));
        assert!(error("[{level: None, nonResourceURLs: ['/*/a']}]").contains("at the end only"));
        assert!(error("[{level: None, surprise: 1}]").contains("surprise"));
    }

    #[test]
    fn by_default_people_are_told_of_and_the_clusters_own_reads_are_not() {
        let policy = Policy::builtin();
        let (jane, node) = (User::new("jane", &[]), User::new("system:node:n", &["system:nodes"]));
        assert_eq!(level(&policy, &jane, Method::GET, "/api/v1/secrets"), "Metadata");
        assert_eq!(level(&policy, &jane, Method::DELETE, "/api/v1/nodes/n"), "Metadata");
        assert_eq!(level(&policy, &jane, Method::GET, "/openapi/v2"), "None");
        assert_eq!(level(&policy, &node, Method::GET, "/api/v1/secrets"), "None");
        assert_eq!(level(&policy, &node, Method::PATCH, "/api/v1/nodes/n/status"), "None");
        assert_eq!(level(&policy, &node, Method::DELETE, "/api/v1/namespaces/a/pods/p"), "Metadata");
        assert!(!policy.is_silent() && Policy::default().is_silent());
    }

    proptest! {
        #[test]
        fn any_text_is_a_policy_or_refused(text in "\\PC{0,60}", deep in 0usize..300, key in "[a-zA-Z]{1,8}") {
            for rules in [text, "[".repeat(deep), format!("{}x", "- ".repeat(deep)), format!("[{{level: Metadata, {key}: {}}}]", "{a: ".repeat(deep))] {
                let _ = Policy::parse(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: {rules}\n"));
                let _ = Policy::parse(&rules);
            }
        }
    }
}
