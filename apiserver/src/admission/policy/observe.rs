//! Keeps `status` of the validating policies: that they were seen, and what their expressions look like against the schemas.

use super::type_checking;
use crate::http::authenticate::User;
use crate::http::error::Status;
use crate::resources::admission_registration::GROUP;
use crate::server::ApiServer;
use crate::stored;
use crate::verbs::{self, Preconditions, Target};
use serde_json::{Value, json};
use slipway_store::Revision;
use std::collections::HashMap;
use std::sync::Weak;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the cache is looked at: a policy is in force without its status, so nobody waits for this.
const PERIOD: Duration = Duration::from_millis(200);

pub async fn run(server: Weak<ApiServer>, closing: CancellationToken) {
    // What could not be written is tried again when it has changed.
    let mut done = HashMap::<String, Revision>::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = closing.cancelled() => return,
        }
        let Some(server) = server.upgrade() else { return };
        let Some(strategy) = server.strategy(GROUP, "v1", "validatingadmissionpolicies") else { return };
        let snapshot = server.snapshot();
        let mut there = HashMap::new();
        for entry in stored::below(&snapshot, &stored::prefix(strategy.names(), None), "") {
            let (_, name) = stored::namespace_and_name(&entry.key);
            there.insert(name.to_owned(), entry.mod_revision);
            if done.get(name) == Some(&entry.mod_revision) {
                continue;
            }
            let Ok(policy) = stored::decode(&*strategy, &entry.bytes) else { continue };
            if policy["status"]["observedGeneration"] != policy["metadata"]["generation"]
                && let Err(status) = observe(&server, name, &policy).await
            {
                tracing::warn!(policy = name, why = status.message, "the status of a policy could not be written");
            }
        }
        done = there;
    }
}

async fn observe(server: &ApiServer, name: &str, policy: &Value) -> Result<(), Status> {
    let strategy = server.strategy(GROUP, "v1", "validatingadmissionpolicies").ok_or_else(Status::no_such_path)?;
    let checked = type_checking::check(server, policy);
    let user = User::admin();
    let target = Target::new(server, &*strategy, &user, "", name);
    let generation = policy["metadata"]["generation"].clone();
    let preconditions = Preconditions::default();
    let written = verbs::guaranteed_update(&target, &preconditions, |mut current| {
        if current["metadata"]["generation"] == generation {
            current["status"]["observedGeneration"] = generation.clone();
            current["status"]["typeChecking"] = if checked.is_null() { json!({}) } else { checked.clone() };
        }
        Ok(current)
    });
    match written.await {
        Err(status) if status.code != http::StatusCode::NOT_FOUND => Err(status),
        _ => Ok(()),
    }
}
