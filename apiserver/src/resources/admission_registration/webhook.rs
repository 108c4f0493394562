//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration: servers that are asked about writes.

use super::matching::{self, text, texts};
use super::{fill_matching, first_generation, names};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use crate::resources::{fill, rules};
use serde_json::{Value, json};
pub use slipway_api::admissionregistration::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use slipway_api::name;

const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const TIMEOUT_SECONDS: i64 = 10;
const HTTPS: &str = "https://";

impl Kind for MutatingWebhookConfiguration {
    const NAMES: Names = names("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "mutatingwebhookconfiguration");

    fn fill_defaults(object: &mut Value) {
        fill_defaults(object);
        for webhook in fill::items(object, "webhooks") {
            fill::missing(webhook, "reinvocationPolicy", "Never");
        }
    }
    fn prepare_create(object: &mut Value) {
        first_generation(object);
    }
    fn prepare_update(object: &mut Value, old: &Value) {
        crate::kind::bump_generation(object, old);
    }
    fn validate_whole(&self, object: &Value) -> Vec<Invalid> {
        validate(object)
    }
    fn columns() -> Vec<Column> {
        columns()
    }
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        row(object, now)
    }
}

impl Kind for ValidatingWebhookConfiguration {
    const NAMES: Names =
        names("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "validatingwebhookconfiguration");

    fn fill_defaults(object: &mut Value) {
        fill_defaults(object);
    }
    fn prepare_create(object: &mut Value) {
        first_generation(object);
    }
    fn prepare_update(object: &mut Value, old: &Value) {
        crate::kind::bump_generation(object, old);
    }
    fn validate_whole(&self, object: &Value) -> Vec<Invalid> {
        validate(object)
    }
    fn columns() -> Vec<Column> {
        columns()
    }
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        row(object, now)
    }
}

fn fill_defaults(object: &mut Value) {
    for webhook in fill::items(object, "webhooks") {
        fill_matching(webhook);
        fill::missing(webhook, "failurePolicy", "Fail");
        fill::missing(webhook, "timeoutSeconds", TIMEOUT_SECONDS);
        let service = fill::inner(webhook, "clientConfig").and_then(|config| fill::inner(config, "service"));
        if let Some(service) = service {
            fill::missing(service, "port", 443);
        }
    }
}

fn columns() -> Vec<Column> {
    vec![
        Column::NAME,
        Column::integer("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration"),
        Column::AGE,
    ]
}

fn row(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let count = object["webhooks"].as_array().map_or(0, Vec::len);
    vec![object["metadata"]["name"].clone(), json!(count), age(object, now)]
}

fn validate(object: &Value) -> Vec<Invalid> {
    let mut errors = vec![];
    let webhooks: Vec<&Value> = object["webhooks"].as_array().into_iter().flatten().collect();
    for (index, webhook) in webhooks.iter().enumerate() {
        let at = format!("webhooks[{index}]");
        validate_webhook(&at, webhook, &mut errors);
        let name = text(webhook, "name");
        if !name.is_empty() && webhooks[..index].iter().any(|other| text(other, "name") == name) {
            errors.push(Invalid::duplicate(format!("{at}.name"), &json!(name)));
        }
    }
    errors
}

fn validate_webhook(at: &str, webhook: &Value, errors: &mut Vec<Invalid>) {
    let name = text(webhook, "name");
    if name.is_empty() {
        errors.push(Invalid::required(format!("{at}.name"), ""));
    } else {
        rules::all(&format!("{at}.name"), name, name::dns1123_subdomain(name), errors);
        if name.split('.').count() < 3 {
            let why = "should be a domain with at least three segments separated by dots";
            errors.push(Invalid::value(format!("{at}.name"), &json!(name), why));
        }
    }
    for (index, rule) in webhook["rules"].as_array().into_iter().flatten().enumerate() {
        matching::rule(&format!("{at}.rules[{index}]"), rule, errors);
    }
    review_versions(&format!("{at}.admissionReviewVersions"), &texts(webhook, "admissionReviewVersions"), errors);
    rules::maybe_one_of(&format!("{at}.failurePolicy"), webhook["failurePolicy"].as_str(), &["Fail", "Ignore"], errors);
    rules::maybe_one_of(
        &format!("{at}.reinvocationPolicy"),
        webhook["reinvocationPolicy"].as_str(),
        &["IfNeeded", "Never"],
        errors,
    );
    match webhook["sideEffects"].as_str().filter(|effects| !effects.is_empty()) {
        None => errors.push(Invalid::required(format!("{at}.sideEffects"), "must specify one of None, NoneOnDryRun")),
        effects => rules::one_of(&format!("{at}.sideEffects"), effects, &["None", "NoneOnDryRun"], errors),
    }
    if let Some(seconds) = webhook["timeoutSeconds"].as_i64().filter(|seconds| !(1..=30).contains(seconds)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        errors.push(Invalid::value(format!("{at}.timeoutSeconds"), &json!(seconds), why));
    }
    matching::selectors(at, webhook, errors);
    matching::conditions(at, webhook, false, errors);
    client_config(&format!("{at}.clientConfig"), &webhook["clientConfig"], errors);
}

fn review_versions(at: &str, versions: &[&str], errors: &mut Vec<Invalid>) {
    if versions.is_empty() {
        errors.push(Invalid::required(at, &format!("must specify one of {}", VERSIONS.join(", "))));
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        let at = format!("{at}[{index}]");
        if versions[..index].contains(version) {
            errors.push(Invalid::value(&at, &json!(version), "duplicate version"));
        }
        rules::all(&at, version, name::dns1035_label(version), errors);
    }
    if !versions.iter().any(|version| VERSIONS.contains(version)) {
        errors.push(Invalid::value(at, &json!(versions), &format!("must include at least one of {}", VERSIONS.join(", "))));
    }
}

/// Where a webhook of any sort is: here, and in CustomResourceDefinitions.
pub fn client_config(at: &str, config: &Value, errors: &mut Vec<Invalid>) {
    let there = |field: &str| config.get(field).is_some_and(|value| !value.is_null());
    match (there("url"), there("service")) {
        (true, false) => url(&format!("{at}.url"), text(config, "url"), errors),
        (false, true) => service(&format!("{at}.service"), &config["service"], errors),
        _ => errors.push(Invalid::required(at, "exactly one of url or service is required")),
    }
    if let Some(bundle) = config["caBundle"].as_str().filter(|bundle| !bundle.is_empty()) {
        use base64::Engine;
        use rustls_pki_types::pem::PemObject;
        let pem = base64::engine::general_purpose::STANDARD.decode(bundle).unwrap_or_default();
        let count = rustls_pki_types::CertificateDer::pem_slice_iter(&pem).filter(Result::is_ok).count();
        if count == 0 {
            let why = "unable to load root certificates: unable to parse bytes as PEM block";
            errors.push(Invalid::value(format!("{at}.caBundle"), &json!(bundle), why));
        }
    }
}

fn url(at: &str, url: &str, errors: &mut Vec<Invalid>) {
    let form = "desired format: https://host[/path]";
    let mut refuse = |value: &str, why: String| errors.push(Invalid::value(at, &json!(value), &why));
    let Some((scheme, rest)) = url.split_once("://") else {
        return refuse(url, format!("'https' is the only allowed URL scheme; {form}"));
    };
    if format!("{scheme}://") != HTTPS {
        refuse(scheme, format!("'https' is the only allowed URL scheme; {form}"));
    }
    let (rest, fragment) = rest.split_once('#').map_or((rest, ""), |(rest, fragment)| (rest, fragment));
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
    if host.is_empty() || url.parse::<http::Uri>().is_err() {
        refuse(host, format!("host must be specified; {form}"));
    }
    if !user.is_empty() {
        refuse(user, format!("user information is not permitted in the URL; {form}"));
    }
    if !fragment.is_empty() {
        refuse(fragment, format!("fragments are not permitted in the URL; {form}"));
    }
    if !query.is_empty() {
        refuse(query, format!("query parameters are not permitted in the URL; {form}"));
    }
}

fn service(at: &str, service: &Value, errors: &mut Vec<Invalid>) {
    if text(service, "name").is_empty() {
        errors.push(Invalid::required(format!("{at}.name"), "service name is required"));
    }
    if text(service, "namespace").is_empty() {
        errors.push(Invalid::required(format!("{at}.namespace"), "service namespace is required"));
    }
    if let Some(port) = service["port"].as_i64().filter(|port| !(1..=65_535).contains(port)) {
        let why = format!("port is not valid: {}", rules::PORT);
        errors.push(Invalid::value(format!("{at}.port"), &json!(port), &why));
    }
    let path = text(service, "path");
    if path.is_empty() {
        return;
    }
    let at = format!("{at}.path");
    let mut refuse = |why: &str| errors.push(Invalid::value(&at, &json!(path), why));
    if !path.starts_with('/') {
        return refuse("must start with a '/'");
    }
    if path.len() > 1 && path.contains("//") {
        refuse("segment[0] may not be empty");
    }
    if path.contains(['?', '#', ' ']) {
        refuse("must be a path without query and fragment");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{Builtin, Strategy};

    fn configuration(webhook: Value) -> Value {
        let mut object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "c"}, "webhooks": [webhook]});
        Builtin::<ValidatingWebhookConfiguration>::new().fill_defaults(&mut object);
        object
    }

    fn webhook() -> Value {
        json!({"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "s", "namespace": "n"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]})
    }

    fn refused(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut webhook = webhook();
        change(&mut webhook);
        let errors = Builtin::<ValidatingWebhookConfiguration>::new().validate(&configuration(webhook));
        errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let object = configuration(webhook());
        let filled = &object["webhooks"][0];
        assert_eq!((&filled["failurePolicy"], &filled["matchPolicy"]), (&json!("Fail"), &json!("Equivalent")));
        assert_eq!((&filled["timeoutSeconds"], &filled["rules"][0]["scope"]), (&json!(10), &json!("*")));
        assert_eq!(filled["clientConfig"]["service"]["port"], 443);
        assert_eq!(Builtin::<ValidatingWebhookConfiguration>::new().validate(&object), []);
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert_eq!(
            refused(|w| w["name"] = json!("a")),
            ["webhooks[0].name: Invalid value: \"a\": should be a domain with at least three segments separated by dots"]
        );
        assert_eq!(
            refused(|w| w["sideEffects"] = json!("Some")),
            ["webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\""]
        );
        assert_eq!(refused(|w| w["admissionReviewVersions"] = json!(["v0"])).len(), 1);
        assert_eq!(
            refused(|w| w["timeoutSeconds"] = json!(31)),
            ["webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds"]
        );
        assert_eq!(
            refused(|w| w["rules"][0]["operations"] = json!(["*", "CREATE"])),
            [
                "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations"
            ]
        );
        assert_eq!(
            refused(|w| w["clientConfig"]["url"] = json!("https://h")),
            ["webhooks[0].clientConfig: Required value: exactly one of url or service is required"]
        );
        for url in ["http://h", "https://", "https://u@h", "https://h?q", "https://h#f", "h"] {
            assert!(!refused(|w| w["clientConfig"] = json!({"url": url})).is_empty(), "{url}");
        }
        assert_eq!(refused(|w| w["clientConfig"] = json!({"url": "https://h:1/p"})), Vec::<String>::new());
        assert_eq!(
            refused(|w| w["matchConditions"] = json!([{"name": "x", "expression": "nope"}])),
            [
                "webhooks[0].matchConditions[0].expression: Invalid value: \"nope\": compilation failed: ERROR: <input>:1:1: undeclared \
             reference to 'nope' (in container '')\n | nope\n | ^"
            ]
        );
    }
}
