//! What a namespace's labels ask for: a level and a version for each of enforce, audit and warn.

use crate::http::error::Invalid;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;

const PREFIX: &str = "pod-security.kubernetes.io/";
const LEVELS: &str = "must be one of privileged, baseline, restricted";
const VERSIONS: &str = "must be \"latest\" or \"v1.x\"";

/// In order of strictness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// The minor version of Kubernetes whose standards are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Minor(u32),
    Latest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standard {
    pub level: Level,
    pub version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Standard,
    pub audit: Standard,
    pub warn: Standard,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Version::Latest => write!(f, "{level}:latest"),
            Version::Minor(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

impl Level {
    fn parse(text: &str) -> Option<Level> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }
}

impl Version {
    fn parse(text: &str) -> Option<Version> {
        if text == "latest" {
            return Some(Version::Latest);
        }
        let digits = text.strip_prefix("v1.")?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        digits.parse().ok().filter(|_| plain).map(Version::Minor)
    }
}

impl Policy {
    const NONE: Standard = Standard { level: Level::Privileged, version: Version::Latest };

    /// The policy is usable also where labels are wrong: what cannot be read is enforced as strictly as can be, and neither
    /// audited nor warned of.
    pub fn of(labels: &BTreeMap<String, String>) -> (Policy, Vec<Invalid>) {
        let mut errors = vec![];
        let label = |mode: &str| labels.get(&format!("{PREFIX}{mode}"));
        let mut level = |mode: &str, otherwise: Level| {
            label(mode).map(|text| Level::parse(text).ok_or(otherwise).inspect_err(|_| errors.push(wrong(mode, text, LEVELS))))
        };
        let enforce = level("enforce", Level::Restricted);
        let (audit, warn) = (level("audit", Level::Privileged), level("warn", Level::Privileged));
        let mut version = |mode: &str| {
            label(mode).map(|text| {
                Version::parse(text).unwrap_or_else(|| {
                    errors.push(wrong(mode, text, VERSIONS));
                    Version::Latest
                })
            })
        };
        let versions = ["enforce-version", "audit-version", "warn-version"].map(&mut version);
        let standard = |level: Option<Result<Level, Level>>, version: Option<Version>| Standard {
            level: level.map_or(Level::Privileged, |level| level.unwrap_or_else(|level| level)),
            version: version.unwrap_or(Version::Latest),
        };
        let mut policy = Policy {
            enforce: standard(enforce, versions[0]),
            audit: standard(audit, versions[1]),
            warn: standard(warn, versions[2]),
        };
        // Who asks for a level to be enforced is warned by it too, where that says more.
        if warn.is_none() && matches!(enforce, Some(Ok(_))) && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if versions[2].is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }

    /// Whether nothing of pods is looked at.
    pub fn is_open(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|standard| standard.level == Level::Privileged)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Policy { enforce: Self::NONE, audit: Self::NONE, warn: Self::NONE }
    }
}

fn wrong(mode: &str, text: &str, why: &str) -> Invalid {
    Invalid::value(format!("metadata.labels[{PREFIX}{mode}]"), &json!(text), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(labels: &[(&str, &str)]) -> (String, Vec<String>) {
        let labels = labels.iter().map(|(mode, value)| (format!("{PREFIX}{mode}"), (*value).to_owned())).collect();
        let (policy, errors) = Policy::of(&labels);
        let text = format!("{} {} {}", policy.enforce, policy.audit, policy.warn);
        (text, errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect())
    }

    #[test]
    fn labels_become_a_policy() {
        let good = |labels: &[(&str, &str)]| {
            let (text, errors) = policy(labels);
            assert_eq!(errors, Vec::<String>::new());
            text
        };
        assert_eq!(good(&[]), "privileged:latest privileged:latest privileged:latest");
        assert_eq!(
            good(&[("enforce", "baseline"), ("enforce-version", "v1.25")]),
            "baseline:v1.25 privileged:latest baseline:v1.25"
        );
        assert_eq!(good(&[("enforce", "baseline"), ("warn-version", "v1.9")]), "baseline:latest privileged:latest baseline:v1.9");
        assert_eq!(
            good(&[("enforce", "restricted"), ("warn", "baseline")]),
            "restricted:latest privileged:latest baseline:latest"
        );
    }

    #[test]
    fn what_cannot_be_read_is_enforced_strictly() {
        let (text, errors) = policy(&[
            ("enforce", "strict"),
            ("audit", "x"),
            ("warn", "y"),
            ("enforce-version", "1.25"),
            ("warn-version", "v1.05"),
        ]);
        assert_eq!(text, "restricted:latest privileged:latest privileged:latest");
        assert_eq!(errors.len(), 5);
        assert_eq!(
            errors[0],
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted"
        );
        assert_eq!(
            errors[3],
            "metadata.labels[pod-security.kubernetes.io/enforce-version]: Invalid value: \"1.25\": must be \"latest\" or \"v1.x\""
        );
    }
}
