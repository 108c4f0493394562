//! JSON patch (RFC 6902).
//!
//! What operations do adds up: a copy of a copy doubles the document, a move makes it deeper, and an element at the front of
//! a list shifts all others. So they are carried out one by one, and what they add up to has limits.

use super::Error;
use crate::openapi::DEPTH_MAX;
use json_patch::PatchOperation;
use json_patch::jsonptr::Pointer;
use serde_json::Value;
use std::io;

/// The most operations in one patch, as in Kubernetes.
const OPERATIONS_MAX: usize = 10_000;
/// What all copies of one patch may add to the document, as in Kubernetes.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Values that are moved to another place, or within their list: about a second's work.
const MOVED_VALUES_MAX: usize = 100_000_000;

/// Applies all operations or, on an error, none.
pub fn apply(document: &mut Value, patch: &Value) -> Result<(), Error> {
    if let Some(count) = patch.as_array().map(Vec::len).filter(|count| *count > OPERATIONS_MAX) {
        let why = format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}");
        return Err(Error::TooLarge(why));
    }
    let operations: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| Error::Malformed(format!("error decoding patch: {error}")))?;
    let mut patched = document.clone();
    let mut growth = Growth::default();
    for (index, operation) in operations.iter().enumerate() {
        growth.check(&patched, operation).map_err(|why| Error::Inapplicable(format!("operation '/{index}' failed: {why}")))?;
        if is_test_of_nothing(&patched, operation) {
            continue;
        }
        json_patch::patch_unsafe(&mut patched, std::slice::from_ref(operation)).map_err(|mut error| {
            error.operation = index;
            Error::Inapplicable(error.to_string())
        })?;
    }
    *document = patched;
    Ok(())
}

/// Whether it is a test that a field is null, and the field is not there. Kubernetes' library lets that pass, and clients rely
/// on it: so they add the first finalizer.
fn is_test_of_nothing(document: &Value, operation: &PatchOperation) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    let Some((parent, field)) = test.path.split_back() else { return false };
    let parent = document.pointer(parent.as_str()).and_then(Value::as_object);
    test.value.is_null() && parent.is_some_and(|parent| !parent.contains_key(field.decoded().as_ref()))
}

/// What the operations so far added up to.
#[derive(Default)]
struct Growth {
    copied_bytes: usize,
    moved_values: usize,
}

impl Growth {
    /// Whether one more operation is within the limits.
    fn check(&mut self, document: &Value, operation: &PatchOperation) -> Result<(), String> {
        match operation {
            PatchOperation::Add(add) => {
                self.shifts(document, &add.path)?;
                fits(&add.path, Extent::of(&add.value))
            }
            PatchOperation::Replace(replace) => fits(&replace.path, Extent::of(&replace.value)),
            PatchOperation::Remove(remove) => self.shifts(document, &remove.path),
            PatchOperation::Move(moved) => {
                self.shifts(document, &moved.from)?;
                self.shifts(document, &moved.path)?;
                let Some(value) = document.pointer(moved.from.as_str()) else { return Ok(()) };
                let extent = Extent::of(value);
                self.moves(extent.values)?;
                fits(&moved.path, extent)
            }
            PatchOperation::Copy(copy) => {
                self.shifts(document, &copy.path)?;
                let Some(value) = document.pointer(copy.from.as_str()) else { return Ok(()) };
                self.copies(value)?;
                fits(&copy.path, Extent::of(value))
            }
            PatchOperation::Test(_) => Ok(()),
        }
    }

    fn copies(&mut self, value: &Value) -> Result<(), String> {
        let mut counted = Counted(0);
        serde_json::to_writer(&mut counted, value).map_err(|error| error.to_string())?;
        self.copied_bytes += counted.0;
        if self.copied_bytes <= COPIED_BYTES_MAX {
            return Ok(());
        }
        Err(format!(
            "unable to copy, the accumulated size increase of copy is {}, exceeding the limit {COPIED_BYTES_MAX}",
            self.copied_bytes
        ))
    }

    /// What comes or goes in a list moves the elements behind it.
    fn shifts(&mut self, document: &Value, path: &Pointer) -> Result<(), String> {
        let parent = path.split_back().and_then(|(parent, _)| document.pointer(parent.as_str()));
        self.moves(parent.and_then(Value::as_array).map_or(0, Vec::len))
    }

    fn moves(&mut self, values: usize) -> Result<(), String> {
        self.moved_values = self.moved_values.saturating_add(values);
        if self.moved_values > MOVED_VALUES_MAX { Err("the patch moves too many values".into()) } else { Ok(()) }
    }
}

/// What is deeper could not be sent as a body, nor read from the store.
fn fits(path: &Pointer, extent: Extent) -> Result<(), String> {
    if path.count() + extent.depth > DEPTH_MAX + 1 { Err("exceeded max depth".into()) } else { Ok(()) }
}

/// How many values a value is made of, and how many objects and lists of it are within each other.
struct Extent {
    values: usize,
    depth: usize,
}

impl Extent {
    fn of(value: &Value) -> Self {
        let within = |inner: &mut dyn Iterator<Item = &Value>| {
            inner.map(Extent::of).fold(Extent { values: 1, depth: 1 }, |sum, one| Extent {
                values: sum.values + one.values,
                depth: sum.depth.max(one.depth + 1),
            })
        };
        match value {
            Value::Array(list) => within(&mut list.iter()),
            Value::Object(map) => within(&mut map.values()),
            _ => Extent { values: 1, depth: 0 },
        }
    }
}

/// Counts what is written, and keeps nothing.
struct Counted(usize);

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_field_that_is_not_there_is_null_to_a_test() {
        let mut document = json!({"metadata": {"name": "a"}});
        let first = json!([
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": ["a.b/c"]},
        ]);
        apply(&mut document, &first).unwrap();
        assert_eq!(document["metadata"]["finalizers"], json!(["a.b/c"]));
        assert!(apply(&mut document, &first).is_err(), "it is there now");
        for test in [json!({"op": "test", "path": "/a/b", "value": null}), json!({"op": "test", "path": "/a", "value": 1})] {
            assert!(apply(&mut document, &json!([test])).is_err(), "{test}");
        }
    }

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

    fn refused(document: Value, patch: &[Value]) -> String {
        let mut patched = document.clone();
        let error = apply(&mut patched, &Value::from(patch.to_vec())).unwrap_err();
        assert_eq!(patched, document);
        let Error::Inapplicable(why) = error else { panic!("{error:?}") };
        why
    }

    #[test]
    fn copies_of_copies_do_not_fill_the_memory() {
        let copy = |n: usize| json!({"op": "copy", "from": "", "path": format!("/c{n}")});
        let copies: Vec<Value> = (0..1_000).map(copy).collect();
        let why = refused(json!({"a": "x".repeat(1000)}), &copies);
        assert!(why.contains("unable to copy, the accumulated size increase of copy is"), "{why}");
        apply(&mut json!({"a": "x".repeat(1000)}), &Value::from(copies[..10].to_vec())).unwrap();
    }

    #[test]
    fn nothing_becomes_deeper_than_what_can_be_sent() {
        let deeper = [
            json!({"op": "add", "path": "/b", "value": {}}),
            json!({"op": "move", "from": "/a", "path": "/b/a"}),
            json!({"op": "move", "from": "/b", "path": "/a"}),
        ];
        let patch = |times: usize| vec![deeper.to_vec(); times].concat();
        apply(&mut json!({"a": {}}), &Value::from(patch(90))).unwrap();
        let why = refused(json!({"a": {}}), &patch(3_000));
        assert!(why.contains("exceeded max depth"), "{why}");
        let inwards = [json!({"op": "copy", "from": "/a", "path": format!("/a{}", "/a".repeat(50))})];
        let deep = (0..50).fold(json!({}), |inner, _| json!({"a": inner}));
        assert!(refused(json!({"a": deep.clone()}), &[inwards.as_slice(), &inwards].concat()).contains("exceeded max depth"));
    }

    #[test]
    fn lists_are_not_shifted_without_end() {
        let document = json!({"list": vec![0; 200_000]});
        let insert = json!({"op": "add", "path": "/list/0", "value": 1});
        assert!(refused(document.clone(), &vec![insert.clone(); 1_000]).contains("moves too many values"));
        apply(&mut document.clone(), &Value::from(vec![insert; 100])).unwrap();
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
