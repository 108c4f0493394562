//! What the expressions of policies and match conditions may refer to.

use crate::cel::types::{Field, ObjectType};
use crate::cel::value::Map;
use crate::cel::{CompileError, Environment, Error, Frame, Lazy, Program, Type, Value};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

const AUTHORIZER: &str = "authorizer";
const REQUEST_RESOURCE: &str = "authorizer.requestResource";
/// The type of what an expression builds as `Object{…}`, and of what is built within it.
const OBJECT: &str = "Object";
const FIELD: &str = "Object.field";

/// `request`.
pub static REQUEST: LazyLock<Type> = LazyLock::new(|| {
    let kind = || {
        Type::object("kubernetes.GroupVersionKind", [("group", Type::String), ("version", Type::String), ("kind", Type::String)])
    };
    let resource = || {
        Type::object(
            "kubernetes.GroupVersionResource",
            [("group", Type::String), ("version", Type::String), ("resource", Type::String)],
        )
    };
    let extra = Type::map(Type::String, Type::list(Type::String));
    let user = Type::object(
        "kubernetes.UserInfo",
        [("username", Type::String), ("uid", Type::String), ("groups", Type::list(Type::String)), ("extra", extra)],
    );
    Type::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", Type::String),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", Type::String),
            ("name", Type::String),
            ("namespace", Type::String),
            ("operation", Type::String),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
});

pub fn of(params: bool, authorizer: bool) -> Environment {
    let mut environment = Environment::new()
        .variable("object", Type::Dyn)
        .variable("oldObject", Type::Dyn)
        .variable("request", REQUEST.clone())
        .variable("namespaceObject", Type::Dyn);
    if params {
        environment.declare("params", Type::Dyn);
    }
    if authorizer {
        environment.declare(AUTHORIZER, Type::Opaque("kubernetes.authorization.Authorizer"));
        environment.declare(REQUEST_RESOURCE, Type::Opaque("kubernetes.authorization.ResourceCheck"));
    }
    environment
}

/// Of a message.
pub fn without_authorizer(environment: &Environment) -> Environment {
    environment.clone().without(AUTHORIZER).without(REQUEST_RESOURCE)
}

/// An element of a JSON patch that an expression builds.
pub fn json_patch() -> Type {
    static PATCH: LazyLock<Type> = LazyLock::new(|| {
        Type::object("JSONPatch", [("op", Type::String), ("path", Type::String), ("from", Type::String), ("value", Type::Dyn)])
    });
    PATCH.clone()
}

/// `Object`, and `Object.spec` and its like: any fields, which are looked at when the object is merged.
pub fn object_type(name: &str) -> Option<Type> {
    match name.strip_prefix(OBJECT) {
        Some("") => Some(Type::Opaque(OBJECT)),
        Some(rest) if rest.starts_with('.') => Some(Type::Opaque(FIELD)),
        _ => None,
    }
}

/// Of mutations.
pub fn mutating(environment: &Environment) -> Environment {
    environment.clone().structs(Arc::new(|name: &str| if name == "JSONPatch" { Some(json_patch()) } else { object_type(name) }))
}

/// The variables of a policy, compiled one after the other: each may refer to those before it.
pub struct Variables {
    environment: Environment,
    fields: BTreeMap<String, Field>,
    programs: Vec<(String, Program)>,
}

impl Variables {
    pub fn new(environment: Environment) -> Self {
        let mut variables = Variables { environment, fields: BTreeMap::new(), programs: vec![] };
        variables.publish();
        variables
    }

    fn publish(&mut self) {
        let object = ObjectType { name: "kubernetes.variables".into(), fields: self.fields.clone() };
        self.environment.declare("variables", Type::Object(Arc::new(object)));
    }

    pub fn declare(&mut self, name: &str, source: &str) -> Result<(), CompileError> {
        let compiled = Program::compile(source, &self.environment);
        // What comes after a wrong one is to be checked all the same.
        let kind = compiled.as_ref().map_or(Type::Dyn, |program| program.output().clone());
        self.fields.insert(name.to_owned(), Field { json: name.to_owned(), kind });
        self.publish();
        self.programs.push((name.to_owned(), compiled?));
        Ok(())
    }

    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    pub fn into_programs(self) -> Vec<(String, Program)> {
        self.programs
    }
}

/// `variables` while a policy is evaluated: each is evaluated when it is asked for, once.
pub struct Evaluated<'a> {
    programs: &'a [(String, Program)],
    inputs: Vec<(&'a str, Value<'a>)>,
    done: Mutex<Vec<Option<Result<Value<'a>, Error>>>>,
}

impl<'a> Evaluated<'a> {
    pub fn new(programs: &'a [(String, Program)], inputs: Vec<(&'a str, Value<'a>)>) -> Self {
        Evaluated { programs, inputs, done: Mutex::new(vec![None; programs.len()]) }
    }

    /// What expressions see: the inputs and `variables`.
    pub fn scope(&'a self) -> Vec<(&'a str, Value<'a>)> {
        let mut scope = self.inputs.clone();
        scope.push(("variables", Value::Map(Map::Lazy(self))));
        scope
    }
}

impl<'a> Lazy<'a> for Evaluated<'a> {
    fn field(&'a self, name: &str, frame: &mut Frame<'_, 'a>) -> Option<Result<Value<'a>, Error>> {
        let index = self.programs.iter().position(|(known, _)| known == name)?;
        if let Some(done) = &self.done.lock()[index] {
            return Some(done.clone());
        }
        let result = self.programs[index].1.evaluate_within(&self.scope(), frame.budget());
        self.done.lock()[index] = Some(result.clone());
        Some(result)
    }
}
