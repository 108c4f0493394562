//! The machines and load balancers that the cluster buys: what pods need is bought, what nobody needs is given back.
//!
//! Every Machine is written down before the cloud is asked ([`provision`]), and stays until the cloud has taken the machine
//! back ([`machine`]). What no object owns is found by its tag and removed ([`sweep`]).

mod inventory;
mod load_balancer;
mod machine;
mod offer;
mod provision;
mod provisioner;
mod sweep;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use slipway_api::{jiff::SignedDuration, slipway::Machine};
use slipway_cloud::Provider;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::inventory::{Catalogue, Inventory};
use crate::{
    apply::Writer,
    caches::{Caches, Selection},
    recorder::Recorder,
    resource::Resource,
    run::{Controller, Running},
};

/// The kinds that are watched here.
const KINDS: &[&str] = &["pods", "nodes", "services", "secrets", "daemonsets", "nodeclasses", "nodepools", "machines"];

/// How the cloud is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster's name: the tag on everything that is bought.
    pub cluster: String,
    /// Where new machines join, as `https://10.0.0.5:6443`.
    pub join_server: String,
    /// The certificate authority that new machines trust.
    pub ca_pem: String,
    /// Pods that come within this time are bought for together.
    pub batch_window: Duration,
    /// So long after a node became ready its room counts as taken by the pods that it was bought for.
    pub settle: Duration,
    /// How often the cloud is asked what there is.
    pub sweep_interval: Duration,
    /// How often it is asked while it is at work for us.
    pub poll_interval: Duration,
    /// A machine that is no ready node by then is given back. Its bootstrap token lives as long.
    pub registration_max: Duration,
    /// A machine that still has pods by then, because disruption budgets hold them, is terminated all the same.
    pub drain_max: Duration,
    /// So long a Machine that could not be launched is kept: meanwhile its instance type is not tried again.
    pub refusal_kept: Duration,
    /// Clouds take a while to show a new machine; before that, one that isn't shown isn't lost.
    pub visible_after: Duration,
    /// How often a load balancer is compared with its Service although nothing has changed.
    pub balancer_resync: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cluster: "slipway".into(),
            join_server: String::new(),
            ca_pem: String::new(),
            batch_window: Duration::from_secs(1),
            settle: Duration::from_secs(30),
            sweep_interval: Duration::from_secs(60),
            poll_interval: Duration::from_secs(5),
            registration_max: Duration::from_secs(900),
            drain_max: Duration::from_secs(900),
            refusal_kept: Duration::from_secs(180),
            visible_after: Duration::from_secs(60),
            balancer_resync: Duration::from_secs(600),
        }
    }
}

/// Buys and returns machines and load balancers until `shutdown`. It can be stopped at any point and started again.
pub async fn run(client: kube::Client, provider: Arc<dyn Provider>, options: Options, shutdown: CancellationToken) {
    let caches = Arc::new(Caches::default());
    let options = Arc::new(options);
    let catalogue = Arc::new(Catalogue::new(provider.clone()));
    let inventory = Arc::new(Inventory::new(provider.clone()));
    let controllers: Vec<Arc<dyn Controller>> = vec![
        Arc::new(provisioner::Controller::new(catalogue.clone(), options.clone())),
        Arc::new(machine::Controller {
            provider: provider.clone(),
            catalogue: catalogue.clone(),
            inventory: inventory.clone(),
            options: options.clone(),
        }),
        Arc::new(sweep::Controller::new(provider.clone(), inventory, options.clone())),
        Arc::new(load_balancer::Controller::new(provider, options)),
    ];
    let running: Vec<Arc<Running>> = controllers.into_iter().map(|one| Running::new(one, &caches)).collect();
    let recorder = Recorder::start(client.clone(), shutdown.clone());
    let writer = Arc::new(Writer { client: client.clone(), recorder });
    let mut tasks = tokio::task::JoinSet::new();
    crate::start_caches(&client, &caches, is_watched, &mut tasks, &shutdown);
    if shutdown.run_until_cancelled(crate::synced(&caches, is_watched)).await.is_some() {
        info!("the caches are filled; the cloud's controllers start");
        for one in running {
            tasks.spawn(one.work(caches.clone(), writer.clone(), shutdown.clone()));
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Of Secrets only those with which machines join: the cloud's controllers may not read others.
fn is_watched(resource: &Resource, selection: &Selection) -> bool {
    let plural = resource.plural.as_ref();
    KINDS.contains(&plural) && (plural != "secrets" || selection.namespace == machine::TOKENS_NAMESPACE)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// Why the cloud would not make this machine, if that is final.
fn refusal(machine: &Machine) -> Option<&str> {
    let status = machine.status.as_ref()?;
    if status.provider_id.is_some() {
        return None;
    }
    let launched = slipway_api::condition::get(Some(&status.conditions), machine::LAUNCHED)?;
    (launched.status == "False" && launched.reason != machine::UNAVAILABLE).then_some(launched.reason.as_str())
}
