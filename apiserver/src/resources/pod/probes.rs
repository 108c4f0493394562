//! Probes and lifecycle hooks of containers.

use crate::http::error::Invalid;
use crate::resources::rules;
use serde_json::json;
use slipway_api::IntOrString;
use slipway_api::core::{Container, ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, TCPSocketAction};

const NO_HANDLER: &str = "must specify a handler type";
const TWO_HANDLERS: &str = "may not specify more than 1 handler type";

pub fn check_all(at: &str, container: &Container, errors: &mut Vec<Invalid>) {
    if let Some(live) = &container.liveness_probe {
        let at = format!("{at}.livenessProbe");
        probe(&at, live, errors);
        once(&at, live, errors);
    }
    if let Some(ready) = &container.readiness_probe {
        let at = format!("{at}.readinessProbe");
        probe(&at, ready, errors);
        if let Some(seconds) = ready.termination_grace_period_seconds {
            let why = "must not be set for readinessProbes";
            errors.push(Invalid::value(format!("{at}.terminationGracePeriodSeconds"), &json!(seconds), why));
        }
    }
    if let Some(started) = &container.startup_probe {
        let at = format!("{at}.startupProbe");
        probe(&at, started, errors);
        once(&at, started, errors);
    }
}

fn once(at: &str, probe: &Probe, errors: &mut Vec<Invalid>) {
    if let Some(threshold) = probe.success_threshold.filter(|threshold| *threshold != 1) {
        errors.push(Invalid::value(format!("{at}.successThreshold"), &json!(threshold), "must be 1"));
    }
}

fn probe(at: &str, probe: &Probe, errors: &mut Vec<Invalid>) {
    let mut handlers = Handlers { at, count: 0, errors };
    handlers.exec(probe.exec.as_ref());
    handlers.http_get(probe.http_get.as_ref());
    handlers.tcp_socket(probe.tcp_socket.as_ref());
    if let Some(grpc) = probe.grpc.as_ref().filter(|_| handlers.is_only("grpc")) {
        rules::port(&format!("{at}.grpc.port"), grpc.port, handlers.errors);
    }
    handlers.check_some();
    for (field, number) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        rules::not_negative(&format!("{at}.{field}"), number.map(i64::from), errors);
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|seconds| *seconds <= 0) {
        errors.push(Invalid::value(format!("{at}.terminationGracePeriodSeconds"), &json!(seconds), rules::POSITIVE));
    }
}

pub fn lifecycle(at: &str, lifecycle: Option<&Lifecycle>, grace: i64, errors: &mut Vec<Invalid>) {
    let Some(lifecycle) = lifecycle else { return };
    for (field, handler) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(handler) = handler {
            hook(&format!("{at}.{field}"), handler, grace, errors);
        }
    }
}

fn hook(at: &str, hook: &LifecycleHandler, grace: i64, errors: &mut Vec<Invalid>) {
    let mut handlers = Handlers { at, count: 0, errors };
    handlers.exec(hook.exec.as_ref());
    handlers.http_get(hook.http_get.as_ref());
    handlers.tcp_socket(hook.tcp_socket.as_ref());
    if let Some(sleep) = hook.sleep.as_ref().filter(|_| handlers.is_only("sleep"))
        && !(0..=grace).contains(&sleep.seconds)
    {
        let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        handlers.errors.push(Invalid::value(format!("{at}.sleep"), &json!(sleep.seconds), &why));
    }
    handlers.check_some();
}

/// Of several ways to ask or tell a container exactly one is to be given; the first is checked, the others are refused.
struct Handlers<'a> {
    at: &'a str,
    count: usize,
    errors: &'a mut Vec<Invalid>,
}

impl Handlers<'_> {
    fn is_only(&mut self, field: &str) -> bool {
        self.count += 1;
        if self.count > 1 {
            self.errors.push(Invalid::forbidden(format!("{}.{field}", self.at), TWO_HANDLERS));
        }
        self.count == 1
    }

    fn check_some(&mut self) {
        if self.count == 0 {
            self.errors.push(Invalid::required(self.at, NO_HANDLER));
        }
    }

    fn exec(&mut self, action: Option<&ExecAction>) {
        if let Some(action) = action
            && self.is_only("exec")
            && action.command.as_ref().is_none_or(Vec::is_empty)
        {
            self.errors.push(Invalid::required(format!("{}.exec.command", self.at), ""));
        }
    }

    fn http_get(&mut self, action: Option<&HTTPGetAction>) {
        let Some(action) = action else { return };
        if !self.is_only("httpGet") {
            return;
        }
        let at = format!("{}.httpGet", self.at);
        if action.path.as_deref().unwrap_or("").is_empty() {
            self.errors.push(Invalid::required(format!("{at}.path"), ""));
        }
        rules::port_or_name(&format!("{at}.port"), &action.port, self.errors);
        let schemes = ["HTTP", "HTTPS"];
        rules::one_of(&format!("{at}.scheme"), action.scheme.as_deref(), &schemes, self.errors);
        for header in action.http_headers.iter().flatten() {
            if header.name.is_empty() || !header.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                let why = "a valid HTTP header must consist of alphanumeric characters or '-' \
                           (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
                self.errors.push(Invalid::value(format!("{at}.httpHeaders"), &json!(header.name), why));
            }
        }
    }

    fn tcp_socket(&mut self, action: Option<&TCPSocketAction>) {
        let port: Option<&IntOrString> = action.map(|action| &action.port);
        if let Some(port) = port
            && self.is_only("tcpSocket")
        {
            rules::port_or_name(&format!("{}.tcpSocket.port", self.at), port, self.errors);
        }
    }
}
