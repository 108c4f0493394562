//! FlowSchema: which requests belong to which priority level.

use super::{check_mandatory, names};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use crate::resources::{fill, rules, show};
use serde_json::{Value, json};
pub use slipway_api::flowcontrol::FlowSchema;
use slipway_api::flowcontrol::{PolicyRulesWithSubjects, Subject};

const PRECEDENCE_MAX: i32 = 10_000;

impl Kind for FlowSchema {
    const NAMES: Names = names("FlowSchema", "flowschemas", "flowschema");

    fn fill_defaults(object: &mut Value) {
        if let Some(spec) = fill::inner(object, "spec") {
            fill::missing(spec, "matchingPrecedence", 1000);
        }
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = &self.spec;
        let at = "spec.matchingPrecedence";
        match spec.matching_precedence.unwrap_or(0) {
            number if number <= 0 => errors.push(Invalid::value(at, &json!(number), "must be a positive value")),
            number if number > PRECEDENCE_MAX => {
                errors.push(Invalid::value(at, &json!(number), &format!("must not be greater than {PRECEDENCE_MAX}")));
            }
            1 if self.metadata.name.as_deref() != Some("exempt") => {
                errors.push(Invalid::value(at, &json!(1), "only the schema named 'exempt' may have matchingPrecedence 1"));
            }
            _ => {}
        }
        if let Some(method) = &spec.distinguisher_method {
            rules::one_of("spec.distinguisherMethod", Some(&method.type_), &["ByNamespace", "ByUser"], &mut errors);
        }
        if spec.priority_level_configuration.name.is_empty() {
            errors.push(Invalid::required("spec.priorityLevelConfiguration.name", "must reference a priority level"));
        }
        for (index, rule) in spec.rules.iter().flatten().enumerate() {
            check_rule(&format!("spec.rules[{index}]"), rule, &mut errors);
        }
        errors
    }

    fn validate_whole(&self, object: &Value) -> Vec<Invalid> {
        let mut errors = self.validate();
        check_mandatory(&crate::flow_control::bootstrap::schemas(), object, &mut errors);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("PriorityLevel", "The level of the requests that match."),
            Column::integer("MatchingPrecedence", "Schemas are asked in this order."),
            Column::text("DistinguisherMethod", "What makes a flow of its own."),
            Column::AGE,
            Column::text("MissingPL", "Whether there is no such level."),
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let conditions = object["status"]["conditions"].as_array();
        let dangling = conditions.into_iter().flatten().find(|condition| condition["type"] == "Dangling");
        vec![
            show::name(object),
            spec["priorityLevelConfiguration"]["name"].clone(),
            spec["matchingPrecedence"].clone(),
            show::or_none(spec["distinguisherMethod"]["type"].as_str()),
            age(object, now),
            dangling.map_or_else(|| json!("?"), |condition| condition["status"].clone()),
        ]
    }
}

fn check_rule(at: &str, rule: &PolicyRulesWithSubjects, errors: &mut Vec<Invalid>) {
    if rule.subjects.is_empty() {
        errors.push(Invalid::required(format!("{at}.subjects"), "subjects must contain at least one value"));
    }
    for (index, subject) in rule.subjects.iter().enumerate() {
        check_subject(&format!("{at}.subjects[{index}]"), subject, errors);
    }
    let resources = rule.resource_rules.as_deref().unwrap_or(&[]);
    let others = rule.non_resource_rules.as_deref().unwrap_or(&[]);
    if resources.is_empty() && others.is_empty() {
        errors.push(Invalid::required(at, "at least one of resourceRules and nonResourceRules has to be non-empty"));
    }
    let mut list = |at: String, values: &[String], what: &str| match values {
        [] => errors.push(Invalid::required(at, &format!("{what} must contain at least one value"))),
        values if values.len() > 1 && values.iter().any(|value| value == "*") => {
            errors.push(Invalid::value(at, &json!(values), "if '*' is present, must not specify other values"));
        }
        _ => {}
    };
    for (index, rule) in resources.iter().enumerate() {
        let at = format!("{at}.resourceRules[{index}]");
        list(format!("{at}.verbs"), &rule.verbs, "verbs");
        list(format!("{at}.apiGroups"), &rule.api_groups, "apiGroups");
        list(format!("{at}.resources"), &rule.resources, "resources");
        if rule.cluster_scope != Some(true) {
            list(
                format!("{at}.namespaces"),
                rule.namespaces.as_deref().unwrap_or(&[]),
                "resource rules that are not cluster scoped",
            );
        }
    }
    for (index, rule) in others.iter().enumerate() {
        let at = format!("{at}.nonResourceRules[{index}]");
        list(format!("{at}.verbs"), &rule.verbs, "verbs");
        list(format!("{at}.nonResourceURLs"), &rule.non_resource_urls, "nonResourceURLs");
    }
}

fn check_subject(at: &str, subject: &Subject, errors: &mut Vec<Invalid>) {
    let mut named = |field: &str, name: Option<&str>| match name {
        None => errors.push(Invalid::required(
            format!("{at}.{field}"),
            &format!("{field} is required when subject kind is '{}'", subject.kind),
        )),
        Some("") => errors.push(Invalid::required(format!("{at}.{field}.name"), "")),
        Some(_) => {}
    };
    match subject.kind.as_str() {
        "User" => named("user", subject.user.as_ref().map(|user| user.name.as_str())),
        "Group" => named("group", subject.group.as_ref().map(|group| group.name.as_str())),
        "ServiceAccount" => {
            named("serviceAccount", subject.service_account.as_ref().map(|account| account.name.as_str()));
            if subject.service_account.as_ref().is_some_and(|account| account.namespace.is_empty()) {
                let why = "must specify namespace for service account";
                errors.push(Invalid::required(format!("{at}.serviceAccount.namespace"), why));
            }
        }
        kind => errors.push(Invalid::not_supported(format!("{at}.kind"), &json!(kind), &["Group", "ServiceAccount", "User"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{Builtin, Strategy};

    fn fields(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let strategy = Builtin::<FlowSchema>::new();
        let mut schema = json!({"metadata": {"name": "s"}, "spec": {
            "priorityLevelConfiguration": {"name": "low"}, "distinguisherMethod": {"type": "ByUser"},
            "rules": [{
                "subjects": [{"kind": "Group", "group": {"name": "g"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"]}],
            }],
        }});
        change(&mut schema);
        strategy.fill_defaults(&mut schema);
        strategy.validate(&schema).into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(fields(|_| {}), Vec::<String>::new());
        assert_eq!(fields(|schema| schema["spec"]["matchingPrecedence"] = json!(1)), ["spec.matchingPrecedence"]);
        assert_eq!(fields(|schema| schema["spec"]["matchingPrecedence"] = json!(10_001)), ["spec.matchingPrecedence"]);
        assert_eq!(
            fields(|schema| schema["spec"]["rules"][0]["subjects"][0]["kind"] = json!("Robot")),
            ["spec.rules[0].subjects[0].kind"]
        );
        assert_eq!(fields(|schema| schema["spec"]["rules"][0]["resourceRules"] = json!([])), ["spec.rules[0]"]);
        assert_eq!(fields(|schema| schema["metadata"]["name"] = json!("exempt")), ["spec"]);
    }

    #[test]
    fn what_every_cluster_has_is_valid() {
        let strategy = Builtin::<FlowSchema>::new();
        for schema in crate::flow_control::bootstrap::schemas() {
            assert_eq!(strategy.validate(&schema), vec![], "{}", schema["metadata"]["name"]);
        }
    }
}
