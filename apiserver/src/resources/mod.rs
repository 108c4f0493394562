//! The built-in kinds: one file each. This file is only the list.

use crate::kind::{Builtin, Kind, Strategy};
use std::sync::Arc;

pub mod addresses;
pub mod admission_registration;
pub mod amounts;
mod api_service;
mod certificate_signing_request;
mod config_map;
mod controller_revision;
mod cron_job;
mod csi_driver;
mod csi_node;
mod csi_storage_capacity;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod dynamic_resource_allocation;
mod endpoint_slice;
mod endpoints;
pub mod event;
mod fill;
mod flow_control;
mod horizontal_pod_autoscaler;
pub mod ingress;
pub mod ingress_class;
mod ip_address;
mod job;
mod lease;
mod limit_range;
mod machine;
mod namespace;
mod network_policy;
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
mod service_cidr;
mod show;
mod stateful_set;
pub mod storage_class;
mod volume_attachment;
mod volume_attributes_class;

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
        kind::<stateful_set::StatefulSet>(),
        kind::<controller_revision::ControllerRevision>(),
        kind::<job::Job>(),
        kind::<cron_job::CronJob>(),
        kind::<horizontal_pod_autoscaler::v2::HorizontalPodAutoscaler>(),
        kind::<horizontal_pod_autoscaler::v1::HorizontalPodAutoscaler>(),
        kind::<endpoint_slice::EndpointSlice>(),
        kind::<lease::Lease>(),
        kind::<pod_template::PodTemplate>(),
        kind::<limit_range::LimitRange>(),
        kind::<resource_quota::ResourceQuota>(),
        kind::<persistent_volume::PersistentVolume>(),
        kind::<persistent_volume_claim::PersistentVolumeClaim>(),
        kind::<storage_class::StorageClass>(),
        kind::<csi_driver::CSIDriver>(),
        kind::<csi_node::CSINode>(),
        kind::<csi_storage_capacity::CSIStorageCapacity>(),
        kind::<volume_attachment::VolumeAttachment>(),
        kind::<volume_attributes_class::VolumeAttributesClass>(),
        kind::<ingress_class::IngressClass>(),
        kind::<ingress::Ingress>(),
        kind::<network_policy::NetworkPolicy>(),
        kind::<ip_address::IPAddress>(),
        kind::<service_cidr::ServiceCIDR>(),
        kind::<dynamic_resource_allocation::device_class::DeviceClass>(),
        kind::<dynamic_resource_allocation::resource_claim::ResourceClaim>(),
        kind::<dynamic_resource_allocation::resource_claim_template::ResourceClaimTemplate>(),
        kind::<dynamic_resource_allocation::resource_slice::ResourceSlice>(),
        kind::<runtime_class::RuntimeClass>(),
        kind::<custom_resource_definition::CustomResourceDefinition>(),
        kind::<api_service::APIService>(),
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
