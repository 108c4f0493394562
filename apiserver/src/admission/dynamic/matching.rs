//! Which requests a webhook or a policy is asked about.

use super::Request;
use super::internal;
use crate::admission::{AdmissionContext, Operation};
use crate::http::error::Status;
use crate::kind::{Names, Strategy};
use crate::resources::admission_registration::GROUP;
use crate::verbs::get::get_cached;
use serde_json::Value;
use slipway_api::meta::LabelSelector;
use slipway_api::selector::{Labels, Selector};
use std::sync::Arc;

/// What decides about admission must not decide about itself: nobody could mend a wrong one.
pub fn may_be_asked(context: &AdmissionContext<'_>) -> bool {
    context.strategy.names().group != GROUP
}

/// `rules` of a webhook, `matchConstraints` of a policy, `matchResources` of a binding.
#[derive(Debug)]
pub struct Matcher {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// No rules at all match everything (in bindings).
    without_rules: bool,
    equivalent: bool,
    namespaces: Selector,
    objects: Selector,
}

#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// With the subresource; empty for none.
    resources: Vec<(String, String)>,
    scope: String,
    names: Vec<String>,
}

/// In which form a request is shown to whoever is asked about it.
pub enum Matched {
    No,
    AsItIs,
    As(Arc<dyn Strategy>),
}

impl Matcher {
    pub fn of(object: &Value) -> Self {
        let list = |name: &str| object[name].as_array().into_iter().flatten().map(Rule::of).collect::<Vec<_>>();
        let mut rules = list("rules");
        rules.extend(list("resourceRules"));
        Matcher {
            without_rules: rules.is_empty(),
            rules,
            excluded: list("excludeResourceRules"),
            equivalent: object["matchPolicy"] != "Exact",
            namespaces: selector(&object["namespaceSelector"]),
            objects: selector(&object["objectSelector"]),
        }
    }

    /// `rules_required`: no rules match nothing.
    pub fn matches(&self, request: &Request<'_>, rules_required: bool) -> Result<Matched, Status> {
        let names = request.context.strategy.names();
        let any = |rules: &[Rule], names: &Names| rules.iter().any(|rule| rule.matches(request, names));
        let equivalents = || if self.equivalent { request.equivalents() } else { vec![] };
        if !self.excluded.is_empty()
            && (any(&self.excluded, names) || equivalents().iter().any(|other| any(&self.excluded, other.names())))
        {
            return Ok(Matched::No);
        }
        let matched = if any(&self.rules, names) || self.without_rules && !rules_required {
            Matched::AsItIs
        } else {
            match equivalents().into_iter().find(|other| any(&self.rules, other.names())) {
                Some(other) => Matched::As(other),
                None => return Ok(Matched::No),
            }
        };
        let selected = self.selects_object(request) && self.selects_namespace(request)?;
        Ok(if selected { matched } else { Matched::No })
    }

    fn selects_object(&self, request: &Request<'_>) -> bool {
        if self.objects.is_everything() {
            return true;
        }
        let matches = |object: Option<&Value>| {
            object.filter(|object| object["metadata"].is_object()).is_some_and(|object| self.objects.matches(&labels(object)))
        };
        matches(request.object) || matches(request.old)
    }

    fn selects_namespace(&self, request: &Request<'_>) -> Result<bool, Status> {
        if self.namespaces.is_everything() || request.namespace.is_empty() {
            return Ok(true);
        }
        Ok(self.namespaces.matches(&labels(&namespace_of(request)?)))
    }
}

/// The Namespace that a request is for: if it is written itself, as it is going to be.
pub fn namespace_of(request: &Request<'_>) -> Result<Value, Status> {
    let context = request.context;
    let names = context.strategy.names();
    let itself = names.group.is_empty() && names.plural == "namespaces" && context.subresource.is_empty();
    if itself
        && matches!(context.operation, Operation::Create | Operation::Update)
        && let Some(object) = request.object
    {
        return Ok(object.clone());
    }
    let found = context.server.strategy("", "v1", "namespaces");
    let found = found.and_then(|strategy| get_cached(&context.server.snapshot(), &*strategy, "", &request.namespace));
    found
        .or_else(|| request.old.filter(|_| itself).cloned())
        .ok_or_else(|| internal(Status::not_found("", "namespaces", &request.namespace).message))
}

pub fn labels(object: &Value) -> Labels {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// A selector that can't be read selects nothing; validation lets none be stored.
pub fn selector(selector: &Value) -> Selector {
    if selector.is_null() {
        return Selector::everything();
    }
    let typed = serde_json::from_value::<LabelSelector>(selector.clone()).ok();
    typed.and_then(|typed| Selector::from_label_selector(&typed).ok()).unwrap_or_else(Selector::nothing)
}

impl Rule {
    fn of(rule: &Value) -> Self {
        let list = |field: &str| {
            let items = rule[field].as_array().into_iter().flatten();
            items.filter_map(|item| item.as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        let split = |resource: String| match resource.split_once('/') {
            Some((main, sub)) => (main.to_owned(), sub.to_owned()),
            None => (resource, String::new()),
        };
        Rule {
            operations: list("operations"),
            groups: list("apiGroups"),
            versions: list("apiVersions"),
            resources: list("resources").into_iter().map(split).collect(),
            scope: rule["scope"].as_str().unwrap_or("*").to_owned(),
            names: list("resourceNames"),
        }
    }

    fn matches(&self, request: &Request<'_>, names: &Names) -> bool {
        let context = request.context;
        let has = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        let one = |pattern: &str, wanted: &str| pattern == "*" || pattern == wanted;
        let in_namespace = names.namespaced && !request.namespace.is_empty();
        has(&self.operations, context.operation.as_str())
            && has(&self.groups, names.group)
            && has(&self.versions, names.version)
            && self.resources.iter().any(|(main, sub)| one(main, names.plural) && one(sub, context.subresource))
            && match self.scope.as_str() {
                "Namespaced" => in_namespace,
                "Cluster" => !in_namespace,
                _ => true,
            }
            && (self.names.is_empty() || self.names.contains(&request.name))
    }
}
