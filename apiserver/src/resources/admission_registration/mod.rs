//! `admissionregistration.k8s.io`: who is asked about writes. What is done with them is in `crate::admission`.

pub mod binding;
mod matching;
pub mod policy;
pub mod webhook;

use crate::kind::Names;
use crate::resources::fill;
use serde_json::{Value, json};

pub const GROUP: &str = "admissionregistration.k8s.io";

const fn names(kind: &'static str, plural: &'static str, singular: &'static str) -> Names {
    Names { namespaced: false, categories: &["api-extensions"], ..Names::namespaced(GROUP, "v1", kind, plural, singular) }
}

/// What `matchConstraints`, `matchResources` and a webhook leave out.
fn fill_matching(object: &mut Value) {
    fill::missing(object, "matchPolicy", "Equivalent");
    fill::missing(object, "namespaceSelector", json!({}));
    fill::missing(object, "objectSelector", json!({}));
    for list in ["rules", "resourceRules", "excludeResourceRules"] {
        for rule in fill::items(object, list) {
            fill::missing(rule, "scope", "*");
        }
    }
}

/// Kinds whose generation counts the changes of one field.
fn first_generation(object: &mut Value) {
    object["metadata"]["generation"] = json!(1);
}
