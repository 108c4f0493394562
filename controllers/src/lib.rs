//! The controllers: each compares what is asked for with what there is, and plans the steps between the two.
//!
//! A controller is a pure `plan` over the shared caches ([`caches`]); [`apply`] alone writes, and [`run`] decides what is
//! planned when. See `docs/adding-a-controller.md`.

mod access;
pub mod apply;
pub mod cache;
pub mod caches;
pub mod cloud;
pub mod leader;
pub mod plan;
pub mod queue;
pub mod recorder;
pub mod reflect;
pub mod resource;
pub mod run;

mod certificate;
mod claim;
mod cluster_role_aggregation;
mod cron_job;
mod daemon_set;
mod deployment;
mod discovery;
mod disruption;
mod endpoint_slice;
mod endpoints;
mod garbage_collector;
mod history;
mod horizontal_pod_autoscaler;
mod job;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod pod_gc;
mod pods;
mod replica_set;
mod replication_controller;
mod resource_quota;
mod root_ca;
mod service_account;
mod service_ports;
mod stateful_set;
mod taint_eviction;
mod token_cleaner;
mod tokens;
mod ttl;
mod volume_protection;

#[cfg(test)]
mod testing;

use std::{sync::Arc, time::Duration};

use slipway_api::jiff::SignedDuration;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    apply::Writer,
    caches::{Caches, Selection},
    recorder::Recorder,
    reflect::Collection,
    resource::Resource,
    run::{Controller, Running},
};

/// How the controllers behave; `Default` is as Kubernetes does.
#[derive(Clone, Debug)]
pub struct Options {
    /// Certificate and key (PEM) that sign certificate requests; without them none is signed.
    pub cluster_ca: Option<(String, String)>,
    /// Signs the tokens that lie in Secrets (EC P-256, PKCS#8); without it none is made.
    pub service_account_key_pem: Option<String>,
    /// What pods find in `kube-root-ca.crt`.
    pub root_ca_pem: String,
    /// Each node gets a part of it, `node_cidr_mask` bits wide.
    pub pod_cidr: String,
    pub node_cidr_mask: u8,
    /// So long a node may be silent before it counts as lost.
    pub node_monitor_grace_period: Duration,
    /// The same for a node that has never been heard of.
    pub node_startup_grace_period: Duration,
    /// So many ended pods are kept.
    pub terminated_pods_max: usize,
}

impl Options {
    fn node_grace(&self) -> node_lifecycle::Grace {
        let signed = |period: Duration| SignedDuration::from_secs(i64::try_from(period.as_secs()).unwrap_or(i64::MAX));
        node_lifecycle::Grace {
            heard_once: signed(self.node_monitor_grace_period),
            never_heard: signed(self.node_startup_grace_period),
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cluster_ca: None,
            service_account_key_pem: None,
            root_ca_pem: String::new(),
            pod_cidr: "10.244.0.0/16".into(),
            node_cidr_mask: 24,
            node_monitor_grace_period: Duration::from_secs(40),
            node_startup_grace_period: Duration::from_secs(60),
            terminated_pods_max: 12_500,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0:?} is not an IPv4 range such as 10.244.0.0/16")]
    PodCidr(String),
    #[error("the certificate authority cannot be used")]
    Authority(#[source] rcgen::Error),
    #[error("the service accounts' key cannot be used: {0}")]
    ServiceAccountKey(String),
}

/// Runs all controllers until `shutdown`. It can be stopped at any point and started again elsewhere.
pub async fn run(client: kube::Client, options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let caches = Arc::new(Caches::default());
    let authority = options.cluster_ca.as_ref();
    let signer = authority.map(|(certificate, key)| certificate::Signer::new(certificate, key)).transpose();
    let signer = signer.map_err(Error::Authority)?;
    let garbage_collector = garbage_collector::Controller::new(client.clone());
    let monitor = garbage_collector.monitor(caches.clone());
    let resource_quota = resource_quota::Controller::new();
    let counting = resource_quota.monitor(client.clone(), caches.clone());
    let controllers: Vec<Arc<dyn Controller>> = vec![
        Arc::new(garbage_collector),
        Arc::new(namespace::Controller { client: client.clone() }),
        Arc::new(deployment::Controller),
        Arc::new(replica_set::Controller),
        Arc::new(replication_controller::Controller),
        Arc::new(daemon_set::Controller),
        Arc::new(stateful_set::Controller),
        Arc::new(job::Controller),
        Arc::new(cron_job::Controller),
        Arc::new(horizontal_pod_autoscaler::Controller::new(horizontal_pod_autoscaler::Api(client.clone()))),
        Arc::new(endpoint_slice::Controller),
        Arc::new(endpoints::Controller),
        Arc::new(service_account::Controller),
        Arc::new(root_ca::Controller { pem: options.root_ca_pem.clone() }),
        Arc::new(node_lifecycle::Controller::new(options.node_grace())),
        Arc::new(taint_eviction::Controller),
        Arc::new(pod_gc::Controller::new(client.clone(), options.terminated_pods_max)),
        Arc::new(disruption::Controller),
        Arc::new(resource_quota),
        Arc::new(volume_protection::Claims),
        Arc::new(volume_protection::Volumes),
        Arc::new(token_cleaner::Controller),
        Arc::new(tokens::Controller::new(options.service_account_key_pem.as_deref(), &options.root_ca_pem)?),
        Arc::new(cluster_role_aggregation::Controller),
        Arc::new(ttl::Controller),
        Arc::new(certificate::Controller { signer, access: Box::new(access::Api(client.clone())) }),
        Arc::new(node_ipam::Controller::new(&options.pod_cidr, options.node_cidr_mask)?),
    ];
    let running: Vec<Arc<Running>> = controllers.into_iter().map(|one| Running::new(one, &caches)).collect();
    let recorder = Recorder::start(client.clone(), shutdown.clone());
    let writer = Arc::new(Writer { client: client.clone(), recorder });

    let mut tasks = tokio::task::JoinSet::new();
    start_caches(&client, &caches, |_, _| true, &mut tasks, &shutdown);
    tasks.spawn(monitor.run(shutdown.clone()));
    tasks.spawn(counting.run(shutdown.clone()));
    if shutdown.run_until_cancelled(synced(&caches, |_, _| true)).await.is_some() {
        info!(controllers = running.len(), "the caches are filled; the controllers start");
        for one in running {
            tasks.spawn(one.work(caches.clone(), writer.clone(), shutdown.clone()));
        }
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// Which caches somebody needs.
type Wanted = fn(&Resource, &Selection) -> bool;

/// Watches what `wanted` chooses.
fn start_caches(
    client: &kube::Client,
    caches: &Arc<Caches>,
    wanted: Wanted,
    tasks: &mut tokio::task::JoinSet<()>,
    shutdown: &CancellationToken,
) {
    for (index, (cache, selection)) in caches.all().into_iter().enumerate() {
        if !wanted(cache.resource(), &selection) {
            continue;
        }
        let collection = Collection {
            path: cache.resource().collection(selection.namespace),
            field_selector: selection.field_selector,
            form: reflect::Form::Whole,
        };
        let (client, caches, shutdown) = (client.clone(), caches.clone(), shutdown.clone());
        tasks.spawn(async move {
            let sink = caches.all()[index].0;
            reflect::reflect(client, collection, sink, shutdown).await;
        });
    }
}

async fn synced(caches: &Caches, wanted: Wanted) {
    for (cache, _) in caches.all().into_iter().filter(|(cache, selection)| wanted(cache.resource(), selection)) {
        let _ = cache.synced().wait_for(|synced| *synced).await;
    }
}
