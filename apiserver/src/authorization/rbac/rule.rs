//! One rule of a role: which requests it allows, and whether it covers another rule.

use crate::authorization::Attributes;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeSet;

const ALL: &str = "*";

/// `rbac.authorization.k8s.io/v1 PolicyRule`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    #[serde(deserialize_with = "list")]
    pub verbs: Vec<String>,
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

/// A list that may be null.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default())
}

fn has(list: &[String], item: &str) -> bool {
    list.iter().any(|one| one == item)
}

fn has_or_all(list: &[String], item: &str) -> bool {
    list.iter().any(|one| one == ALL || one == item)
}

fn has_all(list: &[String], items: &[String]) -> bool {
    items.iter().all(|item| has(list, item))
}

/// Whether a pattern, which may end with `*`, matches a path.
fn url_matches(pattern: &str, path: &str) -> bool {
    pattern == ALL || pattern == path || (pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*')))
}

impl Rule {
    pub fn allows(&self, asked: &Attributes<'_>) -> bool {
        if !has_or_all(&self.verbs, asked.verb) {
            return false;
        }
        if !asked.is_resource {
            return self.non_resource_urls.iter().any(|pattern| url_matches(pattern, asked.path));
        }
        has_or_all(&self.api_groups, asked.group)
            && self.resources.iter().any(|pattern| resource_matches(pattern, asked.resource, asked.subresource))
            && (self.resource_names.is_empty() || has(&self.resource_names, asked.name))
    }

    /// Whether this rule allows all that `other` allows, where `other` is one that `broken_down` gave.
    fn covers(&self, other: &Rule) -> bool {
        let all_or = |list: &[String], items: &[String]| has(list, ALL) || has_all(list, items);
        let names = match other.resource_names.as_slice() {
            [] => self.resource_names.is_empty(),
            names => self.resource_names.is_empty() || has_all(&self.resource_names, names),
        };
        names
            && all_or(&self.verbs, &other.verbs)
            && all_or(&self.api_groups, &other.api_groups)
            && other.resources.iter().all(|resource| covers_resource(&self.resources, resource))
            && other.non_resource_urls.iter().all(|path| self.non_resource_urls.iter().any(|pattern| url_matches(pattern, path)))
    }

    /// One rule for each verb on each resource (and object) or path.
    fn broken_down(&self) -> Vec<Rule> {
        let mut all = vec![];
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let one = Rule {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        ..Rule::default()
                    };
                    let named = |name: &String| Rule { resource_names: vec![name.clone()], ..one.clone() };
                    match self.resource_names.as_slice() {
                        [] => all.push(one),
                        names => all.extend(names.iter().map(named)),
                    }
                }
            }
        }
        for url in &self.non_resource_urls {
            all.extend(self.verbs.iter().map(|verb| Rule {
                verbs: vec![verb.clone()],
                non_resource_urls: vec![url.clone()],
                ..Rule::default()
            }));
        }
        all
    }

    /// As `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
    fn told(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let told = parts.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| format!("{name}:{}", quoted(list)));
        format!("{{{}}}", told.collect::<Vec<_>>().join(", "))
    }
}

fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    if pattern == ALL {
        return true;
    }
    if subresource.is_empty() {
        return pattern == resource;
    }
    match pattern.split_once('/') {
        Some((of, sub)) => sub == subresource && (of == ALL || of == resource),
        None => false,
    }
}

fn covers_resource(own: &[String], resource: &str) -> bool {
    has_or_all(own, resource)
        || resource.split_once('/').is_some_and(|(_, sub)| own.iter().any(|one| one.strip_prefix("*/") == Some(sub)))
}

/// As Go prints a list of strings with `%q`.
pub fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// What `wanted` allows and `held` does not, as rules for one verb each.
pub fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let is_missing = |rule: &Rule| !held.iter().any(|own| own.covers(rule));
    wanted.iter().flat_map(Rule::broken_down).filter(is_missing).collect()
}

/// Rules for the same resource, and object, made one.
fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut compacted: Vec<Rule> = vec![];
    for rule in rules {
        let simple = rule.resources.len() == 1 && rule.api_groups.len() == 1 && rule.non_resource_urls.is_empty();
        let same = |other: &&mut Rule| {
            other.api_groups == rule.api_groups
                && other.resources == rule.resources
                && other.resource_names == rule.resource_names
        };
        match compacted.iter_mut().find(|other| simple && same(other)) {
            Some(other) => rule.verbs.into_iter().for_each(|verb| {
                if !has(&other.verbs, &verb) {
                    other.verbs.push(verb);
                }
            }),
            None => compacted.push(rule),
        }
    }
    compacted
}

/// The rules as a refusal lists them: a line each.
pub fn listed(rules: Vec<Rule>) -> String {
    let lines: BTreeSet<String> = compact(rules).iter().map(Rule::told).collect();
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(|word| if word == "core" { String::new() } else { word.to_owned() }).collect()
    }

    fn rule(verbs: &str, groups: &str, resources: &str) -> Rule {
        Rule { verbs: words(verbs), api_groups: words(groups), resources: words(resources), ..Rule::default() }
    }

    fn named(rule: Rule, names: &str) -> Rule {
        Rule { resource_names: words(names), ..rule }
    }

    fn urls(verbs: &str, urls: &str) -> Rule {
        Rule { verbs: words(verbs), non_resource_urls: words(urls), ..Rule::default() }
    }

    fn asks<'a>(verb: &'a str, resource: &'a str, subresource: &'a str, name: &'a str) -> Attributes<'a> {
        Attributes { subresource, name, ..Attributes::resource(verb, "", resource) }
    }

    #[test]
    fn a_rule_allows_what_it_names() {
        let pods = rule("get list", "core", "pods");
        assert!(pods.allows(&asks("get", "pods", "", "web")));
        assert!(!pods.allows(&asks("get", "pods", "log", "web")));
        assert!(!pods.allows(&asks("delete", "pods", "", "web")));
        assert!(!rule("get", "apps", "pods").allows(&asks("get", "pods", "", "")));
        assert!(rule("*", "*", "*").allows(&asks("approve", "pods", "log", "x")));
        assert!(rule("get", "core", "*/log").allows(&asks("get", "pods", "log", "x")));
        assert!(!rule("get", "core", "*/log").allows(&asks("get", "pods", "", "x")));
        assert!(!rule("get", "core", "*/log").allows(&asks("get", "pods", "status", "x")));
        assert!(!rule("get", "core", "pods/*").allows(&asks("get", "pods", "log", "x")));
        let one = named(rule("get", "core", "pods"), "web");
        assert!(one.allows(&asks("get", "pods", "", "web")));
        assert!(!one.allows(&asks("get", "pods", "", "api")));
        assert!(!one.allows(&asks("get", "pods", "", "")));
    }

    #[test]
    fn paths_match_by_their_beginning() {
        let allows =
            |pattern: &str, path: &str| urls("get", pattern).allows(&Attributes { verb: "get", path, ..Attributes::default() });
        assert!(allows("/apis/*", "/apis/apps"));
        assert!(!allows("/apis/*", "/apis"));
        assert!(allows("/healthz", "/healthz"));
        assert!(!allows("/healthz", "/healthz/ping"));
        assert!(allows("*", "/anything"));
        assert!(!allows("/a*/b", "/ax/b"));
        // A rule for resources says nothing of paths, and the other way round.
        assert!(!rule("*", "*", "*").allows(&Attributes { verb: "get", path: "/metrics", ..Attributes::default() }));
        assert!(!urls("*", "*").allows(&asks("get", "pods", "", "")));
    }

    #[test]
    fn what_is_missing_is_told() {
        let held = [rule("get", "core", "pods"), named(rule("*", "core", "secrets"), "a"), rule("get", "*", "*/status")];
        let wanted = [
            rule("get list watch", "core", "pods pods/status"),
            named(rule("get", "core", "secrets"), "a b"),
            urls("get", "/metrics"),
        ];
        assert_eq!(
            listed(missing(&held, &wanted)),
            "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\" \"watch\"]}\n\
             {APIGroups:[\"\"], Resources:[\"pods/status\"], Verbs:[\"list\" \"watch\"]}\n\
             {APIGroups:[\"\"], Resources:[\"secrets\"], ResourceNames:[\"b\"], Verbs:[\"get\"]}\n\
             {NonResourceURLs:[\"/metrics\"], Verbs:[\"get\"]}"
        );
        assert_eq!(missing(&[rule("*", "*", "*"), urls("*", "*")], &wanted), []);
        // Who holds it for one object does not hold it for all, and all resources are more than those that there are.
        assert_eq!(missing(&[named(rule("get", "core", "pods"), "web")], &[rule("get", "core", "pods")]).len(), 1);
        assert_eq!(missing(&[rule("get", "core", "pods")], &[rule("get", "core", "*")]).len(), 1);
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let some = |from: &'static [&'static str]| {
            proptest::sample::subsequence(from, 1..=2).prop_map(|words| words.into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        let names = proptest::sample::subsequence(&["a", "b"][..], 0..=2);
        let resources: &[&str] = &["pods", "pods/log", "*/log", "*", "secrets"];
        (some(&["get", "list", "*"]), some(&["", "apps", "*"]), some(resources), names).prop_map(
            |(verbs, api_groups, resources, names)| Rule {
                verbs,
                api_groups,
                resources,
                resource_names: names.into_iter().map(str::to_owned).collect(),
                ..Rule::default()
            },
        )
    }

    proptest! {
        // Few rules that are thought up are covered by others.
        #![proptest_config(ProptestConfig::with_cases(1024))]

        /// Nobody gets by a grant what the one who grants may not do himself.
        #[test]
        fn who_misses_nothing_may_do_all_of_it(
            held in proptest::collection::vec(any_rule(), 1..4),
            mut wanted in proptest::collection::vec(any_rule(), 1..6),
        ) {
            wanted.retain(|rule| missing(&held, std::slice::from_ref(rule)).is_empty());
            for verb in ["get", "list", "delete"] {
                for group in ["", "apps", "batch"] {
                    for (resource, subresource) in [("pods", ""), ("pods", "log"), ("secrets", ""), ("secrets", "log"), ("jobs", "")] {
                        for name in ["", "a", "b", "c"] {
                            let asked = Attributes { subresource, name, ..Attributes::resource(verb, group, resource) };
                            let allowed = |rules: &[Rule]| rules.iter().any(|rule| rule.allows(&asked));
                            prop_assert!(!allowed(&wanted) || allowed(&held), "{asked:?}");
                        }
                    }
                }
            }
        }
    }
}
