//! `x-kubernetes-validations`: rules in CEL, compiled with the definition and held against objects within a budget.

use crate::cel::{Budget, Environment, Error, Program, Type, Value as Cel};
use crate::custom_resources::path::Path;
use crate::custom_resources::schema::{At, Schema};
use crate::custom_resources::validate::{correlated, same, shown};
use crate::http::error::{Invalid, Reason};
use serde_json::Value;
use std::collections::BTreeMap;

/// The rules of a schema's node and of what lies below it.
#[derive(Default)]
pub struct Rules {
    here: Vec<Rule>,
    kind: Option<Type>,
    fields: BTreeMap<String, Rules>,
    values: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
}

struct Rule {
    source: String,
    program: Program,
    message: String,
    message_expression: Option<Program>,
    reason: Option<String>,
    field_path: Option<Path>,
    /// Whether `oldSelf` is an optional.
    optional_old: bool,
    /// Whether it looks at `oldSelf`, so that there must be one.
    is_transition: bool,
}

fn environment(kind: &Type, optional_old: bool) -> Environment {
    let old = if optional_old { Type::optional(kind.clone()) } else { kind.clone() };
    Environment::new().variable("self", kind.clone()).variable("oldSelf", old)
}

/// Compiles one rule, or one message's expression.
pub fn program(source: &str, kind: &Type, optional_old: bool) -> Result<Program, crate::cel::CompileError> {
    Program::compile(source, &environment(kind, optional_old))
}

/// The type of a schema's node, as rules see it.
pub fn type_of(source: &Value, root: bool) -> Option<Type> {
    Type::of_schema(source, root, &|_| None)
}

impl Rules {
    /// What does not compile was refused with the definition; it is left out here.
    pub fn compile(source: &Value, schema: &Schema) -> Rules {
        let mut with_rules = |schema: &Schema| !schema.rules.is_empty();
        if !schema.any(&mut with_rules) { Rules::default() } else { Rules::of(source, schema, true) }
    }

    fn of(source: &Value, schema: &Schema, root: bool) -> Rules {
        let below = |source: &Value, schema: &Schema| {
            let rules = Rules::of(source, schema, false);
            (!rules.is_empty()).then_some(rules)
        };
        let kind = if schema.rules.is_empty() { None } else { type_of(source, root) };
        Rules {
            here: kind.iter().flat_map(|kind| schema.rules.iter().filter_map(|rule| Rule::compile(rule, kind))).collect(),
            kind,
            fields: schema
                .properties
                .iter()
                .filter_map(|(name, schema)| Some((name.clone(), below(&source["properties"][name], schema)?)))
                .collect(),
            values: schema.values().and_then(|values| below(&source["additionalProperties"], values)).map(Box::new),
            items: schema.items.as_ref().and_then(|items| below(&source["items"], items)).map(Box::new),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.here.is_empty() && self.fields.is_empty() && self.values.is_none() && self.items.is_none()
    }

    /// What the rules have against the object. `old` is what it was before.
    pub fn check(&self, object: &Value, old: Option<&Value>, schema: &Schema) -> Vec<Invalid> {
        let mut errors = vec![];
        let mut budget = Budget::new(Budget::PER_REQUEST);
        // An error ends it: the budget is used up.
        let _ = self.walk(object, old, schema, &At::Root, &mut budget, &mut errors);
        errors
    }

    fn walk(
        &self,
        value: &Value,
        old: Option<&Value>,
        schema: &Schema,
        at: &At,
        budget: &mut Budget,
        errors: &mut Vec<Invalid>,
    ) -> Result<(), Exhausted> {
        if value.is_null() {
            return Ok(());
        }
        let unchanged = old.is_some_and(|old| same(old, value));
        if let Some(kind) = &self.kind {
            for rule in &self.here {
                rule.check((value, old, unchanged), kind, (schema, at), budget, errors)?;
            }
        }
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    let old = old.and_then(|old| old.get(name));
                    let rules = self.fields.get(name).or(self.values.as_deref());
                    if let (Some(rules), Some(schema)) = (rules, schema.field(name)) {
                        rules.walk(value, old, schema, &at.field(name), budget, errors)?;
                    }
                }
            }
            Value::Array(list) => {
                if let (Some(rules), Some(items)) = (&self.items, &schema.items) {
                    for (index, value) in list.iter().enumerate() {
                        rules.walk(value, correlated(value, old, schema), items, &at.item(index), budget, errors)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Nothing more may be evaluated.
struct Exhausted;

impl Rule {
    fn compile(source: &Value, kind: &Type) -> Option<Rule> {
        let text = |field: &str| source[field].as_str().filter(|text| !text.is_empty());
        let optional_old = source["optionalOldSelf"] == true;
        let program_of = |text: &str| program(text, kind, optional_old).ok();
        let program = program_of(text("rule")?)?;
        Some(Rule {
            source: text("rule")?.to_owned(),
            is_transition: program.refers_to("oldSelf"),
            program,
            message: text("message").unwrap_or_default().trim().to_owned(),
            message_expression: text("messageExpression").and_then(program_of),
            reason: text("reason").map(str::to_owned),
            field_path: text("fieldPath").and_then(|path| Path::parse(path).ok()),
            optional_old,
        })
    }

    fn check(
        &self,
        (value, old, unchanged): (&Value, Option<&Value>, bool),
        kind: &Type,
        (schema, at): (&Schema, &At),
        budget: &mut Budget,
        errors: &mut Vec<Invalid>,
    ) -> Result<(), Exhausted> {
        if self.is_transition && old.is_none() && !self.optional_old {
            return Ok(());
        }
        let mut variables = vec![("self", Cel::typed(value, kind))];
        match (self.optional_old, old) {
            (true, Some(old)) => variables.push(("oldSelf", Cel::some(Cel::typed(old, kind)))),
            (true, None) => variables.push(("oldSelf", Cel::Optional(None))),
            (false, Some(old)) => variables.push(("oldSelf", Cel::typed(old, kind))),
            (false, None) => {}
        }
        let shape = if schema.type_.is_empty() { "object" } else { &schema.type_ };
        let typed = |why: String| Invalid {
            field: at.path(),
            reason: Reason::Invalid,
            message: format!("Invalid value: \"{shape}\": {why}"),
        };
        match self.program.test(&variables, budget) {
            Ok(true) => Ok(()),
            // What is as it was may break a rule that came later.
            Ok(false) if unchanged && !self.is_transition => Ok(()),
            Ok(false) => {
                let message = self.message(&variables, budget);
                errors.push(self.error(value, shape, at, &message));
                Ok(())
            }
            Err(error) if error.is_cost() && budget.remaining() == 0 => {
                errors.push(typed(
                    "validation failed due to running out of cost budget, no further validation rules will be run".into(),
                ));
                Err(Exhausted)
            }
            Err(error) if error.is_cost() => {
                errors.push(typed(format!(
                    "no further validation rules will be run due to call cost exceeds limit for rule: {}",
                    self.source
                )));
                Err(Exhausted)
            }
            Err(_) if unchanged && !self.is_transition => Ok(()),
            Err(error) => {
                errors.push(typed(self.failure(&error)));
                Ok(())
            }
        }
    }

    fn failure(&self, error: &Error) -> String {
        let message = if self.message.is_empty() { String::new() } else { format!(" ({})", self.message) };
        format!("{error} evaluating rule: {}{message}", self.source)
    }

    fn message(&self, variables: &[(&str, Cel<'_>)], budget: &mut Budget) -> String {
        let made = self.message_expression.as_ref().and_then(|expression| match expression.evaluate(variables, budget) {
            Ok(Cel::String(text)) => Some(text.as_str().trim().to_owned()),
            _ => None,
        });
        // A message is one line of reasonable length.
        let made = made.filter(|text| !text.is_empty() && !text.contains('\n') && text.len() <= MESSAGE_BYTES_MAX);
        made.unwrap_or_else(
            || {
                if self.message.is_empty() { format!("failed rule: {}", self.source) } else { self.message.clone() }
            },
        )
    }

    fn error(&self, value: &Value, shape: &str, at: &At, why: &str) -> Invalid {
        let field = match self.field_path.as_ref().and_then(Path::fields) {
            Some(names) => format!("{at}.{}", names.join(".")).trim_start_matches('.').to_owned(),
            None => at.path(),
        };
        match self.reason.as_deref() {
            Some("FieldValueRequired") => Invalid::required(field, why),
            Some("FieldValueForbidden") => Invalid::forbidden(field, why),
            Some("FieldValueDuplicate") => Invalid::duplicate(field, value),
            _ => {
                let shown = if matches!(shape, "object" | "array") { String::new() } else { format!(" {}:", shown(value)) };
                Invalid { field, reason: Reason::Invalid, message: format!("Invalid value:{shown} {why}") }
            }
        }
    }
}

const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What is wrong with a rule, and the programs that are right.
pub(super) fn one(rule: &Value, source: &Value, kind: &Type, at: &str, errors: &mut Vec<Invalid>) -> Compiled {
    let mut compiled = Compiled::default();
    let text = |field: &str| rule[field].as_str().unwrap_or_default();
    let optional_old = rule["optionalOldSelf"] == true;
    if text("rule").trim().is_empty() {
        errors.push(Invalid::required(format!("{at}.rule"), "rule is not specified"));
        return compiled;
    }
    match program(text("rule"), kind, optional_old) {
        Err(error) => errors.push(Invalid::value(format!("{at}.rule"), &rule["rule"], &error.to_string())),
        Ok(program) if !program.output().may_be(&Type::Bool) => {
            errors.push(Invalid::value(format!("{at}.rule"), &rule["rule"], "cel expression must evaluate to a bool"));
        }
        Ok(program) if optional_old && !program.refers_to("oldSelf") => {
            let why = "may not be set if oldSelf is not used in rule";
            errors.push(Invalid::value(format!("{at}.optionalOldSelf"), &rule["optionalOldSelf"], why));
        }
        Ok(program) => compiled.rule = Some(program),
    }
    let message = text("message");
    if rule["message"].is_string() && message.trim().is_empty() {
        errors.push(Invalid::value(format!("{at}.message"), &rule["message"], "message must be non-empty if specified"));
    } else if message.contains('\n') {
        errors.push(Invalid::value(format!("{at}.message"), &rule["message"], "message must not contain line breaks"));
    } else if text("rule").contains('\n') && message.is_empty() && text("messageExpression").is_empty() {
        let why = "message or messageExpression must be specified if rule contains line breaks";
        errors.push(Invalid::required(format!("{at}.message"), why));
    }
    if let Some(expression) = rule["messageExpression"].as_str() {
        let field = format!("{at}.messageExpression");
        match program(expression, kind, optional_old) {
            _ if expression.trim().is_empty() => {
                errors.push(Invalid::required(field, "must be non-empty if specified"));
            }
            Err(error) => errors.push(Invalid::value(field, &rule["messageExpression"], &error.to_string())),
            Ok(program) if !program.output().may_be(&Type::String) => {
                let why = "messageExpression must evaluate to a string";
                errors.push(Invalid::value(field, &rule["messageExpression"], why));
            }
            Ok(program) => compiled.message = Some(program),
        }
    }
    if let Some(reason) = rule["reason"].as_str().filter(|reason| !REASONS.contains(reason)) {
        errors.push(Invalid::not_supported(format!("{at}.reason"), &Value::from(reason), &REASONS));
    }
    if let Some(path) = rule["fieldPath"].as_str() {
        let names = Path::parse(path).ok();
        let names = names.as_ref().and_then(Path::fields).filter(|names| !names.is_empty());
        let found = names.map(|names| names.iter().try_fold(source, |node, name| node["properties"].get(*name)).is_some());
        if found != Some(true) {
            let why = format!("fieldPath must be a valid path: does not refer to a valid field: {path}");
            errors.push(Invalid::value(format!("{at}.fieldPath"), &rule["fieldPath"], &why));
        }
    }
    compiled
}

#[derive(Default)]
pub(super) struct Compiled {
    pub rule: Option<Program>,
    pub message: Option<Program>,
}

const MESSAGE_BYTES_MAX: usize = 5 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value, object: Value, old: Option<Value>) -> Vec<String> {
        let parsed = Schema::parse(&schema);
        let errors = Rules::compile(&schema, &parsed).check(&object, old.as_ref(), &parsed);
        errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    fn spec(rules: Value) -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": rules,
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}}})
    }

    #[test]
    fn rules_are_held_against_their_node() {
        let schema = spec(json!([{"rule": "self.a <= self.b", "message": "a must not exceed b"}]));
        assert!(check(schema.clone(), json!({"spec": {"a": 1, "b": 2}}), None).is_empty());
        assert_eq!(check(schema, json!({"spec": {"a": 3, "b": 2}}), None), ["spec: Invalid value: a must not exceed b"]);
        let schema = spec(json!([{"rule": "self.a <= self.b", "messageExpression": "'a is ' + string(self.a)",
            "fieldPath": ".a", "reason": "FieldValueForbidden"}]));
        assert_eq!(check(schema, json!({"spec": {"a": 3, "b": 2}}), None), ["spec.a: Forbidden: a is 3"]);
    }

    #[test]
    fn transition_rules_need_an_old_value() {
        let schema = spec(json!([{"rule": "self.a >= oldSelf.a", "message": "a only grows"}]));
        assert!(check(schema.clone(), json!({"spec": {"a": 1}}), None).is_empty());
        assert!(check(schema.clone(), json!({"spec": {"a": 2}}), Some(json!({"spec": {"a": 1}}))).is_empty());
        assert_eq!(
            check(schema, json!({"spec": {"a": 1}}), Some(json!({"spec": {"a": 2}}))),
            ["spec: Invalid value: a only grows"]
        );
        let schema = spec(json!([{"rule": "oldSelf.hasValue() || self.a == 1", "optionalOldSelf": true}]));
        assert_eq!(check(schema.clone(), json!({"spec": {"a": 2}}), None).len(), 1);
        assert!(check(schema, json!({"spec": {"a": 2}}), Some(json!({"spec": {"a": 3}}))).is_empty());
    }

    #[test]
    fn what_did_not_change_may_break_a_rule() {
        let schema = spec(json!([{"rule": "self.a < 5"}]));
        let object = json!({"spec": {"a": 7}});
        assert!(check(schema.clone(), object.clone(), Some(object.clone())).is_empty());
        assert_eq!(check(schema, json!({"spec": {"a": 8}}), Some(object)), ["spec: Invalid value: failed rule: self.a < 5"]);
    }
}
