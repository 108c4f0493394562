//! One version of a custom kind, as the verbs see it: the second `Strategy`, driven by a schema.

use crate::custom_resources::columns::Printer;
use crate::custom_resources::path::Path;
use crate::custom_resources::rules::Rules;
use crate::custom_resources::schema::{At, Schema};
use crate::custom_resources::{default, prune, validate};
use crate::http::error::{Invalid, Reason, Status};
use crate::kind::{self, Column, NameRule, Names, Strategy};
use crate::patch::apply::Structural;
use crate::registry::{intern, intern_all};
use crate::stored::{self, Entry};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What all versions of a custom kind share.
#[derive(Debug)]
pub struct Definition {
    /// As it is stored, with its resourceVersion.
    pub object: Value,
    pub storage_version: &'static str,
    pub list_kind: &'static str,
    pub terminating: bool,
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
    pub schema: Schema,
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
        let mut schema = Schema::parse(&source);
        schema.preserve_unknown |= preserve;
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
        }
    }

    /// From a stored object to one of this version: converted (where that takes no webhook), pruned, defaulted.
    pub fn read(&self, object: &mut Value) {
        object["apiVersion"] = self.names.api_version().into();
        prune::prune(object, &self.schema);
        default::fill(object, &self.schema);
    }

    /// Whether an entry is stored in another version than it would be written in now.
    pub fn is_stored_otherwise(&self, entry: &Entry) -> bool {
        let wanted = format!("\"apiVersion\":\"{}\"", self.storage_api_version());
        memchr::memmem::find(&entry.bytes, wanted.as_bytes()).is_none()
    }

    pub fn storage_api_version(&self) -> String {
        format!("{}/{}", self.names.group, self.definition.storage_version)
    }

    /// The entry as a reader of this version gets it, if that is known or can be told without asking anybody.
    pub fn present(&self, entry: &Arc<Entry>) -> Result<Arc<Entry>, Status> {
        if let Some(known) = self.presented(entry) {
            return Ok(known);
        }
        let stored: Value = serde_json::from_slice(&entry.bytes).map_err(|error| Status::internal(&error))?;
        let mut object = stored.clone();
        self.read(&mut object);
        Ok(self.remember(entry, (object != stored).then_some(object)))
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
                attributes: stored::Attributes { labels: entry.attributes.labels.clone(), ..Default::default() },
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
