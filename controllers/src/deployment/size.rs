//! How many pods a deployment may have: surge, unavailability, and each set's share.

use slipway_api::{
    IntOrString,
    apps::{Deployment, ReplicaSet},
};

use crate::resource::Object;

pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

pub fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

pub fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

pub fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// A number, or a percentage of `total`; percentages round up or down.
pub fn resolve(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent * i64::from(total);
            let whole = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(whole).unwrap_or(i32::MAX)
        }
    }
}

/// (surge, unavailable) of a rolling update: if both come out as 0, one pod may be unavailable, or nothing could ever move.
fn fence_posts(deployment: &Deployment) -> (i32, i32) {
    let rolling = deployment.spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".into());
    let given = |value: Option<&IntOrString>| value.cloned().unwrap_or_else(|| quarter.clone());
    let surge = resolve(Some(&given(rolling.and_then(|r| r.max_surge.as_ref()))), wanted(deployment), true);
    let unavailable = resolve(Some(&given(rolling.and_then(|r| r.max_unavailable.as_ref()))), wanted(deployment), false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

pub fn max_surge(deployment: &Deployment) -> i32 {
    if super::is_recreate(deployment) { 0 } else { fence_posts(deployment).0 }
}

pub fn max_unavailable(deployment: &Deployment) -> i32 {
    if super::is_recreate(deployment) || wanted(deployment) == 0 {
        return 0;
    }
    fence_posts(deployment).1.min(wanted(deployment))
}

/// The size of the new set such that no more pods exist than the surge allows.
pub fn of_new(deployment: &Deployment, old: &[ReplicaSet], new: i32) -> i32 {
    if super::is_recreate(deployment) {
        return wanted(deployment);
    }
    let total = old.iter().map(replicas).sum::<i32>() + new;
    let room = wanted(deployment) + max_surge(deployment) - total;
    if room <= 0 { new } else { new + room.min(wanted(deployment) - new) }
}

/// What `set` may change by, when `to_add` pods are spread over all sets in proportion to their sizes.
pub fn proportion(set: &ReplicaSet, deployment: &Deployment, to_add: i32, added: i32) -> i32 {
    if replicas(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let share = share(set, deployment);
    let rest = to_add - added;
    if to_add > 0 { share.min(rest) } else { share.max(rest) }
}

fn share(set: &ReplicaSet, deployment: &Deployment) -> i32 {
    if wanted(deployment) == 0 {
        return -replicas(set);
    }
    let before = set.annotation(MAX_REPLICAS).and_then(|text| text.parse::<i32>().ok()).filter(|max| *max > 0);
    let before = before.or_else(|| deployment.status.as_ref()?.replicas.filter(|replicas| *replicas > 0));
    let Some(before) = before else { return 0 };
    let now = f64::from(wanted(deployment) + max_surge(deployment));
    (f64::from(replicas(set)) * now / f64::from(before)).round() as i32 - replicas(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_up_for_surge_and_down_for_unavailability() {
        let quarter = IntOrString::String("25%".into());
        for (total, up, down) in [(1, 1, 0), (3, 1, 0), (4, 1, 1), (10, 3, 2), (0, 0, 0)] {
            assert_eq!((resolve(Some(&quarter), total, true), resolve(Some(&quarter), total, false)), (up, down), "{total}");
        }
    }
}
