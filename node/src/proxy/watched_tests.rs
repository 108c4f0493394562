use super::*;
use serde_json::json;

fn service(name: &str, ip: &str) -> core::Service {
    let object = json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
    serde_json::from_value(object).unwrap()
}

fn slice(name: &str, service: &str, addresses: &[&str]) -> discovery::EndpointSlice {
    let endpoints: Vec<_> = addresses.iter().map(|ip| json!({"addresses": [ip]})).collect();
    let object = json!({"metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080}], "endpoints": endpoints});
    serde_json::from_value(object).unwrap()
}

fn started() -> Watched {
    let mut watched = Watched::new("here");
    watched.services_relist();
    watched.slices_relist();
    watched.service(&service("a", "10.96.0.1"));
    watched.slice(&slice("a-1", "a", &["10.244.0.1"]));
    assert!(!watched.is_complete());
    watched.services_relisted();
    watched.slices_relisted();
    assert!(watched.is_complete());
    watched
}

fn targets(watched: &mut Watched) -> Vec<String> {
    let model = watched.model(&[]);
    model.routes.values().flat_map(|route| route.targets.iter().map(|target| target.ip.to_string())).collect()
}

#[test]
fn only_what_matters_is_a_change() {
    let mut watched = started();
    assert_eq!(targets(&mut watched), ["10.244.0.1"]);
    let mut same = service("a", "10.96.0.1");
    same.metadata.annotations = Some([("note".to_string(), "new".to_string())].into());
    watched.service(&same);
    watched.slice(&slice("a-1", "a", &["10.244.0.1"]));
    watched.slice(&slice("b-1", "b", &["10.244.0.7"]));
    assert!(!watched.has_changed(), "a slice without its Service asks nothing of the node");
    watched.slice(&slice("a-2", "a", &["10.244.0.2"]));
    assert!(watched.has_changed());
    assert_eq!(targets(&mut watched), ["10.244.0.1", "10.244.0.2"]);
}

#[test]
fn a_slice_may_move_to_another_service_or_go() {
    let mut watched = started();
    watched.service(&service("b", "10.96.0.2"));
    watched.slice(&slice("a-1", "b", &["10.244.0.1"]));
    let model = watched.model(&[]);
    let refused: Vec<bool> = model.routes.values().map(|route| route.is_refused()).collect();
    assert_eq!(refused, [true, false]);
    watched.slice_deleted(&slice("a-1", "b", &[]));
    assert!(targets(&mut watched).is_empty());
}

#[test]
fn what_a_new_list_lacks_is_gone() {
    let mut watched = started();
    targets(&mut watched);
    watched.services_relist();
    watched.service(&service("c", "10.96.0.3"));
    assert_eq!(watched.model(&[]).routes.len(), 2, "until the list is complete, nothing is taken away");
    watched.services_relisted();
    let model = watched.model(&[]);
    assert_eq!(model.routes.values().map(|route| &*route.service).collect::<Vec<_>>(), ["default/c:"]);
    watched.slices_relist();
    watched.slices_relisted();
    watched.service(&service("a", "10.96.0.1"));
    assert!(targets(&mut watched).is_empty());
}
