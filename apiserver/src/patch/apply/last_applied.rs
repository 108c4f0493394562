//! Client-side apply's annotation: what it says is taken for owned when kubectl begins to apply on the server's side, and
//! it is kept true as long as an object has it, so that one can go back.

use super::schema::Schema;
use super::set::Set;
use super::{check, walk};
use serde_json::Value;

/// Who is asked about the annotation; another name leaves it alone.
pub const MANAGER: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// All annotations of an object together, as in Kubernetes.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

fn annotation(object: &Value) -> Option<&str> {
    let annotations = object.get("metadata")?.get("annotations")?;
    annotations.get(ANNOTATION)?.as_str().filter(|text| !text.is_empty())
}

/// What the annotation says and the object still has: a conflict over it is none.
pub fn still_hold(live: &Value, api_version: &str, schema: Schema<'_>) -> Option<Set> {
    let last: Value = serde_json::from_str(annotation(live)?).ok()?;
    if last["apiVersion"] != api_version || !check::check(&last, schema).is_empty() {
        return None;
    }
    let diff = walk::compare(Some(&last), live, schema);
    Some(walk::owned(&last, schema).difference(&diff.changed).difference(&diff.removed))
}

/// Writes what was applied into the annotation, if there is one.
pub fn keep_true(object: &mut Value, config: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"))
        && let Some(annotations) = annotations.as_object_mut()
    {
        annotations.remove(ANNOTATION);
    }
    let text = format!("{}\n", slipway_api::canonical::Sorted(&config));
    let annotations = object.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"));
    let Some(annotations) = annotations.and_then(Value::as_object_mut) else { return };
    annotations.insert(ANNOTATION.to_owned(), text.into());
    let bytes: usize = annotations.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes > ANNOTATIONS_BYTES_MAX {
        annotations.remove(ANNOTATION);
    }
}
