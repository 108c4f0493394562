//! A Machine's life: Pending → Launched → Registered → Ready → Draining → Terminating → gone.
//!
//! [`life`] decides, over what the cluster and the cloud show; here the cloud is asked and its answer becomes a plan.

mod join;
mod life;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use slipway_api::{
    condition::{self, Condition as _},
    core::{Node, Pod, Secret},
    jiff::{SignedDuration, Timestamp},
    pod::Resources,
    slipway::Machine,
};
use slipway_cloud::{Error, Provider};
use tokio::time::Instant;

pub(super) use self::join::NAMESPACE as TOKENS_NAMESPACE;
use self::life::{Next, View};
use super::{
    Options,
    inventory::{Catalogue, Inventory},
    offer, provision, signed,
};
use crate::{
    caches::Caches,
    plan::Plan,
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
};

/// The Machine's conditions.
pub const LAUNCHED: &str = "Launched";
pub const REGISTERED: &str = "Registered";
pub const READY: &str = "Ready";
pub const EMPTY: &str = "Empty";
/// The reason when the cloud did not answer: it is asked again.
pub const UNAVAILABLE: &str = "CloudUnavailable";

pub struct Controller {
    pub provider: Arc<dyn Provider>,
    pub catalogue: Arc<Catalogue>,
    pub inventory: Arc<Inventory>,
    pub options: Arc<Options>,
}

impl Controller {
    async fn launch(&self, view: &View<'_>, token: &Secret) -> Plan {
        let Some(class) = &view.class else { return life::refused(view, &Error::Invalid("its NodeClass is gone".into())) };
        let subnets = match self.catalogue.subnets(&class.spec.subnets).await {
            Ok(subnets) => subnets,
            Err(error) => return life::refused(view, &error),
        };
        let launch = join::launch(view.machine, class, token, &subnets, &self.options);
        match self.provider.launch(&launch).await {
            Ok(instance) => life::launched(view, &instance, self.price(view.machine).await),
            // An answer that was lost may have been a success, with a token that isn't there any more.
            Err(Error::Invalid(why)) => match self.inventory.asked_after(Instant::now()).await {
                Ok(seen) => match seen.owned_by(view.machine.uid()) {
                    Some(instance) => life::launched(view, instance, self.price(view.machine).await),
                    None => life::refused(view, &Error::Invalid(why)),
                },
                Err(error) => life::refused(view, &error),
            },
            Err(error) => life::refused(view, &error),
        }
    }

    async fn price(&self, machine: &Machine) -> Option<f64> {
        let types = self.catalogue.types(std::slice::from_ref(&machine.spec.instance_type)).await.ok()?;
        types.first().map(|known| known.price_per_hour)
    }

    /// Ends the machine in the cloud, also one whose launch was never answered.
    async fn terminate(&self, view: &View<'_>) -> Plan {
        let ended = async {
            let seen = self.inventory.asked_after(Instant::now()).await?;
            let Some(instance) = seen.owned_by(view.machine.uid()) else { return Ok(true) };
            if instance.state != slipway_cloud::InstanceState::Stopping {
                self.provider.terminate(&instance.id).await?;
            }
            let seen = self.inventory.asked_after(Instant::now()).await?;
            Ok(seen.owned_by(view.machine.uid()).is_none())
        };
        match ended.await {
            Ok(true) => life::gone(view),
            Ok(false) => Plan { again_in: Some(self.options.poll_interval), ..Plan::default() },
            Err(error) => life::not_terminated(view, &error),
        }
    }
}

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "slipway-machine-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let (machines, nodes, pods, secrets) = (queue.clone(), queue.clone(), queue.clone(), queue.clone());
        caches.machines.on_change(move |_, new| machines.extend(new.map(|machine| machine.key())));
        caches.nodes.on_change(move |old, new| nodes.extend(new.or(old).map(|node| node.key())));
        caches.pods.on_change(move |old, new| {
            let gist = |pod: &Arc<Pod>| (crate::pods::node(pod).to_owned(), crate::pods::is_terminal(pod));
            let (old, new) = (old.map(gist), new.map(gist));
            if old != new {
                let names = [old, new].into_iter().flatten().map(|(node, _)| node).filter(|node| !node.is_empty());
                pods.extend(names.map(|node| Key::new("", node)));
            }
        });
        caches.bootstrap_secrets.on_change(move |old, new| {
            let owner = new.or(old).and_then(|secret| secret.label(slipway_api::slipway::LABEL_MACHINE).map(str::to_owned));
            secrets.extend(owner.map(|machine| Key::new("", machine)));
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let caches = situation.caches;
        let Some(machine) = caches.machines.get(key) else { return Ok(Plan::nothing()) };
        let seen = self.inventory.not_older_than(self.options.sweep_interval).await.ok();
        let node = caches.nodes.get(key);
        let view = View {
            machine: &machine,
            node: node.as_deref(),
            pods: caches.pods.indexed(&key.name),
            pool: caches.node_pools.get(&Key::new("", &machine.spec.node_pool)),
            class: caches.node_classes.get(&Key::new("", &machine.spec.node_class_ref.name)),
            token: join::token_of(&machine, caches),
            wanted: node
                .as_deref()
                .is_some_and(|node| is_wanted(&machine, node, caches, situation.now, signed(self.options.settle))),
            seen,
            now: situation.now,
            options: &self.options,
        };
        let mut plan = match life::next(&view) {
            Next::Plan(plan) => plan,
            Next::MakeToken => join::make_token(&view, &join::random_token()),
            Next::Launch(token) => self.launch(&view, &token).await,
            Next::Terminate => self.terminate(&view).await,
        };
        // What happens to the machine in the cloud is nothing that the caches tell.
        plan.again_in(self.options.sweep_interval);
        Ok(plan)
    }
}

/// Whether some waiting pod may be about to come to the node: one that it was bought for, or one that the scheduler has not
/// been refusing for long.
fn is_wanted(machine: &Machine, node: &Node, caches: &Caches, now: Timestamp, settle: SignedDuration) -> bool {
    let meant = provision::meant_for(machine);
    let expected = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
        let refused = condition::get(conditions, "PodScheduled").filter(|scheduled| scheduled.status == "False");
        let since = refused.and_then(|refused| refused.last_transition());
        meant.contains(pod.uid()) || since.is_none_or(|since| now.duration_since(since) < settle)
    };
    let waits = |pod: &Pod| crate::pods::is_active(pod) && crate::pods::node(pod).is_empty() && !provision::is_daemon(pod);
    let room = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let room = Resources::from_list(room);
    caches.pods.list().into_iter().filter(|pod| waits(pod) && expected(pod)).any(|pod| {
        let wanted = offer::Wanted::of(pod);
        offer::admits(node, &wanted) && offer::has_room(&room, &wanted.requests)
    })
}
