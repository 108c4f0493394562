//! `slipway audit`: who asked the API for what.

use crate::cli;
use anyhow::{Context, Result};
use serde_json::Value;
use slipway_store::postgres::audit::{Filter, query};
use slipway_store::postgres::private::Private;
use std::io::Write;

pub async fn run(flags: cli::AuditQuery) -> Result<()> {
    let url = match (&flags.postgres, &flags.data_dir) {
        (Some(url), _) => url.clone(),
        // One that runs is taken over; one that does not is started, and left to the next `up`.
        (None, Some(dir)) => Private::start(&dir.join("postgres")).await.context("reaching the private Postgres")?.url(),
        (None, None) => anyhow::bail!("--postgres or --data-dir"),
    };
    let filter = Filter {
        user: flags.user,
        verb: flags.verb,
        resource: flags.resource,
        namespace: flags.namespace,
        name: flags.name,
        since: flags.since,
        audit_id: flags.id,
        limit: Some(flags.limit),
    };
    let events = query(&url, &filter).await.context("asking for audit events")?;
    let mut out = std::io::stdout().lock();
    for event in events {
        let line = if flags.json { event } else { brief(&serde_json::from_str(&event)?) };
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// `2026-01-02T03:04:05.000000Z 201 jane create deployments.apps default/web`
fn brief(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    let user = match event["impersonatedUser"]["username"].as_str() {
        Some(other) => format!("{} as {other}", text(&event["user"]["username"])),
        None => text(&event["user"]["username"]),
    };
    let join = |parts: &[String], by: &str| parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(by);
    let what = match object {
        Value::Null => text(&event["requestURI"]),
        object => {
            let resource = join(&[text(&object["resource"]), text(&object["apiGroup"])], ".");
            let place = join(&[text(&object["namespace"]), text(&object["name"])], "/");
            join(&[join(&[resource, text(&object["subresource"])], "/"), place], " ")
        }
    };
    let code = &event["responseStatus"]["code"];
    let (at, verb) = (text(&event["requestReceivedTimestamp"]), text(&event["verb"]));
    format!("{at} {} {user} {verb} {what}", code.as_i64().map_or_else(|| "-".to_owned(), |code| code.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_a_line() {
        let mut event = json!({
            "requestReceivedTimestamp": "2026-01-02T03:04:05.000000Z", "verb": "patch", "user": {"username": "jane"},
            "objectRef": {"resource": "deployments", "apiGroup": "apps", "namespace": "default", "name": "web", "subresource": "scale"},
            "responseStatus": {"code": 200},
        });
        assert_eq!(brief(&event), "2026-01-02T03:04:05.000000Z 200 jane patch deployments.apps/scale default/web");
        event["impersonatedUser"] = json!({"username": "ops"});
        event["objectRef"] = Value::Null;
        event["requestURI"] = json!("/metrics");
        assert_eq!(brief(&event), "2026-01-02T03:04:05.000000Z 200 jane as ops patch /metrics");
    }
}
