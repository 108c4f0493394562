//! Who is asking.

use std::collections::BTreeMap;

/// A caller, however it was proven who they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub const MASTERS: &'static str = "system:masters";
    pub const AUTHENTICATED: &'static str = "system:authenticated";

    pub fn new(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        groups.push(Self::AUTHENTICATED.to_owned());
        User { name: name.to_owned(), groups, ..User::default() }
    }

    /// Somebody who may do everything.
    pub fn admin() -> Self {
        Self::new("kubernetes-admin", &[Self::MASTERS])
    }

    /// The API server itself, as bootstrap and admission act.
    pub fn apiserver() -> Self {
        Self::new("system:apiserver", &[Self::MASTERS])
    }

    pub fn anonymous() -> Self {
        User { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()], ..User::default() }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The node's name, if this is a node agent.
    pub fn node(&self) -> Option<&str> {
        self.name.strip_prefix("system:node:").filter(|_| self.is_in("system:nodes"))
    }
}
