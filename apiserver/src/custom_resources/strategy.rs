//! One version of a custom kind, as the verbs see it: the second `Strategy`, driven by a schema.

use crate::custom_resources::columns::Printer;
use crate::custom_resources::path::Path;
use crate::custom_resources::rules::Rules;
use crate::custom_resources::schema::{At, Schema};
use crate::custom_resources::{conversion, default, definition, prune, validate};
use crate::http::error::{Invalid, Reason, Status};
use crate::kind::{self, Column, NameRule, Names, Strategy};
use crate::patch::apply::Structural;
use crate::registry::{intern, intern_all};
use crate::stored::{self, Entry};
use serde_json::{Value, json};
use slipway_store::Revision;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What all versions of a custom kind share.
#[derive(Debug)]
pub struct Definition {
    /// As it is stored, with its resourceVersion.
    pub object: Value,
    pub group: &'static str,
    pub storage_version: &'static str,
    pub list_kind: &'static str,
    pub terminating: bool,
    /// Of all versions, served or not: objects may be stored in any of them.
    pub schemas: BTreeMap<String, Arc<Schema>>,
    /// Who converts between the versions; nobody where they differ by name alone.
    pub webhook: Option<conversion::Webhook>,
}

impl Definition {
    pub fn new(object: Value) -> Self {
        let preserve = object["spec"]["preserveUnknownFields"] == true;
        let versions = object["spec"]["versions"].as_array().map_or(&[][..], Vec::as_slice);
        let name = |version: &Value| version["name"].as_str().unwrap_or_default().to_owned();
        let schema = |version: &Value| {
            let mut schema = Schema::parse(&version["schema"]["openAPIV3Schema"]);
            schema.preserve_unknown |= preserve;
            Arc::new(schema)
        };
        let storage = versions.iter().find(|version| version["storage"] == true);
        Definition {
            group: intern(object["spec"]["group"].as_str().unwrap_or_default()),
            storage_version: intern(&storage.map(name).unwrap_or_default()),
            list_kind: intern(object["status"]["acceptedNames"]["listKind"].as_str().unwrap_or_default()),
            terminating: definition::is_condition_true(&object, "Terminating"),
            schemas: versions.iter().map(|version| (name(version), schema(version))).collect(),
            webhook: conversion::Webhook::of(&object),
            object,
        }
    }

    /// The schema of the version that an object says it is of.
    fn schema_of(&self, api_version: &str) -> Option<&Arc<Schema>> {
        let (group, version) = api_version.split_once('/')?;
        self.schemas.get(version).filter(|_| group == self.group)
    }
}

/// `subresources.scale`.
pub struct ScalePaths {
    pub spec: Path,
    pub status: Path,
    pub selector: Option<Path>,
}

pub struct CustomResource {
    names: Names,
    pub definition: Arc<Definition>,
    /// `openAPIV3Schema`.
    pub source: Value,
    pub schema: Arc<Schema>,
    structural: Structural,
    pub scale: Option<ScalePaths>,
    printer: Printer,
    selectable: &'static [&'static str],
    selectable_paths: Vec<Path>,
    rules: Rules,
    /// `deprecationWarning`, if the version is deprecated.
    pub warning: Option<String>,
    /// Names this state of this version: what was derived from it is good only for it.
    id: u64,
    /// Entries that are being converted now, so that this is done once however many ask for it.
    pub(super) converting: parking_lot::Mutex<HashMap<(Arc<str>, Revision), Converting>>,
}

/// What becomes of an entry; whoever waits for it gets it.
pub(super) type Converting = Arc<tokio::sync::OnceCell<Result<Arc<Entry>, Status>>>;

/// An entry for those who read this version.
pub enum Shown {
    As(Arc<Entry>),
    /// It takes a webhook to tell: this is the object in the version in which it is stored.
    Elsewhere(Value),
}

/// What an entry looks like to those who read it in one state of one version; `None`: as it is stored.
pub type Forms = parking_lot::Mutex<Vec<(u64, Option<Arc<Entry>>)>>;

/// Versions are few; states that are gone are forgotten.
const FORMS_MAX: usize = 8;

impl CustomResource {
    /// `version` is one of `spec.versions`.
    pub fn new(definition: &Arc<Definition>, version: &Value) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (spec, accepted) = (&definition.object["spec"], &definition.object["status"]["acceptedNames"]);
        let text = |value: &Value| intern(value.as_str().unwrap_or_default());
        let texts = |value: &Value| intern_all(value.as_array().into_iter().flatten().filter_map(Value::as_str));
        let source = version["schema"]["openAPIV3Schema"].clone();
        let preserve = spec["preserveUnknownFields"] == true;
        let schema = version["name"].as_str().and_then(|name| definition.schemas.get(name)).cloned().unwrap_or_default();
        let scale = version["subresources"].get("scale").filter(|scale| scale.is_object());
        let path = |value: &Value| value.as_str().and_then(|text| Path::parse(text).ok());
        let selectable: Vec<&str> =
            version["selectableFields"].as_array().into_iter().flatten().filter_map(|field| field["jsonPath"].as_str()).collect();
        let names = Names {
            group: text(&spec["group"]),
            version: text(&version["name"]),
            kind: text(&accepted["kind"]),
            plural: text(&accepted["plural"]),
            singular: text(&accepted["singular"]),
            short: texts(&accepted["shortNames"]),
            categories: texts(&accepted["categories"]),
            namespaced: spec["scope"] == "Namespaced",
            status: version["subresources"].get("status").is_some_and(Value::is_object),
            scale: scale.is_some(),
            name_rule: NameRule::Subdomain,
            stored_as: None,
        };
        CustomResource {
            structural: Structural::of_custom_resource(&source, preserve),
            scale: scale.and_then(|scale| {
                Some(ScalePaths {
                    spec: path(&scale["specReplicasPath"])?,
                    status: path(&scale["statusReplicasPath"])?,
                    selector: path(&scale["labelSelectorPath"]),
                })
            }),
            printer: Printer::new(&version["additionalPrinterColumns"]),
            selectable_paths: selectable.iter().filter_map(|text| Path::parse(text).ok()).collect(),
            selectable: intern_all(selectable.iter().map(|text| text.trim_start_matches('.'))),
            rules: Rules::compile(&source, &schema),
            warning: (version["deprecated"] == true).then(|| {
                let default = || format!("{}/{} {} is deprecated", names.group, names.version, names.kind);
                version["deprecationWarning"].as_str().map_or_else(default, str::to_owned)
            }),
            definition: Arc::clone(definition),
            names,
            source,
            schema,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            converting: Default::default(),
        }
    }

    /// From a stored object to one of this version: pruned and defaulted as what it is, then converted. An object whose
    /// conversion takes a webhook is left in its version.
    pub fn read(&self, object: &mut Value) {
        let wanted = self.names.api_version();
        let stored = object["apiVersion"].as_str().unwrap_or_default();
        let is_other = stored != wanted;
        let schema = if is_other { self.definition.schema_of(stored) } else { Some(&self.schema) };
        if let Some(schema) = schema {
            prune::prune(object, schema);
            default::fill(object, schema);
        }
        if is_other && self.definition.webhook.is_none() {
            object["apiVersion"] = wanted.into();
            prune::prune(object, &self.schema);
        }
    }

    /// Whether an entry is stored in another version than it would be written in now.
    pub fn is_stored_otherwise(&self, entry: &Entry) -> bool {
        stored_version(&entry.bytes) != Some(self.storage_api_version().as_bytes())
    }

    /// How objects of another version of the kind are merged, and who may own what of them.
    pub fn structural_of(&self, api_version: &str) -> Option<Structural> {
        let (_, name) = api_version.split_once('/')?;
        let spec = &self.definition.object["spec"];
        let version = spec["versions"].as_array()?.iter().find(|version| version["name"] == name)?;
        Some(Structural::of_custom_resource(&version["schema"]["openAPIV3Schema"], spec["preserveUnknownFields"] == true))
    }

    /// Whether it may take a webhook to show an entry.
    pub fn is_converted(&self) -> bool {
        self.definition.webhook.is_some()
    }

    pub fn storage_api_version(&self) -> String {
        format!("{}/{}", self.names.group, self.definition.storage_version)
    }

    /// The entry as a reader of this version gets it, if that is known or can be told without asking anybody.
    pub fn present(&self, entry: &Arc<Entry>) -> Result<Shown, Status> {
        if let Some(known) = self.presented(entry) {
            return Ok(Shown::As(known));
        }
        let stored: Value = serde_json::from_slice(&entry.bytes).map_err(|error| Status::internal(&error))?;
        let version = stored["apiVersion"].as_str().unwrap_or_default();
        if self.definition.schema_of(version).is_none() {
            return Err(conversion::failed(format!("request to convert CR from an invalid group/version: {version}")));
        }
        let mut object = stored.clone();
        self.read(&mut object);
        if object["apiVersion"] != self.names.api_version() {
            return Ok(Shown::Elsewhere(object));
        }
        Ok(Shown::As(self.remember(entry, (object != stored).then_some(object))))
    }

    pub fn presented(&self, entry: &Arc<Entry>) -> Option<Arc<Entry>> {
        let forms = entry.attributes.forms.lock();
        let (_, form) = forms.iter().find(|(id, _)| *id == self.id)?;
        Some(form.clone().unwrap_or_else(|| Arc::clone(entry)))
    }

    /// Keeps what the entry looks like in this version; `None`: as it is stored.
    pub fn remember(&self, entry: &Arc<Entry>, object: Option<Value>) -> Arc<Entry> {
        let form = object.map(|object| {
            Arc::new(Entry {
                key: Arc::clone(&entry.key),
                bytes: stored::with_revision(&stored::encode(&object), entry.mod_revision),
                attributes: stored::Attributes { labels: labels(&object), ..Default::default() },
                create_revision: entry.create_revision,
                mod_revision: entry.mod_revision,
                version: entry.version,
            })
        });
        let mut forms = entry.attributes.forms.lock();
        if forms.len() >= FORMS_MAX {
            forms.remove(0);
        }
        if let Some(form) = &form {
            // Whoever presents it again finds that nothing is left to be done.
            form.attributes.forms.lock().push((self.id, None));
        }
        forms.push((self.id, form.clone()));
        form.unwrap_or_else(|| Arc::clone(entry))
    }

    fn check(&self, object: &Value, old: Option<&Value>) -> Vec<Invalid> {
        let mut errors = vec![];
        let mut checked = object.clone();
        let mut before = old.cloned();
        // The metadata has been looked at already, whatever the schema says of it.
        for object in [Some(&mut checked), before.as_mut()].into_iter().flatten() {
            let metadata = &object["metadata"];
            let kept = json!({"name": metadata["name"], "generateName": metadata["generateName"]});
            let kept = kept.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
            object["metadata"] = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        }
        errors.extend(validate::validate(&checked, before.as_ref(), &self.schema, &At::Root));
        errors.extend(self.check_scale(object));
        for (check, schema) in [(validate::embedded as Check, &self.schema), (validate::lists as Check, &self.schema)] {
            let mut found = vec![];
            check(&checked, schema, &At::Root, &mut found);
            if let (false, Some(before)) = (found.is_empty(), &before) {
                // What was wrong before may stay so.
                let mut known = vec![];
                check(before, schema, &At::Root, &mut known);
                found.retain(|error| !known.contains(error));
            }
            errors.append(&mut found);
        }
        let blocking = |error: &Invalid| {
            matches!(
                error.reason,
                Reason::NotSupported | Reason::Required | Reason::TooLong | Reason::TooMany | Reason::TypeInvalid
            )
        };
        if self.rules.is_empty() {
            return errors;
        }
        if errors.iter().any(blocking) {
            errors.push(Invalid {
                field: "<nil>".into(),
                reason: Reason::Invalid,
                message: "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation".into(),
            });
        } else {
            errors.extend(self.rules.check(object, old, &self.schema));
        }
        errors
    }

    fn check_scale(&self, object: &Value) -> Option<Invalid> {
        let scale = self.scale.as_ref()?;
        let replicas = scale.spec.first(object)?;
        let field = scale.spec.fields().unwrap_or_default().join(".");
        match replicas.as_i64() {
            Some(count) if count < 0 => Some(Invalid::value(field, replicas, "should be a non-negative integer")),
            Some(count) if i32::try_from(count).is_err() => {
                Some(Invalid::value(field, replicas, "should be less than or equal to 2147483647"))
            }
            _ => None,
        }
    }
}

/// The `apiVersion` of stored bytes: they begin with the kind, and then comes this.
fn stored_version(bytes: &[u8]) -> Option<&[u8]> {
    const FIELD: &[u8] = b"\"apiVersion\":\"";
    let rest = &bytes[memchr::memmem::find(bytes, FIELD)? + FIELD.len()..];
    Some(&rest[..memchr::memchr(b'"', rest)?])
}

/// A webhook may have changed them.
fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    labels.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

type Check = fn(&Value, &Schema, &At, &mut Vec<Invalid>);

impl Strategy for CustomResource {
    fn names(&self) -> &Names {
        &self.names
    }
    fn custom(&self) -> Option<&CustomResource> {
        Some(self)
    }
    fn fill_defaults(&self, object: &mut Value) {
        default::fill(object, &self.schema);
    }
    fn prepare_create(&self, object: &mut Value) {
        if self.names.status {
            kind::remove(object, "status");
        }
        object["metadata"]["generation"] = json!(1);
    }
    fn prepare_update(&self, object: &mut Value, old: &Value) {
        if self.names.status {
            kind::keep(object, old, "status");
        }
        let rest = |value: &Value| {
            let mut map = value.as_object().cloned().unwrap_or_default();
            map.remove("metadata");
            map
        };
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
        object["metadata"]["generation"] = json!(if rest(object) != rest(old) { generation + 1 } else { generation });
    }
    fn prepare_status_update(&self, object: &mut Value, old: &Value) {
        kind::keep_all_but_status_and_metadata(object, old, kind::METADATA);
    }
    fn validate(&self, object: &Value) -> Vec<Invalid> {
        self.check(object, None)
    }
    fn validate_update(&self, object: &Value, old: &Value) -> Vec<Invalid> {
        self.check(object, Some(old))
    }
    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<Invalid> {
        self.check(object, Some(old))
    }
    fn columns(&self) -> Vec<Column> {
        self.printer.columns()
    }
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        self.printer.row(object, now)
    }
    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let value = |path: &Path| path.first(object).filter(|value| !value.is_null()).map(text).unwrap_or_default();
        self.selectable.iter().copied().zip(self.selectable_paths.iter().map(value)).collect()
    }
    fn selectable(&self) -> &'static [&'static str] {
        self.selectable
    }
    fn grace_seconds(&self, _object: &Value, _asked: Option<i64>) -> Option<i64> {
        None
    }
    fn prepare_delete(&self, _object: &mut Value) {}
    fn is_kept(&self, _object: &Value) -> bool {
        false
    }
    fn unconditional_update(&self) -> bool {
        false
    }
    fn delete_returns_object(&self) -> bool {
        false
    }
    fn orphans_by_default(&self) -> bool {
        false
    }
    fn from_stored(&self, _object: &mut Value) {}
    fn to_stored(&self, _object: &mut Value) {}
    fn merge_schema(&self) -> crate::patch::apply::Schema<'_> {
        self.structural.schema()
    }
    fn schema_name(&self) -> String {
        let mut parts: Vec<&str> = self.names.group.split('.').rev().collect();
        parts.extend([self.names.version, self.names.kind]);
        parts.join(".")
    }
    fn add_schema(&self, _generator: &mut schemars::SchemaGenerator) {}
}
