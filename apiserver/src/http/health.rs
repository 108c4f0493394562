//! `/healthz`, `/livez`, `/readyz` and `/version`.

use crate::http::error::Status;
use crate::http::request_info::RequestInfo;
use crate::http::respond;
use crate::server::ApiServer;
use axum::response::Response;
use http::StatusCode;
use serde_json::json;
use std::fmt::Write;
use std::time::Duration;

/// The version of Kubernetes whose behaviour is served; clients compare theirs with it.
const MAJOR: &str = "1";
const MINOR: &str = "37";
/// How long the store may take to answer before the server counts as not ready.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// As kube-apiserver calls the writing of the default roles, which is a part of this server's bootstrap.
const BOOTSTRAP_ROLES: &str = "poststarthook/rbac/bootstrap-roles";
const CHECKS: [&str; 5] = ["ping", "store", "bootstrap", BOOTSTRAP_ROLES, "shutdown"];

pub async fn respond(server: &ApiServer, info: &RequestInfo) -> Option<Result<Response, Status>> {
    if info.path == "/version" || info.path == "/version/" {
        return Some(Ok(version()));
    }
    let (endpoint, only) = match info.path.trim_start_matches('/').split_once('/') {
        Some((endpoint, check)) => (endpoint, Some(check)),
        None => (info.path.trim_start_matches('/'), None),
    };
    if !["healthz", "livez", "readyz"].contains(&endpoint) {
        return None;
    }
    if only.is_some_and(|only| !CHECKS.contains(&only)) {
        return Some(Err(Status::no_such_path()));
    }
    Some(Ok(health(server, info, endpoint, only).await))
}

async fn health(server: &ApiServer, info: &RequestInfo, endpoint: &str, only: Option<&str>) -> Response {
    let excluded: Vec<&str> = info.query.all("exclude").collect();
    let mut told = String::new();
    let mut healthy = true;
    for check in CHECKS.into_iter().filter(|check| only.is_none_or(|only| only == *check)) {
        if excluded.contains(&check) {
            let _ = writeln!(told, "[+]{check} excluded: ok");
            continue;
        }
        let ok = passes(server, endpoint, check).await;
        healthy &= ok;
        let _ = if ok { writeln!(told, "[+]{check} ok") } else { writeln!(told, "[-]{check} failed: reason withheld") };
    }
    let code = if healthy { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    let text = match (healthy, info.query.flag("verbose")) {
        (true, false) => "ok".to_owned(),
        (true, true) => format!("{told}{endpoint} check passed\n"),
        (false, _) => format!("{told}{endpoint} check failed\n"),
    };
    respond::bytes("text/plain; charset=utf-8", code, text.into())
}

/// A server is alive while it answers; it is ready when its answers would be right.
async fn passes(server: &ApiServer, endpoint: &str, check: &str) -> bool {
    match (endpoint, check) {
        (_, "store") if endpoint != "livez" => {
            matches!(tokio::time::timeout(STORE_TIMEOUT, server.cache.fresh()).await, Ok(Ok(_)))
        }
        ("readyz", "bootstrap" | BOOTSTRAP_ROLES) => server.is_bootstrapped(),
        ("readyz", "shutdown") => !server.is_closing(),
        _ => true,
    }
}

fn version() -> Response {
    let git = option_env!("SLIPWAY_COMMIT").unwrap_or("unknown");
    let body = json!({
        "major": MAJOR, "minor": MINOR,
        "gitVersion": format!("v{MAJOR}.{MINOR}.0+slipway-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": git, "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    });
    respond::bytes("application/json", StatusCode::OK, format!("{body}\n").into())
}

/// As Go calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
