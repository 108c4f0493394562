//! `/metrics`, under kube-apiserver's names.

use crate::http::error::Status;
use crate::http::request_info::RequestInfo;
use crate::http::respond;
use crate::server::ApiServer;
use axum::response::Response;
use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Seconds; as kube-apiserver's, without the finest.
const BUCKETS: [f64; 14] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Requested {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Sunk {
    plugin: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Prioritised {
    priority_level: String,
}

pub struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    durations: Family<Requested, Histogram>,
    in_flight: Gauge,
    seats: Family<Prioritised, Gauge>,
    seats_in_use: Family<Prioritised, Gauge>,
    waiting: Family<Prioritised, Gauge>,
    refused: Gauge,
    long_running: Gauge<i64, AtomicI64>,
    panics: Counter,
    revision: Gauge,
    objects: Gauge,
    audited: Gauge,
    unaudited: Family<Sunk, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Metrics {
            registry: Registry::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            in_flight: Gauge::default(),
            seats: Family::default(),
            seats_in_use: Family::default(),
            waiting: Family::default(),
            refused: Gauge::default(),
            long_running: Gauge::default(),
            panics: Counter::default(),
            revision: Gauge::default(),
            objects: Gauge::default(),
            audited: Gauge::default(),
            unaudited: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("apiserver_request", "Requests by verb, resource and code", metrics.requests.clone());
        let text = "Time to answer a request (of those that last: to begin to)";
        registry.register("apiserver_request_duration_seconds", text, metrics.durations.clone());
        registry.register("apiserver_current_inflight_requests", "Requests being worked on", metrics.in_flight.clone());
        let text = "Seats of a priority level";
        registry.register("apiserver_flowcontrol_nominal_limit_seats", text, metrics.seats.clone());
        let text = "Seats of a priority level that are in use";
        registry.register("apiserver_flowcontrol_current_executing_seats", text, metrics.seats_in_use.clone());
        let text = "Requests that wait in the queues of a priority level";
        registry.register("apiserver_flowcontrol_current_inqueue_requests", text, metrics.waiting.clone());
        let text = "Requests that were told to come again";
        registry.register("slipway_flowcontrol_refused_requests", text, metrics.refused.clone());
        registry.register("apiserver_longrunning_requests", "Open watches, logs and tunnels", metrics.long_running.clone());
        registry.register("apiserver_request_panics", "Requests that panicked", metrics.panics.clone());
        registry.register("slipway_cache_revision", "The revision that the cache has reached", metrics.revision.clone());
        registry.register("slipway_cache_objects", "Objects in the cache", metrics.objects.clone());
        registry.register("apiserver_audit_event_total", "Audit events", metrics.audited.clone());
        let text = "Audit events that a sink could not keep";
        registry.register("apiserver_audit_error_total", text, metrics.unaudited.clone());
        metrics
    }
}

impl Metrics {
    pub(crate) fn answered(&self, server: &ApiServer, info: &RequestInfo, code: StatusCode, took: Duration) {
        // Only what is served becomes a label, so that nobody can fill the memory with made-up paths.
        let names = server.strategy(&info.group, &info.version, &info.resource).map(|strategy| *strategy.names());
        let (group, version, resource) = names.map_or(("", "", ""), |names| (names.group, names.version, names.plural));
        let subresource = match info.subresource.as_str() {
            sub if names.is_some() && KNOWN_SUBRESOURCES.contains(&sub) => sub.to_owned(),
            _ => String::new(),
        };
        let verb = info.verb.as_str();
        let requested = Requested { verb, group, version, resource, subresource: subresource.clone() };
        self.durations.get_or_create(&requested).observe(took.as_secs_f64());
        self.requests.get_or_create(&Answered { verb, group, version, resource, subresource, code: code.as_u16() }).inc();
    }

    pub(crate) fn panicked(&self) {
        self.panics.inc();
    }

    /// Counts as open until it is dropped.
    pub(crate) fn long_running(&self) -> Open {
        self.long_running.inc();
        Open(self.long_running.clone())
    }
}

const KNOWN_SUBRESOURCES: [&str; 11] =
    ["status", "scale", "binding", "eviction", "log", "exec", "attach", "portforward", "proxy", "token", "approval"];

pub(crate) struct Open(Gauge<i64, AtomicI64>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.inner().fetch_sub(1, Ordering::Relaxed);
    }
}

pub fn respond(server: &ApiServer) -> Result<Response, Status> {
    let metrics = &server.metrics;
    let snapshot = server.snapshot();
    metrics.revision.set(snapshot.revision);
    metrics.objects.set(i64::try_from(snapshot.objects.len()).unwrap_or(i64::MAX));
    let levels = server.flow_control.summary();
    metrics.in_flight.set(levels.iter().map(|level| i64::from(level.executing)).sum());
    for level in levels {
        let of = Prioritised { priority_level: level.level };
        metrics.seats.get_or_create(&of).set(level.seats.into());
        metrics.seats_in_use.get_or_create(&of).set(level.executing.into());
        metrics.waiting.get_or_create(&of).set(i64::try_from(level.waiting).unwrap_or(i64::MAX));
    }
    metrics.refused.set(i64::try_from(server.flow_control.refused()).unwrap_or(i64::MAX));
    let audit = &server.options.audit;
    metrics.audited.set(i64::try_from(audit.events.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
    for sink in &audit.sinks {
        let dropped = i64::try_from(sink.dropped()).unwrap_or(i64::MAX);
        metrics.unaudited.get_or_create(&Sunk { plugin: sink.name() }).set(dropped);
    }
    let mut text = String::new();
    encode(&mut text, &metrics.registry).map_err(|error| Status::internal(&error))?;
    Ok(respond::bytes("application/openmetrics-text; version=1.0.0; charset=utf-8", StatusCode::OK, text.into()))
}
