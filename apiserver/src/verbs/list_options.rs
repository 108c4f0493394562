//! `metav1.ListOptions`: which objects, of which moment.

use crate::field_selector::FieldSelector;
use crate::http::error::{Invalid, Status};
use crate::http::query::Query;
use crate::kind::{Names, Strategy};
use crate::server::ApiServer;
use crate::stored::{self, Entry, Snapshot};
use crate::verbs::{status_of, too_large_version};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::json;
use slipway_api::selector::Selector;
use slipway_store::Revision;
use std::sync::Arc;

/// What `resourceVersion` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Left out: as fresh as the store has it.
    Newest,
    /// `0`: whatever is at hand.
    Any,
    At(Revision),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// Where a list that was cut off by `limit` goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continue {
    v: String,
    /// The revision of the first page; -1: whatever is newest, because the first page's is forgotten.
    pub rv: Revision,
    /// The last key that was sent, below the list's prefix.
    pub start: String,
}

impl Continue {
    const FORMAT: &'static str = "meta.k8s.io/v1";
    pub const INCONSISTENT: Revision = -1;

    pub fn new(rv: Revision, start: &str) -> Self {
        Continue { v: Self::FORMAT.into(), rv, start: start.into() }
    }

    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!(self).to_string())
    }

    pub fn decode(token: &str) -> Result<Self, Status> {
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).ok();
        let decoded: Option<Continue> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        decoded
            .filter(|token| token.v == Self::FORMAT && (token.rv > 0 || token.rv == Self::INCONSISTENT))
            .ok_or_else(|| Status::bad_request("continue key is not valid: the token cannot be read"))
    }
}

#[derive(Debug, Clone)]
pub struct ListOptions {
    pub labels: Selector,
    pub fields: FieldSelector,
    /// 0: no limit.
    pub limit: usize,
    pub continue_from: Option<Continue>,
    pub version: Version,
    pub version_match: Option<VersionMatch>,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    pub fn parse(query: &Query, strategy: &dyn Strategy) -> Result<Self, Status> {
        let labels = Selector::parse(query.get("labelSelector").unwrap_or_default())
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default(), strategy)?;
        let options = ListOptions {
            labels,
            fields,
            limit: query.integer("limit")?.unwrap_or(0).max(0) as usize,
            continue_from: query.get("continue").map(Continue::decode).transpose()?,
            version: version(query.get("resourceVersion"))?,
            version_match: version_match(query.get("resourceVersionMatch"))?,
            timeout_seconds: query.integer("timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok()),
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.optional_flag("sendInitialEvents"),
        };
        options.check(query.flag("watch"))?;
        Ok(options)
    }

    /// What makes no sense together, all of it.
    fn check(&self, watch: bool) -> Result<(), Status> {
        const MATCH: &str = "resourceVersionMatch";
        let mut errors = vec![];
        let mut forbid = |field: &str, why: &str| errors.push(Invalid::forbidden(field, why));
        let matching = self.version_match.is_some();
        let older = self.version_match == Some(VersionMatch::NotOlderThan);
        if watch {
            if self.send_initial_events.is_some() && !older {
                forbid(MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
            }
            if matching && self.send_initial_events.is_none() {
                forbid(MATCH, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
            }
        } else {
            if matching && self.version == Version::Newest {
                forbid(MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if self.version_match == Some(VersionMatch::Exact) && self.version == Version::Any {
                forbid(MATCH, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
            if self.send_initial_events.is_some() {
                forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
            }
        }
        if matching && self.continue_from.is_some() {
            forbid(MATCH, "resourceVersionMatch is forbidden when continue is provided");
        }
        if watch && matching && !older {
            let value = json!("Exact");
            errors.push(Invalid::not_supported(MATCH, &value, &["NotOlderThan"]));
        }
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "ListOptions", "", &errors));
        }
        if self.continue_from.is_some() && matches!(self.version, Version::At(_)) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        Ok(())
    }
}

/// `resourceVersion` of a get, list or watch.
pub fn version(text: Option<&str>) -> Result<Version, Status> {
    match text {
        None => Ok(Version::Newest),
        Some("0") => Ok(Version::Any),
        Some(text) => match text.parse::<u64>().ok().and_then(|number| Revision::try_from(number).ok()) {
            Some(revision) => Ok(Version::At(revision)),
            None => {
                let why = format!("strconv.ParseUint: parsing \"{text}\": invalid syntax");
                let error = Invalid::value("resourceVersion", &json!(text), &why);
                Err(Status::invalid("meta.k8s.io", "ListOptions", "", &[error]))
            }
        },
    }
}

fn version_match(text: Option<&str>) -> Result<Option<VersionMatch>, Status> {
    match text {
        None => Ok(None),
        Some("Exact") => Ok(Some(VersionMatch::Exact)),
        Some("NotOlderThan") => Ok(Some(VersionMatch::NotOlderThan)),
        Some(other) => {
            let error = Invalid::not_supported("resourceVersionMatch", &json!(other), &["Exact", "NotOlderThan", ""]);
            Err(Status::invalid("meta.k8s.io", "ListOptions", "", &[error]))
        }
    }
}

/// All objects at a moment that is not older than `version`.
pub async fn snapshot(server: &ApiServer, names: &Names, version: Version) -> Result<Snapshot, Status> {
    let cache = &server.cache;
    match version {
        Version::Newest => cache.fresh().await.map_err(|error| status_of(error, names, "")),
        Version::Any => Ok(cache.snapshot()),
        Version::At(revision) => cache.at_least(revision).await.map_err(|error| match error {
            slipway_store::Error::Timeout | slipway_store::Error::Future { .. } => {
                too_large_version(Some(revision), cache.snapshot().revision)
            }
            error => status_of(error, names, ""),
        }),
    }
}

/// Which of a kind's objects a list or a watch is about.
#[derive(Clone)]
pub struct Selection {
    strategy: Arc<dyn Strategy>,
    /// All keys that can match begin with it.
    pub prefix: String,
    /// The one key that can match.
    only: Option<String>,
    labels: Selector,
    fields: FieldSelector,
}

impl Selection {
    /// `namespace` is `None` for all namespaces and for kinds of the cluster.
    pub fn new(strategy: &Arc<dyn Strategy>, namespace: Option<&str>, options: &ListOptions) -> Self {
        let names = strategy.names();
        let namespace = namespace.or_else(|| options.fields.namespace()).filter(|_| names.namespaced);
        let only = match (options.fields.name(), namespace) {
            (Some(name), Some(namespace)) => Some(stored::key(names, namespace, name)),
            (Some(name), None) if !names.namespaced => Some(stored::key(names, "", name)),
            _ => None,
        };
        Selection {
            strategy: Arc::clone(strategy),
            prefix: stored::prefix(names, namespace),
            only,
            labels: options.labels.clone(),
            fields: options.fields.clone(),
        }
    }

    /// Whether every object below the prefix is selected.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_empty()
    }

    /// How much an object is compared with.
    pub fn clauses(&self) -> usize {
        self.labels.requirements().len() + self.fields.len()
    }

    pub fn matches(&self, entry: &Entry) -> bool {
        if self.is_everything() {
            return true;
        }
        if self.only.as_deref().is_some_and(|key| key != &*entry.key) || !self.labels.matches(&entry.attributes.labels) {
            return false;
        }
        if self.fields.is_empty() {
            return true;
        }
        let (namespace, name) = stored::namespace_and_name(&entry.key);
        if self.strategy.names().stored_as.is_none() && self.strategy.custom().is_none() {
            return self.fields.matches(namespace, name, &entry.attributes.fields);
        }
        // The attributes are those of the kind that these objects are stored as, under its names.
        let object = stored::decode(&*self.strategy, &entry.bytes).unwrap_or_default();
        self.fields.matches(namespace, name, &self.strategy.selectable_fields(&object))
    }

    /// What is selected, in the order of the keys.
    pub fn entries(&self, snapshot: &Snapshot) -> Vec<Arc<Entry>> {
        match &self.only {
            Some(key) => snapshot.objects.get(key.as_str()).filter(|entry| self.matches(entry)).cloned().into_iter().collect(),
            None => self.after(snapshot, "").filter(|entry| self.matches(entry)).cloned().collect(),
        }
    }

    /// All below the prefix and after `start` (a key without the prefix; empty: from the first), selected or not.
    pub fn after<'a>(&self, snapshot: &'a Snapshot, start: &str) -> impl Iterator<Item = &'a Arc<Entry>> {
        stored::below(snapshot, &self.prefix, start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Builtin;
    use slipway_api::core::ConfigMap;

    fn parse(query: &str) -> Result<ListOptions, String> {
        ListOptions::parse(&Query::parse(query), &Builtin::<ConfigMap>::new()).map_err(|status| status.message)
    }

    #[test]
    fn combinations_that_make_no_sense_are_refused() {
        assert!(parse("resourceVersion=5&resourceVersionMatch=Exact").is_ok());
        assert!(parse("resourceVersionMatch=Exact").unwrap_err().contains("unless resourceVersion is provided"));
        assert!(parse("resourceVersion=0&resourceVersionMatch=Exact").unwrap_err().contains("forbidden for resourceVersion"));
        assert!(parse("resourceVersion=x").unwrap_err().contains("invalid syntax"));
        assert!(parse("sendInitialEvents=true").unwrap_err().contains("forbidden for list"));
        assert!(parse("watch=1&sendInitialEvents=true").unwrap_err().contains("NotOlderThan"));
        assert!(parse("watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan").is_ok());
        assert!(parse("watch=1&resourceVersion=5&resourceVersionMatch=NotOlderThan").is_err());
        assert!(parse("limit=x").unwrap_err().contains("strconv"));
        assert!(parse("continue=%%%").unwrap_err().contains("continue key is not valid"));
        assert!(parse("labelSelector=a%20in%20(").is_err());
    }

    #[test]
    fn a_continue_token_comes_back() {
        let token = Continue::new(7, "default/a");
        assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        let query = format!("continue={}&resourceVersion=9", token.encode());
        assert!(parse(&query).unwrap_err().contains("not allowed when using continue"));
    }

    proptest::proptest! {
        #[test]
        fn no_query_makes_it_panic(labels in "\\PC{0,40}", fields in "[a-z=!,.() \\\\-]{0,40}", token in "\\PC{0,40}", number in "\\PC{0,8}") {
            let pairs = [("labelSelector", &labels), ("fieldSelector", &fields), ("continue", &token), ("limit", &number),
                ("resourceVersion", &number), ("resourceVersionMatch", &number), ("timeoutSeconds", &number)];
            for (name, value) in pairs {
                let query = Query::of(name, value);
                let _ = ListOptions::parse(&query, &Builtin::<ConfigMap>::new());
            }
        }

        #[test]
        fn any_token_that_was_made_comes_back(revision in 1i64.., start in "\\PC{0,60}") {
            let token = Continue::new(revision, &start);
            proptest::prop_assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        }
    }
}
