//! Which kinds are watched, and how much of them. One line a kind.

use slipway_api::{apps, autoscaling_v2, batch, certificates, coordination, core, discovery, policy, rbac, slipway};

use crate::{
    cache::{AnyCache, Cache},
    resource::Resource,
};

/// Whose members are watched: all of a kind, or only what the field selector and the namespace let through.
#[derive(Clone, Copy, Default)]
pub struct Selection {
    pub namespace: &'static str,
    pub field_selector: &'static str,
}

impl Selection {
    /// Whether all objects of the kind are watched.
    pub fn is_whole(&self) -> bool {
        self.namespace.is_empty() && self.field_selector.is_empty()
    }
}

const ALL: Selection = Selection { namespace: "", field_selector: "" };

macro_rules! caches {
    ($($name:ident: $kind:ty, $selection:expr, $index:expr;)*) => {
        /// One cache a kind, shared by all controllers.
        pub struct Caches {
            $(pub $name: Cache<$kind>,)*
        }

        impl Default for Caches {
            fn default() -> Caches {
                Caches { $($name: Cache::new($index),)* }
            }
        }

        impl Caches {
            pub fn all(&self) -> Vec<(&dyn AnyCache, Selection)> {
                vec![$((&self.$name as &dyn AnyCache, $selection),)*]
            }

            pub fn of(&self, resource: &Resource) -> Option<(&dyn AnyCache, Selection)> {
                self.all().into_iter().find(|(cache, _)| cache.resource() == resource)
            }
        }
    };
}

caches! {
    pods: core::Pod, ALL, Some(|pod| pod.spec.as_ref()?.node_name.clone());
    nodes: core::Node, ALL, None;
    namespaces: core::Namespace, ALL, None;
    services: core::Service, ALL, None;
    endpoints: core::Endpoints, ALL, None;
    endpoint_slices: discovery::EndpointSlice, ALL,
        Some(|slice| Some(format!("{}/{}", slice.metadata.namespace.as_deref()?, slice.metadata.labels.as_ref()?.get(crate::endpoint_slice::SERVICE_NAME)?)));
    resource_quotas: core::ResourceQuota, ALL, None;
    persistent_volume_claims: core::PersistentVolumeClaim, ALL, None;
    persistent_volumes: core::PersistentVolume, ALL, None;
    service_accounts: core::ServiceAccount, ALL, None;
    root_ca_config_maps: core::ConfigMap, Selection { field_selector: "metadata.name=kube-root-ca.crt", ..ALL }, None;
    bootstrap_secrets: core::Secret, Selection { namespace: "kube-system", field_selector: "type=bootstrap.kubernetes.io/token" }, None;
    token_secrets: core::Secret, Selection { field_selector: "type=kubernetes.io/service-account-token", ..ALL }, None;
    node_leases: coordination::Lease, Selection { namespace: "kube-node-lease", ..ALL }, None;
    deployments: apps::Deployment, ALL, None;
    replica_sets: apps::ReplicaSet, ALL, None;
    replication_controllers: core::ReplicationController, ALL, None;
    daemon_sets: apps::DaemonSet, ALL, None;
    stateful_sets: apps::StatefulSet, ALL, None;
    controller_revisions: apps::ControllerRevision, ALL, None;
    jobs: batch::Job, ALL, None;
    cron_jobs: batch::CronJob, ALL, None;
    horizontal_pod_autoscalers: autoscaling_v2::HorizontalPodAutoscaler, ALL, None;
    pod_disruption_budgets: policy::PodDisruptionBudget, ALL, None;
    cluster_roles: rbac::ClusterRole, ALL, None;
    node_classes: slipway::NodeClass, ALL, None;
    node_pools: slipway::NodePool, ALL, None;
    machines: slipway::Machine, ALL, None;
    certificate_signing_requests: certificates::CertificateSigningRequest, ALL, None;
}
