//! APIService: who serves a group and version of the API: this server, or one behind a Service. What follows from it is in
//! `aggregation`.

use super::{rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, METADATA, NameRule, Names, age, keep};
use serde_json::{Value, json};
pub use slipway_api::apiregistration::APIService;
use slipway_api::name;

const PORT: u16 = 443;
const GROUP_PRIORITY_MAX: i32 = 20_000;
const VERSION_PRIORITY_MAX: i32 = 1_000;

impl Kind for APIService {
    const NAMES: Names = Names {
        categories: &["api-extensions"],
        namespaced: false,
        status: true,
        name_rule: NameRule::PathSegment,
        ..Names::namespaced("apiregistration.k8s.io", "v1", "APIService", "apiservices", "apiservice")
    };

    fn fill_defaults(object: &mut Value) {
        if let Some(service) = super::fill::inner(&mut object["spec"], "service") {
            super::fill::missing(service, "port", PORT);
        }
        if object["spec"].is_null() {
            crate::kind::remove(object, "spec");
        }
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({});
        if !object["spec"]["service"].is_object() {
            crate::aggregation::set_local(object, jiff::Timestamp::now());
        }
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        keep(object, old, "status");
    }

    const STATUS_KEEPS: &'static [&'static str] = METADATA;
    const UNCONDITIONAL_UPDATE: bool = false;

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = self.spec.clone().unwrap_or_default();
        let (group, version) = (spec.group.unwrap_or_default(), spec.version.unwrap_or_default());
        let (own, wanted) = (self.metadata.name.as_deref().unwrap_or_default(), format!("{version}.{group}"));
        if own != wanted {
            let why = format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\"");
            errors.push(Invalid::value("metadata.name", &json!(own), &why));
        }
        if group.is_empty() && version != "v1" {
            let why = "only v1 may have an empty group and it better be legacy kube";
            errors.push(Invalid::required("spec.group", why));
        }
        if !group.is_empty() {
            rules::all("spec.group", &group, name::dns1123_subdomain(&group), &mut errors);
        }
        rules::all("spec.version", &version, name::dns1035_label(&version), &mut errors);
        for (field, priority, most) in [
            ("groupPriorityMinimum", spec.group_priority_minimum, GROUP_PRIORITY_MAX),
            ("versionPriority", spec.version_priority, VERSION_PRIORITY_MAX),
        ] {
            if priority <= 0 || priority > most {
                let why = format!("must be positive and less than {most}");
                errors.push(Invalid::value(format!("spec.{field}"), &json!(priority), &why));
            }
        }
        let bundle = spec.ca_bundle.map_or(0, |bundle| bundle.0.len());
        let insecure = spec.insecure_skip_tls_verify == Some(true);
        let Some(service) = spec.service else {
            if bundle > 0 {
                let value = json!(format!("{bundle} bytes"));
                errors.push(Invalid::value("spec.caBundle", &value, "local APIServices may not have a caBundle"));
            }
            if insecure {
                let why = "local APIServices may not have insecureSkipTLSVerify";
                errors.push(Invalid::value("spec.insecureSkipTLSVerify", &json!(true), why));
            }
            return errors;
        };
        for (field, value) in [("namespace", service.namespace), ("name", service.name)] {
            if value.is_none_or(|value| value.is_empty()) {
                errors.push(Invalid::required(format!("spec.service.{field}"), ""));
            }
        }
        if insecure && bundle > 0 {
            let why = "may not be true if caBundle is present";
            errors.push(Invalid::value("spec.insecureSkipTLSVerify", &json!(true), why));
        }
        errors
    }

    fn validate_status_update(&self, _old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        let conditions = self.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        for (index, condition) in conditions.iter().enumerate() {
            let known = ["True", "False", "Unknown"];
            if !known.contains(&condition.status.as_str()) {
                let at = format!("status.conditions[{index}].status");
                errors.push(Invalid::not_supported(at, &json!(condition.status), &known));
            }
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Service", "The reference to the service that hosts this API endpoint."),
            Column::text("Available", "Whether this service is available."),
            Column::AGE,
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let service = match self.spec.as_ref().and_then(|spec| spec.service.as_ref()) {
            Some(service) => {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                format!("{}/{}", text(&service.namespace), text(&service.name))
            }
            None => "Local".into(),
        };
        let mut conditions = self.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let available = match conditions.find(|condition| condition.type_ == "Available") {
            None => "Unknown".into(),
            Some(condition) => match condition.reason.as_deref().filter(|reason| !reason.is_empty()) {
                Some(reason) if condition.status != "True" => format!("{} ({reason})", condition.status),
                _ => condition.status.clone(),
            },
        };
        vec![show::name(object), json!(service), json!(available), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    const STRATEGY: Builtin<super::APIService> = Builtin::new();

    fn service(name: &str, spec: Value) -> Value {
        let mut object = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name}, "spec": spec,
        });
        STRATEGY.fill_defaults(&mut object);
        STRATEGY.prepare_create(&mut object);
        object
    }

    fn errors(object: &Value) -> Vec<String> {
        STRATEGY.validate(object).into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn what_an_api_service_may_say() {
        let good = service(
            "v1.a.b",
            json!({"group": "a.b", "version": "v1", "groupPriorityMinimum": 20_000, "versionPriority": 1,
                   "service": {"namespace": "n", "name": "s"}}),
        );
        assert_eq!(errors(&good), Vec::<String>::new());
        assert_eq!(good["spec"]["service"]["port"], 443);
        assert_eq!(good["status"], json!({}));
        let bad = service(
            "v2.a.b",
            json!({"group": "", "version": "V1", "insecureSkipTLSVerify": true, "caBundle": "YWJj",
            "groupPriorityMinimum": 20_001, "versionPriority": 0, "service": {"name": ""}}),
        );
        let bad = errors(&bad);
        for part in [
            "metadata.name: Invalid value: \"v2.a.b\": must be `spec.version+\".\"+spec.group`: \"V1.\"",
            "spec.group: Required value: only v1 may have an empty group and it better be legacy kube",
            "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
            "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
            "spec.service.namespace: Required value",
            "spec.service.name: Required value",
            "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
        ] {
            assert!(bad.iter().any(|error| error == part), "{part} is not among {bad:#?}");
        }
        assert!(bad.iter().any(|error| error.starts_with("spec.version: Invalid value: \"V1\"")), "{bad:#?}");
    }

    #[test]
    fn a_local_one_is_available_from_the_start_and_trusts_nobody() {
        let spec = json!({"group": "a.b", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1});
        let local = service("v1.a.b", spec.clone());
        let condition = &local["status"]["conditions"][0];
        assert_eq!(
            (&condition["type"], &condition["status"], &condition["reason"]),
            (&json!("Available"), &json!("True"), &json!("Local"))
        );
        assert_eq!(STRATEGY.row(&local, jiff::Timestamp::UNIX_EPOCH)[..3], [json!("v1.a.b"), json!("Local"), json!("True")]);
        let mut trusting = spec;
        trusting["caBundle"] = json!("YWJj");
        trusting["insecureSkipTLSVerify"] = json!(true);
        let expected = [
            "spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle",
            "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
        ];
        assert_eq!(errors(&service("v1.a.b", trusting)), expected);
    }

    #[test]
    fn the_row_says_why_it_is_not_available() {
        let mut object = service(
            "v1.a.b",
            json!({"group": "a.b", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
                   "service": {"namespace": "n", "name": "s"}}),
        );
        let row = |object: &Value| STRATEGY.row(object, jiff::Timestamp::UNIX_EPOCH)[1..3].to_vec();
        assert_eq!(row(&object), [json!("n/s"), json!("Unknown")]);
        let old = object.clone();
        object["status"]["conditions"] = json!([{"type": "Available", "status": "False", "reason": "ServiceNotFound"}]);
        assert_eq!(row(&object), [json!("n/s"), json!("False (ServiceNotFound)")]);
        assert!(STRATEGY.validate_status_update(&object, &old).is_empty());
        object["status"]["conditions"][0]["status"] = json!("Maybe");
        assert_eq!(STRATEGY.validate_status_update(&object, &old)[0].field, "status.conditions[0].status");
    }
}
