//! IngressClass: who carries out Ingresses.

use super::{rules, show};
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age, bump_generation};
use serde_json::{Value, json};
use slipway_api::name;
pub use slipway_api::networking::IngressClass;

/// Which class Ingresses have that name none.
pub const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";
const CONTROLLER_MAX: usize = 250;

impl Kind for IngressClass {
    const NAMES: Names = Names {
        namespaced: false,
        ..Names::namespaced("networking.k8s.io", "v1", "IngressClass", "ingressclasses", "ingressclass")
    };

    fn fill_defaults(object: &mut Value) {
        if let Some(parameters) = super::fill::inner(&mut object["spec"], "parameters") {
            super::fill::missing(parameters, "scope", "Cluster");
        }
        if object["spec"].is_null() {
            crate::kind::remove(object, "spec");
        }
    }

    fn prepare_create(object: &mut Value) {
        object["metadata"]["generation"] = json!(1);
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        bump_generation(object, old);
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = self.spec.clone().unwrap_or_default();
        let controller = spec.controller.as_deref().unwrap_or("");
        let at = "spec.controller";
        if controller.len() > CONTROLLER_MAX {
            errors.push(Invalid::too_long(at, CONTROLLER_MAX));
        }
        match controller.split_once('/') {
            _ if controller.is_empty() => errors.push(Invalid::required(at, "")),
            Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
                rules::all(at, domain, name::dns1123_subdomain(domain), &mut errors);
            }
            _ => {
                let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
                errors.push(Invalid::value(at, &json!(controller), why));
            }
        }
        if let Some(parameters) = &spec.parameters {
            for (field, value) in [("kind", &parameters.kind), ("name", &parameters.name)] {
                if value.is_empty() {
                    let why = if field == "kind" { "kind is required" } else { "name is required" };
                    errors.push(Invalid::required(format!("spec.parameters.{field}"), why));
                }
            }
            rules::one_of("spec.parameters.scope", parameters.scope.as_deref(), &["Cluster", "Namespace"], &mut errors);
            let namespace = parameters.namespace.as_deref().filter(|namespace| !namespace.is_empty());
            match (parameters.scope.as_deref(), namespace) {
                (Some("Namespace"), None) => {
                    let why = "`parameters.scope` is set to 'Namespace'";
                    errors.push(Invalid::required("spec.parameters.namespace", why));
                }
                (Some("Cluster"), Some(_)) => {
                    let why = "`parameters.scope` is set to 'Cluster'";
                    errors.push(Invalid::forbidden("spec.parameters.namespace", why));
                }
                _ => {}
            }
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Vec<Invalid> {
        let mut errors = vec![];
        let controller = |class: &Self| class.spec.as_ref().and_then(|spec| spec.controller.clone());
        rules::same("spec.controller", &controller(self), &controller(old), &mut errors);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Controller", "Who carries out its Ingresses."),
            Column::text("Parameters", "What the controller is told beside."),
            Column::AGE,
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = self.spec.clone().unwrap_or_default();
        let parameters = spec.parameters.map(|parameters| {
            let group = parameters.api_group.map(|group| format!(".{group}")).unwrap_or_default();
            format!("{}{group}/{}", parameters.kind, parameters.name)
        });
        vec![
            show::name(object),
            json!(spec.controller.unwrap_or_default()),
            show::or_none(parameters.as_deref()),
            age(object, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    #[test]
    fn a_class_has_one_controller() {
        let strategy = Builtin::<super::IngressClass>::new();
        let class = |spec: Value| {
            let mut it =
                json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "c"}, "spec": spec});
            strategy.fill_defaults(&mut it);
            it
        };
        let fields = |it: &Value| strategy.validate(it).into_iter().map(|error| error.field).collect::<Vec<_>>();
        let good = class(json!({"controller": "example.com/c", "parameters": {"apiGroup": "x.io", "kind": "P", "name": "p"}}));
        assert_eq!(good["spec"]["parameters"]["scope"], "Cluster");
        assert_eq!(fields(&good), Vec::<String>::new());
        assert_eq!(
            fields(&class(json!({"controller": "c", "parameters": {"kind": "", "name": "p", "scope": "Namespace"}}))),
            ["spec.controller", "spec.parameters.kind", "spec.parameters.namespace"]
        );
        assert_eq!(strategy.validate_update(&class(json!({"controller": "example.com/d"})), &good)[0].field, "spec.controller");
        assert_eq!(strategy.row(&good, jiff::Timestamp::UNIX_EPOCH)[1..3], [json!("example.com/c"), json!("P.x.io/p")]);
    }
}
