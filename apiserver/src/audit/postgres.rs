//! Events as rows of Postgres.

use super::{Event, Sink};
use serde_json::Value;
use slipway_store::postgres::audit::{Row, Trail};
use std::sync::Arc;

/// See `slipway_store::postgres::audit`.
pub struct Table(pub Arc<Trail>);

impl Sink for Table {
    fn keep(&self, event: &Event) {
        self.0.offer(row(event));
    }

    fn dropped(&self) -> u64 {
        self.0.dropped()
    }

    fn name(&self) -> &'static str {
        "postgres"
    }
}

fn row(event: &Event) -> Row {
    let text = |path: &[&str]| {
        let found = path.iter().try_fold(&event.value, |value, field| value.get(*field));
        found.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let at = text(&["requestReceivedTimestamp"]).parse::<jiff::Timestamp>().unwrap_or_default();
    Row {
        received_us: at.as_microsecond(),
        audit_id: text(&["auditID"]),
        stage: text(&["stage"]),
        username: text(&["user", "username"]),
        impersonated: text(&["impersonatedUser", "username"]),
        verb: text(&["verb"]),
        api_group: text(&["objectRef", "apiGroup"]),
        resource: text(&["objectRef", "resource"]),
        subresource: text(&["objectRef", "subresource"]),
        namespace: text(&["objectRef", "namespace"]),
        name: text(&["objectRef", "name"]),
        code: event.value["responseStatus"]["code"].as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or(0),
        event: event.line.clone(),
    }
}
