//! StorageObjectInUseProtection: volumes and claims are kept by a finalizer until nothing uses them any more.

use super::{AdmissionContext, Operation, Plugin, Reservations};
use crate::http::error::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

const OF_CLAIMS: &str = "kubernetes.io/pvc-protection";
const OF_VOLUMES: &str = "kubernetes.io/pv-protection";

pub(super) struct StorageObjectInUseProtection;

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    async fn admit(&self, context: &AdmissionContext<'_>, object: &mut Value, _: &mut Reservations) -> Result<(), Status> {
        let finalizer = if context.writes("", "persistentvolumeclaims", &[Operation::Create]) {
            OF_CLAIMS
        } else if context.writes("", "persistentvolumes", &[Operation::Create]) {
            OF_VOLUMES
        } else {
            return Ok(());
        };
        let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        if !finalizers.iter().any(|known| known == finalizer) {
            finalizers.push(json!(finalizer));
            object["metadata"]["finalizers"] = finalizers.into();
        }
        Ok(())
    }
}
