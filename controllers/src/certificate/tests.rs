use expect_test::{Expect, expect};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType};
use serde_json::json;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::testing::World;

/// As the default bindings have it.
struct Granted;

#[async_trait]
impl Access for Granted {
    async fn may_create(&self, subresource: &str, csr: &CertificateSigningRequest) -> Result<bool, kube::Error> {
        let granted = [("system:bootstrappers", "nodeclient"), ("system:nodes", "selfnodeclient")];
        let groups = csr.spec.groups.as_deref().unwrap_or(&[]);
        Ok(granted.iter().any(|(group, sub)| *sub == subresource && groups.iter().any(|own| own == group)))
    }
}

fn authority() -> Signer {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test-ca");
    let certificate = params.self_signed(&key).unwrap();
    Signer::new(&certificate.pem(), &key.serialize_pem()).unwrap()
}

fn request(name: &str, organization: &str, names: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.subject_alt_names = names
        .iter()
        .map(|name| match name.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName((*name).try_into().unwrap()),
        })
        .collect();
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn put(world: &mut World, signer: &str, user: &str, group: &str, usage: &str, pem: &str) -> Key {
    let request = ByteString(pem.as_bytes().to_vec());
    let spec = json!({"signerName": signer, "username": user, "groups": [group], "request": request,
                      "usages": ["digital signature", usage]});
    world.put::<CertificateSigningRequest>(&json!({"metadata": {"name": "csr"}, "spec": spec}).to_string());
    Key::new("", "csr")
}

fn check(signer: &str, user: &str, group: &str, usage: &str, pem: &str, expected: Expect) {
    let mut world = World::default();
    world.put::<Node>(
        "{metadata: {name: a}, status: {addresses: [{type: InternalIP, address: 10.0.0.1}, {type: Hostname, address: a}]}}",
    );
    let key = put(&mut world, signer, user, group, usage, pem);
    let plan = world.plan(&Controller { signer: None, access: Box::new(Granted) }, &key);
    let told = plan.steps.iter().map(|step| match step {
        Step::Patch(patch) => format!("{}: {}", patch.subresource.unwrap(), patch.patch["status"]["conditions"][0]["message"]),
        other => other.to_string(),
    });
    expected.assert_eq(&told.collect::<String>());
}

#[test]
fn nodes_are_approved_for_themselves_only() {
    let node = request("system:node:a", "system:nodes", &[]);
    let bootstrap = ("system:bootstrap:abcdef", "system:bootstrappers");
    check(
        KUBELET_CLIENT,
        bootstrap.0,
        bootstrap.1,
        "client auth",
        &node,
        expect![[r#"approval: "Auto approving kubelet client certificate after SubjectAccessReview.""#]],
    );
    check(
        KUBELET_CLIENT,
        "system:node:a",
        "system:nodes",
        "client auth",
        &node,
        expect![[r#"approval: "Auto approving self kubelet client certificate after SubjectAccessReview.""#]],
    );
    check(KUBELET_CLIENT, "system:node:b", "system:nodes", "client auth", &node, expect![[""]]);
    check(KUBELET_CLIENT, bootstrap.0, bootstrap.1, "server auth", &node, expect![[""]]);
    let admin = request("kubernetes-admin", "system:masters", &[]);
    check(KUBELET_CLIENT, bootstrap.0, bootstrap.1, "client auth", &admin, expect![[""]]);
    check(CLIENT, bootstrap.0, bootstrap.1, "client auth", &admin, expect![[""]]);
    let own = request("system:node:a", "system:nodes", &["a", "10.0.0.1"]);
    check(
        KUBELET_SERVING,
        "system:node:a",
        "system:nodes",
        "server auth",
        &own,
        expect![[r#"approval: "Auto approving kubelet serving certificate for the node's own names.""#]],
    );
    check(KUBELET_CLIENT, bootstrap.0, bootstrap.1, "client auth", &own, expect![[""]]);
    let strange = request("system:node:a", "system:nodes", &["a", "10.0.0.2"]);
    check(KUBELET_SERVING, "system:node:a", "system:nodes", "server auth", &strange, expect![[""]]);
}

#[test]
fn an_approved_request_is_signed_as_asked() {
    let mut world = World::default();
    let pem = request("system:node:a", "system:nodes", &[]);
    let controller = Controller { signer: Some(authority()), access: Box::new(Granted) };
    let key = put(&mut world, KUBELET_CLIENT, "system:bootstrap:abcdef", "system:bootstrappers", "client auth", &pem);
    for _ in 0..2 {
        let plan = world.plan(&controller, &key);
        assert_eq!(plan.steps.len(), 1);
        plan.steps.iter().for_each(|step| world.apply(step));
    }
    assert!(world.plan(&controller, &key).is_empty());
    let certificate = world.get::<CertificateSigningRequest>(&key).status.clone().unwrap().certificate.unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&certificate.0).unwrap();
    let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
    assert_eq!(certificate.subject().to_string(), "CN=system:node:a, O=system:nodes");
    assert_eq!(certificate.issuer().to_string(), "CN=test-ca");
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
    assert!(!certificate.is_ca());
    // And after an hour it is cleared away.
    world.pass(3601);
    world.check(
        &controller,
        &key,
        expect![[r#"
        delete CertificateSigningRequest csr (it is too old)
    "#]],
    );
}

#[test]
fn what_a_person_approved_against_the_rules_is_not_signed() {
    let mut world = World::default();
    let pem = request("kubernetes-admin", "system:masters", &[]);
    let controller = Controller { signer: Some(authority()), access: Box::new(Granted) };
    let key = put(&mut world, KUBELET_CLIENT, "somebody", "people", "client auth", &pem);
    let approved = json!([{"type": "Approved", "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z"}]);
    world.edit::<CertificateSigningRequest>("csr", json!({"status": {"conditions": approved}}));
    world.settle(&controller, &key, expect![[r#"
        patch CertificateSigningRequest csr/status {"status":{"conditions":[{"lastUpdateTime":"2026-01-01T00:00:00Z","status":"True","type":"Approved"},{"lastTransitionTime":"2026-01-01T00:00:00Z","lastUpdateTime":"2026-01-01T00:00:00Z","message":"subject organization is not system:nodes","reason":"SignerValidationFailure","status":"True","type":"Failed"}]}}
        again in 86401s
    "#]]);
}
