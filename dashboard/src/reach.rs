//! Where the nodes' ports are reached from this browser.

use crate::api;
use crate::live::Lifetime;
use crate::session::session;
use gloo_timers::future::TimeoutFuture;
use leptos::prelude::*;
use leptos::task::spawn_local;
use slipway_dashboard_model::{self as model, Objects};
use std::sync::Arc;

/// As many nodes as are looked at: one that is reached is enough.
const NODES_MAX: u32 = 50;
const RETRY_MS: u32 = 5_000;

#[derive(Clone, Copy)]
struct Reach(RwSignal<Option<String>>);

/// Looks for a node until there is one. Who may not see nodes is left with the host that the page came from.
pub fn provide() {
    let reach = Reach(RwSignal::new(None));
    provide_context(reach);
    let (session, alive) = (session(), Lifetime::of_owner());
    spawn_local(async move {
        while alive.goes_on() {
            match api::request(session, "GET", &format!("/api/v1/nodes?limit={NODES_MAX}"), None).await {
                Ok(list) => {
                    let nodes = list["items"].as_array().cloned().unwrap_or_default();
                    let nodes: Objects = nodes.into_iter().map(|node| (model::key(&node), Arc::new(node))).collect();
                    if let Some(host) = model::node_host(&nodes, &own_host()) {
                        reach.0.try_set(Some(host));
                        return;
                    }
                }
                Err(failure) if failure.code == 403 => return,
                Err(_) => {}
            }
            TimeoutFuture::new(RETRY_MS).await;
        }
    });
}

pub fn node_host() -> String {
    expect_context::<Reach>().0.get().unwrap_or_else(own_host)
}

fn own_host() -> String {
    web_sys::window().and_then(|window| window.location().hostname().ok()).unwrap_or_default()
}
