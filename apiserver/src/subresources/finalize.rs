//! `namespaces/finalize`: lets go of a namespace that has been emptied. It changes `spec.finalizers` and nothing else.

use crate::http::Call;
use crate::http::error::Status;
use crate::http::respond;
use crate::verbs::tracking;
use crate::verbs::{self, Preconditions, Target};
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

pub async fn update(call: Call) -> Result<Response, Status> {
    let dry_run = call.info.query.dry_run()?;
    let manager = tracking::manager(&call, "UpdateOptions")?;
    let (object, warnings) = call.read_object().await?;
    let text = |field: &str| object["metadata"][field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    if text("name").is_some_and(|name| name != call.name()) {
        return Err(Status::bad_request("the name of the object does not match the name on the URL"));
    }
    let preconditions = Preconditions { uid: text("uid"), resource_version: text("resourceVersion") };
    let target = Target { dry_run, ..Target::new(&call.server, &*call.strategy, &call.user, call.namespace(), call.name()) };
    let finalized = verbs::guaranteed_update(&target, &preconditions, |old| {
        let mut namespace = old.clone();
        match object["spec"]["finalizers"].as_array().filter(|finalizers| !finalizers.is_empty()) {
            Some(finalizers) => namespace["spec"]["finalizers"] = json!(finalizers),
            None => crate::kind::remove(&mut namespace["spec"], "finalizers"),
        }
        tracking::update(target.server, target.strategy, (&manager, "finalize"), Some(&old), &mut namespace);
        Ok(namespace)
    })
    .await?;
    respond::object(&call, StatusCode::OK, &finalized, &warnings)
}
