//! Forgets UDP connections that lead to endpoints which are gone.
//!
//! Rules are asked only for the first packet of a connection. A UDP client that goes on sending from one port would
//! reach the old endpoint for ever.

use super::model::{Front, Model, Protocol};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use tokio::process::Command;

/// One kind of connection to delete: to whom it was sent, and who was to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    to: Ipv4Addr,
    port: u16,
    answers: Ipv4Addr,
    answers_port: u16,
}

/// A line of `conntrack -L -p udp`: two tuples, the original direction first.
fn parse(line: &str) -> Option<Flow> {
    let all = |name: &str| line.split_whitespace().filter_map(|word| word.strip_prefix(name)).collect::<Vec<_>>();
    let (to, port) = (all("dst="), all("dport="));
    let (answers, answers_port) = (all("src="), all("sport="));
    Some(Flow {
        to: to.first()?.parse().ok()?,
        port: port.first()?.parse().ok()?,
        answers: answers.get(1)?.parse().ok()?,
        answers_port: answers_port.get(1)?.parse().ok()?,
    })
}

/// Those of the listed connections that go to one of our fronts, but not to one of its present targets.
pub fn stale(listed: &str, model: &Model) -> BTreeSet<Flow> {
    let is_stale = |flow: &Flow| {
        let protocol = Protocol::Udp;
        let address = Front::Address { ip: flow.to, protocol, port: flow.port };
        let rewritten = flow.answers != flow.to;
        let route = model.routes.get(&address).or_else(|| {
            // Without rewriting it may be a connection to some other machine's port of that number.
            model.routes.get(&Front::Node { protocol, port: flow.port }).filter(|_| rewritten)
        });
        let Some(route) = route else {
            // A Service's address that has lost this port; other destinations are none of ours.
            return rewritten && model.cluster_ips.contains(&flow.to);
        };
        let mut targets = route.targets.iter().chain(route.local.iter().flat_map(|local| local.iter()));
        !targets.any(|target| target.ip == flow.answers && target.port == flow.answers_port)
    };
    listed.lines().filter_map(parse).filter(is_stale).collect()
}

/// Deletes the stale connections of `model`. Gone Services' are deleted as far as `old` knew them.
pub async fn clean(old: Option<&Model>, model: &Model) {
    let Ok(output) = Command::new("conntrack").args(["-L", "-p", "udp"]).kill_on_drop(true).output().await else {
        tracing::warn!("conntrack is not installed: UDP clients may go on talking to endpoints that are gone");
        return;
    };
    let listed = String::from_utf8_lossy(&output.stdout);
    let mut flows = stale(&listed, model);
    if let Some(old) = old {
        let gone = |flow: &Flow| {
            let protocol = Protocol::Udp;
            let fronts = [Front::Address { ip: flow.to, protocol, port: flow.port }, Front::Node { protocol, port: flow.port }];
            flow.answers != flow.to
                && fronts.iter().any(|front| old.routes.contains_key(front) && !model.routes.contains_key(front))
        };
        flows.extend(listed.lines().filter_map(parse).filter(gone));
    }
    for flow in flows {
        let (to, port, answers, answers_port) =
            (flow.to.to_string(), flow.port.to_string(), flow.answers.to_string(), flow.answers_port.to_string());
        let arguments = ["-D", "-p", "udp", "-d", &to, "--dport", &port, "-r", &answers, "--reply-port-src", &answers_port];
        match Command::new("conntrack").args(arguments).kill_on_drop(true).output().await {
            // It also fails when the connection has just ended by itself.
            Ok(_) => tracing::debug!(?flow, "deleted stale UDP connections"),
            Err(error) => tracing::warn!(%error, ?flow, "cannot delete stale UDP connections"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::model::{Entry, Route, Target};
    use std::sync::Arc;

    #[test]
    fn finds_flows_to_endpoints_that_are_gone() {
        let ip = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        let route = Arc::new(Route {
            service: "default/dns:udp".into(),
            entry: Entry::Cluster,
            targets: [Target { ip: ip("10.244.1.5"), port: 53 }].into(),
            local: None,
            elsewhere: false,
            affinity: None,
            sources: [].into(),
        });
        let mut model = Model::default();
        model.routes.insert(Front::Address { ip: ip("10.96.0.10"), protocol: Protocol::Udp, port: 53 }, route.clone());
        model.routes.insert(Front::Node { protocol: Protocol::Udp, port: 30053 }, route);
        let listed = "\
udp      17 25 src=10.244.1.9 dst=10.96.0.10 sport=4000 dport=53 src=10.244.1.5 dst=10.244.1.9 sport=53 dport=4000 mark=0 use=1
udp      17 25 src=10.244.1.9 dst=10.96.0.10 sport=4001 dport=53 [UNREPLIED] src=10.244.1.6 dst=10.244.1.9 sport=53 dport=4001 use=1
udp      17 25 src=10.244.1.9 dst=10.96.0.10 sport=4002 dport=53 src=10.96.0.10 dst=10.244.1.9 sport=53 dport=4002 use=1
udp      17 25 src=10.0.0.9 dst=10.0.0.1 sport=4003 dport=30053 src=10.244.1.7 dst=10.0.0.1 sport=53 dport=4003 use=1
udp      17 25 src=10.0.0.1 dst=8.8.8.8 sport=4004 dport=30053 src=8.8.8.8 dst=10.0.0.1 sport=30053 dport=4004 use=1
";
        let answers: Vec<String> = stale(listed, &model).iter().map(|flow| flow.answers.to_string()).collect();
        assert_eq!(answers, ["10.244.1.7", "10.96.0.10", "10.244.1.6"]);
    }
}
