//! The built-in kinds: one file each. This file is only the list.

use crate::kind::{Builtin, Kind, Strategy};
use std::sync::Arc;

pub mod admission_registration;
pub mod amounts;
mod certificate_signing_request;
mod config_map;
mod controller_revision;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod endpoint_slice;
mod endpoints;
pub mod event;
mod fill;
mod flow_control;
pub mod ingress;
pub mod ingress_class;
mod job;
mod lease;
mod limit_range;
mod machine;
mod namespace;
mod node;
mod node_class;
mod node_pool;
mod persistent_volume;
pub mod persistent_volume_claim;
pub mod pod;
mod pod_disruption_budget;
mod pod_template;
mod priority_class;
mod rbac;
mod replica_set;
mod replication_controller;
mod resource_quota;
mod rules;
mod runtime_class;
mod secret;
mod service;
mod service_account;
mod show;
pub mod storage_class;

pub fn builtin() -> Vec<Arc<dyn Strategy>> {
    vec![
        kind::<namespace::Namespace>(),
        kind::<pod::Pod>(),
        kind::<service::Service>(),
        kind::<endpoints::Endpoints>(),
        kind::<config_map::ConfigMap>(),
        kind::<secret::Secret>(),
        kind::<service_account::ServiceAccount>(),
        kind::<node::Node>(),
        kind::<event::core::Event>(),
        kind::<event::events::Event>(),
        kind::<deployment::Deployment>(),
        kind::<replica_set::ReplicaSet>(),
        kind::<replication_controller::ReplicationController>(),
        kind::<daemon_set::DaemonSet>(),
        kind::<controller_revision::ControllerRevision>(),
        kind::<job::Job>(),
        kind::<endpoint_slice::EndpointSlice>(),
        kind::<lease::Lease>(),
        kind::<pod_template::PodTemplate>(),
        kind::<limit_range::LimitRange>(),
        kind::<resource_quota::ResourceQuota>(),
        kind::<persistent_volume::PersistentVolume>(),
        kind::<persistent_volume_claim::PersistentVolumeClaim>(),
        kind::<storage_class::StorageClass>(),
        kind::<ingress_class::IngressClass>(),
        kind::<ingress::Ingress>(),
        kind::<runtime_class::RuntimeClass>(),
        kind::<custom_resource_definition::CustomResourceDefinition>(),
        kind::<priority_class::PriorityClass>(),
        kind::<pod_disruption_budget::PodDisruptionBudget>(),
        kind::<certificate_signing_request::CertificateSigningRequest>(),
        kind::<rbac::role::Role>(),
        kind::<rbac::cluster_role::ClusterRole>(),
        kind::<rbac::role_binding::RoleBinding>(),
        kind::<rbac::cluster_role_binding::ClusterRoleBinding>(),
        kind::<admission_registration::webhook::MutatingWebhookConfiguration>(),
        kind::<admission_registration::webhook::ValidatingWebhookConfiguration>(),
        kind::<admission_registration::policy::ValidatingAdmissionPolicy>(),
        kind::<admission_registration::binding::ValidatingAdmissionPolicyBinding>(),
        kind::<admission_registration::policy::MutatingAdmissionPolicy>(),
        kind::<admission_registration::binding::MutatingAdmissionPolicyBinding>(),
        kind::<flow_control::flow_schema::FlowSchema>(),
        kind::<flow_control::priority_level_configuration::PriorityLevelConfiguration>(),
        kind::<node_class::NodeClass>(),
        kind::<node_pool::NodePool>(),
        kind::<machine::Machine>(),
    ]
}

fn kind<K: Kind>() -> Arc<dyn Strategy> {
    Arc::new(Builtin::<K>::new())
}
