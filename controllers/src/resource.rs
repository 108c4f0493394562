//! Which kind of object something is, and where the API serves it.

use std::{borrow::Cow, fmt};

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};
use slipway_api::{core::ObjectReference, meta::ObjectMeta, meta::OwnerReference};

/// A kind as the API serves it; also for kinds that are known from discovery only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub plural: Cow<'static, str>,
    pub kind: Cow<'static, str>,
    pub namespaced: bool,
}

impl Resource {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The collection, in one namespace, or (empty namespace) in all of them.
    pub fn collection(&self, namespace: &str) -> String {
        let root = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        if self.namespaced && !namespace.is_empty() {
            format!("{root}/{}/namespaces/{namespace}/{}", self.version, self.plural)
        } else {
            format!("{root}/{}/{}", self.version, self.plural)
        }
    }

    pub fn path(&self, key: &Key, subresource: Option<&str>) -> String {
        let object = format!("{}/{}", self.collection(&key.namespace), key.name);
        match subresource {
            Some(subresource) => format!("{object}/{subresource}"),
            None => object,
        }
    }
}

/// Namespace (empty for cluster-scoped objects) and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }

    pub fn of(metadata: &ObjectMeta) -> Key {
        Key::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

pub trait Scoped {
    const NAMESPACED: bool;
}
impl Scoped for ClusterResourceScope {
    const NAMESPACED: bool = false;
}
impl Scoped for NamespaceResourceScope {
    const NAMESPACED: bool = true;
}

/// Any typed object of the API.
pub trait Object:
    k8s_openapi::Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Clone + std::fmt::Debug + Send + Sync + 'static
{
    fn resource() -> Resource;

    fn key(&self) -> Key {
        Key::of(self.metadata())
    }
    fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }
    fn namespace(&self) -> &str {
        self.metadata().namespace.as_deref().unwrap_or_default()
    }
    fn uid(&self) -> &str {
        self.metadata().uid.as_deref().unwrap_or_default()
    }
    fn is_deleted(&self) -> bool {
        self.metadata().deletion_timestamp.is_some()
    }
    fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata().annotations.as_ref()?.get(name).map(String::as_str)
    }
    fn label(&self, name: &str) -> Option<&str> {
        self.metadata().labels.as_ref()?.get(name).map(String::as_str)
    }
    /// The owner reference that makes `self` the controller of another object.
    fn controller_reference(&self) -> OwnerReference {
        slipway_api::owner::owner_reference(self)
    }
    /// What an event says that it is about.
    fn reference(&self) -> ObjectReference {
        let meta = self.metadata();
        ObjectReference {
            api_version: Some(Self::API_VERSION.to_owned()),
            kind: Some(Self::KIND.to_owned()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: None,
        }
    }
}

impl<K> Object for K
where
    K: k8s_openapi::Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Clone + std::fmt::Debug + Send + Sync + 'static,
    K::Scope: Scoped,
{
    fn resource() -> Resource {
        Resource {
            group: K::GROUP.into(),
            version: K::VERSION.into(),
            plural: K::URL_PATH_SEGMENT.into(),
            kind: K::KIND.into(),
            namespaced: K::Scope::NAMESPACED,
        }
    }
}

pub use slipway_api::owner::controller_of;
