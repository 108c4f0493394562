//! A certificate request says who asks: it is approved by that, so the server writes it and nobody else.

use super::{AdmissionContext, Operation, Plugin, Reservations};
use crate::http::error::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

pub(super) struct Requestor;

#[async_trait]
impl Plugin for Requestor {
    async fn admit(&self, context: &AdmissionContext<'_>, object: &mut Value, _: &mut Reservations) -> Result<(), Status> {
        if !context.writes("certificates.k8s.io", "certificatesigningrequests", &[Operation::Create]) {
            return Ok(());
        }
        let Some(spec) = object["spec"].as_object_mut() else { return Ok(()) };
        let user = context.user;
        for (field, value, is_empty) in [
            ("username", json!(user.name), user.name.is_empty()),
            ("uid", json!(user.uid), user.uid.is_empty()),
            ("groups", json!(user.groups), user.groups.is_empty()),
            ("extra", json!(user.extra), user.extra.is_empty()),
        ] {
            if is_empty {
                spec.remove(field);
            } else {
                spec.insert(field.to_owned(), value);
            }
        }
        Ok(())
    }
}
