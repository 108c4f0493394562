//! Answers load balancers that ask, on a Service's healthCheckNodePort, whether this node has endpoints of it.

use super::model::Name;
use axum::Router;
use axum::http::StatusCode;
use axum::response::Json;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

struct Check {
    name: Name,
    endpoints: Arc<AtomicUsize>,
    _stop: DropGuard,
}

/// One small HTTP server per port, started and stopped as Services come and go.
#[derive(Default)]
pub struct Checks(BTreeMap<u16, Check>);

impl Checks {
    /// Makes the servers be those of `wanted`. A port that is taken is tried again next time.
    pub async fn sync(&mut self, wanted: &BTreeMap<u16, (Name, usize)>) {
        self.0.retain(|port, check| wanted.get(port).is_some_and(|(name, _)| *name == check.name));
        for (port, (name, count)) in wanted {
            if let Some(check) = self.0.get(port) {
                check.endpoints.store(*count, Ordering::Relaxed);
                continue;
            }
            match TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port))).await {
                Ok(listener) => drop(self.0.insert(*port, serve(listener, name, *count))),
                Err(error) => tracing::warn!(%error, port, "cannot listen for health checks of a load balancer"),
            }
        }
    }
}

fn serve(listener: TcpListener, name: &Name, count: usize) -> Check {
    let endpoints = Arc::new(AtomicUsize::new(count));
    let stop = CancellationToken::new();
    let (seen, service) = (endpoints.clone(), name.clone());
    let router = Router::new().fallback(move || {
        let answer = answer(&service, seen.load(Ordering::Relaxed));
        async move { answer }
    });
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
    Check { name: name.clone(), endpoints, _stop: stop.drop_guard() }
}

fn answer(service: &Name, endpoints: usize) -> (StatusCode, Json<Value>) {
    let status = if endpoints == 0 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let service = json!({"namespace": &*service.namespace, "name": &*service.name});
    (status, Json(json!({"service": service, "localEndpoints": endpoints, "serviceProxyHealthy": true})))
}
