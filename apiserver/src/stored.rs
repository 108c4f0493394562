//! How an object lies in the store and in the cache: its key, its bytes, and the attributes that selectors ask for.
//!
//! Stored bytes are JSON that begins with `kind`, `apiVersion`, `metadata` and holds no resourceVersion; the cache's
//! ingest writes the revision into them once, and from then on they are sent as they are.

use crate::authorization::facts::{self, Facts};
use crate::encryption::{Encryption, Unreadable};
use crate::http::compression::Deflated;
use crate::http::error::Status;
use crate::http::protobuf;
use crate::kind::{Names, Strategy};
use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use slipway_api::canonical::{self, Sorted};
use slipway_store::{Revision, cache};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

/// What selectors ask for, extracted when the object enters the cache.
#[derive(Debug, Default)]
pub struct Attributes {
    pub labels: BTreeMap<String, String>,
    /// `Strategy::selectable_fields` of the kind that the objects are stored under.
    pub fields: Vec<(&'static str, String)>,
    /// What authorisation asks of it.
    pub facts: Option<Box<Facts>>,
    /// Whether it is stored under another key than the first: see `encryption`.
    pub outdated: bool,
    /// Set if the stored value could not be decrypted; the entry has no bytes then.
    pub unreadable: Option<Box<Unreadable>>,
    /// What readers have asked for so far. It goes when the entry goes.
    pub encoded: Encoded,
    /// Of a custom kind: what it looks like in the versions that were asked for.
    pub forms: crate::custom_resources::strategy::Forms,
}

/// Other forms of an entry's bytes, made when they are first asked for.
#[derive(Debug, Default)]
pub struct Encoded {
    /// The message without its envelope; `None` if the object does not have the shape of its kind.
    protobuf: OnceLock<Option<Bytes>>,
    /// The compressed page of a list that begins with this entry, by `compression::Wire`.
    pub pages: Mutex<[Option<Arc<Deflated>>; 2]>,
}

/// The entry's message in protobuf.
pub fn protobuf(entry: &Entry, message: &protobuf::Message) -> Result<Bytes, Status> {
    let encoded = entry.attributes.encoded.protobuf.get_or_init(|| {
        let encoded = protobuf::of_entry(message, &entry.bytes);
        encoded.inspect_err(|error| tracing::error!(key = &*entry.key, %error, "an object cannot be written in protobuf")).ok()
    });
    encoded.clone().ok_or_else(|| {
        let message = format!("Internal error occurred: {:?} cannot be written in protobuf", &*entry.key);
        Status::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    })
}

pub type Entry = cache::Entry<Attributes>;
pub type Snapshot = cache::Snapshot<Attributes>;
pub type Cache = cache::Cache<Attributes>;
pub type Change = cache::Change<Attributes>;

const METADATA: &[u8] = b"\"metadata\":{";
const RESOURCE_VERSION: &[u8] = b"\"resourceVersion\":\"";

/// `/core/pods/`: all objects of a kind, or those of one namespace.
pub fn prefix(names: &Names, namespace: Option<&str>) -> String {
    let (group, plural) = names.stored_as.unwrap_or((names.group, names.plural));
    let group = if group.is_empty() { "core" } else { group };
    match namespace {
        Some(namespace) if names.namespaced => format!("/{group}/{plural}/{namespace}/"),
        _ => format!("/{group}/{plural}/"),
    }
}

/// `/core/pods/default/web`, `/core/nodes/n1`. `namespace` is ignored for kinds of the cluster.
pub fn key(names: &Names, namespace: &str, name: &str) -> String {
    let mut key = prefix(names, Some(namespace));
    key.push_str(name);
    key
}

/// The namespace (empty for kinds of the cluster) and the name that a key stands for.
pub fn namespace_and_name(key: &str) -> (&str, &str) {
    let mut parts = key.splitn(5, '/').skip(3);
    match (parts.next(), parts.next()) {
        (Some(namespace), Some(name)) => (namespace, name),
        (Some(name), None) => ("", name),
        _ => ("", ""),
    }
}

/// The first key after all that begin with `prefix`.
pub fn prefix_end(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    // All prefixes end with '/', whose successor is '0'.
    end.pop();
    end.push('0');
    end
}

/// The objects whose keys begin with `prefix` and come after `prefix` + `start`.
pub fn below<'a>(snapshot: &'a Snapshot, prefix: &str, start: &str) -> impl Iterator<Item = &'a Arc<Entry>> {
    let (start, end) = (format!("{prefix}{start}"), prefix_end(prefix));
    let range = (Bound::Excluded(start.as_str()), Bound::Excluded(end.as_str()));
    snapshot.objects.range::<_, str>(range).map(|(_, entry)| entry)
}

/// The bytes to store: the fields in the agreed order, without a resourceVersion.
pub fn encode(object: &Value) -> Bytes {
    let empty = Map::new();
    let map = object.as_object().unwrap_or(&empty);
    let mut bytes = Vec::with_capacity(1024);
    bytes.push(b'{');
    let field = |bytes: &mut Vec<u8>, name: &str, value: &Value| {
        if bytes.len() > 1 {
            bytes.push(b',');
        }
        write_field(bytes, name, value);
    };
    for name in ["kind", "apiVersion"] {
        if let Some(value) = map.get(name) {
            field(&mut bytes, name, value);
        }
    }
    if bytes.len() > 1 {
        bytes.push(b',');
    }
    bytes.extend_from_slice(METADATA);
    let metadata = map.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let mut first = true;
    for (name, value) in canonical::in_order(metadata).into_iter().filter(|(name, _)| *name != "resourceVersion") {
        if !std::mem::take(&mut first) {
            bytes.push(b',');
        }
        write_field(&mut bytes, name, value);
    }
    bytes.push(b'}');
    for (name, value) in
        canonical::in_order(map).into_iter().filter(|(name, _)| !["kind", "apiVersion", "metadata"].contains(&name.as_str()))
    {
        field(&mut bytes, name, value);
    }
    bytes.push(b'}');
    bytes.into()
}

fn write_field(bytes: &mut Vec<u8>, name: &str, value: &Value) {
    serde_json::to_writer(&mut *bytes, name).expect("a name can always be written to memory");
    bytes.push(b':');
    serde_json::to_writer(bytes, &Sorted(value)).expect("a JSON value can always be written to memory");
}

/// Writes `"resourceVersion":"N"` into encoded bytes, in place of the one they may have.
pub fn with_revision(bytes: &[u8], revision: Revision) -> Bytes {
    let Some(start) = memchr::memmem::find(bytes, METADATA) else { return Bytes::copy_from_slice(bytes) };
    let (head, mut rest) = bytes.split_at(start + METADATA.len());
    if let Some(after) = rest.strip_prefix(RESOURCE_VERSION) {
        let end = memchr::memchr(b'"', after).map_or(after.len(), |quote| quote + 1);
        rest = &after[end..];
        rest = rest.strip_prefix(b",").unwrap_or(rest);
    }
    let mut out = Vec::with_capacity(bytes.len() + 40);
    out.extend_from_slice(head);
    out.extend_from_slice(RESOURCE_VERSION);
    out.extend_from_slice(revision.to_string().as_bytes());
    out.push(b'"');
    if rest.first() != Some(&b'}') {
        out.push(b',');
    }
    out.extend_from_slice(rest);
    out.into()
}

/// What the cache calls for each change. `kinds` are those that own their keys (`stored_as` is `None`).
pub fn ingest(kinds: Vec<Arc<dyn Strategy>>, encryption: Arc<Encryption>) -> cache::Ingest<Attributes> {
    let by_prefix: HashMap<String, Arc<dyn Strategy>> = kinds
        .into_iter()
        .filter(|strategy| strategy.names().stored_as.is_none())
        .map(|strategy| (prefix(strategy.names(), None), strategy))
        .collect();
    Arc::new(move |key, revision, stored| {
        let end = key.match_indices('/').nth(2).map_or(key.len(), |(at, _)| at + 1);
        let strategy = by_prefix.get(&key[..end]).map(Arc::as_ref);
        match encryption.open(key, stored) {
            Ok(opened) => {
                let mut attributes = attributes(strategy, key, &opened.bytes);
                attributes.outdated = opened.outdated;
                (with_revision(&opened.bytes, revision), attributes)
            }
            Err(error) => {
                tracing::error!(key, %error, "a stored object cannot be decrypted");
                (Bytes::new(), Attributes { unreadable: Some(Box::new(error)), ..Attributes::default() })
            }
        }
    })
}

#[derive(Deserialize, Default)]
struct Labelled {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// An object whose metadata is read for its labels alone: the rest of it, `managedFields` above all, is as large as the object,
/// and neither selectors nor authorisation ask for it.
struct Skimmed {
    labels: BTreeMap<String, String>,
    object: Value,
}

impl<'de> Deserialize<'de> for Skimmed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Skimmed;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Skimmed, A::Error> {
                let (mut labels, mut object) = (None, Map::new());
                while let Some(name) = fields.next_key::<String>()? {
                    match name.as_str() {
                        "metadata" => labels = fields.next_value::<Labelled>()?.labels,
                        _ => {
                            object.insert(name, fields.next_value()?);
                        }
                    }
                }
                Ok(Skimmed { labels: labels.unwrap_or_default(), object: Value::Object(object) })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

fn attributes(strategy: Option<&dyn Strategy>, key: &str, stored: &[u8]) -> Attributes {
    let unreadable = |error: serde_json::Error| {
        tracing::error!(key, %error, "a stored object cannot be read");
        Attributes::default()
    };
    let selectable = strategy.filter(|strategy| !strategy.selectable().is_empty());
    let asked = strategy.filter(|strategy| facts::are_kept_of(strategy.names()));
    if selectable.is_none() && asked.is_none() {
        #[derive(Deserialize)]
        struct Object {
            #[serde(default)]
            metadata: Labelled,
        }
        let labels = serde_json::from_slice(stored).map(|object: Object| object.metadata.labels.unwrap_or_default());
        return labels.map_or_else(unreadable, |labels| Attributes { labels, ..Attributes::default() });
    }
    // Read once, for labels and fields.
    let Skimmed { labels, object } = match serde_json::from_slice(stored) {
        Ok(skimmed) => skimmed,
        Err(error) => return unreadable(error),
    };
    let fields = selectable.map(|strategy| strategy.selectable_fields(&object)).unwrap_or_default();
    let facts = asked.and_then(|strategy| facts::facts(strategy.names(), &object));
    Attributes { labels, fields, facts, ..Attributes::default() }
}

/// What a reader of an object that cannot be decrypted is told.
pub fn check_readable(entry: &Entry) -> Result<(), Status> {
    let Some(why) = &entry.attributes.unreadable else { return Ok(()) };
    let message = format!("Internal error occurred: unable to transform key {:?}: {why}", &*entry.key);
    Err(Status::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
        .with_details(serde_json::json!({"causes": [{"message": format!("unable to transform key {:?}: {why}", &*entry.key)}]})))
}

/// The same for all objects whose keys begin with `prefix`.
pub fn check_all_readable(encryption: &Encryption, snapshot: &Snapshot, prefix: &str) -> Result<(), Status> {
    match encryption.met_unreadable() {
        true => below(snapshot, prefix, "").try_for_each(|entry| check_readable(entry)),
        false => Ok(()),
    }
}

/// The object with its resourceVersion, in the shape of `strategy`'s own group.
pub fn decode(strategy: &dyn Strategy, bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut object: Value = serde_json::from_slice(bytes)?;
    if let Some(custom) = strategy.custom() {
        custom.read(&mut object);
    }
    if strategy.names().stored_as.is_some() {
        strategy.from_stored(&mut object);
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_stored_bytes_begin_with_type_and_metadata_and_have_no_revision() {
        let object =
            json!({"spec": {"a": 1}, "metadata": {"name": "x", "resourceVersion": "7"}, "apiVersion": "v1", "kind": "Pod"});
        assert_eq!(text(&encode(&object)), r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"},"spec":{"a":1}}"#);
    }

    #[test]
    fn a_revision_is_written_in_once_and_replaced() {
        let first = with_revision(br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"}}"#, 7);
        assert_eq!(text(&first), r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"7","name":"x"}}"#);
        let second = with_revision(&first, 12);
        assert_eq!(text(&second), r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"12","name":"x"}}"#);
        let empty = with_revision(br#"{"kind":"Pod","apiVersion":"v1","metadata":{}}"#, 7);
        assert_eq!(text(&with_revision(&empty, 8)), r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"8"}}"#);
    }

    #[test]
    fn an_object_is_skimmed_for_what_selectors_ask() {
        let pods = crate::kind::Builtin::<crate::resources::pod::Pod>::new();
        let object = json!({"kind": "Pod", "metadata": {"name": "x", "labels": {"a": "b"}, "managedFields": [{"fieldsV1": {}}]},
            "spec": {"nodeName": "n1", "serviceAccountName": "robot"}, "status": {"phase": "Running"}});
        let Attributes { labels, fields, facts, .. } = attributes(Some(&pods), "/core/pods/d/x", &encode(&object));
        assert_eq!((labels, fields), (BTreeMap::from([("a".into(), "b".into())]), pods.selectable_fields(&object)));
        assert!(facts.is_some());
        let none = attributes(Some(&pods), "/core/pods/d/x", br#"{"kind":"Pod","metadata":{"labels":null}}"#);
        assert!(none.labels.is_empty() && !none.fields.is_empty());
        let unreadable = attributes(Some(&pods), "/core/pods/d/x", br#"{"metadata":{"labels":{"a":1}}}"#);
        assert!(unreadable.fields.is_empty());
    }

    #[test]
    fn keys_name_namespace_and_object() {
        assert_eq!(namespace_and_name("/core/pods/default/web"), ("default", "web"));
        assert_eq!(namespace_and_name("/core/nodes/n1"), ("", "n1"));
        assert_eq!(prefix_end("/core/pods/"), "/core/pods0");
    }
}
