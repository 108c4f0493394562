//! The kinds that are served now: those that are built in, and those that CustomResourceDefinitions add.

use crate::kind::Strategy;
use arc_swap::ArcSwap;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

type ByPlural = HashMap<String, Arc<dyn Strategy>>;

/// The served kinds at one moment.
pub struct Resources {
    pub all: Vec<Arc<dyn Strategy>>,
    /// group → version → plural
    by_path: HashMap<String, HashMap<String, ByPlural>>,
}

impl Resources {
    /// Of two kinds at one path the first counts.
    pub fn new(all: Vec<Arc<dyn Strategy>>) -> Self {
        let mut by_path: HashMap<String, HashMap<String, ByPlural>> = HashMap::new();
        for strategy in &all {
            let names = strategy.names();
            let versions = by_path.entry(names.group.to_owned()).or_default();
            let plurals = versions.entry(names.version.to_owned()).or_default();
            plurals.entry(names.plural.to_owned()).or_insert_with(|| Arc::clone(strategy));
        }
        Resources { all, by_path }
    }

    /// The kind served at `/apis/GROUP/VERSION/…/PLURAL` (`group` is empty for the core group).
    pub fn strategy(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<dyn Strategy>> {
        self.by_path.get(group)?.get(version)?.get(plural)
    }

    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.by_path.get(group).is_some_and(|versions| versions.contains_key(version))
    }
}

/// The served kinds, which change while the server runs.
pub struct Registry {
    builtin: Vec<Arc<dyn Strategy>>,
    current: ArcSwap<Resources>,
}

impl Registry {
    pub fn new(builtin: Vec<Arc<dyn Strategy>>) -> Self {
        Registry { current: ArcSwap::from_pointee(Resources::new(builtin.clone())), builtin }
    }

    pub fn current(&self) -> Arc<Resources> {
        self.current.load_full()
    }

    /// From now on these are served beside the built-in kinds.
    pub fn set_custom(&self, custom: Vec<Arc<dyn Strategy>>) {
        let all = self.builtin.iter().cloned().chain(custom).collect();
        self.current.store(Arc::new(Resources::new(all)));
    }

    pub fn strategy(&self, group: &str, version: &str, plural: &str) -> Option<Arc<dyn Strategy>> {
        self.current.load().strategy(group, version, plural).cloned()
    }
}

/// A text that lives as long as the process, so that the names of kinds that come and go have the type of those that are
/// built in. Equal texts are kept once: what a kind says of itself costs memory once, however often it comes and goes.
pub fn intern(text: &str) -> &'static str {
    static TEXTS: LazyLock<parking_lot::Mutex<HashSet<&'static str>>> = LazyLock::new(Default::default);
    let mut texts = TEXTS.lock();
    if let Some(known) = texts.get(text) {
        return known;
    }
    let kept: &'static str = Box::leak(text.into());
    texts.insert(kept);
    kept
}

/// The same for a list of texts.
pub fn intern_all<'a>(list: impl IntoIterator<Item = &'a str>) -> &'static [&'static str] {
    static LISTS: LazyLock<parking_lot::Mutex<HashSet<&'static [&'static str]>>> = LazyLock::new(Default::default);
    let list: Vec<&'static str> = list.into_iter().map(intern).collect();
    let mut lists = LISTS.lock();
    if let Some(known) = lists.get(list.as_slice()) {
        return known;
    }
    let kept: &'static [&'static str] = Box::leak(list.into());
    lists.insert(kept);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_kept_once() {
        let (a, b) = (intern(&String::from("crontabs")), intern(&String::from("crontabs")));
        assert!(std::ptr::eq(a, b));
        assert!(std::ptr::eq(intern_all(["a", "b"]), intern_all(["a", "b"])));
        assert_eq!(intern_all(["ct"]), ["ct"]);
    }

    #[test]
    fn kinds_come_and_go() {
        let registry = Registry::new(crate::resources::builtin());
        let before = registry.current();
        let pods = registry.strategy("", "v1", "pods").unwrap();
        registry.set_custom(vec![Arc::clone(&pods)]);
        assert_eq!(registry.current().all.len(), before.all.len() + 1);
        assert!(Arc::ptr_eq(&registry.strategy("", "v1", "pods").unwrap(), &pods), "a built-in kind is not replaced");
        registry.set_custom(vec![]);
        assert_eq!(registry.current().all.len(), before.all.len());
        assert!(registry.current().serves("", "v1") && !registry.current().serves("", "v2"));
    }
}
