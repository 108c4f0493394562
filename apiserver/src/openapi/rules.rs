//! How lists and maps of the API's types are merged: what `x-kubernetes-patch-strategy`, `-patch-merge-key`, `-list-type`,
//! `-list-map-keys` and `-map-type` say. k8s-openapi carries none of it.

use List::{Atomic, Keyed, Set};

/// Who owns what in a list, for server-side apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// One owner for the whole list.
    Atomic,
    /// Of scalars, each of which may have its owner.
    Set,
    /// Of objects that these fields tell apart.
    Keyed(&'static [&'static str]),
}

/// What is special about one field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rule {
    pub list: Option<List>,
    /// The map has one owner.
    pub atomic_map: bool,
    /// The map's keys have owners each: said only where Kubernetes says it.
    pub granular_map: bool,
    /// For strategic merge patch: `merge`, `replace`, `retainKeys` or `merge,retainKeys`; empty for the default.
    pub strategy: &'static str,
    /// Empty where lists are not merged by a key.
    pub merge_key: &'static str,
}

const NOTHING: Rule = Rule { list: None, atomic_map: false, granular_map: false, strategy: "", merge_key: "" };
const ATOMIC: Rule = Rule { list: Some(Atomic), ..NOTHING };
const SET: Rule = Rule { list: Some(Set), ..NOTHING };
const MERGED_SET: Rule = Rule { list: Some(Set), strategy: "merge", ..NOTHING };
const ATOMIC_MAP: Rule = Rule { atomic_map: true, ..NOTHING };
const GRANULAR_MAP: Rule = Rule { granular_map: true, ..NOTHING };
const REPLACED: Rule = Rule { strategy: "replace", ..NOTHING };
const RETAINED: Rule = Rule { strategy: "retainKeys", ..NOTHING };
const BY_NAME: Rule = merged(&["name"]);
const BY_TYPE: Rule = merged(&["type"]);
const BY_NAME_RETAINED: Rule = Rule { strategy: "merge,retainKeys", ..BY_NAME };

/// A list told apart by `keys` and patched by the first of them.
const fn merged(keys: &'static [&'static str]) -> Rule {
    Rule { list: Some(Keyed(keys)), atomic_map: false, granular_map: false, strategy: "merge", merge_key: keys[0] }
}

/// A list told apart by `keys` that a strategic merge patch replaces.
const fn keyed(keys: &'static [&'static str]) -> Rule {
    Rule { list: Some(Keyed(keys)), ..NOTHING }
}

/// A list with one owner, that a strategic merge patch merges nevertheless.
const fn atomic_but_merged(merge_key: &'static str) -> Rule {
    Rule { list: Some(Atomic), atomic_map: false, granular_map: false, strategy: "merge", merge_key }
}

/// `core.v1.Pod` of a type's full name.
fn short_name(type_name: &str) -> Option<&str> {
    const ROOTS: [&str; 4] = [
        "io.k8s.api.",
        "io.k8s.apimachinery.pkg.apis.",
        "io.k8s.apiextensions-apiserver.pkg.apis.",
        "io.k8s.kube-aggregator.pkg.apis.",
    ];
    ROOTS.iter().find_map(|root| type_name.strip_prefix(root))
}

/// The rule of a field; that of most fields is that there is none.
pub fn field(type_name: &str, field: &str) -> Rule {
    let short = short_name(type_name);
    let fields = short.and_then(|short| FIELDS.iter().find(|(name, _)| *name == short)).map(|(_, fields)| *fields);
    fields.unwrap_or(&[]).iter().find(|(name, _)| *name == field).map(|(_, rule)| *rule).unwrap_or_default()
}

/// Whether values of the type have one owner as a whole.
pub fn is_atomic(type_name: &str) -> bool {
    let short = short_name(type_name);
    short.is_some_and(|short| ATOMIC_TYPES.contains(&short))
}

const ATOMIC_TYPES: &[&str] = &[
    "admissionregistration.v1.MatchResources",
    "admissionregistration.v1.NamedRuleWithOperations",
    "admissionregistration.v1.ParamKind",
    "admissionregistration.v1.ParamRef",
    "admissionregistration.v1.Variable",
    "autoscaling.v1.CrossVersionObjectReference",
    "core.v1.ConfigMapKeySelector",
    "core.v1.EndpointAddress",
    "core.v1.EndpointPort",
    "core.v1.FileKeySelector",
    "core.v1.LocalObjectReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.ObjectFieldSelector",
    "core.v1.ObjectReference",
    "core.v1.ResourceFieldSelector",
    "core.v1.ScopeSelector",
    "core.v1.SecretKeySelector",
    "core.v1.SecretReference",
    "core.v1.TopologySelectorTerm",
    "core.v1.TypedLocalObjectReference",
    "discovery.v1.EndpointPort",
    "meta.v1.LabelSelector",
    "meta.v1.OwnerReference",
    "networking.v1.ServiceBackendPort",
    "rbac.v1.RoleRef",
    "rbac.v1.Subject",
];

/// Whether Go's zero value of the type has the field: a struct that is no pointer. Nobody owns it by writing what is in it.
pub fn is_inline(type_name: &str, field: &str) -> bool {
    let short = short_name(type_name).unwrap_or(type_name);
    match field {
        "metadata" | "status" => true,
        "spec" => short != "core.v1.PersistentVolumeClaimTemplate",
        _ => INLINE.iter().any(|(owner, fields)| *owner == short && fields.contains(&field)),
    }
}

const INLINE: &[(&str, &[&str])] = &[
    ("apiextensions.v1.CustomResourceDefinitionSpec", &["names"]),
    ("apiextensions.v1.CustomResourceDefinitionStatus", &["acceptedNames"]),
    ("apps.v1.DaemonSetSpec", &["template", "updateStrategy"]),
    ("apps.v1.DeploymentSpec", &["strategy", "template"]),
    ("apps.v1.ReplicaSetSpec", &["template"]),
    ("apps.v1.StatefulSetSpec", &["template", "updateStrategy"]),
    ("autoscaling.v1.HorizontalPodAutoscalerSpec", &["scaleTargetRef"]),
    ("autoscaling.v2.ContainerResourceMetricSource", &["target"]),
    ("autoscaling.v2.ContainerResourceMetricStatus", &["current"]),
    ("autoscaling.v2.ExternalMetricSource", &["metric", "target"]),
    ("autoscaling.v2.ExternalMetricStatus", &["current", "metric"]),
    ("autoscaling.v2.HorizontalPodAutoscalerSpec", &["scaleTargetRef"]),
    ("autoscaling.v2.ObjectMetricSource", &["describedObject", "metric", "target"]),
    ("autoscaling.v2.ObjectMetricStatus", &["current", "describedObject", "metric"]),
    ("autoscaling.v2.PodsMetricSource", &["metric", "target"]),
    ("autoscaling.v2.PodsMetricStatus", &["current", "metric"]),
    ("autoscaling.v2.ResourceMetricSource", &["target"]),
    ("autoscaling.v2.ResourceMetricStatus", &["current"]),
    ("batch.v1.CronJobSpec", &["jobTemplate"]),
    ("batch.v1.JobSpec", &["template"]),
    ("core.v1.PersistentVolumeClaimSpec", &["resources"]),
    ("core.v1.PodSpec", &["containers"]),
    ("core.v1.PodTemplate", &["template"]),
    ("core.v1.ServiceStatus", &["loadBalancer"]),
    ("networking.v1.IngressStatus", &["loadBalancer"]),
    ("networking.v1.NetworkPolicySpec", &["podSelector"]),
    ("resource.v1.AllocationResult", &["devices"]),
    ("resource.v1.ResourceClaimSpec", &["devices"]),
    ("resource.v1.ResourceSliceSpec", &["pool"]),
    ("storage.v1.VolumeAttachmentSpec", &["source"]),
];

/// Whether the API can do without a field that k8s-openapi calls required. It does so of every `metadata`, and of what Go
/// always writes even when it is empty.
pub fn is_optional(type_name: &str, field: &str) -> bool {
    let short = type_name.strip_prefix("io.k8s.api.").unwrap_or(type_name);
    match field {
        "metadata" => short != "core.v1.Event",
        "spec" => UNSPECIFIED.contains(&short),
        "type" => ["flowcontrol.v1.FlowSchemaCondition", "flowcontrol.v1.PriorityLevelConfigurationCondition"].contains(&short),
        "limitResponse" => short == "flowcontrol.v1.LimitedPriorityLevelConfiguration",
        "data" => short == "apps.v1.ControllerRevision",
        "name" => NAMED_OR_EMPTY.contains(&short),
        _ => false,
    }
}

const UNSPECIFIED: &[&str] = &[
    "apps.v1.DaemonSet",
    "apps.v1.Deployment",
    "apps.v1.ReplicaSet",
    "apps.v1.StatefulSet",
    "flowcontrol.v1.FlowSchema",
    "flowcontrol.v1.PriorityLevelConfiguration",
];

/// References whose name may be left out, for the sake of clients older than the check.
const NAMED_OR_EMPTY: &[&str] = &[
    "core.v1.ConfigMapEnvSource",
    "core.v1.ConfigMapKeySelector",
    "core.v1.ConfigMapProjection",
    "core.v1.ConfigMapVolumeSource",
    "core.v1.LocalObjectReference",
    "core.v1.SecretEnvSource",
    "core.v1.SecretKeySelector",
    "core.v1.SecretProjection",
];

type Fields = &'static [(&'static str, Rule)];

const CONTAINER: Fields = &[
    ("args", ATOMIC),
    ("command", ATOMIC),
    ("env", BY_NAME),
    ("envFrom", ATOMIC),
    ("ports", merged(&["containerPort", "protocol"])),
    ("resizePolicy", ATOMIC),
    ("restartPolicyRules", ATOMIC),
    ("volumeDevices", merged(&["devicePath"])),
    ("volumeMounts", merged(&["mountPath"])),
];
const WEBHOOK: Fields = &[("admissionReviewVersions", ATOMIC), ("matchConditions", BY_NAME), ("rules", ATOMIC)];
const WEBHOOKS: Fields = &[("webhooks", BY_NAME)];
const CONDITIONS: Fields = &[("conditions", BY_TYPE)];
const ITEMS: Fields = &[("items", ATOMIC)];
const AUDIENCES: Fields = &[("audiences", ATOMIC)];
const REQUIREMENTS: Fields = &[("requirements", ATOMIC)];
const REQUESTS: Fields = &[("requests", ATOMIC)];
const DEVICE_REQUEST: Fields = &[("derivedAttributes", keyed(&["name"])), ("selectors", ATOMIC), ("tolerations", ATOMIC)];
const VERSIONS: Fields = &[("serverAddressByClientCIDRs", ATOMIC), ("versions", ATOMIC)];
const AFFINITY: Fields =
    &[("preferredDuringSchedulingIgnoredDuringExecution", ATOMIC), ("requiredDuringSchedulingIgnoredDuringExecution", ATOMIC)];

const FIELDS: &[(&str, Fields)] = &[
    ("admissionregistration.v1.MatchResources", &[("excludeResourceRules", ATOMIC), ("resourceRules", ATOMIC)]),
    (
        "admissionregistration.v1.MutatingAdmissionPolicySpec",
        &[("matchConditions", BY_NAME), ("mutations", ATOMIC), ("variables", ATOMIC)],
    ),
    ("admissionregistration.v1.MutatingWebhook", WEBHOOK),
    ("admissionregistration.v1.MutatingWebhookConfiguration", WEBHOOKS),
    (
        "admissionregistration.v1.NamedRuleWithOperations",
        &[
            ("apiGroups", ATOMIC),
            ("apiVersions", ATOMIC),
            ("operations", ATOMIC),
            ("resourceNames", ATOMIC),
            ("resources", ATOMIC),
        ],
    ),
    (
        "admissionregistration.v1.RuleWithOperations",
        &[("apiGroups", ATOMIC), ("apiVersions", ATOMIC), ("operations", ATOMIC), ("resources", ATOMIC)],
    ),
    ("admissionregistration.v1.TypeChecking", &[("expressionWarnings", ATOMIC)]),
    ("admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec", &[("validationActions", SET)]),
    (
        "admissionregistration.v1.ValidatingAdmissionPolicySpec",
        &[("auditAnnotations", ATOMIC), ("matchConditions", BY_NAME), ("validations", ATOMIC), ("variables", BY_NAME)],
    ),
    ("admissionregistration.v1.ValidatingAdmissionPolicyStatus", &[("conditions", keyed(&["type"]))]),
    ("admissionregistration.v1.ValidatingWebhook", WEBHOOK),
    ("admissionregistration.v1.ValidatingWebhookConfiguration", WEBHOOKS),
    ("apiextensions.v1.CustomResourceDefinitionNames", &[("categories", ATOMIC), ("shortNames", ATOMIC)]),
    ("apiextensions.v1.CustomResourceDefinitionSpec", &[("versions", ATOMIC)]),
    ("apiextensions.v1.CustomResourceDefinitionStatus", &[("conditions", keyed(&["type"])), ("storedVersions", ATOMIC)]),
    ("apiextensions.v1.CustomResourceDefinitionVersion", &[("additionalPrinterColumns", ATOMIC), ("selectableFields", ATOMIC)]),
    (
        "apiextensions.v1.JSONSchemaProps",
        &[
            ("allOf", ATOMIC),
            ("anyOf", ATOMIC),
            ("enum", ATOMIC),
            ("oneOf", ATOMIC),
            ("required", ATOMIC),
            ("x-kubernetes-list-map-keys", ATOMIC),
            ("x-kubernetes-validations", merged(&["rule"])),
        ],
    ),
    ("apiextensions.v1.WebhookConversion", &[("conversionReviewVersions", ATOMIC)]),
    ("apiregistration.v1.APIServiceSpec", &[("caBundle", ATOMIC)]),
    ("apiregistration.v1.APIServiceStatus", CONDITIONS),
    ("apps.v1.DaemonSetStatus", CONDITIONS),
    ("apps.v1.DeploymentSpec", &[("strategy", RETAINED)]),
    ("apps.v1.DeploymentStatus", CONDITIONS),
    ("apps.v1.ReplicaSetStatus", CONDITIONS),
    ("apps.v1.StatefulSetSpec", &[("volumeClaimTemplates", ATOMIC)]),
    ("apps.v1.StatefulSetStatus", CONDITIONS),
    ("authentication.v1.TokenRequestSpec", AUDIENCES),
    ("authentication.v1.TokenReviewSpec", AUDIENCES),
    ("authentication.v1.TokenReviewStatus", AUDIENCES),
    ("authentication.v1.UserInfo", &[("groups", ATOMIC)]),
    ("authorization.v1.FieldSelectorAttributes", REQUIREMENTS),
    ("authorization.v1.LabelSelectorAttributes", REQUIREMENTS),
    ("authorization.v1.NonResourceRule", &[("nonResourceURLs", ATOMIC), ("verbs", ATOMIC)]),
    (
        "authorization.v1.ResourceRule",
        &[("apiGroups", ATOMIC), ("resourceNames", ATOMIC), ("resources", ATOMIC), ("verbs", ATOMIC)],
    ),
    ("authorization.v1.SubjectAccessReviewSpec", &[("groups", ATOMIC)]),
    ("authorization.v1.SubjectRulesReviewStatus", &[("nonResourceRules", ATOMIC), ("resourceRules", ATOMIC)]),
    ("autoscaling.v2.HPAScalingRules", &[("policies", ATOMIC)]),
    ("autoscaling.v2.HorizontalPodAutoscalerSpec", &[("metrics", ATOMIC)]),
    ("autoscaling.v2.HorizontalPodAutoscalerStatus", &[("conditions", BY_TYPE), ("currentMetrics", ATOMIC)]),
    ("batch.v1.CronJobStatus", &[("active", ATOMIC)]),
    ("batch.v1.JobStatus", &[("conditions", atomic_but_merged("type"))]),
    ("batch.v1.PodFailurePolicy", &[("rules", ATOMIC)]),
    ("batch.v1.PodFailurePolicyOnExitCodesRequirement", &[("values", SET)]),
    ("batch.v1.PodFailurePolicyRule", &[("onPodConditions", ATOMIC)]),
    ("batch.v1.SuccessPolicy", &[("rules", ATOMIC)]),
    ("batch.v1.UncountedTerminatedPods", &[("failed", SET), ("succeeded", SET)]),
    ("certificates.v1.CertificateSigningRequestSpec", &[("groups", ATOMIC), ("usages", ATOMIC)]),
    ("certificates.v1.CertificateSigningRequestStatus", &[("conditions", keyed(&["type"]))]),
    ("core.v1.Capabilities", &[("add", ATOMIC), ("drop", ATOMIC)]),
    ("core.v1.CephFSPersistentVolumeSource", &[("monitors", ATOMIC)]),
    ("core.v1.CephFSVolumeSource", &[("monitors", ATOMIC)]),
    ("core.v1.ConfigMapProjection", ITEMS),
    ("core.v1.ConfigMapVolumeSource", ITEMS),
    ("core.v1.Container", CONTAINER),
    ("core.v1.ContainerImage", &[("names", ATOMIC)]),
    ("core.v1.ContainerRestartRuleOnExitCodes", &[("values", SET)]),
    ("core.v1.ContainerStatus", &[("allocatedResourcesStatus", BY_NAME), ("volumeMounts", merged(&["mountPath"]))]),
    ("core.v1.DownwardAPIProjection", ITEMS),
    ("core.v1.DownwardAPIVolumeSource", ITEMS),
    ("core.v1.EndpointSubset", &[("addresses", ATOMIC), ("notReadyAddresses", ATOMIC), ("ports", ATOMIC)]),
    ("core.v1.Endpoints", &[("subsets", ATOMIC)]),
    ("core.v1.EphemeralContainer", CONTAINER),
    ("core.v1.ExecAction", &[("command", ATOMIC)]),
    ("core.v1.FCVolumeSource", &[("targetWWNs", ATOMIC), ("wwids", ATOMIC)]),
    ("core.v1.HTTPGetAction", &[("httpHeaders", ATOMIC)]),
    ("core.v1.HostAlias", &[("hostnames", ATOMIC)]),
    ("core.v1.ISCSIPersistentVolumeSource", &[("portals", ATOMIC)]),
    ("core.v1.ISCSIVolumeSource", &[("portals", ATOMIC)]),
    ("core.v1.LimitRangeSpec", &[("limits", ATOMIC)]),
    ("core.v1.LinuxContainerUser", &[("supplementalGroups", ATOMIC)]),
    ("core.v1.LoadBalancerIngress", &[("ports", ATOMIC)]),
    ("core.v1.LoadBalancerStatus", &[("ingress", ATOMIC)]),
    ("core.v1.NamespaceSpec", &[("finalizers", ATOMIC)]),
    ("core.v1.NamespaceStatus", CONDITIONS),
    ("core.v1.NodeAffinity", &[("preferredDuringSchedulingIgnoredDuringExecution", ATOMIC)]),
    ("core.v1.NodeAllocatableResourceClaimStatus", &[("containers", SET)]),
    ("core.v1.NodeSelector", &[("nodeSelectorTerms", ATOMIC)]),
    ("core.v1.NodeSelectorRequirement", &[("values", ATOMIC)]),
    ("core.v1.NodeSelectorTerm", &[("matchExpressions", ATOMIC), ("matchFields", ATOMIC)]),
    ("core.v1.NodeSpec", &[("podCIDRs", MERGED_SET), ("taints", ATOMIC)]),
    (
        "core.v1.NodeStatus",
        &[
            ("addresses", BY_TYPE),
            ("conditions", BY_TYPE),
            ("declaredFeatures", ATOMIC),
            ("images", ATOMIC),
            ("runtimeHandlers", ATOMIC),
            ("volumesAttached", ATOMIC),
            ("volumesInUse", ATOMIC),
        ],
    ),
    ("core.v1.PersistentVolumeClaimSpec", &[("accessModes", ATOMIC)]),
    (
        "core.v1.PersistentVolumeClaimStatus",
        &[("accessModes", ATOMIC), ("allocatedResourceStatuses", GRANULAR_MAP), ("conditions", BY_TYPE)],
    ),
    ("core.v1.PersistentVolumeSpec", &[("accessModes", ATOMIC), ("claimRef", GRANULAR_MAP), ("mountOptions", ATOMIC)]),
    ("core.v1.PodAffinity", AFFINITY),
    ("core.v1.PodAffinityTerm", &[("matchLabelKeys", ATOMIC), ("mismatchLabelKeys", ATOMIC), ("namespaces", ATOMIC)]),
    ("core.v1.PodAntiAffinity", AFFINITY),
    ("core.v1.PodDNSConfig", &[("nameservers", ATOMIC), ("options", ATOMIC), ("searches", ATOMIC)]),
    ("core.v1.PodExtendedResourceClaimStatus", &[("requestMappings", ATOMIC)]),
    ("core.v1.PodSecurityContext", &[("supplementalGroups", ATOMIC), ("sysctls", ATOMIC)]),
    (
        "core.v1.PodSpec",
        &[
            ("containers", BY_NAME),
            ("ephemeralContainers", BY_NAME),
            ("hostAliases", merged(&["ip"])),
            ("imagePullSecrets", BY_NAME),
            ("initContainers", BY_NAME),
            ("nodeSelector", ATOMIC_MAP),
            ("readinessGates", ATOMIC),
            ("resourceClaims", BY_NAME_RETAINED),
            ("schedulingGates", BY_NAME),
            ("tolerations", ATOMIC),
            ("topologySpreadConstraints", merged(&["topologyKey", "whenUnsatisfiable"])),
            ("volumes", BY_NAME_RETAINED),
        ],
    ),
    (
        "core.v1.PodStatus",
        &[
            ("conditions", BY_TYPE),
            ("containerStatuses", ATOMIC),
            ("ephemeralContainerStatuses", ATOMIC),
            ("hostIPs", atomic_but_merged("ip")),
            ("initContainerStatuses", ATOMIC),
            ("nodeAllocatableResourceClaimStatuses", ATOMIC),
            ("podIPs", merged(&["ip"])),
            ("resourceClaimStatuses", BY_NAME_RETAINED),
        ],
    ),
    ("core.v1.ProjectedVolumeSource", &[("sources", ATOMIC)]),
    ("core.v1.RBDPersistentVolumeSource", &[("monitors", ATOMIC)]),
    ("core.v1.RBDVolumeSource", &[("monitors", ATOMIC)]),
    ("core.v1.ReplicationControllerSpec", &[("selector", ATOMIC_MAP)]),
    ("core.v1.ReplicationControllerStatus", CONDITIONS),
    ("core.v1.ResourceQuotaSpec", &[("scopes", ATOMIC)]),
    ("core.v1.ResourceRequirements", &[("claims", keyed(&["name"]))]),
    ("core.v1.ResourceStatus", &[("resources", keyed(&["resourceID"]))]),
    ("core.v1.ScopeSelector", &[("matchExpressions", ATOMIC)]),
    ("core.v1.ScopedResourceSelectorRequirement", &[("values", ATOMIC)]),
    ("core.v1.SecretProjection", ITEMS),
    ("core.v1.SecretVolumeSource", ITEMS),
    ("core.v1.ServiceAccount", &[("imagePullSecrets", ATOMIC), ("secrets", BY_NAME)]),
    (
        "core.v1.ServiceSpec",
        &[
            ("clusterIPs", ATOMIC),
            ("externalIPs", ATOMIC),
            ("ipFamilies", ATOMIC),
            ("loadBalancerSourceRanges", ATOMIC),
            ("ports", merged(&["port", "protocol"])),
            ("selector", ATOMIC_MAP),
        ],
    ),
    ("core.v1.ServiceStatus", CONDITIONS),
    ("core.v1.TopologySelectorLabelRequirement", &[("values", ATOMIC)]),
    ("core.v1.TopologySelectorTerm", &[("matchLabelExpressions", ATOMIC)]),
    ("core.v1.TopologySpreadConstraint", &[("matchLabelKeys", ATOMIC)]),
    ("discovery.v1.Endpoint", &[("addresses", SET)]),
    ("discovery.v1.EndpointHints", &[("forNodes", ATOMIC), ("forZones", ATOMIC)]),
    ("discovery.v1.EndpointSlice", &[("endpoints", ATOMIC), ("ports", ATOMIC)]),
    ("meta.v1.APIGroup", VERSIONS),
    ("meta.v1.APIGroupList", &[("groups", ATOMIC)]),
    ("meta.v1.APIResource", &[("categories", ATOMIC), ("shortNames", ATOMIC)]),
    ("meta.v1.APIResourceList", &[("resources", ATOMIC)]),
    ("meta.v1.APIVersions", VERSIONS),
    ("meta.v1.DeleteOptions", &[("dryRun", ATOMIC)]),
    ("meta.v1.FieldSelectorRequirement", &[("values", ATOMIC)]),
    ("meta.v1.LabelSelector", &[("matchExpressions", ATOMIC)]),
    ("meta.v1.LabelSelectorRequirement", &[("values", ATOMIC)]),
    ("meta.v1.ObjectMeta", &[("finalizers", MERGED_SET), ("managedFields", ATOMIC), ("ownerReferences", merged(&["uid"]))]),
    ("meta.v1.StatusDetails", &[("causes", ATOMIC)]),
    ("networking.v1.HTTPIngressRuleValue", &[("paths", ATOMIC)]),
    ("networking.v1.IPBlock", &[("except", ATOMIC)]),
    ("networking.v1.IngressLoadBalancerIngress", &[("ports", ATOMIC)]),
    ("networking.v1.IngressLoadBalancerStatus", &[("ingress", ATOMIC)]),
    ("networking.v1.IngressSpec", &[("rules", ATOMIC), ("tls", ATOMIC)]),
    ("networking.v1.IngressTLS", &[("hosts", ATOMIC)]),
    ("networking.v1.NetworkPolicyEgressRule", &[("ports", ATOMIC), ("to", ATOMIC)]),
    ("networking.v1.NetworkPolicyIngressRule", &[("from", ATOMIC), ("ports", ATOMIC)]),
    ("networking.v1.NetworkPolicySpec", &[("egress", ATOMIC), ("ingress", ATOMIC), ("policyTypes", ATOMIC)]),
    ("networking.v1.ServiceCIDRSpec", &[("cidrs", ATOMIC)]),
    ("networking.v1.ServiceCIDRStatus", CONDITIONS),
    ("node.v1.Scheduling", &[("nodeSelector", ATOMIC_MAP), ("tolerations", ATOMIC)]),
    ("policy.v1.PodDisruptionBudgetSpec", &[("selector", REPLACED)]),
    ("policy.v1.PodDisruptionBudgetStatus", CONDITIONS),
    ("flowcontrol.v1.FlowSchemaSpec", &[("rules", ATOMIC)]),
    ("flowcontrol.v1.FlowSchemaStatus", &[("conditions", BY_TYPE)]),
    ("flowcontrol.v1.NonResourcePolicyRule", &[("nonResourceURLs", SET), ("verbs", SET)]),
    ("flowcontrol.v1.PolicyRulesWithSubjects", &[("nonResourceRules", ATOMIC), ("resourceRules", ATOMIC), ("subjects", ATOMIC)]),
    ("flowcontrol.v1.PriorityLevelConfigurationStatus", &[("conditions", BY_TYPE)]),
    ("flowcontrol.v1.ResourcePolicyRule", &[("apiGroups", SET), ("namespaces", SET), ("resources", SET), ("verbs", SET)]),
    ("rbac.v1.AggregationRule", &[("clusterRoleSelectors", ATOMIC)]),
    ("rbac.v1.ClusterRole", &[("rules", ATOMIC)]),
    ("rbac.v1.ClusterRoleBinding", &[("subjects", ATOMIC)]),
    (
        "rbac.v1.PolicyRule",
        &[
            ("apiGroups", ATOMIC),
            ("nonResourceURLs", ATOMIC),
            ("resourceNames", ATOMIC),
            ("resources", ATOMIC),
            ("verbs", ATOMIC),
        ],
    ),
    ("rbac.v1.Role", &[("rules", ATOMIC)]),
    ("rbac.v1.RoleBinding", &[("subjects", ATOMIC)]),
    ("resource.v1.AllocatedDeviceStatus", &[("conditions", keyed(&["type"]))]),
    ("resource.v1.CapacityRequestPolicy", &[("validValues", ATOMIC)]),
    (
        "resource.v1.Device",
        &[("bindingConditions", ATOMIC), ("bindingFailureConditions", ATOMIC), ("consumesCounters", ATOMIC), ("taints", ATOMIC)],
    ),
    ("resource.v1.DeviceAllocationConfiguration", REQUESTS),
    ("resource.v1.DeviceAllocationResult", &[("config", ATOMIC), ("results", ATOMIC)]),
    ("resource.v1.DeviceAttribute", &[("bools", ATOMIC), ("ints", ATOMIC), ("strings", ATOMIC), ("versions", ATOMIC)]),
    ("resource.v1.DeviceClaim", &[("config", ATOMIC), ("constraints", ATOMIC), ("requests", ATOMIC)]),
    ("resource.v1.DeviceClaimConfiguration", REQUESTS),
    ("resource.v1.DeviceClassSpec", &[("config", ATOMIC), ("selectors", ATOMIC)]),
    ("resource.v1.DeviceConstraint", REQUESTS),
    ("resource.v1.DeviceCounterConsumption", &[("compatibilityGroups", ATOMIC)]),
    ("resource.v1.DeviceRequest", &[("firstAvailable", ATOMIC)]),
    (
        "resource.v1.DeviceRequestAllocationResult",
        &[
            ("bindingConditions", ATOMIC),
            ("bindingFailureConditions", ATOMIC),
            ("skipNodeOperations", ATOMIC),
            ("tolerations", ATOMIC),
        ],
    ),
    ("resource.v1.DeviceSubRequest", DEVICE_REQUEST),
    ("resource.v1.ExactDeviceRequest", DEVICE_REQUEST),
    ("resource.v1.NetworkDeviceData", &[("ips", ATOMIC)]),
    (
        "resource.v1.ResourceClaimStatus",
        &[("devices", keyed(&["driver", "device", "pool", "shareID"])), ("reservedFor", merged(&["uid"]))],
    ),
    ("resource.v1.ResourceSliceSpec", &[("devices", ATOMIC), ("sharedCounters", ATOMIC), ("skipNodeOperations", ATOMIC)]),
    ("storage.v1.CSIDriverSpec", &[("tokenRequests", ATOMIC), ("volumeLifecycleModes", SET)]),
    ("storage.v1.CSINodeDriver", &[("topologyKeys", ATOMIC)]),
    ("storage.v1.CSINodeSpec", &[("drivers", BY_NAME)]),
    ("storage.v1.StorageClass", &[("allowedTopologies", ATOMIC), ("mountOptions", ATOMIC)]),
];
