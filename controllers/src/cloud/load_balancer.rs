//! Services of type LoadBalancer: each gets a load balancer of the cloud that leads to its node ports.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use slipway_api::{
    core::{LoadBalancerIngress, LoadBalancerStatus, Node, Service},
    jiff::Timestamp,
};
use slipway_cloud::{Error, Listener, LoadBalancer, LoadBalancerState, Protocol, Provider, TAG_OWNER};

use super::{Options, signed};
use crate::{
    caches::Caches,
    plan::{Plan, Step},
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
};

pub const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
const EXCLUDED_NODE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const SCHEME: &str = "service.beta.kubernetes.io/aws-load-balancer-scheme";
const INTERNAL: &str = "service.beta.kubernetes.io/aws-load-balancer-internal";
const SUBNETS: &str = "service.beta.kubernetes.io/aws-load-balancer-subnets";
/// As AWS has it for names.
const NAME_LENGTH_MAX: usize = 32;

pub struct Controller {
    provider: Arc<dyn Provider>,
    options: Arc<Options>,
    /// What was made last, by the Service's uid: nothing is asked of the cloud while that is still what is wanted.
    made: Mutex<HashMap<String, Made>>,
}

#[derive(Clone)]
struct Made {
    wanted: LoadBalancer,
    active: bool,
    at: Timestamp,
}

impl Controller {
    pub fn new(provider: Arc<dyn Provider>, options: Arc<Options>) -> Controller {
        Controller { provider, options, made: Mutex::default() }
    }

    async fn ensure(&self, service: &Service, caches: &Caches, now: Timestamp) -> Plan {
        let mut plan = Plan::nothing();
        if let Some(held) = with_finalizer(service) {
            plan.push(Step::update(service, &held));
            return plan;
        }
        let wanted = wanted(service, caches, self.provider.name());
        if wanted.listeners.is_empty() {
            return plan;
        }
        let made = self.made.lock().get(service.uid()).cloned();
        let resync = signed(self.options.balancer_resync);
        if let Some(made) = &made
            && made.wanted == wanted
            && made.active
            && now.duration_since(made.at) < resync
            && has_ingress(service)
        {
            plan.again_at(now, made.at + resync);
            return plan;
        }
        let news = News::of(made.as_ref().map(|made| &made.wanted), &wanted, service);
        plan.push((news == News::Balancer).then(|| Step::event(service, "EnsuringLoadBalancer", "Ensuring load balancer")));
        match self.provider.ensure_load_balancer(&wanted).await {
            Ok(state) => {
                plan.push(published(service, &state));
                plan.push(match news {
                    News::Balancer => Some(Step::event(service, "EnsuredLoadBalancer", "Ensured load balancer")),
                    News::Nodes => Some(Step::event(service, "UpdatedLoadBalancer", "Updated load balancer with new hosts")),
                    News::Nothing => None,
                });
                plan.again_in(if state.active { self.options.balancer_resync } else { self.options.poll_interval });
                self.made.lock().insert(service.uid().to_owned(), Made { wanted, active: state.active, at: now });
            }
            Err(error) => {
                self.made.lock().remove(service.uid());
                plan.push(failed(service, "SyncLoadBalancerFailed", "ensure", &error));
                plan.again_in(self.options.poll_interval);
            }
        }
        plan
    }

    async fn remove(&self, service: &Service) -> Plan {
        let mut plan = Plan::nothing();
        if !has_finalizer(service) {
            return plan;
        }
        plan.push(Step::event(service, "DeletingLoadBalancer", "Deleting load balancer"));
        self.made.lock().remove(service.uid());
        match self.provider.delete_load_balancer(&name(service.uid())).await {
            Ok(()) => {
                let mut freed = service.clone();
                freed.status.get_or_insert_default().load_balancer = None;
                plan.push(Step::update_status(service, &freed));
                freed.metadata.finalizers.iter_mut().for_each(|finalizers| finalizers.retain(|one| one != FINALIZER));
                plan.push(Step::event(service, "DeletedLoadBalancer", "Deleted load balancer"));
                plan.push(Step::update(service, &freed));
            }
            Err(error) => {
                plan.push(failed(service, "SyncLoadBalancerFailed", "delete", &error));
                plan.again_in(self.options.poll_interval);
            }
        }
        plan
    }
}

/// What there is to tell about a balancer that is made (again).
#[derive(PartialEq, Eq)]
enum News {
    Balancer,
    Nodes,
    Nothing,
}

impl News {
    fn of(old: Option<&LoadBalancer>, new: &LoadBalancer, service: &Service) -> News {
        match old {
            // After a restart, what was made before is not news.
            None if has_ingress(service) => News::Nothing,
            None => News::Balancer,
            Some(old) if (&old.listeners, old.internal) != (&new.listeners, new.internal) => News::Balancer,
            Some(old) if old.targets != new.targets => News::Nodes,
            Some(_) => News::Nothing,
        }
    }
}

fn failed(service: &Service, reason: &'static str, what: &str, error: &Error) -> Step {
    Step::warning(service, reason, format!("Error syncing load balancer: failed to {what} load balancer: {error}"))
}

/// Whether the Service wants a load balancer from here, or still has one.
pub fn is_ours(service: &Service) -> bool {
    has_finalizer(service) || wants_balancer(service)
}

fn wants_balancer(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let kind = spec.and_then(|spec| spec.type_.as_deref());
    let class = spec.and_then(|spec| spec.load_balancer_class.as_deref()).unwrap_or_default();
    kind == Some("LoadBalancer") && class.is_empty() && !service.is_deleted()
}

fn has_finalizer(service: &Service) -> bool {
    service.metadata.finalizers.iter().flatten().any(|one| one == FINALIZER)
}

/// The balancer must not be forgotten: what holds the Service is written before the cloud is asked.
fn with_finalizer(service: &Service) -> Option<Service> {
    (!has_finalizer(service)).then(|| {
        let mut held = service.clone();
        held.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
        held
    })
}

fn has_ingress(service: &Service) -> bool {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.is_some_and(|balancer| balancer.ingress.as_ref().is_some_and(|ingress| !ingress.is_empty()))
}

fn published(service: &Service, state: &LoadBalancerState) -> Option<Step> {
    if state.hostname.is_none() && state.ip.is_none() {
        return None;
    }
    let mut told = service.clone();
    let ingress =
        LoadBalancerIngress { hostname: state.hostname.clone(), ip: state.ip.clone(), ..LoadBalancerIngress::default() };
    told.status.get_or_insert_default().load_balancer = Some(LoadBalancerStatus { ingress: Some(vec![ingress]) });
    Step::update_status(service, &told)
}

/// The name that Kubernetes gives: the uid, in the letters and the length that clouds take.
fn name(uid: &str) -> String {
    let plain = uid.chars().filter(char::is_ascii_alphanumeric);
    std::iter::once('a').chain(plain).take(NAME_LENGTH_MAX).collect()
}

fn wanted(service: &Service, caches: &Caches, provider: &str) -> LoadBalancer {
    let spec = service.spec.clone().unwrap_or_default();
    let listeners = spec.ports.iter().flatten().filter_map(|port| {
        Some(Listener {
            port: u16::try_from(port.port).ok()?,
            protocol: match port.protocol.as_deref() {
                None | Some("" | "TCP") => Protocol::Tcp,
                Some("UDP") => Protocol::Udp,
                Some(_) => return None,
            },
            node_port: u16::try_from(port.node_port?).ok().filter(|port| *port != 0)?,
        })
    });
    let subnets: BTreeSet<String> = match service.annotation(SUBNETS) {
        Some(list) => list.split(',').map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()).collect(),
        None => caches.node_classes.list().iter().flat_map(|class| class.spec.subnets.clone()).collect(),
    };
    let nodes = caches.nodes.list();
    let leaving = |node: &Node| caches.machines.get(&node.key()).is_some_and(|machine| machine.is_deleted());
    let targets = nodes.iter().filter(|node| !leaving(node)).filter_map(|node| target(node, provider));
    LoadBalancer {
        name: name(service.uid()),
        owner: service.uid().to_owned(),
        internal: service.annotation(SCHEME) == Some("internal") || service.annotation(INTERNAL) == Some("true"),
        subnets: subnets.into_iter().collect(),
        listeners: listeners.collect(),
        targets: targets.collect(),
        tags: [
            (TAG_OWNER.to_owned(), service.uid().to_owned()),
            ("kubernetes.io/service-name".to_owned(), format!("{}/{}", service.namespace(), service.name())),
        ]
        .into(),
    }
}

/// The instance id of a node that takes part.
fn target(node: &Node, provider: &str) -> Option<String> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    if !ready || node.is_deleted() || node.label(EXCLUDED_NODE).is_some() {
        return None;
    }
    let id = node.spec.as_ref()?.provider_id.as_deref()?.strip_prefix(provider)?.strip_prefix("://")?;
    id.rsplit('/').next().filter(|id| !id.is_empty()).map(str::to_owned)
}

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "service-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let services = queue.clone();
        caches.services.on_change(move |old, new| {
            if let Some(service) = new.or(old).filter(|service| is_ours(service)) {
                services.add(service.key());
            }
        });
        let (nodes, all) = (queue.clone(), Arc::downgrade(caches));
        let name = self.provider.name();
        caches.nodes.on_change(move |old, new| {
            let target = |node: &Arc<Node>| target(node, name);
            if old.and_then(target) != new.and_then(target)
                && let Some(caches) = all.upgrade()
            {
                caches.services.list().iter().filter(|service| is_ours(service)).for_each(|service| nodes.add(service.key()));
            }
        });
        let (machines, all) = (queue.clone(), Arc::downgrade(caches));
        caches.machines.on_change(move |old, new| {
            let leaves = |machine: &Arc<slipway_api::slipway::Machine>| machine.is_deleted();
            if new.is_some_and(leaves)
                && !old.is_some_and(leaves)
                && let Some(caches) = all.upgrade()
            {
                caches.services.list().iter().filter(|service| is_ours(service)).for_each(|service| machines.add(service.key()));
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let Some(service) = situation.caches.services.get(key) else { return Ok(Plan::nothing()) };
        if wants_balancer(&service) {
            Ok(self.ensure(&service, situation.caches, situation.now).await)
        } else {
            Ok(self.remove(&service).await)
        }
    }
}
