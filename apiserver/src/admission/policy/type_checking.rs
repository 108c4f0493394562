//! `status.typeChecking`: expressions held against the schemas of the kinds that a policy matches. Warnings only.

use super::environment;
use crate::cel::{Environment, Program, Type};
use crate::kind::Strategy;
use crate::server::ApiServer;
use serde_json::{Value, json};
use std::sync::Arc;

/// As many kinds are looked at, as in Kubernetes.
const KINDS_MAX: usize = 10;

/// The expressions of a policy, with where they stand.
fn expressions(spec: &Value) -> Vec<(String, &str)> {
    let mut all = vec![];
    for (list, fields) in [("validations", &["expression", "messageExpression"][..]), ("auditAnnotations", &["valueExpression"])]
    {
        for (index, one) in spec[list].as_array().into_iter().flatten().enumerate() {
            for field in fields {
                if let Some(source) = one[field].as_str().filter(|source| !source.is_empty()) {
                    all.push((format!("spec.{list}[{index}].{field}"), source));
                }
            }
        }
    }
    all
}

/// The kinds that the policy names one by one.
fn kinds(server: &ApiServer, spec: &Value) -> Vec<Arc<dyn Strategy>> {
    let list = |rule: &Value, field: &str| -> Vec<String> {
        let items = rule[field].as_array().into_iter().flatten();
        items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let mut found: Vec<Arc<dyn Strategy>> = vec![];
    for rule in spec["matchConstraints"]["resourceRules"].as_array().into_iter().flatten() {
        let (groups, versions, resources) = (list(rule, "apiGroups"), list(rule, "apiVersions"), list(rule, "resources"));
        if [&groups, &versions, &resources].into_iter().flatten().any(|item| item.contains('*')) {
            continue;
        }
        for strategy in server.strategies() {
            let names = *strategy.names();
            let has = |list: &[String], wanted: &str| list.iter().any(|item| item == wanted);
            let named = has(&groups, names.group) && has(&versions, names.version) && has(&resources, names.plural);
            let known = found.iter().any(|other| {
                (other.names().group, other.names().version, other.names().kind) == (names.group, names.version, names.kind)
            });
            if named && !known && found.len() < KINDS_MAX {
                found.push(strategy);
            }
        }
    }
    found
}

/// The type of a kind's objects, by its schema.
fn type_of(strategy: &dyn Strategy) -> Option<Type> {
    let mut generator = schemars::generate::SchemaSettings::draft2020_12().for_deserialize().into_generator();
    strategy.add_schema(&mut generator);
    let definitions = generator.take_definitions(false);
    let resolve = |reference: &str| definitions.get(reference.strip_prefix("#/$defs/")?);
    Type::of_schema(definitions.get(&strategy.schema_name())?, true, &resolve)
}

/// `status.typeChecking`.
pub fn check(server: &ApiServer, policy: &Value) -> Value {
    let spec = &policy["spec"];
    let kinds: Vec<(String, Type)> = kinds(server, spec)
        .iter()
        .filter_map(|strategy| {
            let names = strategy.names();
            Some((format!("{}, Kind={}", names.api_version(), names.kind), type_of(&**strategy)?))
        })
        .collect();
    let params = spec["paramKind"].is_object();
    let mut warnings = vec![];
    for (at, source) in expressions(spec) {
        let mut texts = vec![];
        for (name, kind) in &kinds {
            let environment = typed(spec, kind, params);
            if let Err(error) = Program::compile(source, &environment) {
                texts.push(format!("{name}: {}", error.issues()));
            }
        }
        if !texts.is_empty() {
            warnings.push(json!({"fieldRef": at, "warning": texts.join("\n")}));
        }
    }
    if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) }
}

fn typed(spec: &Value, kind: &Type, params: bool) -> Environment {
    let mut environment = environment::of(params, true);
    environment.declare("object", kind.clone());
    environment.declare("oldObject", kind.clone());
    let mut variables = environment::Variables::new(environment);
    for variable in spec["variables"].as_array().into_iter().flatten() {
        let text = |field: &str| variable[field].as_str().unwrap_or_default();
        // What is wrong with a variable shows where it is used.
        let _ = variables.declare(text("name"), text("expression"));
    }
    variables.environment().clone()
}
