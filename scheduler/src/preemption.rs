//! Preemption: which pods of lower priority would have to go so that a pod fits, and on which node that hurts least.
//!
//! Pure; the evictions themselves are the writer's.

use crate::framework::{Explanation, Filters, Reason, Verdict, check_with_nominated, filters};
use crate::plugins::Plugins;
use crate::snapshot::{NodeInfo, PodInfo, Snapshot};
use slipway_api::policy::PodDisruptionBudget;
use slipway_api::selector::Selector;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The search ends when so many nodes were found on which it would work, or a tenth of all, whichever is more.
const CANDIDATES_MIN: usize = 100;

/// What a disruption budget still allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    pub namespace: String,
    pub selector: Selector,
    pub allowed: i64,
    /// Pods whose disruption is counted already.
    pub disrupted: BTreeSet<String>,
}

impl Budget {
    pub fn of(budget: &PodDisruptionBudget) -> Budget {
        let status = budget.status.as_ref();
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        Budget {
            namespace: budget.metadata.namespace.clone().unwrap_or_default(),
            selector: Selector::from_optional(selector),
            allowed: status.map_or(0, |status| status.disruptions_allowed.unwrap_or(0).into()),
            disrupted: status
                .iter()
                .flat_map(|status| status.disrupted_pods.iter().flatten())
                .map(|(name, _)| name.clone())
                .collect(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Preemption {
    /// The pod will fit on the node once the victims are gone.
    Evict { node: Arc<str>, victims: Vec<Arc<PodInfo>> },
    /// Why not, as it is told after `preemption: `.
    Not(String),
}

struct Candidate {
    node: Arc<str>,
    /// The most important first.
    victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

/// The most important first: by priority, then by how long they have been running.
fn by_importance(pods: &mut [Arc<PodInfo>]) {
    pods.sort_by_key(|pod| (Reverse(pod.priority), pod.started.is_none(), pod.started, pod.key.clone()));
}

pub fn preempt(
    pod: &PodInfo,
    nominated: Option<&str>,
    cluster: &Snapshot,
    plugins: &Plugins,
    explanation: &Explanation,
    budgets: &[Budget],
) -> Preemption {
    if pod.wants.never_preempts {
        return Preemption::Not("not eligible due to preemptionPolicy=Never.".to_owned());
    }
    let leaving = |node: &Arc<NodeInfo>| node.pods.iter().any(|other| other.deleting && other.priority < pod.priority);
    if nominated.and_then(|name| cluster.node(name)).is_some_and(leaving) {
        return Preemption::Not("not eligible due to a terminating pod on the nominated node.".to_owned());
    }
    let mut filters = filters(pod, cluster, plugins);
    let mut why_not = Explanation { nodes: explanation.nodes, ..Explanation::default() };
    let mut candidates = vec![];
    let enough = CANDIDATES_MIN.max(cluster.len() / 10);
    for (verdict, names) in &explanation.verdicts {
        if matches!(verdict, Verdict::Never(_)) {
            names.iter().for_each(|name| why_not.add(name, "", Verdict::never(Reason::PreemptionNotHelpful)));
            continue;
        }
        for node in names.iter().filter_map(|name| cluster.node(name)) {
            if candidates.len() >= enough {
                break;
            }
            match select_victims(pod, node, cluster, &mut filters, budgets) {
                Ok(candidate) => candidates.push(candidate),
                Err(verdict) => why_not.add(node.name(), "", verdict),
            }
        }
    }
    match candidates.into_iter().min_by_key(cost) {
        Some(best) => Preemption::Evict { node: best.node, victims: best.victims },
        None => Preemption::Not(why_not.to_string()),
    }
}

/// What is least is best: broken budgets, the importance of the foremost victim, the sum of importances, the number of
/// victims; and among equals the node whose foremost victim has run the shortest.
fn cost(candidate: &Candidate) -> impl Ord + use<> {
    let foremost = candidate.victims.first().map_or(i32::MIN, |victim| victim.priority);
    // Shifted, so that more victims never cost less because their priorities are negative.
    let sum: i64 = candidate.victims.iter().map(|victim| i64::from(victim.priority) + i64::from(i32::MAX) + 1).sum();
    let earliest =
        candidate.victims.iter().filter(|victim| victim.priority == foremost).filter_map(|victim| victim.started).min();
    (candidate.violations, foremost, sum, candidate.victims.len(), Reverse(earliest), candidate.node.clone())
}

/// Takes all less important pods from the node; if the pod then fits, lets back as many as it can.
fn select_victims(
    pod: &PodInfo,
    node: &NodeInfo,
    cluster: &Snapshot,
    filters: &mut Filters<'_>,
    budgets: &[Budget],
) -> Result<Candidate, Verdict> {
    let mut room = node.clone();
    let mut lesser: Vec<Arc<PodInfo>> = node.pods.iter().filter(|other| other.priority < pod.priority).cloned().collect();
    if lesser.is_empty() {
        return Err(Verdict::unfit(Reason::NoVictims));
    }
    for other in &lesser {
        room.remove(&other.key);
        adjust(filters, other, node, -1);
    }
    if let Some((_, verdict)) = check_with_nominated(filters, pod, &room, cluster) {
        lesser.iter().for_each(|other| adjust(filters, other, node, 1));
        return Err(verdict);
    }
    by_importance(&mut lesser);
    let (violating, harmless) = split_by_budget(lesser, budgets);
    let mut victims = vec![];
    let mut violations = 0;
    for (other, violates) in
        violating.into_iter().map(|other| (other, true)).chain(harmless.into_iter().map(|other| (other, false)))
    {
        room.add(other.clone());
        adjust(filters, &other, node, 1);
        if check_with_nominated(filters, pod, &room, cluster).is_some() {
            room.remove(&other.key);
            adjust(filters, &other, node, -1);
            violations += usize::from(violates);
            victims.push(other);
        }
    }
    victims.iter().for_each(|victim| adjust(filters, victim, node, 1));
    by_importance(&mut victims);
    Ok(Candidate { node: node.name().clone(), victims, violations })
}

fn adjust(filters: &mut Filters<'_>, pod: &PodInfo, node: &NodeInfo, by: i64) {
    filters.iter_mut().for_each(|(_, filter)| filter.adjust(pod, node, by));
}

/// Those whose eviction would break a budget, and those whose wouldn't.
fn split_by_budget(pods: Vec<Arc<PodInfo>>, budgets: &[Budget]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut left: Vec<i64> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut breaks = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            let concerns =
                budget.namespace == pod.namespace && !budget.selector.is_everything() && budget.selector.matches(&pod.labels);
            if concerns && !budget.disrupted.contains(&pod.name) {
                *left -= 1;
                breaks |= *left < 0;
            }
        }
        breaks
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::{Decision, Sample, decide};
    use crate::plugins;
    use crate::testing::{cluster, pending, placed_with};
    use serde_json::json;

    fn preempted(cluster: &Snapshot, pod: &PodInfo, budgets: &[Budget]) -> String {
        let Decision::Unschedulable(why) = decide(pod, None, cluster, plugins::all(), Sample::default()) else {
            panic!("it fits")
        };
        match preempt(pod, None, cluster, plugins::all(), &why, budgets) {
            Preemption::Evict { node, victims } => {
                format!("{node}: {}", victims.iter().map(|victim| victim.name.as_str()).collect::<Vec<_>>().join(" "))
            }
            Preemption::Not(why) => why,
        }
    }

    fn low(name: &str, cpu: &str, priority: i32) -> Arc<PodInfo> {
        let requests = json!({"requests": {"cpu": cpu}});
        placed_with(name, json!({"priority": priority, "containers": [{"name": "c", "resources": requests}]}))
    }

    fn high(cpu: &str) -> PodInfo {
        pending("high", json!({"priority": 100, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}))
    }

    #[test]
    fn takes_no_more_victims_than_it_must() {
        let mut cluster = cluster(&[("a", "cpu: 4")]);
        for (name, cpu) in [("small", "1"), ("mid", "1"), ("big", "2")] {
            cluster.add_pod("a", low(name, cpu, if name == "small" { 1 } else { 5 }));
        }
        assert_eq!(preempted(&cluster, &high("1"), &[]), "a: small");
        assert_eq!(preempted(&cluster, &high("3"), &[]), "a: big small");
    }

    #[test]
    fn prefers_the_node_where_it_hurts_least() {
        let mut cluster = cluster(&[("a", "cpu: 2"), ("b", "cpu: 2"), ("c", "cpu: 2")]);
        cluster.add_pod("a", low("a1", "2", 50));
        cluster.add_pod("b", low("b1", "1", 10));
        cluster.add_pod("b", low("b2", "1", 10));
        cluster.add_pod("c", low("c1", "2", 10));
        assert_eq!(preempted(&cluster, &high("2"), &[]), "c: c1");
    }

    #[test]
    fn spares_what_a_budget_protects() {
        let mut cluster = cluster(&[("a", "cpu: 2"), ("b", "cpu: 2")]);
        let mut guarded = PodInfo::clone(&low("guarded", "2", 0));
        guarded.labels.insert("app".into(), "db".into());
        cluster.add_pod("a", guarded.into());
        cluster.add_pod("b", low("other", "2", 50));
        let selector = Selector::parse("app=db").unwrap();
        let mut budget = Budget { namespace: "default".into(), selector, allowed: 0, disrupted: BTreeSet::new() };
        assert_eq!(preempted(&cluster, &high("2"), std::slice::from_ref(&budget)), "b: other");
        budget.allowed = 1;
        assert_eq!(preempted(&cluster, &high("2"), &[budget]), "a: guarded");
    }

    #[test]
    fn says_why_it_is_of_no_use() {
        let mut cluster = cluster(&[("a", "cpu: 2"), ("b", "cpu: 8"), ("c", "cpu: 8")]);
        cluster.add_pod("b", low("important", "8", 1000));
        cluster.add_pod("c", low("important2", "5", 1000));
        cluster.add_pod("c", low("lesser", "1", 0));
        assert_eq!(
            preempted(&cluster, &high("4"), &[]),
            "0/3 nodes are available: 1 Insufficient cpu, 1 No preemption victims found for incoming pod, \
             1 Preemption is not helpful for scheduling."
        );
        let never = pending(
            "never",
            json!({"priority": 100, "preemptionPolicy": "Never", "containers": [{"name": "c", "resources": {"requests": {"cpu": "9"}}}]}),
        );
        assert_eq!(preempted(&cluster, &never, &[]), "not eligible due to preemptionPolicy=Never.");
    }

    #[test]
    fn makes_way_by_anti_affinity() {
        let mut cluster = cluster(&[("a", "cpu: 4")]);
        let term = json!({"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"});
        let anti = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        let mut web = PodInfo::clone(&low("web", "1", 0));
        web.labels.insert("app".into(), "web".into());
        cluster.add_pod("a", web.into());
        cluster.add_pod("a", low("bystander", "1", 0));
        let pod = pending("high", json!({"priority": 1, "affinity": anti, "containers": [{"name": "c"}]}));
        assert_eq!(preempted(&cluster, &pod, &[]), "a: web");
    }
}
