//! Access to devices that are in use by others (`adminAccess`) is asked for only in namespaces that are labelled for it. In
//! Kubernetes this is a part of the validation of claims and their templates.

use super::{AdmissionContext, Operation, Plugin};
use crate::http::error::{Invalid, Status};
use crate::verbs::get::get_cached;
use async_trait::async_trait;
use serde_json::Value;

const LABEL: &str = "resource.kubernetes.io/admin-access";

pub(super) struct DeviceAdminAccess;

#[async_trait]
impl Plugin for DeviceAdminAccess {
    async fn validate(&self, context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
        // The spec never changes.
        let requests = if context.writes("resource.k8s.io", "resourceclaims", &[Operation::Create]) {
            &object["spec"]["devices"]["requests"]
        } else if context.writes("resource.k8s.io", "resourceclaimtemplates", &[Operation::Create]) {
            &object["spec"]["spec"]["devices"]["requests"]
        } else {
            return Ok(());
        };
        let mut requests = requests.as_array().into_iter().flatten();
        let Some(first) = requests.position(|request| request["exactly"]["adminAccess"] == true) else { return Ok(()) };
        let server = context.server;
        let namespace = server
            .strategy("", "v1", "namespaces")
            .and_then(|namespaces| get_cached(&server.snapshot(), &*namespaces, "", context.namespace));
        if namespace.is_some_and(|namespace| namespace["metadata"]["labels"][LABEL] == "true") {
            return Ok(());
        }
        let why = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
        let at = format!("spec.devices.requests[{first}].adminAccess");
        let names = context.strategy.names();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        Err(Status::invalid(names.group, names.kind, name, &[Invalid::forbidden(at, &why)]))
    }
}
