//! APIServices as stored objects, and what requests are told by them.

use crate::custom_resources::definition;
use crate::stored::{self, Entry, Snapshot};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use slipway_store::Revision;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const PREFIX: &str = "/apiregistration.k8s.io/apiservices/";
const PORT: u16 = 443;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiService {
    pub name: String,
    pub group: String,
    pub version: String,
    pub group_priority: i64,
    pub version_priority: i64,
    /// `None`: this server serves it.
    pub remote: Option<Remote>,
    pub is_available: bool,
}

/// Where an extension server is, and how it is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Remote {
    pub namespace: String,
    pub service: String,
    pub port: u16,
    pub trust: Trust,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// By authorities in PEM; by the system's, if it is empty.
    Bundle(Arc<[u8]>),
    Anybody,
}

impl ApiService {
    pub fn of(object: &Value) -> Self {
        let spec = &object["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let service = &spec["service"];
        let remote = service.is_object().then(|| Remote {
            namespace: text(&service["namespace"]),
            service: text(&service["name"]),
            port: service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(PORT),
            trust: match spec["insecureSkipTLSVerify"] == true {
                true => Trust::Anybody,
                false => Trust::Bundle(STANDARD.decode(text(&spec["caBundle"])).unwrap_or_default().into()),
            },
        });
        ApiService {
            name: text(&object["metadata"]["name"]),
            group: text(&spec["group"]),
            version: text(&spec["version"]),
            group_priority: spec["groupPriorityMinimum"].as_i64().unwrap_or_default(),
            version_priority: spec["versionPriority"].as_i64().unwrap_or_default(),
            remote,
            is_available: definition::is_condition_true(object, super::AVAILABLE),
        }
    }

    /// `/apis/GROUP/VERSION`, or `/api/v1`.
    pub fn root(&self) -> String {
        match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        }
    }
}

/// All APIServices at one moment.
#[derive(Debug, Default)]
pub(crate) struct Services {
    /// By group, then version.
    all: BTreeMap<String, BTreeMap<String, Arc<ApiService>>>,
    has_remotes: bool,
}

impl Services {
    fn new(services: impl Iterator<Item = Arc<ApiService>>) -> Self {
        let mut new = Services::default();
        for service in services {
            new.has_remotes |= service.remote.is_some();
            new.all.entry(service.group.clone()).or_default().insert(service.version.clone(), service);
        }
        new
    }

    pub fn get(&self, group: &str, version: &str) -> Option<&Arc<ApiService>> {
        self.all.get(group)?.get(version)
    }

    pub fn remote(&self, group: &str, version: &str) -> Option<&Arc<ApiService>> {
        // Most clusters have few or none, and every request asks.
        if !self.has_remotes {
            return None;
        }
        self.get(group, version).filter(|service| service.remote.is_some())
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<ApiService>> {
        self.all.values().flat_map(BTreeMap::values)
    }

    pub fn remotes(&self) -> impl Iterator<Item = (&Arc<ApiService>, &Remote)> {
        self.all().filter_map(|service| Some((service, service.remote.as_ref()?)))
    }
}

/// The objects that were read, by their keys.
#[derive(Default)]
pub(crate) struct Known {
    revision: Revision,
    services: BTreeMap<Arc<str>, (Revision, Arc<ApiService>)>,
}

impl Known {
    /// The APIServices of the snapshot, if they are not those that are known.
    pub fn follow(&mut self, snapshot: &Snapshot) -> Option<Services> {
        if snapshot.revision < self.revision {
            return None;
        }
        self.revision = snapshot.revision;
        let entries: Vec<&Arc<Entry>> = stored::below(snapshot, PREFIX, "").collect();
        let known = |entry: &&Arc<Entry>| self.services.get(&entry.key).is_some_and(|(at, _)| *at == entry.mod_revision);
        if entries.len() == self.services.len() && entries.iter().all(known) {
            return None;
        }
        let mut services = BTreeMap::new();
        for entry in entries {
            let service = match self.services.get(&entry.key) {
                Some((at, service)) if *at == entry.mod_revision => Arc::clone(service),
                _ => {
                    let object: Value = serde_json::from_slice(&entry.bytes).unwrap_or_default();
                    Arc::new(ApiService::of(&object))
                }
            };
            services.insert(Arc::clone(&entry.key), (entry.mod_revision, service));
        }
        self.services = services;
        Some(Services::new(self.services.values().map(|(_, service)| Arc::clone(service))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_api_service_says_who_serves() {
        let remote = json!({
            "metadata": {"name": "v1.a.b"},
            "spec": {"group": "a.b", "version": "v1", "groupPriorityMinimum": 5, "versionPriority": 7, "caBundle": "YWJj",
                     "service": {"namespace": "n", "name": "s"}},
            "status": {"conditions": [{"type": "Available", "status": "True"}]},
        });
        let service = ApiService::of(&remote);
        let trust = Trust::Bundle(b"abc".as_slice().into());
        assert_eq!(service.remote, Some(Remote { namespace: "n".into(), service: "s".into(), port: 443, trust }));
        assert!(service.is_available);
        assert_eq!(service.root(), "/apis/a.b/v1");
        let local = ApiService::of(&json!({"metadata": {"name": "v1."}, "spec": {"version": "v1"}}));
        assert_eq!((local.root().as_str(), local.remote.is_none(), local.is_available), ("/api/v1", true, false));
        let services = Services::new([service, local].map(Arc::new).into_iter());
        assert!(services.remote("a.b", "v1").is_some() && services.remote("", "v1").is_none());
        assert!(services.get("", "v1").is_some() && services.get("a.b", "v2").is_none());
        assert_eq!((services.all().count(), services.remotes().count()), (2, 1));
    }
}
