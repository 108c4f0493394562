//! The reviews of `authorization.k8s.io/v1`: whether somebody may do something, and what a caller may do at all.

use super::review::{self, Review};
use crate::http::Call;
use crate::http::authenticate::User;
use crate::http::error::{Invalid, Status};
use crate::http::query::Query;
use crate::http::request_info::{RequestInfo, Verb};
use axum::response::Response;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Serves a POST of a SubjectAccessReview, of its local form, or of the one about the caller.
pub async fn create(call: Call, review: &Review) -> Result<Response, Status> {
    let (mut object, warnings) = review::read(&call, review).await?;
    let about_caller = review.kind == "SelfSubjectAccessReview";
    let errors = validate(&object, about_caller, call.info.namespace.as_deref());
    if !errors.is_empty() {
        return Err(Status::invalid(review.group, review.kind, "", &errors));
    }
    let user = if about_caller { call.user.clone() } else { subject(&object["spec"]) };
    let allowed = call.server.authorizer.allows(&call.server, &user, &question(&object["spec"]));
    object["status"] = json!({"allowed": allowed});
    review::respond(&call, object, &warnings)
}

/// Serves a POST of a SelfSubjectRulesReview.
pub async fn rules(call: Call, review: &Review) -> Result<Response, Status> {
    let (mut object, warnings) = review::read(&call, review).await?;
    let namespace = object["spec"]["namespace"].as_str().unwrap_or_default().to_owned();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    object["status"] = call.server.authorizer.rules(&call.server, &call.user, &namespace);
    review::respond(&call, object, &warnings)
}

fn validate(object: &Value, about_caller: bool, namespace: Option<&str>) -> Vec<Invalid> {
    let spec = &object["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let mut errors = vec![];
    if !resource.is_null() && !path.is_null() {
        let why = "cannot be specified in combination with resourceAttributes";
        errors.push(Invalid::value("spec.nonResourceAttributes", path, why));
    }
    if resource.is_null() && path.is_null() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(Invalid::value("spec.resourceAttributes", path, why));
    }
    let nothing = |value: &Value| value.as_str().is_none_or(str::is_empty);
    let no_groups = spec["groups"].as_array().is_none_or(Vec::is_empty);
    if !about_caller && nothing(&spec["user"]) && no_groups {
        errors.push(Invalid::value("spec.user", &json!(""), "at least one of user or group must be specified"));
    }
    if let Some(namespace) = namespace {
        let asked = resource["namespace"].as_str().unwrap_or_default();
        if !resource.is_null() && asked != namespace {
            errors.push(Invalid::value("spec.resourceAttributes.namespace", &asked.into(), "must match metadata.namespace"));
        }
        if !path.is_null() {
            errors.push(Invalid::value("spec.nonResourceAttributes", path, "disallowed on this kind of request"));
        }
    }
    errors
}

/// Whom the review is about.
fn subject(spec: &Value) -> User {
    let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
    let texts = |list: &Value| list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let extra: BTreeMap<String, Vec<String>> =
        spec["extra"].as_object().into_iter().flatten().map(|(key, values)| (key.clone(), texts(values))).collect();
    User { name: text("user"), uid: text("uid"), groups: texts(&spec["groups"]), extra }
}

/// The request that the review asks about.
fn question(spec: &Value) -> RequestInfo {
    let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let attributes = if resource.is_null() { other } else { resource };
    let text = |field: &str| attributes[field].as_str().unwrap_or_default().to_owned();
    let named = |field: &str| Some(text(field)).filter(|text| !text.is_empty());
    // Who may do it to "*" may do it to anything; none but the mightiest may, and those may use any verb.
    let all = ["verb", "group", "resource", "subresource", "name"].iter().any(|field| attributes[*field] == "*");
    let verb = if all { Verb::Other } else { Verb::parse(&text("verb")) };
    RequestInfo {
        verb,
        path: text("path"),
        is_resource: !resource.is_null(),
        group: text("group"),
        version: text("version"),
        resource: text("resource"),
        subresource: text("subresource"),
        rest: String::new(),
        namespace: named("namespace"),
        name: named("name"),
        query: Query::of("fieldSelector", &field_selector(&attributes["fieldSelector"])),
    }
}

/// As the query of a list has it. Requirements that it cannot say are left out: then less is selected by them, and less
/// is allowed.
fn field_selector(attributes: &Value) -> String {
    if let Some(raw) = attributes["rawSelector"].as_str() {
        return raw.to_owned();
    }
    let requirements = attributes["requirements"].as_array().into_iter().flatten();
    let terms = requirements.filter_map(|one| match (&one["operator"], one["values"].as_array().map(Vec::as_slice)) {
        (operator, Some([value])) if operator == "In" => Some(format!("{}={}", one["key"].as_str()?, value.as_str()?)),
        _ => None,
    });
    terms.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_as_the_request_it_is_about() {
        let info = question(&json!({"resourceAttributes": {
            "namespace": "a", "verb": "list", "group": "apps", "resource": "deployments", "subresource": "scale",
            "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]},
        }}));
        assert_eq!((info.verb, info.is_resource, info.namespace.as_deref(), info.name), (Verb::List, true, Some("a"), None));
        assert_eq!((info.group.as_str(), info.resource.as_str(), info.subresource.as_str()), ("apps", "deployments", "scale"));
        assert_eq!(info.query.get("fieldSelector"), Some("spec.nodeName=n1"));
        let info = question(&json!({"nonResourceAttributes": {"path": "/healthz", "verb": "get"}}));
        assert_eq!((info.verb, info.is_resource, info.path.as_str()), (Verb::Get, false, "/healthz"));
        let all = question(&json!({"resourceAttributes": {"verb": "get", "resource": "*"}}));
        assert_eq!(all.verb, Verb::Other);
    }

    #[test]
    fn what_is_asked_must_be_clear() {
        let fields = |spec: Value, about_caller, namespace| {
            let errors = validate(&json!({"spec": spec}), about_caller, namespace);
            errors.into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        let both = json!({"resourceAttributes": {}, "nonResourceAttributes": {}, "user": "x"});
        assert_eq!(fields(both, false, None), ["spec.nonResourceAttributes"]);
        assert_eq!(fields(json!({}), false, None), ["spec.resourceAttributes", "spec.user"]);
        assert_eq!(fields(json!({"resourceAttributes": {}}), true, None), Vec::<String>::new());
        let elsewhere = json!({"resourceAttributes": {"namespace": "b"}, "groups": ["g"]});
        assert_eq!(fields(elsewhere, false, Some("a")), ["spec.resourceAttributes.namespace"]);
    }
}
