//! The checks of the restricted level: a pod says by itself that it can do little.

use super::baseline::{adding, seccomp_types};
use super::standards::{Subject, Violation, containers, plural, quoted, setters};
use crate::resources::pod::volumes::sources;
use std::collections::BTreeSet;

/// In the order in which Kubernetes looks for them, of a volume that is several.
const VOLUMES: [&str; 9] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"];

pub fn escalation_8(subject: &Subject<'_>) -> Option<Violation> {
    let names = subject.those(|one| one.security.and_then(|security| security.allow_privilege_escalation) != Some(false));
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names));
    Violation::new("allowPrivilegeEscalation != false", detail)
}

pub fn escalation_25(subject: &Subject<'_>) -> Option<Violation> {
    if subject.is_windows() { None } else { escalation_8(subject) }
}

pub fn capabilities_22(subject: &Subject<'_>) -> Option<Violation> {
    let keeping = subject.those(|one| {
        let capabilities = one.security.and_then(|security| security.capabilities.as_ref());
        let mut dropped = capabilities.into_iter().flat_map(|capabilities| capabilities.drop.iter().flatten());
        !dropped.any(|capability| capability == "ALL")
    });
    let (names, added) = adding(subject, |capability| capability == "NET_BIND_SERVICE");
    let mut details = vec![];
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    if !names.is_empty() {
        let what = quoted(added);
        details.push(format!("{} must not include {what} in securityContext.capabilities.add", containers(&names)));
    }
    if details.is_empty() { None } else { Violation::new("unrestricted capabilities", details.join("; ")) }
}

pub fn capabilities_25(subject: &Subject<'_>) -> Option<Violation> {
    if subject.is_windows() { None } else { capabilities_22(subject) }
}

pub fn volumes(subject: &Subject<'_>) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let mut names = vec![];
    for volume in subject.spec.volumes.iter().flatten() {
        if sources(volume).any(|source| VOLUMES.contains(&source)) {
            continue;
        }
        names.push(volume.name.clone());
        types.insert(sources(volume).next().unwrap_or("unknown"));
    }
    if names.is_empty() {
        return None;
    }
    let (volumes, uses) = (plural("volume", "volumes", names.len()), plural("uses", "use", names.len()));
    let what = plural("restricted volume type", "restricted volume types", types.len());
    Violation::new("restricted volume types", format!("{volumes} {} {uses} {what} {}", quoted(&names), quoted(types)))
}

pub fn non_root_0(subject: &Subject<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let pod = subject.spec.security_context.as_ref().and_then(|context| context.run_as_non_root);
    let of = |one: &super::standards::One<'_>| one.security.and_then(|security| security.run_as_non_root);
    let explicit = subject.those(|one| of(one) == Some(false));
    if let Some(who) = setters(pod == Some(false), &explicit) {
        return Violation::new(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = subject.those(|one| of(one).is_none() && pod != Some(true));
    if silent.is_empty() {
        return None;
    }
    Violation::new(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent)))
}

pub fn non_root_35(subject: &Subject<'_>) -> Option<Violation> {
    if subject.has_own_users() { None } else { non_root_0(subject) }
}

pub fn user_23(subject: &Subject<'_>) -> Option<Violation> {
    let pod = subject.spec.security_context.as_ref().and_then(|context| context.run_as_user) == Some(0);
    let names = subject.those(|one| one.security.and_then(|security| security.run_as_user) == Some(0));
    let who = setters(pod, &names)?;
    Violation::new("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

pub fn user_35(subject: &Subject<'_>) -> Option<Violation> {
    if subject.has_own_users() { None } else { user_23(subject) }
}

pub fn seccomp_19(subject: &Subject<'_>) -> Option<Violation> {
    if let Some(wrong) = super::baseline::seccomp_19(subject) {
        return Some(wrong);
    }
    let context = subject.spec.security_context.as_ref();
    let (bad, ..) = seccomp_types(subject);
    let pod = !bad && context.is_some_and(|context| context.seccomp_profile.is_some());
    let silent = subject.those(|one| !pod && one.security.is_none_or(|security| security.seccomp_profile.is_none()));
    if silent.is_empty() {
        return None;
    }
    let what = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    Violation::new("seccompProfile", format!("pod or {} {what}", containers(&silent)))
}

pub fn seccomp_25(subject: &Subject<'_>) -> Option<Violation> {
    if subject.is_windows() { None } else { seccomp_19(subject) }
}
