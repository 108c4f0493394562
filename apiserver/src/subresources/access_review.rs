//! The reviews of `authorization.k8s.io/v1`: whether somebody may do something, and what a caller may do at all.

use super::review::{self, Review};
use crate::authorization::{self, Attributes, Fields};
use crate::http::Call;
use crate::http::authenticate::User;
use crate::http::error::{Invalid, Status};
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
    let required = required(&object["spec"]["resourceAttributes"]["fieldSelector"]);
    let decision = authorization::decide(&call.server, &user, &question(&object["spec"], &required));
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason().is_empty() {
        status["reason"] = decision.reason().into();
    }
    object["status"] = status;
    review::respond(&call, object, &warnings)
}

/// Serves a POST of a SelfSubjectRulesReview.
pub async fn rules(call: Call, review: &Review) -> Result<Response, Status> {
    let (mut object, warnings) = review::read(&call, review).await?;
    let namespace = object["spec"]["namespace"].as_str().unwrap_or_default().to_owned();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    object["status"] = authorization::rules(&call.server, &call.user, &namespace);
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
    for name in ["fieldSelector", "labelSelector"] {
        check_selector(&resource[name], &format!("spec.resourceAttributes.{name}"), &mut errors);
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

/// What the review asks.
fn question<'a>(spec: &'a Value, required: &'a [(String, String)]) -> Attributes<'a> {
    let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let text = |field: &str| if resource.is_null() { &other[field] } else { &resource[field] }.as_str().unwrap_or_default();
    let fields = match resource["fieldSelector"]["rawSelector"].as_str() {
        Some(raw) if !raw.is_empty() => Fields::Raw(raw),
        _ => Fields::Equal(required),
    };
    Attributes {
        verb: text("verb"),
        is_resource: !resource.is_null(),
        group: text("group"),
        version: text("version"),
        resource: text("resource"),
        subresource: text("subresource"),
        namespace: text("namespace"),
        name: text("name"),
        path: text("path"),
        fields,
    }
}

/// The fields that must have a certain value to be selected. Other requirements are left out: then less is selected by
/// them, and less is allowed.
fn required(selector: &Value) -> Vec<(String, String)> {
    let requirements = selector["requirements"].as_array().into_iter().flatten();
    let equal = requirements.filter_map(|one| match (&one["operator"], one["values"].as_array().map(Vec::as_slice)) {
        (operator, Some([value])) if operator == "In" => Some((one["key"].as_str()?.to_owned(), value.as_str()?.to_owned())),
        _ => None,
    });
    equal.collect()
}

/// A selector is given as text or as requirements. An operator that is not known here narrows what is asked in a way that
/// somebody else may know.
fn check_selector(selector: &Value, at: &str, errors: &mut Vec<Invalid>) {
    if selector.is_null() {
        return;
    }
    let raw = selector["rawSelector"].as_str().unwrap_or_default();
    let requirements = selector["requirements"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !raw.is_empty() && !requirements.is_empty() {
        let why = "may not specified at the same time as requirements";
        errors.push(Invalid::value(format!("{at}.rawSelector"), &json!(raw), why));
    }
    if raw.is_empty() && requirements.is_empty() {
        let why = format!("when {at} is specified, requirements or rawSelector is required");
        errors.push(Invalid::required(format!("{at}.requirements"), &why));
    }
    for (index, one) in requirements.iter().enumerate() {
        let at = format!("{at}.requirements[{index}]");
        let values = one["values"].as_array().is_some_and(|values| !values.is_empty());
        match one["operator"].as_str().unwrap_or_default() {
            "In" | "NotIn" if !values => {
                errors.push(Invalid::required(format!("{at}.values"), "must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if values => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(Invalid::forbidden(format!("{at}.values"), why));
            }
            _ => {}
        }
        if one["key"].as_str().is_none_or(str::is_empty) {
            errors.push(Invalid::required(format!("{at}.key"), "must be specified"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_as_the_request_it_is_about() {
        let spec = json!({"resourceAttributes": {
            "namespace": "a", "verb": "list", "group": "apps", "resource": "deployments", "subresource": "scale",
            "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]},
        }});
        let required = required(&spec["resourceAttributes"]["fieldSelector"]);
        let asked = question(&spec, &required);
        assert_eq!((asked.verb, asked.is_resource, asked.namespace, asked.name), ("list", true, "a", ""));
        assert_eq!((asked.group, asked.resource, asked.subresource), ("apps", "deployments", "scale"));
        assert_eq!(asked.fields.required("spec.nodeName").as_deref(), Some("n1"));
        let spec = json!({"nonResourceAttributes": {"path": "/healthz", "verb": "get"}});
        let asked = question(&spec, &[]);
        assert_eq!((asked.verb, asked.is_resource, asked.path), ("get", false, "/healthz"));
    }

    #[test]
    fn a_selector_is_text_or_requirements() {
        let fields = |selector: Value| {
            let mut errors = vec![];
            check_selector(&selector, "s", &mut errors);
            errors.into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        assert_eq!(fields(Value::Null), Vec::<String>::new());
        assert_eq!(fields(json!({"rawSelector": "a=b"})), Vec::<String>::new());
        assert_eq!(fields(json!({})), ["s.requirements"]);
        let one = json!({"key": "a", "operator": "In", "values": ["b"]});
        assert_eq!(fields(json!({"rawSelector": "a=b", "requirements": [one]})), ["s.rawSelector"]);
        assert_eq!(fields(json!({"requirements": [{"key": "a", "operator": "In"}]})), ["s.requirements[0].values"]);
        assert_eq!(fields(json!({"requirements": [{"key": "a", "operator": "Like", "values": []}]})), Vec::<String>::new());
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
