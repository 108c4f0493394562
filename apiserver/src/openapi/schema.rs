//! The types of the API in a compact form, made once from the JSON schemas of k8s-openapi: names and shapes of fields, and
//! how they merge. Descriptions are not kept; the documents are made from the full schemas (see `document`).

use crate::openapi::rules::{self, List, Rule};
use crate::patch::strategic::{Field as PatchField, PatchSchema};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

const DEFINITIONS: &str = "#/$defs/";

/// What a value must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    Text,
    /// Text out of a closed set.
    Choice(Box<[Box<str>]>),
    /// Base64 of bytes.
    Bytes,
    Bool,
    Int32,
    Int64,
    Float,
    /// A time with seconds, and one with microseconds.
    Time,
    MicroTime,
    Quantity,
    IntOrText,
    /// Anything that is kept as it comes.
    Any,
    /// The type with this number.
    Type(u32),
    /// That type, or something else than an object.
    TypeOrOther(u32),
    List(Box<Shape>),
    Map(Box<Shape>),
}

pub struct Type {
    /// As `io.k8s.api.core.v1.PodSpec`.
    pub name: Box<str>,
    /// In alphabetical order.
    fields: Box<[Field]>,
    /// Whether a value has one owner as a whole.
    pub atomic: bool,
}

pub struct Field {
    pub name: Box<str>,
    pub shape: Shape,
    pub rule: Rule,
    /// Whether Go's zero value of the type has it: a struct that is no pointer.
    pub inline: bool,
}

impl Type {
    pub fn field(&self, name: &str) -> Option<&Field> {
        let index = self.fields.binary_search_by(|field| (*field.name).cmp(name)).ok()?;
        self.fields.get(index)
    }

    /// `PodSpec`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// `v1.PodSpec`, as Go names it.
    pub fn go_name(&self) -> &str {
        let cut = self.name.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
        &self.name[cut..]
    }
}

/// All types that the served kinds are made of.
pub struct Schemas {
    types: Vec<Type>,
    by_name: HashMap<Box<str>, u32>,
}

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| Schemas::from_definitions(&definitions()));

pub fn schemas() -> &'static Schemas {
    &SCHEMAS
}

/// The full schemas of all served kinds and of what they are made of, by name. Some megabytes: not to be kept.
pub fn definitions() -> Map<String, Value> {
    use slipway_api::{authentication, authorization, autoscaling, core, meta, policy};
    let mut generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    for strategy in crate::resources::builtin() {
        strategy.add_schema(&mut generator);
    }
    fn add<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) {
        generator.subschema_for::<T>();
    }
    let others = [
        add::<meta::DeleteOptions>,
        add::<meta::Status>,
        add::<meta::ListMeta>,
        add::<meta::WatchEvent<slipway_api::core::ConfigMap>>,
        add::<meta::APIResourceList>,
        add::<meta::APIGroup>,
        add::<meta::APIGroupList>,
        add::<meta::APIVersions>,
        add::<autoscaling::Scale>,
        add::<policy::Eviction>,
        add::<core::Binding>,
        add::<authentication::TokenRequest>,
        add::<authentication::TokenReview>,
        add::<authentication::SelfSubjectReview>,
        add::<authorization::SubjectAccessReview>,
        add::<authorization::SelfSubjectAccessReview>,
        add::<authorization::LocalSubjectAccessReview>,
        add::<authorization::SelfSubjectRulesReview>,
    ];
    for add in others {
        add(&mut generator);
    }
    generator.take_definitions(false)
}

impl Schemas {
    fn from_definitions(definitions: &Map<String, Value>) -> Schemas {
        let names = definitions.iter().filter(|(name, schema)| properties(name, schema).is_some());
        let by_name: HashMap<Box<str>, u32> = names.zip(0..).map(|((name, _), number)| (name.as_str().into(), number)).collect();
        let mut types: Vec<Type> = vec![];
        for (name, schema) in definitions {
            let Some(properties) = properties(name, schema) else { continue };
            let mut fields: Vec<Field> = properties
                .iter()
                .map(|(field, schema)| Field {
                    name: field.as_str().into(),
                    shape: shape_of(schema, definitions, &by_name),
                    rule: rules::field(name, field),
                    inline: rules::is_inline(name, field),
                })
                .collect();
            fields.sort_by(|one, other| one.name.cmp(&other.name));
            types.push(Type { name: name.as_str().into(), fields: fields.into(), atomic: rules::is_atomic(name) });
        }
        Schemas { types, by_name }
    }

    pub fn type_of(&self, number: u32) -> &Type {
        &self.types[number as usize]
    }

    pub fn find(&self, name: &str) -> Option<&Type> {
        self.by_name.get(name).map(|number| self.type_of(*number))
    }

    pub fn types(&self) -> impl Iterator<Item = &Type> {
        self.types.iter()
    }
}

/// The fields of a type. One of Kubernetes' own may have none: its being there says everything.
fn properties<'s>(name: &str, schema: &'s Value) -> Option<&'s Map<String, Value>> {
    static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    if let Some(properties) = schema.get("properties") {
        return properties.as_object();
    }
    let empty = schema["type"] == "object" && schema.get("additionalProperties").is_none();
    // Of the definitions of custom kinds others are written the same and hold any JSON.
    let own = name.starts_with("io.k8s.api.") || name.ends_with(".CustomResourceSubresourceStatus");
    (empty && own).then_some(&NONE)
}

fn shape_of(schema: &Value, definitions: &Map<String, Value>, types: &HashMap<Box<str>, u32>) -> Shape {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix(DEFINITIONS)) {
        if let Some(number) = types.get(name) {
            return Shape::Type(*number);
        }
        return match name.rsplit('.').next() {
            Some("Time") => Shape::Time,
            Some("MicroTime") => Shape::MicroTime,
            Some("Quantity") => Shape::Quantity,
            Some("IntOrString") => Shape::IntOrText,
            _ => definitions.get(name).map_or(Shape::Any, |schema| shape_of(schema, definitions, types)),
        };
    }
    // `Option<T>` of a derived schema: that, or null.
    if let Some(either) = schema.get("anyOf").and_then(Value::as_array) {
        let mut real = either.iter().filter(|one| one.get("type").is_none_or(|kind| kind != "null"));
        if let (Some(one), None) = (real.next(), real.next()) {
            return shape_of(one, definitions, types);
        }
    }
    let alternatives = schema.get("oneOf").and_then(Value::as_array).filter(|alternatives| alternatives.len() == 2);
    if let Some(Shape::Type(number)) = alternatives.map(|alternatives| shape_of(&alternatives[0], definitions, types)) {
        return Shape::TypeOrOther(number);
    }
    if let Some(choices) = choices(schema) {
        return Shape::Choice(choices);
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        kind => kind.and_then(Value::as_str),
    };
    let format = schema.get("format").and_then(Value::as_str).unwrap_or("");
    match (kind, format) {
        (Some("string"), "byte") => Shape::Bytes,
        (Some("string"), _) => Shape::Text,
        (Some("boolean"), _) => Shape::Bool,
        (Some("integer"), "int32") => Shape::Int32,
        (Some("integer"), _) => Shape::Int64,
        (Some("number"), _) => Shape::Float,
        (Some("array"), _) => match schema.get("items") {
            Some(items) => Shape::List(Box::new(shape_of(items, definitions, types))),
            None => Shape::Any,
        },
        (Some("object"), _) => match schema.get("additionalProperties") {
            Some(values) if values.is_object() => Shape::Map(Box::new(shape_of(values, definitions, types))),
            _ => Shape::Any,
        },
        _ => Shape::Any,
    }
}

/// The values of an enum: as a list, or each with a description of its own.
fn choices(schema: &Value) -> Option<Box<[Box<str>]>> {
    let texts = |values: &Value| -> Option<Vec<Box<str>>> {
        values.as_array()?.iter().map(|value| value.as_str().map(Box::from)).collect()
    };
    if let Some(values) = schema.get("enum") {
        return texts(values).map(Into::into);
    }
    let each = schema.get("oneOf")?.as_array()?;
    let mut all = vec![];
    for one in each {
        match one.get("const") {
            Some(value) => all.push(Box::from(value.as_str()?)),
            None => all.extend(texts(one.get("enum")?)?),
        }
    }
    Some(all.into())
}

/// One place in the API's types: a kind, or what a field of one holds.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    shape: &'static Shape,
    rule: Rule,
}

impl Schema {
    /// `name` as `io.k8s.api.core.v1.Pod`.
    pub fn of(name: &str) -> Option<Schema> {
        static ROOTS: LazyLock<Vec<Shape>> = LazyLock::new(|| (0..).take(SCHEMAS.types.len()).map(Shape::Type).collect());
        let number = *SCHEMAS.by_name.get(name)?;
        Some(Schema { shape: ROOTS.get(number as usize)?, rule: Rule::default() })
    }

    /// The field of an object, or any entry of a map.
    pub fn field(&self, name: &str) -> Option<Schema> {
        match self.shape {
            Shape::Type(number) => {
                SCHEMAS.type_of(*number).field(name).map(|field| Schema { shape: &field.shape, rule: field.rule })
            }
            Shape::Map(values) => Some(Schema { shape: values, rule: Rule::default() }),
            _ => None,
        }
    }

    /// The fields of an object, by name.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, Schema)> {
        let fields: &'static [Field] = match self.shape {
            Shape::Type(number) => &SCHEMAS.type_of(*number).fields,
            _ => &[],
        };
        fields.iter().map(|field| (&*field.name, Schema { shape: &field.shape, rule: field.rule }))
    }

    /// What the elements of a list are.
    pub fn items(&self) -> Option<Schema> {
        match self.shape {
            Shape::List(items) => Some(Schema { shape: items, rule: Rule::default() }),
            _ => None,
        }
    }

    pub fn shape(&self) -> &'static Shape {
        self.shape
    }

    /// `merge`, `replace`, `retainKeys`, `merge,retainKeys` or empty.
    pub fn patch_strategy(&self) -> &'static str {
        self.rule.strategy
    }

    pub fn merge_key(&self) -> Option<&'static str> {
        Some(self.rule.merge_key).filter(|key| !key.is_empty())
    }

    pub fn list(&self) -> Option<List> {
        self.rule.list
    }

    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// A field's type, or what the values of a map are.
    pub(crate) fn at(shape: &'static Shape, rule: Rule) -> Schema {
        Schema { shape, rule }
    }
}

impl PatchSchema for Schema {
    fn field(&self, name: &str) -> PatchField<'_> {
        let Some(field) = Schema::field(self, name) else { return PatchField::default() };
        let strategy = |wanted: &str| field.rule.strategy.split(',').any(|one| one == wanted);
        let within = match field.shape {
            Shape::List(_) => field.items(),
            Shape::Map(values) => Some(Schema { shape: values, rule: Rule::default() }),
            _ => Some(field),
        };
        PatchField {
            merge: strategy("merge"),
            replace: strategy("replace"),
            merge_key: field.merge_key().map(Cow::Borrowed),
            schema: within.map(|schema| Box::new(schema) as Box<dyn PatchSchema>),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_schema_and_every_rule_a_field() {
        for strategy in crate::resources::builtin() {
            let name = strategy.schema_name();
            let kind = Schema::of(&name).unwrap_or_else(|| panic!("no schema {name}"));
            assert!(kind.field("metadata").is_some(), "{name}");
        }
        let served: usize =
            schemas().types().map(|one| one.fields.iter().filter(|field| field.rule != Rule::default()).count()).sum();
        assert!(served > 100, "only {served} fields have rules");
    }

    #[test]
    fn a_path_leads_to_its_merge_key() {
        let spec = Schema::of("io.k8s.api.apps.v1.Deployment").unwrap().field("spec").unwrap();
        assert_eq!(spec.field("strategy").unwrap().patch_strategy(), "retainKeys");
        let containers = spec.field("template").unwrap().field("spec").unwrap().field("containers").unwrap();
        assert_eq!((containers.patch_strategy(), containers.merge_key()), ("merge", Some("name")));
        let ports = containers.items().unwrap().field("ports").unwrap();
        assert_eq!((ports.merge_key(), ports.list()), (Some("containerPort"), Some(List::Keyed(&["containerPort", "protocol"]))));
        assert_eq!(spec.field("replicas").unwrap().shape(), &Shape::Int32);
        assert!(spec.field("nope").is_none());
        let limits = containers.items().unwrap().field("resources").unwrap().field("limits").unwrap();
        assert_eq!(limits.field("cpu").unwrap().shape(), &Shape::Quantity);
    }

    #[test]
    fn own_kinds_are_read_from_derived_schemas() {
        let definitions = {
            let mut generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
            generator.subschema_for::<slipway_api::slipway::NodePool>();
            generator.take_definitions(false)
        };
        let schemas = Schemas::from_definitions(&definitions);
        let spec = schemas.find("dev.slipway.v1alpha1.NodePoolSpec").unwrap();
        let Shape::List(items) = &spec.field("capacityTypes").unwrap().shape else { panic!("no list") };
        assert_eq!(**items, Shape::Choice(["on-demand".into(), "spot".into()].into()));
        let limits = schemas.find("dev.slipway.v1alpha1.NodePoolLimits").unwrap();
        assert_eq!(limits.field("machines").unwrap().shape, Shape::Int32);
        assert_eq!(limits.field("cpu").unwrap().shape, Shape::Quantity);
    }
}
