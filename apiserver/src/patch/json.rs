//! JSON patch (RFC 6902).

use super::Error;
use serde_json::Value;

/// The most operations in one patch, as in Kubernetes.
const OPERATIONS_MAX: usize = 10_000;

/// Applies all operations or, on an error, none.
pub fn apply(document: &mut Value, patch: &Value) -> Result<(), Error> {
    if let Some(count) = patch.as_array().map(Vec::len).filter(|count| *count > OPERATIONS_MAX) {
        let why = format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}");
        return Err(Error::TooLarge(why));
    }
    let operations: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| Error::Malformed(format!("error decoding patch: {error}")))?;
    json_patch::patch(document, &operations).map_err(|error| Error::Inapplicable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn applies_operations_in_order() {
        let mut document = json!({"a": [1, 2], "m/n": 1});
        let patch = json!([
            {"op": "add", "path": "/a/-", "value": 3}, {"op": "remove", "path": "/a/0"},
            {"op": "replace", "path": "/m~1n", "value": 2}, {"op": "test", "path": "/a", "value": [2, 3]},
            {"op": "copy", "from": "/a", "path": "/b"}, {"op": "move", "from": "/m~1n", "path": "/c"},
        ]);
        apply(&mut document, &patch).unwrap();
        assert_eq!(document, json!({"a": [2, 3], "b": [2, 3], "c": 2}));
    }

    #[test]
    fn a_failed_test_leaves_the_document_and_is_unprocessable() {
        let mut document = json!({"a": 1});
        let patch = json!([{"op": "replace", "path": "/a", "value": 2}, {"op": "test", "path": "/a", "value": 1}]);
        let error = apply(&mut document, &patch).unwrap_err();
        assert_eq!(document, json!({"a": 1}));
        let status = crate::http::error::Status::from(error);
        assert_eq!((status.code.as_u16(), status.reason), (422, "Invalid"));
    }

    #[test]
    fn a_missing_path_is_unprocessable_and_a_malformed_patch_a_bad_request() {
        assert!(matches!(apply(&mut json!({}), &json!([{"op": "remove", "path": "/a"}])), Err(Error::Inapplicable(_))));
        assert!(matches!(apply(&mut json!({}), &json!([{"op": "frob", "path": "/a"}])), Err(Error::Malformed(_))));
        assert!(matches!(apply(&mut json!({}), &json!({"op": "remove"})), Err(Error::Malformed(_))));
        let long = Value::from(vec![json!({"op": "test", "path": "", "value": {}}); 10_001]);
        assert!(matches!(apply(&mut json!({}), &long), Err(Error::TooLarge(_))));
    }

    proptest! {
        /// Whatever a patch says, the document is patched as a whole or left as it was.
        #[test]
        fn all_or_nothing(
            document in super::super::strategic::tests::any_object(),
            operations in prop::collection::vec((0usize..7, "(/[a-c0-2~-]{0,2}){0,3}", "(/[a-c]){0,2}"), 0..6),
        ) {
            const NAMES: [&str; 7] = ["add", "remove", "replace", "move", "copy", "test", "frob"];
            let operation = |(name, path, from): (usize, String, String)| json!({
                "op": NAMES[name], "path": path, "from": from, "value": {"a": [1]},
            });
            let patch: Value = operations.into_iter().map(operation).collect();
            let mut patched = document.clone();
            if apply(&mut patched, &patch).is_err() {
                prop_assert_eq!(patched, document);
            }
        }
    }
}
