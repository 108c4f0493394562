//! Finds by their tags the machines and load balancers that no object owns any more, and removes them.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use slipway_cloud::{Error, Provider};
use tracing::{info, warn};

use super::{Options, inventory::Inventory, load_balancer};
use crate::{
    caches::Caches,
    plan::Plan,
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
};

const ALL: &str = "cloud";

pub struct Controller {
    provider: Arc<dyn Provider>,
    inventory: Arc<Inventory>,
    options: Arc<Options>,
    /// What nobody owned the last time. The caches may lag behind the cloud, but not for a whole interval.
    suspects: Mutex<BTreeSet<Stray>>,
}

/// Something that costs money and that no object accounts for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stray {
    Instance(String),
    LoadBalancer(String),
}

impl Controller {
    pub fn new(provider: Arc<dyn Provider>, inventory: Arc<Inventory>, options: Arc<Options>) -> Controller {
        Controller { provider, inventory, options, suspects: Mutex::default() }
    }

    async fn sweep(&self, caches: &Caches) -> Result<(), Error> {
        let seen = self.inventory.not_older_than(self.options.sweep_interval / 2).await?;
        let balancers = self.provider.load_balancers().await?;
        let machines: BTreeSet<String> = caches.machines.list().iter().map(|machine| machine.uid().to_owned()).collect();
        let services: BTreeSet<String> = caches
            .services
            .list()
            .iter()
            .filter(|service| load_balancer::is_ours(service))
            .map(|service| service.uid().to_owned())
            .collect();
        let instances = seen.instances.iter().filter_map(|instance| Some((instance.id.clone(), instance.owner.clone()?)));
        let strays = strays(instances.collect(), balancers, &machines, &services);
        let before = std::mem::replace(&mut *self.suspects.lock(), strays.clone());
        let mut outcome = Ok(());
        for stray in strays.intersection(&before) {
            warn!(?stray, "nobody owns it any more; it is removed");
            let removed = match stray {
                Stray::Instance(id) => self.provider.terminate(id).await,
                Stray::LoadBalancer(name) => self.provider.delete_load_balancer(name).await,
            };
            // One that cannot be removed must not keep the others.
            outcome = outcome.and(removed);
        }
        outcome
    }
}

/// What carries the uid of an owner that isn't there. What has no owner's tag was made by somebody else.
fn strays(
    instances: Vec<(String, String)>,
    balancers: Vec<(String, String)>,
    machines: &BTreeSet<String>,
    services: &BTreeSet<String>,
) -> BTreeSet<Stray> {
    let instances = instances.into_iter().filter(|(_, owner)| !machines.contains(owner)).map(|(id, _)| Stray::Instance(id));
    let balancers =
        balancers.into_iter().filter(|(_, owner)| !services.contains(owner)).map(|(name, _)| Stray::LoadBalancer(name));
    instances.chain(balancers).collect()
}

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "slipway-cloud-sweep"
    }

    fn watch(&self, _: &Arc<Caches>, queue: &Arc<Queue>) {
        queue.add(Key::new("", ALL));
    }

    async fn plan(&self, _: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        if let Err(error) = self.sweep(situation.caches).await {
            info!(%error, "the sweep of the cloud is left for later");
        }
        Ok(Plan { again_in: Some(self.options.sweep_interval), ..Plan::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_owns_is_found_and_nothing_else() {
        let text = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
        let found = strays(
            text(&[("i-1", "m1"), ("i-2", "gone")]),
            text(&[("a1", "s1"), ("a2", "gone")]),
            &["m1".to_owned()].into(),
            &["s1".to_owned()].into(),
        );
        assert_eq!(found, [Stray::Instance("i-2".into()), Stray::LoadBalancer("a2".into())].into());
    }
}
