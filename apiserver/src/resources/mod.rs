//! The built-in kinds: one file each. This file is only the list.

use crate::kind::{Builtin, Kind, Strategy};
use std::sync::Arc;

mod config_map;
mod deployment;
mod endpoint_slice;
mod endpoints;
pub mod event;
mod fill;
mod lease;
mod namespace;
mod node;
pub mod pod;
mod pod_template;
mod replica_set;
mod rules;
mod secret;
mod service;
mod service_account;
mod show;

pub fn builtin() -> Vec<Arc<dyn Strategy>> {
    vec![
        kind::<namespace::Namespace>(),
        kind::<pod::Pod>(),
        kind::<service::Service>(),
        kind::<endpoints::Endpoints>(),
        kind::<config_map::ConfigMap>(),
        kind::<secret::Secret>(),
        kind::<service_account::ServiceAccount>(),
        kind::<node::Node>(),
        kind::<event::core::Event>(),
        kind::<event::events::Event>(),
        kind::<deployment::Deployment>(),
        kind::<replica_set::ReplicaSet>(),
        kind::<endpoint_slice::EndpointSlice>(),
        kind::<lease::Lease>(),
    ]
}

fn kind<K: Kind>() -> Arc<dyn Strategy> {
    Arc::new(Builtin::<K>::new())
}
