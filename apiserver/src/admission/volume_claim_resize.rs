//! PersistentVolumeClaimResize: a claim grows only where its class lets it.

use super::{AdmissionContext, Operation, Plugin};
use crate::http::error::Status;
use crate::resources::persistent_volume_claim::class_of;
use crate::verbs::get::get_cached;
use async_trait::async_trait;
use serde_json::Value;
use slipway_api::quantity::Quantity;

const ONLY_BOUND: &str = "Only bound persistent volume claims can be expanded";
const ONLY_DYNAMIC: &str =
    "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";

pub(super) struct PersistentVolumeClaimResize;

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    async fn validate(&self, context: &AdmissionContext<'_>, object: &Value) -> Result<(), Status> {
        let updated = context.writes("", "persistentvolumeclaims", &[Operation::Update]);
        let Some(old) = context.old.filter(|_| updated) else { return Ok(()) };
        if size(object) <= size(old) {
            return Ok(());
        }
        if old["status"]["phase"] != "Bound" {
            return Err(context.forbidden(object, ONLY_BOUND));
        }
        let classes = context.server.strategy("storage.k8s.io", "v1", "storageclasses");
        let class = classes.and_then(|strategy| get_cached(&context.server.snapshot(), &*strategy, "", class_of(old)));
        match class {
            Some(class) if class["allowVolumeExpansion"] == true => Ok(()),
            _ => Err(context.forbidden(object, ONLY_DYNAMIC)),
        }
    }
}

fn size(claim: &Value) -> Option<Quantity> {
    Quantity::parse(claim["spec"]["resources"]["requests"]["storage"].as_str()?).ok()
}
