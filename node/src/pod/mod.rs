//! Pods: what to run, running it, and telling the API server of it.

pub mod allocation;
pub mod cgroup;
pub mod config;
pub mod environment;
pub mod hosts;
pub mod image;
pub mod lifecycle;
pub mod memory;
pub mod observed;
pub mod plan;
pub mod security;
pub mod start;
pub mod status;
pub mod termination;
pub mod worker;
pub mod workers;

use crate::event::Recorder;
use crate::objects::Objects;
use crate::runtime::Runtime;
use crate::{Options, volume};
use parking_lot::RwLock;
use slipway_api::core::Pod;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What the workers of all pods share.
pub struct Context {
    pub options: Options,
    pub runtime: Arc<dyn Runtime>,
    pub objects: Objects,
    pub recorder: Recorder,
    pub images: image::Images,
    pub tokens: volume::Tokens,
    pub cgroups: cgroup::Cgroups,
    pub allocations: allocation::Allocations,
    /// Of this node, by resource.
    pub allocatable: RwLock<BTreeMap<String, String>>,
}

impl Context {
    pub fn allocatable(&self, resource: &str) -> Option<String> {
        self.allocatable.read().get(resource).cloned()
    }

    /// What there is for pods of what they can be resized in.
    pub fn room(&self) -> slipway_api::pod::Resources {
        let text = |name: &str| {
            Some((name.to_owned(), k8s_openapi::apimachinery::pkg::api::resource::Quantity(self.allocatable(name)?)))
        };
        let list = ["cpu", "memory"].into_iter().filter_map(text).collect();
        slipway_api::pod::Resources::from_list(Some(&list))
    }

    /// Where a pod's files are.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.options.data_dir.join("pods").join(uid)
    }

    pub fn log_dir(&self, pod: &Pod) -> PathBuf {
        let meta = &pod.metadata;
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        self.options.data_dir.join("logs").join(format!("{}_{}_{}", part(&meta.namespace), part(&meta.name), part(&meta.uid)))
    }
}
