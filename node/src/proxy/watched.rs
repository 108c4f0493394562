//! The Services and EndpointSlices that this node has seen, cut down to what it needs.

use super::model::{Contribution, Model, Name, Service, Slice, contribution};
use slipway_api::{core, discovery};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;

/// State of the watches. Every method is synchronous and pure but for `self`.
#[derive(Default)]
pub struct Watched {
    node: String,
    services: HashMap<Name, Service>,
    /// Slices by Service, then by their own name.
    slices: HashMap<Name, BTreeMap<Box<str>, Slice>>,
    /// To which Service a slice belongs, for when its label changes or it is deleted.
    owners: HashMap<Name, Name>,
    contributions: BTreeMap<Name, Contribution>,
    dirty: BTreeSet<Name>,
    changed: bool,
    relisted_services: Option<HashSet<Name>>,
    relisted_slices: Option<HashSet<Name>>,
    listed_services: bool,
    listed_slices: bool,
}

impl Watched {
    pub fn new(node: &str) -> Watched {
        Watched { node: node.to_string(), ..Watched::default() }
    }

    pub fn service(&mut self, object: &core::Service) {
        let Some(name) = name_of(&object.metadata) else { return };
        if let Some(seen) = &mut self.relisted_services {
            seen.insert(name.clone());
        }
        match Service::of(object) {
            Some(service) if self.services.get(&name) == Some(&service) => {}
            Some(service) => {
                self.services.insert(name.clone(), service);
                self.dirty.insert(name);
            }
            None => self.remove_service(&name),
        }
    }

    pub fn service_deleted(&mut self, object: &core::Service) {
        if let Some(name) = name_of(&object.metadata) {
            self.remove_service(&name);
        }
    }

    fn remove_service(&mut self, name: &Name) {
        if self.services.remove(name).is_some() {
            self.dirty.insert(name.clone());
        }
    }

    pub fn slice(&mut self, object: &discovery::EndpointSlice) {
        let Some(own) = name_of(&object.metadata) else { return };
        if let Some(seen) = &mut self.relisted_slices {
            seen.insert(own.clone());
        }
        let Some((service, slice)) = Slice::of(object, &self.node) else { return self.remove_slice(&own) };
        if self.owners.get(&own).is_some_and(|owner| *owner != service) {
            self.remove_slice(&own);
        }
        self.owners.insert(own.clone(), service.clone());
        let slices = self.slices.entry(service.clone()).or_default();
        if slices.get(&*own.name) != Some(&slice) {
            slices.insert((*own.name).into(), slice);
            self.dirty.insert(service);
        }
    }

    pub fn slice_deleted(&mut self, object: &discovery::EndpointSlice) {
        if let Some(own) = name_of(&object.metadata) {
            self.remove_slice(&own);
        }
    }

    fn remove_slice(&mut self, own: &Name) {
        let Some(service) = self.owners.remove(own) else { return };
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.remove(&*own.name);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        self.dirty.insert(service);
    }

    /// A list begins: what it does not name is gone.
    pub fn services_relist(&mut self) {
        self.relisted_services = Some(HashSet::new());
    }

    pub fn services_relisted(&mut self) {
        self.listed_services = true;
        let seen = self.relisted_services.take().unwrap_or_default();
        let gone: Vec<Name> = self.services.keys().filter(|name| !seen.contains(name)).cloned().collect();
        gone.iter().for_each(|name| self.remove_service(name));
    }

    pub fn slices_relist(&mut self) {
        self.relisted_slices = Some(HashSet::new());
    }

    pub fn slices_relisted(&mut self) {
        self.listed_slices = true;
        let seen = self.relisted_slices.take().unwrap_or_default();
        let gone: Vec<Name> = self.owners.keys().filter(|name| !seen.contains(name)).cloned().collect();
        gone.iter().for_each(|name| self.remove_slice(name));
    }

    /// Both lists are there: before that, what is loaded would lack Services, and break those that worked.
    pub fn is_complete(&self) -> bool {
        self.listed_services && self.listed_slices
    }

    /// Whether anything changed since the last call of [`Watched::model`].
    pub fn has_changed(&mut self) -> bool {
        for name in std::mem::take(&mut self.dirty) {
            let slices = self.slices.get(&name).map(|slices| slices.values()).into_iter().flatten();
            let new = self.services.get(&name).map(|service| contribution(&name, service, slices));
            if self.contributions.get(&name) == new.as_ref() {
                continue;
            }
            self.changed = true;
            match new {
                Some(new) => self.contributions.insert(name, new),
                None => self.contributions.remove(&name),
            };
        }
        self.changed
    }

    pub fn model(&mut self, served_here: &[Ipv4Addr]) -> Model {
        self.has_changed();
        self.changed = false;
        Model::new(self.contributions.values(), served_here)
    }

    /// Ports on which load balancers ask whether this node has endpoints: port, Service, and how many.
    pub fn health_checks(&self) -> BTreeMap<u16, (Name, usize)> {
        let checks = self.contributions.iter().filter_map(|(name, contribution)| Some((name, contribution.health_check?)));
        checks.map(|(name, (port, count))| (port, (name.clone(), count))).collect()
    }
}

fn name_of(metadata: &slipway_api::meta::ObjectMeta) -> Option<Name> {
    Some(Name::new(metadata.namespace.as_deref()?, metadata.name.as_deref()?))
}

#[cfg(test)]
#[path = "watched_tests.rs"]
mod tests;
