//! Owner references: who controls an object.

use crate::meta::{ObjectMeta, OwnerReference};
use k8s_openapi::{Metadata, Resource};

/// The one owner that manages the object, if it has one.
pub fn controller_of(object: &ObjectMeta) -> Option<&OwnerReference> {
    object.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// By UID: an owner of the same name that was made anew is another one.
pub fn is_controlled_by(object: &ObjectMeta, owner: &ObjectMeta) -> bool {
    owner.uid.is_some() && controller_of(object).map(|controller| &controller.uid) == owner.uid.as_ref()
}

/// A reference that makes `owner` the controller, and deletion of it in the foreground wait for the object.
pub fn owner_reference<K: Resource + Metadata<Ty = ObjectMeta>>(owner: &K) -> OwnerReference {
    let metadata = owner.metadata();
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::ReplicaSet;

    #[test]
    fn a_controller_is_found_by_its_uid() {
        let mut set = ReplicaSet::default();
        set.metadata.name = Some("web".into());
        set.metadata.uid = Some("1".into());
        let reference = owner_reference(&set);
        assert_eq!(
            (reference.api_version.as_str(), reference.kind.as_str(), reference.name.as_str()),
            ("apps/v1", "ReplicaSet", "web")
        );

        let bystander = OwnerReference { controller: None, uid: "2".into(), ..reference.clone() };
        let pod = ObjectMeta { owner_references: Some(vec![bystander, reference]), ..ObjectMeta::default() };
        assert!(is_controlled_by(&pod, &set.metadata));
        set.metadata.uid = Some("2".into());
        assert!(!is_controlled_by(&pod, &set.metadata));
        assert!(!is_controlled_by(&ObjectMeta::default(), &ObjectMeta::default()));
    }
}
