//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: what policies say of a write.

pub mod authorizer;
pub mod environment;
mod evaluate;
mod mutate;
pub mod observe;
mod params;
pub mod type_checking;
mod validate;

pub use evaluate::{Inputs, conditions_hold as conditions_hold_in};
pub use mutate::mutate;
pub use validate::validate;

use super::dynamic::Request;
use super::dynamic::matching::{Matched, Matcher};
use crate::cel::{Environment, Program};
use crate::http::error::Status;
use crate::kind::Strategy;
use environment::Variables;
use serde_json::Value;

/// An expression, or why it can't be evaluated. Validation lets no wrong one be stored, but an older server may have.
type Compiled = Result<Program, String>;

/// A policy with its bindings.
pub struct Policy {
    pub name: String,
    pub fails_open: bool,
    matcher: Matcher,
    conditions: Vec<Condition>,
    variables: Result<Vec<(String, Program)>, String>,
    /// The apiVersion and the kind of its parameters.
    param_kind: Option<(String, String)>,
    validations: Vec<Validation>,
    annotations: Vec<(String, Compiled)>,
    mutations: Vec<Mutation>,
    pub reinvoked: bool,
    pub bindings: Vec<Binding>,
}

pub struct Condition {
    pub name: String,
    pub program: Compiled,
}

struct Validation {
    expression: String,
    program: Compiled,
    message: String,
    message_program: Option<Compiled>,
    reason: String,
}

struct Mutation {
    is_patch: bool,
    program: Compiled,
    expression: String,
}

pub struct Binding {
    pub name: String,
    matcher: Matcher,
    /// `paramRef`.
    param: Option<Value>,
    actions: Vec<String>,
}

fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap_or_default().to_owned()
}

fn compile(source: &str, environment: &Environment) -> Compiled {
    Program::compile(source, environment).map_err(|error| error.to_string())
}

/// The conditions of a policy or a webhook.
pub fn conditions(object: &Value, params: bool) -> Vec<Condition> {
    let environment = environment::of(params, true);
    let conditions = object["matchConditions"].as_array().into_iter().flatten();
    let condition = |condition: &Value| Condition {
        name: text(condition, "name"),
        program: compile(&text(condition, "expression"), &environment),
    };
    conditions.map(condition).collect()
}

impl Policy {
    pub fn compile(policy: &Value, bindings: &[Value]) -> Policy {
        let spec = &policy["spec"];
        let name = text(&policy["metadata"], "name");
        let list = |field: &str| spec[field].as_array().into_iter().flatten();
        let param_kind = Some(&spec["paramKind"]).filter(|kind| kind.is_object());
        let mut variables = Variables::new(environment::of(param_kind.is_some(), true));
        let mut wrong = None;
        for variable in list("variables") {
            if let Err(error) = variables.declare(&text(variable, "name"), &text(variable, "expression")) {
                wrong.get_or_insert(error.to_string());
            }
        }
        let environment = variables.environment().clone();
        let messages = environment::without_authorizer(&environment);
        let mutating = environment::mutating(&environment);
        let validation = |validation: &Value| Validation {
            program: compile(&text(validation, "expression"), &environment),
            expression: text(validation, "expression"),
            message: text(validation, "message"),
            message_program: validation["messageExpression"]
                .as_str()
                .filter(|source| !source.is_empty())
                .map(|source| compile(source, &messages)),
            reason: text(validation, "reason"),
        };
        let mutation = |mutation: &Value| {
            let is_patch = mutation["patchType"] == "JSONPatch";
            let expression = text(&mutation[if is_patch { "jsonPatch" } else { "applyConfiguration" }], "expression");
            Mutation { is_patch, program: compile(&expression, &mutating), expression }
        };
        let annotation =
            |annotation: &Value| (text(annotation, "key"), compile(&text(annotation, "valueExpression"), &environment));
        Policy {
            fails_open: spec["failurePolicy"] == "Ignore",
            matcher: Matcher::of(&spec["matchConstraints"]),
            conditions: conditions(spec, param_kind.is_some()),
            variables: wrong.map_or(Ok(()), Err).map(|()| variables.into_programs()),
            param_kind: param_kind.map(|kind| (text(kind, "apiVersion"), text(kind, "kind"))),
            validations: list("validations").map(validation).collect(),
            annotations: list("auditAnnotations").map(annotation).collect(),
            mutations: list("mutations").map(mutation).collect(),
            reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
            bindings: bindings.iter().filter(|binding| binding["spec"]["policyName"] == name.as_str()).map(Binding::of).collect(),
            name,
        }
    }

    pub fn is_bound(&self) -> bool {
        !self.bindings.is_empty()
    }

    /// In which form the request is shown to this policy, and the bindings that are in force for it.
    fn matches<'p>(&'p self, request: &Request<'_>) -> Result<Option<(Matched, Vec<&'p Binding>)>, Status> {
        let matched = self.matcher.matches(request, true)?;
        if matches!(matched, Matched::No) {
            return Ok(None);
        }
        let mut bindings = vec![];
        for binding in &self.bindings {
            if !matches!(binding.matcher.matches(request, false)?, Matched::No) {
                bindings.push(binding);
            }
        }
        Ok((!bindings.is_empty()).then_some((matched, bindings)))
    }
}

impl Binding {
    fn of(binding: &Value) -> Binding {
        let spec = &binding["spec"];
        let actions = spec["validationActions"].as_array().into_iter().flatten();
        Binding {
            name: text(&binding["metadata"], "name"),
            matcher: Matcher::of(&spec["matchResources"]),
            param: Some(spec["paramRef"].clone()).filter(Value::is_object),
            actions: actions.filter_map(|action| action.as_str().map(str::to_owned)).collect(),
        }
    }

    fn does(&self, action: &str) -> bool {
        self.actions.iter().any(|other| other == action)
    }
}

/// Whether a webhook's conditions hold for a request in the form that it is shown to it.
pub async fn conditions_hold(
    conditions: &[Condition],
    request: &Request<'_>,
    form: Option<&dyn Strategy>,
) -> Result<bool, String> {
    let inputs = Inputs::new(request, form).await.map_err(|status| status.message)?;
    conditions_hold_in(conditions, &inputs.scope())
}
