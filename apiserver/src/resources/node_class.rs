//! NodeClass: how machines of a cloud are made.

use super::show;
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use serde_json::{Value, json};
pub use slipway_api::slipway::NodeClass;
use slipway_api::slipway::{GROUP, VERSION};

const PROVIDERS: [&str; 1] = ["ec2"];
/// What EC2 takes.
const USER_DATA_BYTES_MAX: usize = 16 << 10;

impl Kind for NodeClass {
    const NAMES: Names = Names {
        namespaced: false,
        status: true,
        categories: &["slipway"],
        ..Names::namespaced(GROUP, VERSION, "NodeClass", "nodeclasses", "nodeclass")
    };
    const STATUS_KEEPS: &'static [&'static str] = crate::kind::METADATA;

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = &self.spec;
        super::rules::one_of("spec.provider", Some(&spec.provider), &PROVIDERS, &mut errors);
        if spec.image.is_empty() {
            errors.push(Invalid::required("spec.image", "the image that machines boot from"));
        }
        for (field, list) in [("subnets", &spec.subnets), ("securityGroups", &spec.security_groups)] {
            for (index, item) in list.iter().enumerate() {
                let at = format!("spec.{field}[{index}]");
                if item.is_empty() {
                    errors.push(Invalid::required(at, ""));
                } else if list[..index].contains(item) {
                    errors.push(Invalid::duplicate(at, &json!(item)));
                }
            }
        }
        if spec.user_data.as_ref().is_some_and(|script| script.len() > USER_DATA_BYTES_MAX) {
            errors.push(Invalid::too_long("spec.userData", USER_DATA_BYTES_MAX));
        }
        for tag in spec.tags.keys().filter(|tag| tag.starts_with("slipway.dev/")) {
            errors.push(Invalid::forbidden(format!("spec.tags[{tag}]"), "tags of slipway.dev are set by Slipway itself"));
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Provider", "The cloud."),
            Column::text("Image", "The image that machines boot from."),
            Column::AGE,
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![show::name(object), json!(self.spec.provider), json!(self.spec.image), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::{Builtin, Strategy};
    use serde_json::{Value, json};

    #[test]
    fn a_class_names_a_cloud_and_an_image() {
        let strategy = Builtin::<super::NodeClass>::new();
        let class = |spec: Value| json!({"apiVersion": "slipway.dev/v1alpha1", "kind": "NodeClass", "metadata": {"name": "c"}, "spec": spec});
        let good = class(json!({"provider": "ec2", "image": "ami-1", "subnets": ["a", "b"]}));
        assert_eq!(strategy.validate(&good), []);
        let bad = class(json!({"provider": "gce", "subnets": ["a", "a"], "tags": {"slipway.dev/x": "y"}}));
        let fields: Vec<String> = strategy.validate(&bad).into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["spec.provider", "spec.image", "spec.subnets[1]", "spec.tags[slipway.dev/x]"]);
        assert_eq!(strategy.row(&good, jiff::Timestamp::UNIX_EPOCH)[1..3], [json!("ec2"), json!("ami-1")]);
    }
}
