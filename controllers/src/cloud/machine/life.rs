//! What to do next for a Machine: the pure part.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use slipway_api::{
    condition::{self, Condition as _},
    core::{Node, NodeAddress, Pod, Secret},
    jiff::{SignedDuration, Timestamp},
    meta::Time,
    slipway::{FINALIZER, LABEL_MACHINE, Machine, MachinePhase, MachineStatus, NodeClass, NodePool},
};
use slipway_cloud::{Error, Instance, InstanceState};

use super::{
    super::{Options, inventory::Seen, provision::is_daemon, refusal, signed},
    EMPTY, LAUNCHED, READY, REGISTERED, UNAVAILABLE,
};
use crate::{
    plan::{Plan, Step},
    resource::Object,
};

const EMPTY_AFTER_SECONDS: i64 = 60;
const MIRROR: &str = "kubernetes.io/config.mirror";

/// All that is known of a machine.
pub struct View<'a> {
    pub machine: &'a Machine,
    pub node: Option<&'a Node>,
    /// On the node.
    pub pods: Vec<Arc<Pod>>,
    pub pool: Option<Arc<NodePool>>,
    pub class: Option<Arc<NodeClass>>,
    pub token: Option<Arc<Secret>>,
    /// A pod that waits could run on the node.
    pub wanted: bool,
    /// What the cloud said last.
    pub seen: Option<Seen>,
    pub now: Timestamp,
    pub options: &'a Options,
}

pub enum Next {
    Plan(Plan),
    MakeToken,
    Launch(Arc<Secret>),
    Terminate,
}

impl View<'_> {
    fn status(&self) -> MachineStatus {
        self.machine.status.clone().unwrap_or_default()
    }

    /// The node, unless it is another machine's that has taken the name.
    fn own_node(&self) -> Option<&Node> {
        let mine = self.machine.status.as_ref().and_then(|status| status.provider_id.as_deref());
        self.node.filter(|node| {
            let said = node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref()).filter(|id| !id.is_empty());
            said.is_none() || said == mine
        })
    }

    /// Pods that have to go elsewhere before the machine can be given back.
    fn tenants(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|pod| !is_daemon(pod) && pod.annotation(MIRROR).is_none() && !crate::pods::is_terminal(pod))
    }

    /// Whether the cloud has lost a machine that it had.
    fn is_lost(&self) -> bool {
        let Some(launched) = self.machine.status.as_ref().and_then(|status| status.launched_at.as_ref()) else { return false };
        self.seen.as_ref().is_some_and(|seen| {
            let visible = seen.at.duration_since(launched.0) >= signed(self.options.visible_after);
            match seen.owned_by(self.machine.uid()) {
                None => visible,
                Some(instance) => matches!(instance.state, InstanceState::Stopping | InstanceState::Terminated),
            }
        })
    }

    fn update(&self, change: impl FnOnce(&mut MachineStatus)) -> Option<Step> {
        let mut machine = self.machine.clone();
        change(machine.status.get_or_insert_default());
        Step::update_status(self.machine, &machine)
    }
}

pub fn next(view: &View<'_>) -> Next {
    let machine = view.machine;
    if machine.is_deleted() {
        return if machine.metadata.finalizers.iter().flatten().any(|one| one == FINALIZER) { leave(view) } else { nothing() };
    }
    if !machine.metadata.finalizers.iter().flatten().any(|one| one == FINALIZER) {
        let mut held = machine.clone();
        held.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
        return Next::Plan(Plan { steps: Step::update(machine, &held).into_iter().collect(), again_in: None });
    }
    if view.status().provider_id.is_none() {
        return before_launch(view);
    }
    Next::Plan(if view.is_lost() { give_up(view, "InstanceGone", "the cloud has no such machine any more") } else { join(view) })
}

fn nothing() -> Next {
    Next::Plan(Plan::nothing())
}

fn before_launch(view: &View<'_>) -> Next {
    if refusal(view.machine).is_some() {
        return Next::Plan(forget(view));
    }
    if view.class.is_none() {
        return Next::Plan(refused(
            view,
            &Error::Invalid(format!("there is no NodeClass {}", view.machine.spec.node_class_ref.name)),
        ));
    }
    match &view.token {
        Some(token) => Next::Launch(token.clone()),
        None => Next::MakeToken,
    }
}

/// A Machine that the cloud refused stays for a while: as long as it does, the same is not tried again.
fn forget(view: &View<'_>) -> Plan {
    let mut plan = Plan::nothing();
    let status = view.status();
    let refused = condition::get(Some(&status.conditions), LAUNCHED).and_then(|launched| launched.last_transition());
    let until = refused.unwrap_or(view.now) + signed(view.options.refusal_kept);
    if until <= view.now {
        plan.push(Step::delete(view.machine, "it could not be launched"));
    } else {
        plan.again_at(view.now, until);
    }
    plan
}

pub fn launched(view: &View<'_>, instance: &Instance, price: Option<f64>) -> Plan {
    let mut plan = Plan::nothing();
    plan.push(view.update(|status| {
        status.phase = MachinePhase::Launched;
        status.provider_id = Some(instance.provider_id.clone());
        status.node_name = Some(view.machine.name().to_owned());
        status.launched_at = Some(Time(view.now));
        let address = |ip: &String| NodeAddress { type_: "InternalIP".into(), address: ip.clone() };
        status.addresses = instance.private_ip.iter().map(address).collect();
        status.price = price.map(|price| Quantity(price.to_string()));
        condition::set_in(&mut status.conditions, LAUNCHED, "True", "Launched", "", view.now);
    }));
    plan.push(Step::event(view.machine, "Launched", format!("Launched {} as {}", instance.instance_type, instance.provider_id)));
    plan
}

/// The cloud did not make the machine: it is asked again, or (if it has refused) another is tried in its place.
pub fn refused(view: &View<'_>, error: &Error) -> Plan {
    let mut plan = Plan::nothing();
    let (reason, message) = (error.reason(), error.to_string());
    let step = view.update(|status| {
        condition::set_in(&mut status.conditions, LAUNCHED, "False", reason, &message, view.now);
    });
    if step.is_some() {
        plan.push(Step::warning(view.machine, reason, message.clone()));
    }
    plan.push(step);
    plan.again_in(if reason == UNAVAILABLE { view.options.poll_interval } else { view.options.refusal_kept });
    plan
}

/// From the launch to a node that is ready, and on to one that nobody needs.
fn join(view: &View<'_>) -> Plan {
    let mut plan = Plan::nothing();
    let node = view.own_node();
    let ready = node.is_some_and(|node| is_ready(view.machine, node));
    if let Some((since, reason, why)) = useless_since(view, node.is_some(), ready) {
        let until = since + signed(view.options.registration_max);
        if until <= view.now {
            return give_up(view, reason, why);
        }
        plan.again_at(view.now, until);
    }
    if let Some(node) = node {
        plan.push(Step::update(node, &named(view.machine, node)).map(Step::whatever_the_revision));
    }
    let empty = ready && view.tenants().next().is_none() && !view.wanted;
    plan.push(view.update(|status| {
        if node.is_some() && status.phase < MachinePhase::Registered {
            status.phase = MachinePhase::Registered;
        }
        if ready && status.phase < MachinePhase::Ready {
            status.phase = MachinePhase::Ready;
        }
        let mut set = |kind: &str, holds: bool, yes: &str, no: &str| {
            condition::set_in(
                &mut status.conditions,
                kind,
                condition::status_of(holds),
                if holds { yes } else { no },
                "",
                view.now,
            );
        };
        set(REGISTERED, node.is_some(), "NodeJoined", "NodeMissing");
        set(READY, ready, "NodeReady", "NodeNotReady");
        set(EMPTY, empty, "NoPods", "PodsRun");
    }));
    if empty {
        expire(view, &mut plan);
    }
    plan
}

/// A machine that is no node costs as much as one that is. One whose node is only silent may come back, and is kept: when the
/// API cannot be reached, all are.
fn useless_since(view: &View<'_>, joined: bool, ready: bool) -> Option<(Timestamp, &'static str, &'static str)> {
    let status = view.status();
    let launched = status.launched_at.as_ref().map_or(view.now, |at| at.0);
    if status.phase >= MachinePhase::Ready {
        let registered = condition::get(Some(&status.conditions), REGISTERED).filter(|registered| registered.status == "False");
        let since = registered.and_then(|registered| registered.last_transition()).unwrap_or(view.now);
        return (!joined).then_some((since, "NodeGone", "its node was deleted, and has not joined again"));
    }
    let why = if joined { "its node did not become ready in time" } else { "no node has joined in time" };
    (!ready).then_some((launched, "RegistrationTimeout", why))
}

fn expire(view: &View<'_>, plan: &mut Plan) {
    let status = view.status();
    let Some(since) = condition::get(Some(&status.conditions), EMPTY).filter(|empty| empty.status == "True") else { return };
    let after = view.pool.as_ref().and_then(|pool| pool.spec.disruption.empty_after_seconds).unwrap_or(EMPTY_AFTER_SECONDS);
    let until = since.last_transition().unwrap_or(view.now) + SignedDuration::from_secs(after);
    if until <= view.now {
        plan.push(Step::event(view.machine, "Empty", format!("No pods for {after}s: the machine is given back")));
        plan.push(Step::delete(view.machine, "it is empty"));
    } else {
        plan.again_at(view.now, until);
    }
}

/// The node is ready, and whatever had to be done at its start is.
fn is_ready(machine: &Machine, node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"));
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let starting = |taint: &slipway_api::core::Taint| {
        machine.spec.startup_taints.iter().any(|startup| (&startup.key, &startup.effect) == (&taint.key, &taint.effect))
    };
    ready && !taints.iter().any(starting)
}

/// The node with what the cloud knows of it.
fn named(machine: &Machine, node: &Node) -> Node {
    let mut named = node.clone();
    let id = machine.status.as_ref().and_then(|status| status.provider_id.clone());
    let spec = named.spec.get_or_insert_default();
    if spec.provider_id.as_deref().unwrap_or_default().is_empty() {
        spec.provider_id = id;
    }
    let labels = named.metadata.labels.get_or_insert_default();
    labels.insert(LABEL_MACHINE.to_owned(), machine.name().to_owned());
    let own = |key: &str| key != "kubernetes.io/os" && key != "kubernetes.io/arch";
    for (key, value) in machine.spec.labels.iter().filter(|(key, _)| own(key)) {
        // What the template says is for the beginning; what the cloud says holds always.
        let fixed = key.starts_with("slipway.dev/") || key.starts_with("node.kubernetes.io/") || key.starts_with("topology.");
        if fixed || !labels.contains_key(key) && machine.status.as_ref().is_some_and(|s| s.phase < MachinePhase::Registered) {
            labels.insert(key.clone(), value.clone());
        }
    }
    named
}

fn give_up(view: &View<'_>, reason: &'static str, why: &str) -> Plan {
    let mut plan = Plan::nothing();
    plan.push(Step::warning(view.machine, reason, why.to_owned()));
    plan.push(Step::delete(view.machine, "it is of no use"));
    plan
}

/// The Machine is deleted: its pods move, the cloud takes it back, the node goes.
fn leave(view: &View<'_>) -> Next {
    if view.status().phase == MachinePhase::Terminating {
        return Next::Terminate;
    }
    if let Some(node) = view.own_node()
        && !view.is_lost()
        && let Some(plan) = drain(view, node)
    {
        return Next::Plan(plan);
    }
    let step = view.update(|status| status.phase = MachinePhase::Terminating);
    Next::Plan(Plan { steps: step.into_iter().collect(), again_in: None })
}

/// `None`: nothing is left to wait for. The node is closed before its pods are counted, so that none comes meanwhile.
fn drain(view: &View<'_>, node: &Node) -> Option<Plan> {
    let mut plan = Plan::nothing();
    let since = view.machine.metadata.deletion_timestamp.as_ref().map_or(view.now, |at| at.0);
    let until = since + signed(view.options.drain_max);
    let closed = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    if (closed && view.tenants().next().is_none()) || until <= view.now {
        return None;
    }
    plan.push(view.update(|status| status.phase = MachinePhase::Draining));
    if !closed {
        let mut cordoned = node.clone();
        cordoned.spec.get_or_insert_default().unschedulable = Some(true);
        plan.push(Step::update(node, &cordoned).map(Step::whatever_the_revision));
    }
    view.tenants().filter(|pod| !pod.is_deleted()).for_each(|pod| plan.push(Step::evict(pod)));
    plan.again_at(view.now, until);
    plan.again_in(view.options.poll_interval);
    Some(plan)
}

/// The cloud has taken it back: nothing of it stays.
pub fn gone(view: &View<'_>) -> Plan {
    let mut plan = Plan::nothing();
    plan.push(view.token.as_ref().map(|token| Step::delete(&**token, "its machine is gone")));
    plan.push(view.own_node().map(|node| Step::delete(node, "its machine is gone")));
    let mut freed = view.machine.clone();
    freed.metadata.finalizers.iter_mut().for_each(|finalizers| finalizers.retain(|one| one != FINALIZER));
    plan.push(Step::update(view.machine, &freed));
    plan
}

pub fn not_terminated(view: &View<'_>, error: &Error) -> Plan {
    let mut plan = Plan::nothing();
    if !matches!(error, Error::Retryable(_)) {
        plan.push(Step::warning(view.machine, "FailedTermination", error.to_string()));
    }
    plan.again_in(view.options.poll_interval);
    plan
}
