//! `Kind`: what a kind says of itself, and `Strategy`, the same with the type erased, so that the verbs are compiled
//! once and not once a kind.
//!
//! Objects are `serde_json::Value`s all the way: a typed view (`k8s-openapi`) is made of them for validation and
//! printing only, and never written back, for it would fill in and drop fields.

use crate::http::error::Invalid;
use crate::stack::with_stack;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::borrow::Cow;

/// The names of a resource and what can be done with it.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short: &'static [&'static str],
    /// As `all`.
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    /// Whether there is a `status` subresource.
    pub status: bool,
    /// Whether there is a `scale` subresource (see `subresources::scale`).
    pub scale: bool,
    /// How a generated or given name must look.
    pub name_rule: NameRule,
    /// Another group whose objects these are as well: events live in "" and in `events.k8s.io`. The objects are stored
    /// under this (group, plural); `None`: under their own.
    pub stored_as: Option<(&'static str, &'static str)>,
}

impl Names {
    /// What most kinds are: namespaced, without subresources, named by a DNS subdomain.
    pub const fn namespaced(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        singular: &'static str,
    ) -> Self {
        Names {
            group,
            version,
            kind,
            plural,
            singular,
            short: &[],
            categories: &[],
            namespaced: true,
            status: false,
            scale: false,
            name_rule: NameRule::Subdomain,
            stored_as: None,
        }
    }

    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, at most 253.
    Subdomain,
    /// RFC 1123 label, at most 63.
    Label,
    /// RFC 1035 label (Services before 1.34).
    Label1035,
    /// Anything that can stand in a path (RBAC kinds, for instance).
    PathSegment,
}

/// A column of `kubectl get`.
#[derive(Debug, Clone)]
pub struct Column {
    /// As `Ready`; the first column, `Name` of format `name`, is listed too.
    pub name: Cow<'static, str>,
    /// `string`, `integer`, `date`, …
    pub type_: &'static str,
    pub format: &'static str,
    pub description: Cow<'static, str>,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
}

impl Column {
    pub const NAME: Column = Column {
        name: Cow::Borrowed("Name"),
        type_: "string",
        format: "name",
        priority: 0,
        description: Cow::Borrowed("Name must be unique within a namespace."),
    };
    pub const AGE: Column = Column::text("Age", "Time since the object was created.");

    pub const fn text(name: &'static str, description: &'static str) -> Self {
        Column { name: Cow::Borrowed(name), type_: "string", format: "", description: Cow::Borrowed(description), priority: 0 }
    }
    pub const fn integer(name: &'static str, description: &'static str) -> Self {
        Column { name: Cow::Borrowed(name), type_: "integer", format: "", description: Cow::Borrowed(description), priority: 0 }
    }
    pub const fn date(name: &'static str, description: &'static str) -> Self {
        Column { name: Cow::Borrowed(name), type_: "date", format: "", description: Cow::Borrowed(description), priority: 0 }
    }
    pub const fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }
}

/// A subresource that is the object itself, and the fields that a write to it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub name: &'static str,
    pub fields: &'static [&'static [&'static str]],
}

/// The hooks of one kind. Implemented on the k8s-openapi type itself, in the kind's own file under `resources/`.
pub trait Kind: DeserializeOwned + schemars::JsonSchema + Send + Sync + 'static {
    const NAMES: Names;

    /// Fills in what the user may leave out. Idempotent.
    fn fill_defaults(_object: &mut Value) {}
    /// Drops or sets what a user may not say on create. `metadata` is complete by then: name, UID, creation time.
    fn prepare_create(object: &mut Value) {
        if Self::NAMES.status {
            object["status"] = json!({});
            object["metadata"]["generation"] = json!(1);
        }
    }
    /// Carries over what an ordinary update may not change.
    fn prepare_update(object: &mut Value, old: &Value) {
        if Self::NAMES.status {
            keep(object, old, "status");
            bump_generation(object, old);
        }
    }
    /// An update of `status` changes the status only (and, as in Kubernetes, some metadata).
    fn prepare_status_update(object: &mut Value, old: &Value) {
        keep_all_but_status_and_metadata(object, old, Self::STATUS_KEEPS);
    }
    /// The metadata that an update of `status` does not change.
    const STATUS_KEEPS: &'static [&'static str] = &[];
    fn validate(&self) -> Vec<Invalid> {
        vec![]
    }
    /// `validate`, where the object as it came is needed too: the typed view fills in required fields that are left out.
    fn validate_whole(&self, _object: &Value) -> Vec<Invalid> {
        self.validate()
    }
    fn validate_update(&self, _old: &Self) -> Vec<Invalid> {
        vec![]
    }
    /// `validate_update`, where the objects as they came are needed.
    fn validate_update_whole(_object: &Value, _old: &Value) -> Vec<Invalid> {
        vec![]
    }
    fn validate_status_update(&self, _old: &Self) -> Vec<Invalid> {
        vec![]
    }
    /// What only a new object must not say.
    fn validate_create(&self) -> Vec<Invalid> {
        vec![]
    }
    /// The subresources beside `status` that are the object itself, and what of it each may write: paths of fields, where `*`
    /// stands for any item of a list.
    const PARTS: &'static [Part] = &[];
    /// What a write to one of `PARTS` leaves of the new object.
    fn prepare_part_update(_part: &str, _object: &mut Value, _old: &Value) {}
    /// What of such a write is wrong beyond the object as a whole.
    fn validate_part_update(&self, _part: &str, _old: &Self) -> Vec<Invalid> {
        vec![]
    }
    /// The printer columns, `Name` first.
    fn columns() -> Vec<Column> {
        vec![Column::NAME, Column::AGE]
    }
    /// One cell a column. `now` is for ages.
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value>;
    /// The field selectors beyond `metadata.name` and `metadata.namespace`, with this object's values.
    fn selectable_fields(_object: &Value) -> Vec<(&'static str, String)> {
        vec![]
    }
    /// The names that `selectable_fields` may answer; another name in a field selector is a 400.
    const SELECTABLE: &'static [&'static str] = &[];
    /// Seconds between the request for deletion and the deletion, where the kind is deleted gracefully (pods).
    /// `None`: deleted at once. `asked` is the request's `gracePeriodSeconds`.
    fn grace_seconds(_object: &Value, _asked: Option<i64>) -> Option<i64> {
        None
    }
    /// What a request for deletion changes beside the metadata (a namespace becomes `Terminating`).
    fn prepare_delete(_object: &mut Value) {}
    /// Whether something other than `metadata.finalizers` keeps an object that is being deleted (`spec.finalizers` of a
    /// namespace).
    fn is_kept(_object: &Value) -> bool {
        false
    }
    /// Whether an update may leave out `metadata.resourceVersion`.
    const UNCONDITIONAL_UPDATE: bool = true;
    /// Whether a delete answers with the object instead of a Status.
    const DELETE_RETURNS_OBJECT: bool = false;
    /// Whether dependents stay when a request for deletion does not say what becomes of them.
    const ORPHANS_BY_DEFAULT: bool = false;
    /// Where `NAMES.stored_as` is set: from the shape of the kind it is stored as into this one, `kind` and `apiVersion`
    /// included, and back.
    fn from_stored(_object: &mut Value) {}
    fn to_stored(_object: &mut Value) {}
}

/// `Kind` with the type erased. CRDs will be the second implementation, driven by their schema.
#[allow(clippy::wrong_self_convention)] // `from_stored` is about the object, not the strategy.
pub trait Strategy: Send + Sync {
    fn names(&self) -> &Names;
    /// The custom kind that this is, if it is one.
    fn custom(&self) -> Option<&crate::custom_resources::CustomResource> {
        None
    }
    fn fill_defaults(&self, object: &mut Value);
    fn prepare_create(&self, object: &mut Value);
    fn prepare_update(&self, object: &mut Value, old: &Value);
    fn prepare_status_update(&self, object: &mut Value, old: &Value);
    /// The metadata that an update of `status` does not change.
    fn status_keeps(&self) -> &'static [&'static str] {
        METADATA
    }
    /// How objects of the kind are merged, and who may own what of them.
    fn merge_schema(&self) -> crate::patch::apply::Schema<'_> {
        use crate::patch::apply::Schema;
        crate::openapi::Schema::of(&self.schema_name()).map_or(Schema::Deduced, Schema::Builtin)
    }
    /// All errors of the kind itself; `ObjectMeta` is validated by the verbs.
    fn validate(&self, object: &Value) -> Vec<Invalid>;
    fn validate_update(&self, object: &Value, old: &Value) -> Vec<Invalid>;
    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<Invalid>;
    /// `validate`, and what only a new object must not say.
    fn validate_new(&self, object: &Value) -> Vec<Invalid> {
        self.validate(object)
    }
    /// The subresources beside `status` that are the object itself.
    fn parts(&self) -> &'static [Part] {
        &[]
    }
    fn prepare_part_update(&self, _part: &str, _object: &mut Value, _old: &Value) {}
    fn validate_part_update(&self, _part: &str, _object: &Value, _old: &Value) -> Vec<Invalid> {
        vec![]
    }
    fn columns(&self) -> Vec<Column>;
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value>;
    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)>;
    fn selectable(&self) -> &'static [&'static str];
    fn grace_seconds(&self, object: &Value, asked: Option<i64>) -> Option<i64>;
    fn prepare_delete(&self, object: &mut Value);
    fn is_kept(&self, object: &Value) -> bool;
    fn unconditional_update(&self) -> bool;
    fn delete_returns_object(&self) -> bool;
    fn orphans_by_default(&self) -> bool;
    fn from_stored(&self, object: &mut Value);
    fn to_stored(&self, object: &mut Value);
    /// The name of the type in the schema, as `io.k8s.api.core.v1.Pod`; `crate::openapi` looks it up.
    fn schema_name(&self) -> String;
    /// Adds the full schema of the kind, and of all that it is made of, to the generator's definitions.
    fn add_schema(&self, generator: &mut schemars::SchemaGenerator);
}

/// The strategy of a built-in kind.
pub struct Builtin<K>(std::marker::PhantomData<fn() -> K>);

impl<K: Kind> Builtin<K> {
    pub const fn new() -> Self {
        Builtin(std::marker::PhantomData)
    }
}

impl<K: Kind> Default for Builtin<K> {
    fn default() -> Self {
        Self::new()
    }
}

/// Reading an object into its type takes tens of kilobytes of stack for each level, in a debug build, and schemas of custom
/// kinds have many levels: those that are deeper than this are read on a stack of their own.
const SHALLOW: usize = 40;
const TYPED_STACK: usize = 16 << 20;

/// How many objects and lists are within each other.
fn nesting(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(nesting).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(nesting).max().unwrap_or(0),
        _ => 0,
    }
}

/// The typed view. Decoding has checked the types before, so that a failure here names no field: it is one error on
/// the whole object.
fn view<K: Kind>(object: &Value) -> Result<K, Vec<Invalid>> {
    let read = || K::deserialize(object);
    let read =
        if nesting(object) <= SHALLOW { read() } else { with_stack(TYPED_STACK, read).map_err(serde_json::Error::io).flatten() };
    read.map_err(|error| vec![Invalid::value("", &Value::Null, &error.to_string())])
}

impl<K: Kind> Strategy for Builtin<K> {
    fn names(&self) -> &Names {
        &K::NAMES
    }
    fn fill_defaults(&self, object: &mut Value) {
        K::fill_defaults(object);
    }
    fn prepare_create(&self, object: &mut Value) {
        K::prepare_create(object);
    }
    fn prepare_update(&self, object: &mut Value, old: &Value) {
        K::prepare_update(object, old);
    }
    fn prepare_status_update(&self, object: &mut Value, old: &Value) {
        K::prepare_status_update(object, old);
    }
    fn status_keeps(&self) -> &'static [&'static str] {
        K::STATUS_KEEPS
    }
    fn validate(&self, object: &Value) -> Vec<Invalid> {
        view::<K>(object).map_or_else(|errors| errors, |typed| typed.validate_whole(object))
    }
    fn validate_update(&self, object: &Value, old: &Value) -> Vec<Invalid> {
        match (view::<K>(object), view::<K>(old)) {
            (Ok(new), Ok(before)) => {
                let mut errors = new.validate_update(&before);
                errors.extend(K::validate_update_whole(object, old));
                errors
            }
            (Err(errors), _) | (_, Err(errors)) => errors,
        }
    }
    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<Invalid> {
        match (view::<K>(object), view::<K>(old)) {
            (Ok(new), Ok(old)) => new.validate_status_update(&old),
            (Err(errors), _) | (_, Err(errors)) => errors,
        }
    }
    fn validate_new(&self, object: &Value) -> Vec<Invalid> {
        view::<K>(object).map_or_else(|errors| errors, |typed| [typed.validate_whole(object), typed.validate_create()].concat())
    }
    fn parts(&self) -> &'static [Part] {
        K::PARTS
    }
    fn prepare_part_update(&self, part: &str, object: &mut Value, old: &Value) {
        K::prepare_part_update(part, object, old);
    }
    fn validate_part_update(&self, part: &str, object: &Value, old: &Value) -> Vec<Invalid> {
        match (view::<K>(object), view::<K>(old)) {
            (Ok(new), Ok(old)) => new.validate_part_update(part, &old),
            (Err(errors), _) | (_, Err(errors)) => errors,
        }
    }
    fn columns(&self) -> Vec<Column> {
        K::columns()
    }
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        match view::<K>(object) {
            Ok(typed) => typed.row(object, now),
            Err(_) => vec![object["metadata"]["name"].clone()],
        }
    }
    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        K::selectable_fields(object)
    }
    fn selectable(&self) -> &'static [&'static str] {
        K::SELECTABLE
    }
    fn grace_seconds(&self, object: &Value, asked: Option<i64>) -> Option<i64> {
        K::grace_seconds(object, asked)
    }
    fn prepare_delete(&self, object: &mut Value) {
        K::prepare_delete(object);
    }
    fn is_kept(&self, object: &Value) -> bool {
        K::is_kept(object)
    }
    fn unconditional_update(&self) -> bool {
        K::UNCONDITIONAL_UPDATE
    }
    fn delete_returns_object(&self) -> bool {
        K::DELETE_RETURNS_OBJECT
    }
    fn orphans_by_default(&self) -> bool {
        K::ORPHANS_BY_DEFAULT
    }
    fn from_stored(&self, object: &mut Value) {
        K::from_stored(object);
    }
    fn to_stored(&self, object: &mut Value) {
        K::to_stored(object);
    }
    fn schema_name(&self) -> String {
        K::schema_name().into_owned()
    }
    fn add_schema(&self, generator: &mut schemars::SchemaGenerator) {
        generator.subschema_for::<K>();
    }
}

// === what the hooks share ===

pub fn remove(object: &mut Value, field: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(field);
    }
}

/// Makes `field` what it was in `old`, absent if it was absent.
pub fn keep(object: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) => object[field] = value.clone(),
        None => remove(object, field),
    }
}

/// The generation rises when anything but metadata and status changes.
pub fn bump_generation(object: &mut Value, old: &Value) {
    let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
    let rest = |value: &Value| {
        let mut map = value.as_object().cloned().unwrap_or_default();
        for field in ["metadata", "status", "apiVersion", "kind"] {
            map.remove(field);
        }
        map
    };
    let changed = rest(object) != rest(old);
    object["metadata"]["generation"] = json!(if changed { generation + 1 } else { generation });
}

/// What a write to the `status` subresource leaves of the new object: its status, and the metadata of the old.
pub fn keep_all_but_status(object: &mut Value, old: &Value) {
    let status = object.get("status").cloned();
    let resource_version = object["metadata"].get("resourceVersion").cloned();
    *object = old.clone();
    match status {
        Some(status) => object["status"] = status,
        None => remove(object, "status"),
    }
    if let Some(version) = resource_version {
        object["metadata"]["resourceVersion"] = version;
    }
}

/// The metadata that is a user's to write.
pub const METADATA: &[&str] = &["annotations", "finalizers", "labels", "ownerReferences"];

/// What a write to the `status` subresource leaves of the new object: its status, and its metadata but for `kept`.
pub fn keep_all_but_status_and_metadata(object: &mut Value, old: &Value, kept: &[&str]) {
    let metadata = object["metadata"].take();
    keep_all_but_status(object, old);
    for field in METADATA.iter().filter(|field| !kept.contains(*field)) {
        keep(&mut object["metadata"], &metadata, field);
    }
    if let Some(version) = metadata.get("resourceVersion") {
        object["metadata"]["resourceVersion"] = version.clone();
    }
}

/// The `Age` cell: how long ago the object was created, as kubectl words it (`5m`, `3d4h`).
pub fn age(object: &Value, now: jiff::Timestamp) -> Value {
    let created = object["metadata"]["creationTimestamp"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    match created {
        Some(created) => json!(human_duration(now.as_second() - created.as_second())),
        None => json!("<unknown>"),
    }
}

/// Seconds as `duration.HumanDuration` of apimachinery prints them: two units at most, coarser with size.
pub fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    match seconds {
        s if s < -1 => "<invalid>".into(),
        s if s < 0 => "0s".into(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}
