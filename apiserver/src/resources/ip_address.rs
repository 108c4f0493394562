//! IPAddress: that an address is somebody's, so that nobody else gets it.

use super::{addresses, rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, NameRule, Names, age};
use crate::verbs::object_meta::name_errors;
use serde_json::{Value, json};
use slipway_api::name;
pub use slipway_api::networking::IPAddress;

impl Kind for IPAddress {
    /// The name is the address.
    const NAMES: Names = Names {
        short: &["ip"],
        namespaced: false,
        name_rule: NameRule::PathSegment,
        ..Names::namespaced("networking.k8s.io", "v1", "IPAddress", "ipaddresses", "ipaddress")
    };

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let address = self.metadata.name.as_deref().unwrap_or("");
        rules::all("metadata.name", address, addresses::address(address), &mut errors);
        let parent = &self.spec.parent_ref;
        if let Some(group) = parent.group.as_deref().filter(|group| !group.is_empty()) {
            rules::all("spec.parentRef.group", group, name::dns1123_subdomain(group), &mut errors);
        }
        let required = [("resource", &parent.resource), ("name", &parent.name)];
        for (field, value) in required {
            let at = format!("spec.parentRef.{field}");
            if value.is_empty() {
                errors.push(Invalid::required(at, ""));
            } else {
                rules::all(&at, value, name_errors(NameRule::PathSegment, value), &mut errors);
            }
        }
        if let Some(namespace) = parent.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
            let wrong = name_errors(NameRule::PathSegment, namespace);
            rules::all("spec.parentRef.namespace", namespace, wrong, &mut errors);
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        rules::same("spec.parentRef", &self.spec.parent_ref, &old.spec.parent_ref, &mut errors);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![Column::NAME, Column::text("ParentRef", "Whose address it is."), Column::AGE]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let parent = &self.spec.parent_ref;
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let mut whose = parent.resource.clone();
        if let Some(group) = given(&parent.group) {
            whose = format!("{whose}.{group}");
        }
        if let Some(namespace) = given(&parent.namespace) {
            whose = format!("{whose}/{namespace}");
        }
        vec![show::name(object), json!(format!("{whose}/{}", parent.name)), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    #[test]
    fn an_address_is_somebodys_and_stays_theirs() {
        let strategy = Builtin::<super::IPAddress>::new();
        let address = |name: &str, parent: Value| json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": name}, "spec": {"parentRef": parent}});
        let texts = |errors: Vec<crate::http::error::Invalid>| {
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect::<Vec<_>>()
        };
        let service = json!({"resource": "services", "namespace": "default", "name": "kubernetes"});
        let good = address("10.96.0.1", service);
        assert_eq!(texts(strategy.validate(&good)), Vec::<String>::new());
        assert_eq!(strategy.row(&good, jiff::Timestamp::UNIX_EPOCH)[1], "services/default/kubernetes");
        let bad = address("web", json!({"resource": "", "name": "a/b"}));
        assert_eq!(
            texts(strategy.validate(&bad)),
            [
                "metadata.name: Invalid value: \"web\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "spec.parentRef.resource: Required value",
                "spec.parentRef.name: Invalid value: \"a/b\": may not contain '/'",
            ]
        );
        let other = address("10.96.0.1", json!({"group": "g", "resource": "things", "name": "t"}));
        assert_eq!(strategy.row(&other, jiff::Timestamp::UNIX_EPOCH)[1], "things.g/t");
        assert_eq!(
            texts(strategy.validate_update(&other, &good)),
            ["spec.parentRef: Invalid value: {\"group\":\"g\",\"name\":\"t\",\"resource\":\"things\"}: field is immutable"]
        );
    }
}
