//! Puts right what crashes leave: numbers without a Service, Services without their numbers.

use super::{Held, Pools, in_use, put, records};
use crate::server::{ApiServer, Error};
use slipway_store::{Change, Error as Failure, Expect, Write};
use std::sync::Arc;
use std::time::Duration;

/// As often as in Kubernetes.
const EVERY: Duration = Duration::from_secs(180);

/// Repairs now, and then from time to time until the server is closed.
pub async fn repair(server: &Arc<ApiServer>) -> Result<(), Error> {
    Pools::of(server).map_err(|why| Error::Options { what: "the service CIDR", why })?;
    once(server).await?;
    let server = Arc::downgrade(server);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(EVERY).await;
            let Some(server) = server.upgrade() else { return };
            if let Err(error) = once(&server).await {
                tracing::warn!(%error, "the services' addresses and ports could not be checked");
            }
        }
    });
    Ok(())
}

async fn once(server: &ApiServer) -> Result<(), Failure> {
    let Ok(pools) = Pools::of(server) else { return Ok(()) };
    let snapshot = server.cache.fresh().await?;
    let wanted = in_use(server, &snapshot, &pools);
    for (key, metadata) in &wanted {
        let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        let held = Held { namespace: text("namespace"), name: text("name"), at: server.now().as_second() };
        let expect = match snapshot.objects.get(key.as_str()) {
            None => Expect::Absent,
            Some(entry) => match serde_json::from_slice::<Held>(&entry.bytes) {
                Ok(stored) if (&stored.namespace, &stored.name) == (&held.namespace, &held.name) => continue,
                _ => Expect::Revision(entry.mod_revision),
            },
        };
        match put(server, key, &held, expect).await {
            // Somebody was faster: a repair of another server, or the Service's own writer.
            Ok(_) | Err(Failure::Exists | Failure::Conflict { .. } | Failure::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    for pool in [&pools.addresses, &pools.ports] {
        for entry in records(&snapshot, pool) {
            let old = serde_json::from_slice::<Held>(&entry.bytes).is_ok_and(|held| held.is_old(server));
            if old && !wanted.contains_key(&*entry.key) {
                let expect = Expect::Revision(entry.mod_revision);
                let write = Write { key: Arc::clone(&entry.key), expect, change: Change::Delete };
                if let Err(error) = server.store.write(write).await {
                    tracing::debug!(key = %entry.key, %error, "an abandoned number changed meanwhile");
                }
            }
        }
    }
    Ok(())
}
