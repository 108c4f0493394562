//! Whose turn it is among the API servers on one store. Each can come to another opinion of an extension server, and they would
//! overwrite each other's for ever; the one that holds a Lease writes. Nobody takes it before there is an extension server.

use crate::http::authenticate::User;
use crate::server::{ApiServer, find};
use crate::stored;
use crate::verbs::{Preconditions, Target, create_object, guaranteed_update};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-aggregator";
/// A holder that has not renewed it for so long has lost it.
const DURATION: Duration = Duration::from_secs(15);
/// Three chances before it is lost.
pub(super) const RENEW: Duration = Duration::from_secs(5);

pub(super) struct Turn {
    identity: String,
    /// When it was taken or renewed.
    renewed: Option<Instant>,
    /// The other's Lease as it was last seen, and since when it has not changed.
    seen: Option<(String, Instant)>,
}

impl Turn {
    pub fn new() -> Self {
        Turn { identity: uuid::Uuid::new_v4().to_string(), renewed: None, seen: None }
    }

    /// Whether it is this server's turn, which it takes if nobody has it.
    pub async fn take(&mut self, server: &ApiServer) -> bool {
        if self.renewed.is_some_and(|at| at.elapsed() < RENEW) {
            return true;
        }
        if self.may_write(server) && self.write(server, &self.identity).await {
            self.renewed = Some(Instant::now());
        }
        self.renewed.is_some_and(|at| at.elapsed() < DURATION)
    }

    fn may_write(&mut self, server: &ApiServer) -> bool {
        let Some(lease) = lease(server) else { return true };
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        if holder.is_empty() || holder == self.identity {
            return true;
        }
        // It is somebody else's.
        self.renewed = None;
        let now = lease["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if seen == now => since.elapsed() >= DURATION,
            _ => {
                self.seen = Some((now.to_owned(), Instant::now()));
                false
            }
        }
    }

    /// Writes the Lease, if it is still the one that was looked at.
    async fn write(&self, server: &ApiServer, holder: &str) -> bool {
        let Some(strategy) = server.strategy("coordination.k8s.io", "v1", "leases") else { return false };
        let user = User::apiserver();
        let target = Target::new(server, &*strategy, &user, NAMESPACE, NAME);
        let now = server.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": DURATION.as_secs(), "renewTime": now});
        let Some(lease) = lease(server) else {
            return create_object(&target, json!({"metadata": {"name": NAME}, "spec": spec})).await.is_ok();
        };
        let version = lease["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        let same = Preconditions { uid: None, resource_version: version };
        let written = guaranteed_update(&target, &same, |mut object: Value| {
            object["spec"] = spec.clone();
            Ok(object)
        });
        written.await.is_ok()
    }

    /// Gives it up, so that another need not wait.
    pub async fn give_up(&mut self, server: &ApiServer) {
        if self.renewed.take().is_some_and(|at| at.elapsed() < DURATION) {
            self.write(server, "").await;
        }
    }
}

fn lease(server: &ApiServer) -> Option<Value> {
    let strategy = server.strategy("coordination.k8s.io", "v1", "leases")?;
    let snapshot = server.snapshot();
    stored::decode(&*strategy, &find(&snapshot, &*strategy, NAMESPACE, NAME)?.bytes).ok()
}
