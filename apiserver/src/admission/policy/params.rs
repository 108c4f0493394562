//! The objects that a binding parameterises its policy with.

use super::{Binding, Policy};
use crate::admission::dynamic::Request;
use crate::admission::dynamic::matching::{labels, selector};
use crate::custom_resources;
use crate::server::find;
use crate::stored;
use serde_json::Value;

/// The parameters, one evaluation each; `None` where a policy has none. An error tells why the binding can't be used.
pub async fn of(policy: &Policy, binding: &Binding, request: &Request<'_>) -> Result<Vec<Option<Value>>, String> {
    let Some((api_version, kind)) = &policy.param_kind else { return Ok(vec![None]) };
    // A policy of which parameters are expected is evaluated without any if the binding names none.
    let Some(reference) = &binding.param else { return Ok(vec![Some(Value::Null)]) };
    let server = request.context.server;
    let strategies = server.strategies();
    let strategy = strategies
        .iter()
        .find(|strategy| strategy.names().kind == kind && strategy.names().api_version() == *api_version)
        .ok_or_else(|| format!("failed to find resource referenced by paramKind: '{}'", gvk(api_version, kind)))?;
    let given = reference["namespace"].as_str().unwrap_or_default();
    let namespace = match (strategy.names().namespaced, given, request.namespace.as_str()) {
        (false, "", _) => "",
        (false, ..) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into()),
        (true, "", "") => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
        }
        (true, "", own) => own,
        (true, given, _) => given,
    };
    let snapshot = server.snapshot();
    let named = reference["name"].as_str().filter(|name| !name.is_empty());
    let prefix = stored::prefix(strategy.names(), Some(namespace));
    let entries: Vec<_> = match named {
        Some(name) => find(&snapshot, &**strategy, namespace, name).into_iter().cloned().collect(),
        None => stored::below(&snapshot, &prefix, "").cloned().collect(),
    };
    let entries = custom_resources::present_all(server, &**strategy, entries).await.map_err(|status| status.message)?;
    let objects = entries.iter().filter_map(|entry| stored::decode(&**strategy, &entry.bytes).ok());
    let mut found: Vec<Value> = match named {
        Some(_) => objects.collect(),
        None => {
            let selector = selector(&reference["selector"]);
            objects.filter(|object| selector.matches(&labels(object))).collect()
        }
    };
    if found.is_empty() && reference["parameterNotFoundAction"] != "Allow" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(found.drain(..).map(Some).collect())
}

fn gvk(api_version: &str, kind: &str) -> String {
    format!("{api_version}, Kind={kind}")
}
