//! The order of groups and versions: a client that looks for a resource by its name alone takes the first.

use std::cmp::Reverse;

/// Kubernetes' priorities of its groups, the first the highest.
const GROUPS: &[(&str, i64)] = &[
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("admissionregistration.k8s.io", 16_700),
    ("apiextensions.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("resource.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
];
/// Of groups that Kubernetes does not have.
const OTHER_GROUP: i64 = 15_000;
/// Versions that do not have the priority that most have.
const VERSIONS: &[(&str, &str, i64)] = &[("", "v1", 1), ("autoscaling", "v2", 30), ("flowcontrol.apiserver.k8s.io", "v1", 21)];
const OTHER_VERSION: i64 = 15;

/// What definitions of custom kinds get: lower than all that is built in.
pub const CUSTOM: (i64, i64) = (1_000, 100);

/// A built-in group's `groupPriorityMinimum`, and its version's `versionPriority`.
pub fn builtin(group: &str, version: &str) -> (i64, i64) {
    let of_group = GROUPS.iter().find(|(known, _)| *known == group).map_or(OTHER_GROUP, |(_, priority)| *priority);
    let of_version = VERSIONS.iter().find(|(known, of, _)| (*known, *of) == (group, version));
    (of_group, of_version.map_or(OTHER_VERSION, |(.., priority)| *priority))
}

/// Orders versions of one priority as Kubernetes does: `v2` before `v1` before `v1beta1` before `v1alpha1`, and those that
/// are no numbers last, by their letters.
pub fn by_preference(version: &str) -> impl Ord + use<> {
    (Reverse(rank(version)), version.to_owned())
}

/// Stability, major and minor number; `None` for what is not numbered.
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..end].parse().ok()?;
    let (stability, minor) = match &rest[end..] {
        "" => (2, ""),
        beta if beta.starts_with("beta") => (1, &beta[4..]),
        alpha if alpha.starts_with("alpha") => (0, &alpha[5..]),
        _ => return None,
    };
    let minor = if minor.is_empty() { 0 } else { minor.parse().ok()? };
    Some((stability, major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_listed_stable_first() {
        let wanted = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
        let mut versions = wanted;
        versions.sort();
        versions.sort_by_key(|version| by_preference(version));
        assert_eq!(versions, wanted);
    }

    #[test]
    fn groups_fall_in_priority() {
        assert!(GROUPS.is_sorted_by_key(|(_, priority)| Reverse(*priority)));
        assert_eq!(builtin("apps", "v1"), (17_800, 15));
        assert_eq!(builtin("autoscaling", "v2"), (17_500, 30));
        assert!(builtin("slipway.dev", "v1").0 > CUSTOM.0);
    }
}
