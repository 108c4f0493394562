//! What the expressions of a policy are evaluated over.

use super::authorizer::{Ask, request_resource};
use super::environment::{Evaluated, REQUEST};
use super::{Condition, Policy};
use crate::admission::dynamic::Request;
use crate::admission::dynamic::matching::namespace_of;
use crate::cel::{Budget, Opaque, Value as Cel};
use crate::http::error::Status;
use crate::kind::Strategy;
use serde_json::Value;

/// A request in the form that a policy or a webhook asked for.
pub struct Inputs<'a> {
    pub object: Option<Value>,
    pub old: Option<Value>,
    pub request: Value,
    pub namespace: Option<Value>,
    authorizer: Ask<'a>,
    resource: crate::cel::Attributes,
}

impl<'a> Inputs<'a> {
    pub async fn new(request: &Request<'a>, as_: Option<&dyn Strategy>) -> Result<Self, Status> {
        let shown = as_.unwrap_or(request.context.strategy);
        Ok(Inputs {
            object: request.shown(request.object, as_).await?,
            old: request.shown(request.old, as_).await?,
            request: request.review(shown),
            namespace: if request.namespace.is_empty() { None } else { namespace_of(request).ok() },
            authorizer: Ask::new(request.context),
            resource: request_resource(request),
        })
    }

    /// The variables of the expressions, without `params`.
    pub fn scope(&self) -> Vec<(&str, Cel<'_>)> {
        fn value(value: &Option<Value>) -> Cel<'_> {
            value.as_ref().map_or(Cel::Null, Cel::of)
        }
        vec![
            ("object", value(&self.object)),
            ("oldObject", value(&self.old)),
            ("request", Cel::typed(&self.request, &REQUEST)),
            ("namespaceObject", value(&self.namespace)),
            ("authorizer", Cel::Opaque(Opaque::authorizer(&self.authorizer))),
            ("authorizer.requestResource", Cel::Opaque(Opaque::request_resource(&self.authorizer, self.resource.clone()))),
        ]
    }
}

/// Whether all conditions hold. One that does not counts more than one that can't be evaluated.
pub fn conditions_hold(conditions: &[Condition], scope: &[(&str, Cel<'_>)]) -> Result<bool, String> {
    let mut budget = Budget::new(Budget::MATCH_CONDITIONS);
    let mut errors = vec![];
    for condition in conditions {
        let result = match &condition.program {
            Ok(program) => program.test(scope, &mut budget).map_err(|error| error.to_string()),
            Err(error) => Err(error.clone()),
        };
        match result {
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(error) => errors.push(format!("expression '{}' resulted in error: {error}", condition.name)),
        }
    }
    match errors.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

/// Calls `evaluate` with the variables of the policy, for one object of parameters.
pub fn with_scope<T>(
    policy: &Policy,
    inputs: &Inputs<'_>,
    params: Option<&Value>,
    evaluate: impl for<'a> FnOnce(&[(&'a str, Cel<'a>)]) -> T,
) -> Result<T, String> {
    let programs = policy.variables.as_ref().map_err(Clone::clone)?;
    let mut scope = inputs.scope();
    if let Some(params) = params {
        scope.push(("params", Cel::of(params)));
    }
    let variables = Evaluated::new(programs, scope);
    Ok(evaluate(&variables.scope()))
}
