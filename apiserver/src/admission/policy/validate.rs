//! Validating policies: each failed expression denies, warns or is audited, as the binding says.

use super::evaluate::{Inputs, conditions_hold, with_scope};
use super::{Binding, Compiled, Policy, Validation, params};
use crate::admission::dynamic::matching::Matched;
use crate::admission::dynamic::{self, Request};
use crate::cel::{Budget, Value as Cel};
use crate::http::error::Status;
use crate::http::notes;
use http::StatusCode;
use serde_json::{Value, json};

/// The longest message that an expression may make.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;
/// The longest value of an audit annotation.
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;
const FAILURE_ANNOTATION: &str = "validation.policy.admission.k8s.io/validation_failure";

/// What a validation came to.
struct Failed {
    message: String,
    reason: String,
    /// Which validation; `None`: the policy or its binding could not be used.
    index: Option<usize>,
}

struct Denial {
    policy: String,
    binding: String,
    failed: Failed,
}

pub async fn validate(request: &Request<'_>, compiled: &dynamic::Compiled) -> Result<(), Status> {
    let mut denials = vec![];
    let mut audited = vec![];
    let mut annotations = std::collections::BTreeMap::<String, Vec<String>>::new();
    for policy in &compiled.validating_policies {
        let Some((matched, bindings)) = policy.matches(request)? else { continue };
        let inputs = match &matched {
            Matched::As(strategy) => Inputs::new(request, Some(&**strategy)).await?,
            _ => Inputs::new(request, None).await?,
        };
        for binding in bindings {
            let outcome = evaluate(policy, binding, request, &inputs).await;
            for (key, value) in outcome.annotations {
                let values = annotations.entry(format!("{}/{key}", policy.name)).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            for failed in outcome.failed {
                if binding.does("Warn") {
                    notes::warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        policy.name, binding.name, failed.message
                    ));
                }
                if binding.does("Audit") {
                    audited.push(json!({
                        "message": failed.message, "policy": policy.name, "binding": binding.name,
                        "expressionIndex": failed.index.unwrap_or(0), "validationActions": binding.actions,
                    }));
                }
                if binding.does("Deny") || failed.index.is_none() {
                    denials.push(Denial { policy: policy.name.clone(), binding: binding.name.clone(), failed });
                }
            }
            // One policy after another may take its time: others get theirs in between.
            tokio::task::yield_now().await;
        }
    }
    for (key, values) in annotations {
        notes::annotate(key, values.join(", "));
    }
    if !audited.is_empty() {
        notes::annotate(FAILURE_ANNOTATION, Value::from(audited).to_string());
    }
    denials.into_iter().next().map_or(Ok(()), |denial| Err(refusal(request, &denial)))
}

#[derive(Default)]
struct Outcome {
    failed: Vec<Failed>,
    annotations: Vec<(String, String)>,
}

async fn evaluate(policy: &Policy, binding: &Binding, request: &Request<'_>, inputs: &Inputs<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let unusable = |message: String| Failed { message, reason: String::new(), index: None };
    let all_params = match params::of(policy, binding, request).await {
        Ok(all) => all,
        Err(why) => {
            if !policy.fails_open || why.starts_with("no params found") {
                outcome.failed.push(unusable(format!("failed to configure binding: {why}")));
            }
            return outcome;
        }
    };
    let mut budget = Budget::new(Budget::PER_REQUEST);
    for one in &all_params {
        let evaluated = with_scope(policy, inputs, one.as_ref(), |scope| {
            match conditions_hold(&policy.conditions, scope) {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) if policy.fails_open => return,
                Err(error) => return outcome.failed.push(Failed { message: error, reason: String::new(), index: Some(0) }),
            }
            for (index, validation) in policy.validations.iter().enumerate() {
                outcome.failed.extend(check(policy, validation, index, scope, &mut budget));
            }
            for (key, program) in &policy.annotations {
                match annotation(program, scope, &mut budget) {
                    Ok(Some(value)) => outcome.annotations.push((key.clone(), value)),
                    Ok(None) => {}
                    Err(_) if policy.fails_open => {}
                    Err(message) => outcome.failed.push(Failed { message, reason: String::new(), index: Some(0) }),
                }
            }
        });
        if let Err(error) = evaluated
            && !policy.fails_open
        {
            outcome.failed.push(unusable(format!("failed to configure policy: {error}")));
        }
    }
    outcome
}

fn check<'a>(
    policy: &Policy,
    validation: &Validation,
    index: usize,
    scope: &[(&'a str, Cel<'a>)],
    budget: &mut Budget,
) -> Option<Failed> {
    let expression = validation.expression.trim();
    let result = match &validation.program {
        Ok(program) => program.evaluate(scope, budget).map_err(|error| error.to_string()),
        Err(error) => Err(error.clone()),
    };
    let failed = |message: String| Some(Failed { message, reason: validation.reason.clone(), index: Some(index) });
    match result {
        Ok(Cel::Bool(true)) => None,
        Ok(Cel::Bool(false)) => {
            let given = validation.message.trim();
            let own = message(validation.message_program.as_ref(), scope, budget);
            failed(match own {
                Some(own) => own,
                None if given.is_empty() => format!("failed expression: {expression}"),
                None => given.to_owned(),
            })
        }
        _ if policy.fails_open => None,
        Ok(_) => failed(format!("expression '{expression}' resulted in error: expected a bool")),
        Err(error) => failed(format!("expression '{expression}' resulted in error: {error}")),
    }
}

/// The message that an expression makes, if it is one.
fn message<'a>(program: Option<&Compiled>, scope: &[(&'a str, Cel<'a>)], budget: &mut Budget) -> Option<String> {
    let value = program?.as_ref().ok()?.evaluate(scope, budget).ok()?;
    let text = value.as_str()?.trim();
    (!text.is_empty() && !text.contains('\n') && text.len() <= MESSAGE_BYTES_MAX).then(|| text.to_owned())
}

fn annotation<'a>(program: &Compiled, scope: &[(&'a str, Cel<'a>)], budget: &mut Budget) -> Result<Option<String>, String> {
    let program = program.as_ref().map_err(Clone::clone)?;
    match program.evaluate(scope, budget).map_err(|error| error.to_string())? {
        Cel::Null => Ok(None),
        Cel::String(text) => {
            let text = text.as_str().trim();
            let end = (0..=text.len().min(ANNOTATION_BYTES_MAX)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            Ok(Some(text[..end].to_owned()).filter(|text| !text.is_empty()))
        }
        other => Err(format!("valueExpression did not evaluate to a string: {}", other.type_name())),
    }
}

fn refusal(request: &Request<'_>, denial: &Denial) -> Status {
    let why = format!(
        "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {}",
        denial.policy, denial.binding, denial.failed.message
    );
    let nothing = Value::Null;
    let mut status = request.context.forbidden(request.object.or(request.old).unwrap_or(&nothing), &why);
    (status.code, status.reason) = match denial.failed.reason.as_str() {
        "Forbidden" => (StatusCode::FORBIDDEN, "Forbidden"),
        "Unauthorized" => (StatusCode::UNAUTHORIZED, "Unauthorized"),
        "RequestEntityTooLarge" => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
        _ => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
    };
    status.details["causes"] = json!([{"message": denial.failed.message}]);
    status
}
