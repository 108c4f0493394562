//! JSON merge patch (RFC 7386): objects are merged, null removes, all else replaces.

use super::Error;
use serde_json::Value;

/// Applies `patch`, which must be an object: a merge patch that is not would replace the whole document.
pub fn apply(document: &mut Value, patch: &Value) -> Result<(), Error> {
    if !patch.is_object() {
        return Err(Error::Malformed("Invalid JSON Patch: a merge patch must be an object".into()));
    }
    json_patch::merge(document, patch);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn check(mut document: Value, patch: Value, expected: Value) {
        apply(&mut document, &patch).unwrap();
        assert_eq!(document, expected);
    }

    #[test]
    fn merges_objects_removes_nulls_and_replaces_lists() {
        check(json!({"a": {"b": 1, "c": 2}, "l": [1, 2]}), json!({"a": {"b": null}, "l": [3]}), json!({"a": {"c": 2}, "l": [3]}));
        check(json!({"a": "x"}), json!({"a": {"b": {"c": null}}}), json!({"a": {"b": {}}}));
        check(json!({}), json!({"a": null}), json!({}));
    }

    #[test]
    fn refuses_a_patch_that_is_no_object() {
        assert!(matches!(apply(&mut json!({}), &json!([1])), Err(Error::Malformed(_))));
    }

    proptest! {
        #[test]
        fn applied_twice_is_applied_once(document in super::super::strategic::tests::any_object(), patch in super::super::strategic::tests::any_object()) {
            let mut once = document;
            apply(&mut once, &patch).unwrap();
            let mut twice = once.clone();
            apply(&mut twice, &patch).unwrap();
            prop_assert_eq!(once, twice);
        }
    }
}
