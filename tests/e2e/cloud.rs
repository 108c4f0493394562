//! A cluster without a node buys a machine for a pod, and gives it back; a Service gets a load balancer.

use crate::cluster::{Cluster, condition, enabled};
use crate::emulator::{self, ENDPOINT, Emulator};
use serde_json::{Value, json};

const POOL: &str = r#"
apiVersion: slipway.dev/v1alpha1
kind: NodeClass
metadata: {name: default}
spec: {provider: ec2, image: ami-12c6146b, tags: {team: platform}}
---
apiVersion: slipway.dev/v1alpha1
kind: NodePool
metadata: {name: general}
spec:
  nodeClassRef: {name: default}
  template: {labels: {pool: general}}
  instanceTypes: [m5.xlarge, t3.medium, t3.large]
  limits: {machines: 2}
  disruption: {emptyAfterSeconds: 3}
"#;

const WORK: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: work}
spec:
  selector: {matchLabels: {app: work}}
  template:
    metadata: {labels: {app: work}}
    spec:
      terminationGracePeriodSeconds: 1
      nodeSelector: {pool: general}
      containers:
        - name: main
          image: registry.slipway.test/web:1
          imagePullPolicy: IfNotPresent
          resources: {requests: {cpu: 500m, memory: 64Mi}}
"#;

const EXPOSED: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: work}
spec:
  type: LoadBalancer
  selector: {app: work}
  ports: [{name: http, port: 80, targetPort: 8080}]
"#;

const NAMES_OF_TARGETS: [&str; 2] = ["TargetGroups", "TargetGroupArn"];

fn machines(cluster: &Cluster) -> Vec<Value> {
    cluster.json(&["get", "machines"])["items"].as_array().cloned().unwrap_or_default()
}

/// Where the Deployment's pod runs, if it does.
fn ready_on(cluster: &Cluster) -> Option<String> {
    let pods = cluster.pods("app=work");
    let ready = pods.iter().find(|pod| condition(pod, "Ready") == "True")?;
    ready["spec"]["nodeName"].as_str().map(str::to_owned)
}

fn state<'a>(instances: &'a [Value], id: &str) -> &'a str {
    let instance = instances.iter().find(|instance| instance["InstanceId"] == id);
    instance.and_then(|instance| instance["State"]["Name"].as_str()).unwrap_or_default()
}

fn tag<'a>(instance: &'a Value, key: &str) -> &'a str {
    let tags = instance["Tags"].as_array();
    tags.and_then(|tags| tags.iter().find(|tag| tag["Key"] == key)).and_then(|tag| tag["Value"].as_str()).unwrap_or_default()
}

#[test]
fn a_pod_gets_a_machine_a_service_a_load_balancer_and_both_are_given_back() {
    if !enabled("cloud") || !emulator::enabled("cloud") {
        return;
    }
    let flags = ["--nodes", "0", "--cloud", "ec2", "--cloud-endpoint", ENDPOINT];
    let cluster = Cluster::start_for_machines("cloud", &flags);
    let mut cloud = Emulator::start();
    cluster.wait("the default service account", || cluster.kubectl(&["get", "serviceaccount", "default"]).status.success());
    cluster.apply(POOL);
    cluster.apply(WORK);
    let (name, id) = buys_a_machine(&cluster, &mut cloud);
    balances(&cluster, &mut cloud, &id);
    let id = moves_to_another(&cluster, &mut cloud, &name, &id);
    gives_it_back(&cluster, &mut cloud, &id);
}

/// Answers the names of Machine and instance.
fn buys_a_machine(cluster: &Cluster, cloud: &mut Emulator) -> (String, String) {
    cluster.wait("an instance to be launched", || !cloud.instances().is_empty());
    let (bought, launched) = (machines(cluster), cloud.instances());
    assert_eq!((bought.len(), launched.len()), (1, 1), "one pod, one machine: {bought:?}");
    let (machine, instance) = (&bought[0], &launched[0]);
    let (name, uid) = (machine["metadata"]["name"].as_str().unwrap(), machine["metadata"]["uid"].as_str().unwrap());
    assert_eq!(instance["InstanceType"], "t3.medium", "the cheapest that fits");
    assert_eq!(instance["ClientToken"], uid);
    assert_eq!(tag(instance, "slipway.dev/owner-uid"), uid);
    // No two clusters in an account may take each other's machines for their own.
    let system = cluster.get("namespace/kube-system", "{.metadata.uid}");
    let named = tag(instance, "slipway.dev/cluster").strip_prefix("slipway-");
    assert!(named.is_some_and(|part| part.len() == 8 && system.starts_with(part)), "{named:?} of {system}");
    assert_eq!((tag(instance, "Name"), tag(instance, "team")), (name, "platform"));
    let id = instance["InstanceId"].as_str().unwrap().to_owned();

    cluster.wait("the pod to run on it", || {
        cloud.work(cluster);
        ready_on(cluster).is_some_and(|node| node == name)
    });
    let node = cluster.json(&["get", "node", name]);
    let zone = instance["Placement"]["AvailabilityZone"].as_str().unwrap();
    assert_eq!(node["spec"]["providerID"], format!("aws:///{zone}/{id}"));
    for (label, value) in [
        ("pool", "general"),
        ("slipway.dev/node-pool", "general"),
        ("node.kubernetes.io/instance-type", "t3.medium"),
        ("topology.kubernetes.io/zone", zone),
    ] {
        assert_eq!(node["metadata"]["labels"][label], value, "{label}: {}", node["metadata"]["labels"]);
    }
    cluster.wait_for(&format!("machine/{name}"), "{.status.phase}", "Ready");
    assert!(cluster.ok(&["logs", "deployment/work"]).contains("listens on port 8080"), "the API reaches its agent");
    let requests = cluster.ok(&["get", "certificatesigningrequests", "-o", "jsonpath={.items[*].spec.username}"]);
    assert!(requests.contains("system:bootstrap:") && requests.contains(&format!("system:node:{name}")), "{requests}");
    (name.to_owned(), id)
}

/// What an ELBv2 call lists under a name.
fn listed(cloud: &mut Emulator, call: &str, arguments: Value, name: &str) -> Vec<Value> {
    cloud.ask("elbv2", call, arguments)[name].as_array().cloned().unwrap_or_default()
}

fn balances(cluster: &Cluster, cloud: &mut Emulator, id: &str) {
    cluster.apply(EXPOSED);
    let hostname = "{.status.loadBalancer.ingress[0].hostname}";
    cluster.wait("the Service to have a load balancer", || !cluster.get("service/work", hostname).is_empty());
    let balancers = listed(cloud, "describe_load_balancers", json!({}), "LoadBalancers");
    assert_eq!(balancers.len(), 1, "{balancers:?}");
    assert_eq!((&balancers[0]["Type"], &balancers[0]["Scheme"]), (&json!("network"), &json!("internet-facing")));
    assert_eq!(balancers[0]["DNSName"], cluster.get("service/work", hostname));
    let arn = &balancers[0]["LoadBalancerArn"];
    let listeners = listed(cloud, "describe_listeners", json!({"LoadBalancerArn": arn}), "Listeners");
    assert_eq!((listeners.len(), &listeners[0]["Port"], &listeners[0]["Protocol"]), (1, &json!(80), &json!("TCP")));
    let node_port: u64 = cluster.get("service/work", "{.spec.ports[0].nodePort}").parse().unwrap();
    let [groups, group_arn] = NAMES_OF_TARGETS;
    let groups = listed(cloud, "describe_target_groups", json!({"LoadBalancerArn": arn}), groups);
    let health = json!({"TargetGroupArn": groups[0][group_arn]});
    let targets = listed(cloud, "describe_target_health", health, "TargetHealthDescriptions");
    assert_eq!(targets.len(), 1, "{targets:?}");
    assert_eq!((&targets[0]["Target"]["Id"], &targets[0]["Target"]["Port"]), (&json!(id), &json!(node_port)));
    // Where the balancer would lead to, the Service answers.
    let machine = &cloud.machines[id];
    let node = format!("{}:{node_port}", machine.ip);
    cluster.wait("the node port to answer", || {
        crate::cluster::http_get(&node, "/hostname").is_ok_and(|name| name.starts_with("work-"))
    });

    cluster.ok(&["delete", "service", "work"]);
    cluster.wait("the load balancer to be gone", || {
        listed(cloud, "describe_load_balancers", json!({}), "LoadBalancers").is_empty()
            && listed(cloud, "describe_target_groups", json!({}), NAMES_OF_TARGETS[0]).is_empty()
    });
}

/// A Machine that is deleted is drained, and what ran there makes another be bought. Answers the other instance's id.
fn moves_to_another(cluster: &Cluster, cloud: &mut Emulator, name: &str, id: &str) -> String {
    cluster.ok(&["delete", "machine", name, "--wait=false"]);
    cluster.wait("the pod to run on another machine", || {
        cloud.work(cluster);
        ready_on(cluster).is_some_and(|node| node != name)
    });
    cluster.wait("the first to be gone", || {
        cloud.work(cluster);
        machines(cluster).len() == 1 && cluster.ok(&["get", "nodes", "-o", "name"]).lines().count() == 1
    });
    let instances = cloud.instances();
    assert_eq!((instances.len(), state(&instances, id)), (2, "terminated"));
    let other = instances.iter().find(|instance| instance["InstanceId"] != id).expect("there are two");
    assert_eq!(other["State"]["Name"], "running");
    other["InstanceId"].as_str().unwrap().to_owned()
}

fn gives_it_back(cluster: &Cluster, cloud: &mut Emulator, id: &str) {
    cluster.ok(&["scale", "deployment", "work", "--replicas=0"]);
    cluster.wait("the machine to be given back", || {
        cloud.work(cluster);
        machines(cluster).is_empty()
    });
    let instances = cloud.instances();
    assert_eq!((instances.len(), state(&instances, id)), (2, "terminated"), "no other was bought");
    let left = || cluster.ok(&["get", "nodes", "-o", "name"]);
    cluster.wait("the node to be gone", || left().is_empty());
    let tokens = cluster.ok(&["get", "secrets", "-n", "kube-system", "-o", "name"]);
    assert!(!tokens.contains("bootstrap-token-"), "its token is gone: {tokens}");
    assert_eq!(left(), "", "and it stays gone");
}
