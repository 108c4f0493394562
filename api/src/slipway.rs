//! Slipway's own kinds, group `slipway.dev/v1alpha1`: NodeClass, NodePool, Machine.
//!
//! A NodePool says what may be bought, a NodeClass how, and each Machine is one line of the ledger: it is written before the
//! cloud is asked, and stays until the cloud has taken the machine back.

use crate::core::{NodeAddress, Taint};
use crate::meta::{Condition, ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const GROUP: &str = "slipway.dev";
pub const VERSION: &str = "v1alpha1";
pub const API_VERSION: &str = "slipway.dev/v1alpha1";

/// On nodes and Machines: the NodePool they were bought for.
pub const LABEL_NODE_POOL: &str = "slipway.dev/node-pool";
/// On nodes: the Machine they run on.
pub const LABEL_MACHINE: &str = "slipway.dev/machine";
/// On nodes: `on-demand` or `spot`.
pub const LABEL_CAPACITY_TYPE: &str = "slipway.dev/capacity-type";
/// Keeps a Machine until the cloud has taken the machine back.
pub const FINALIZER: &str = "slipway.dev/termination";

macro_rules! kind {
    ($kind:ident, $list:literal, $plural:literal, $about:literal, $spec:ty, $status:ty) => {
        #[doc = $about]
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        pub struct $kind {
            #[serde(default)]
            pub metadata: ObjectMeta,
            #[serde(default)]
            pub spec: $spec,
            #[serde(default)]
            pub status: Option<$status>,
        }

        impl k8s_openapi::Resource for $kind {
            const API_VERSION: &'static str = API_VERSION;
            const GROUP: &'static str = GROUP;
            const KIND: &'static str = stringify!($kind);
            const VERSION: &'static str = VERSION;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = k8s_openapi::ClusterResourceScope;
        }

        impl k8s_openapi::ListableResource for $kind {
            const LIST_KIND: &'static str = $list;
        }

        impl k8s_openapi::Metadata for $kind {
            type Ty = ObjectMeta;
            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }

        impl Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let metadata = &self.metadata;
                Whole { api_version: API_VERSION, kind: stringify!($kind), metadata, spec: &self.spec, status: self.status.as_ref() }
                    .serialize(serializer)
            }
        }

        impl JsonSchema for $kind {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                concat!("dev.slipway.v1alpha1.", stringify!($kind)).into()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "description": $about,
                    "type": "object",
                    "properties": {
                        "apiVersion": { "type": "string", "description": "The version of this representation of the object." },
                        "kind": { "type": "string", "description": "The kind of the object." },
                        "metadata": generator.subschema_for::<ObjectMeta>(),
                        "spec": generator.subschema_for::<$spec>(),
                        "status": generator.subschema_for::<$status>(),
                    },
                    "required": ["metadata", "spec"],
                })
            }
        }
    };
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole<'a, Spec, Status> {
    api_version: &'a str,
    kind: &'a str,
    metadata: &'a ObjectMeta,
    spec: &'a Spec,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a Status>,
}

kind!(
    NodeClass,
    "NodeClassList",
    "nodeclasses",
    "How machines of a cloud are made: image, network, access.",
    NodeClassSpec,
    NodeClassStatus
);
kind!(NodePool, "NodePoolList", "nodepools", "What machines may be bought, and how many.", NodePoolSpec, NodePoolStatus);
kind!(Machine, "MachineList", "machines", "One machine that was bought, or is about to be.", MachineSpec, MachineStatus);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "dev.slipway.v1alpha1.NodeClassSpec")]
#[serde(rename_all = "camelCase", default)]
pub struct NodeClassSpec {
    /// The cloud: `ec2`.
    pub provider: String,
    /// The image that machines boot from: an AMI's id.
    pub image: String,
    /// The subnets that machines may be in, one in each zone that is to be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<String>,
    /// A shell script that runs at first boot, before the node joins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// The IAM role that machines act with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_profile: Option<String>,
    /// The SSH key pair to install.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_name: Option<String>,
    /// Tags of all that is made in the cloud, beside Slipway's own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "dev.slipway.v1alpha1.NodeClassStatus")]
#[serde(rename_all = "camelCase", default)]
pub struct NodeClassStatus {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "dev.slipway.v1alpha1.NodeClassReference")]
#[serde(rename_all = "camelCase", default)]
pub struct NodeClassReference {
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "dev.slipway.v1alpha1.NodePoolSpec")]
#[serde(rename_all = "camelCase", default)]
pub struct NodePoolSpec {
    pub node_class_ref: NodeClassReference,
    /// What the pool's nodes carry from their first moment on.
    pub template: NodeTemplate,
    /// The instance types that may be bought, such as `m7i.large`. The cheapest that fits is taken.
    pub instance_types: Vec<String>,
    /// The zones that machines may be in. None: wherever the class has a subnet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<String>,
    /// None: on demand only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capacity_types: Vec<CapacityType>,
    pub limits: NodePoolLimits,
    pub disruption: Disruption,
}

/// Labels, annotations and taints of the nodes to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "dev.slipway.v1alpha1.NodeTemplate")]
#[serde(rename_all = "camelCase", default)]
pub struct NodeTemplate {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// Taints that someone takes away while the node starts; pods need not tolerate them for a node to be bought.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub startup_taints: Vec<Taint>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityType {
    #[default]
    OnDemand,
    Spot,
}

impl CapacityType {
    pub fn as_str(self) -> &'static str {
        match self {
            CapacityType::OnDemand => "on-demand",
            CapacityType::Spot => "spot",
        }
    }
}

/// What all of a pool's machines together may come to. What isn't given isn't limited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "dev.slipway.v1alpha1.NodePoolLimits")]
#[serde(rename_all = "camelCase", default)]
pub struct NodePoolLimits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machines: Option<i32>,
    /// In the currency of the cloud's price list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub money_per_hour: Option<Quantity>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "dev.slipway.v1alpha1.Disruption")]
#[serde(rename_all = "camelCase", default)]
pub struct Disruption {
    /// How long a node may stand empty before it is given back. Not given: a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_after_seconds: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "dev.slipway.v1alpha1.NodePoolStatus")]
#[serde(rename_all = "camelCase", default)]
pub struct NodePoolStatus {
    pub machines: i32,
    /// What the machines have together.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, Quantity>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "dev.slipway.v1alpha1.MachineSpec")]
#[serde(rename_all = "camelCase", default)]
pub struct MachineSpec {
    /// The NodePool it was bought for.
    pub node_pool: String,
    pub node_class_ref: NodeClassReference,
    pub instance_type: String,
    pub zone: String,
    pub capacity_type: CapacityType,
    /// What the pods that it was bought for ask for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub startup_taints: Vec<Taint>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum MachinePhase {
    /// Written down, not bought yet.
    #[default]
    Pending,
    /// The cloud has made it.
    Launched,
    /// Its node has joined.
    Registered,
    /// Its node is ready for pods.
    Ready,
    /// Its pods are being moved.
    Draining,
    /// The cloud was told to take it back.
    Terminating,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "dev.slipway.v1alpha1.MachineStatus")]
#[serde(rename_all = "camelCase", default)]
pub struct MachineStatus {
    pub phase: MachinePhase,
    /// As on the node: `aws:///eu-central-1a/i-0123456789abcdef0`.
    #[serde(rename = "providerID", skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launched_at: Option<Time>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<NodeAddress>,
    /// What an hour of it costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<Quantity>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pool_reads_and_writes_camel_case() {
        let written = json!({
            "apiVersion": "slipway.dev/v1alpha1",
            "kind": "NodePool",
            "metadata": {"name": "default"},
            "spec": {
                "nodeClassRef": {"name": "default"},
                "template": {"startupTaints": [{"key": "cni", "effect": "NoSchedule"}]},
                "instanceTypes": ["m7i.large"],
                "capacityTypes": ["spot", "on-demand"],
                "limits": {"cpu": "100", "machines": 10, "moneyPerHour": "2.5"},
                "disruption": {"emptyAfterSeconds": 30},
            },
        });
        let pool: NodePool = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(pool.spec.capacity_types, [CapacityType::Spot, CapacityType::OnDemand]);
        assert_eq!(serde_json::to_value(&pool).unwrap(), written);
    }

    #[test]
    fn a_machine_keeps_its_status() {
        let written = json!({
            "apiVersion": "slipway.dev/v1alpha1",
            "kind": "Machine",
            "metadata": {"name": "m1"},
            "spec": {"nodePool": "default", "nodeClassRef": {"name": "c"}, "instanceType": "m7i.large", "zone": "a", "capacityType": "on-demand"},
            "status": {"phase": "Registered", "providerID": "aws:///a/i-1", "nodeName": "n1", "launchedAt": "2026-01-01T00:00:00Z", "price": "0.096"},
        });
        let machine: Machine = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(machine.status.as_ref().map(|status| status.phase), Some(MachinePhase::Registered));
        assert_eq!(serde_json::to_value(&machine).unwrap(), written);
    }

    #[test]
    fn schemas_name_every_field() {
        let schema = schemars::SchemaGenerator::default().into_root_schema_for::<NodePool>().to_value();
        assert_eq!(schema["properties"]["kind"]["type"], "string");
        let spec = &schema["$defs"]["dev.slipway.v1alpha1.NodePoolSpec"]["properties"];
        for field in ["nodeClassRef", "template", "instanceTypes", "zones", "capacityTypes", "limits", "disruption"] {
            assert!(spec[field].is_object(), "{field} in {spec}");
        }
    }
}
