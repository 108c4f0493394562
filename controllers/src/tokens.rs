//! Secrets of type `kubernetes.io/service-account-token`: each gets the token of the service account that it names, and goes
//! with it.

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use sha2::{Digest, Sha256};
use slipway_api::{
    ByteString,
    core::{Secret, ServiceAccount},
};

use crate::{
    Error,
    caches::Caches,
    plan::{Plan, Step},
    queue::Queue,
    resource::{Key, Object},
    run::Situation,
};

const TYPE: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";
const ISSUER: &str = "kubernetes/serviceaccount";

pub struct Controller {
    signer: Option<Signer>,
    ca_pem: String,
}

struct Signer {
    key: EncodingKey,
    id: String,
}

impl Controller {
    pub fn new(key_pem: Option<&str>, ca_pem: &str) -> Result<Controller, Error> {
        let signer = key_pem.map(|pem| {
            let pair = rcgen::KeyPair::from_pem(pem).map_err(|error| Error::ServiceAccountKey(error.to_string()))?;
            let key = EncodingKey::from_ec_pem(pem.as_bytes()).map_err(|error| Error::ServiceAccountKey(error.to_string()))?;
            // The same id that the API server publishes the key under.
            Ok(Signer { key, id: URL_SAFE_NO_PAD.encode(Sha256::digest(pair.public_key_raw())) })
        });
        Ok(Controller { signer: signer.transpose()?, ca_pem: ca_pem.to_owned() })
    }
}

impl Signer {
    fn sign(&self, secret: &Secret, account: &ServiceAccount) -> Option<String> {
        let (namespace, name) = (account.namespace(), account.name());
        let claims = json!({
            "iss": ISSUER, "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": secret.name(),
            "kubernetes.io/serviceaccount/service-account.name": name,
            "kubernetes.io/serviceaccount/service-account.uid": account.uid(),
        });
        let mut header = Header::new(Algorithm::ES256);
        (header.kid, header.typ) = (Some(self.id.clone()), None);
        jsonwebtoken::encode(&header, &claims, &self.key).ok()
    }
}

#[async_trait]
impl crate::run::Controller for Controller {
    fn name(&self) -> &'static str {
        "serviceaccount-token-controller"
    }

    fn watch(&self, caches: &Arc<Caches>, queue: &Arc<Queue>) {
        let secrets = queue.clone();
        caches.token_secrets.on_change(move |_, new| {
            if let Some(secret) = new {
                secrets.add(secret.key());
            }
        });
        // One that came, went or is another now concerns all that name it.
        let (accounts, all) = (queue.clone(), Arc::downgrade(caches));
        caches.service_accounts.on_change(move |old, new| {
            if old.map(|account| account.uid()) == new.map(|account| account.uid()) {
                return;
            }
            let (Some(account), Some(caches)) = (new.or(old), all.upgrade()) else { return };
            for secret in caches.token_secrets.list() {
                if secret.namespace() == account.namespace() && secret.annotation(NAME) == Some(account.name()) {
                    accounts.add(secret.key());
                }
            }
        });
    }

    async fn plan(&self, key: &Key, situation: Situation<'_>) -> Result<Plan, kube::Error> {
        let secret = situation.caches.token_secrets.get(key);
        Ok(secret.map(|secret| self.decide(&secret, situation.caches)).unwrap_or_default())
    }
}

impl Controller {
    fn decide(&self, secret: &Secret, caches: &Caches) -> Plan {
        let mut plan = Plan::nothing();
        let (Some(signer), Some(name)) = (&self.signer, secret.annotation(NAME)) else { return plan };
        if secret.is_deleted() || secret.type_.as_deref() != Some(TYPE) {
            return plan;
        }
        let account = caches.service_accounts.get(&Key::new(secret.namespace(), name));
        // One of the same name that came later is another.
        let account = account.filter(|account| secret.annotation(UID).is_none_or(|uid| uid.is_empty() || uid == account.uid()));
        let Some(account) = account else {
            plan.push(Step::delete(secret, "its service account is gone"));
            return plan;
        };
        let mut filled = secret.clone();
        filled.metadata.annotations.get_or_insert_default().insert(UID.to_owned(), account.uid().to_owned());
        let data = filled.data.get_or_insert_default();
        if data.get("token").is_none_or(|token| token.0.is_empty()) {
            let Some(token) = signer.sign(secret, &account) else { return plan };
            data.insert("token".to_owned(), ByteString(token.into_bytes()));
        }
        if !self.ca_pem.is_empty() {
            data.insert("ca.crt".to_owned(), ByteString(self.ca_pem.clone().into_bytes()));
        }
        data.insert("namespace".to_owned(), ByteString(secret.namespace().as_bytes().to_vec()));
        plan.push(Step::update(secret, &filled));
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;
    use expect_test::expect;

    fn controller() -> Controller {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Controller::new(Some(&key.serialize_pem()), "the CA").unwrap()
    }

    const SECRET: &str = "metadata: {name: s, annotations: {kubernetes.io/service-account.name: robot}}\ntype: kubernetes.io/service-account-token";

    #[test]
    fn a_secret_gets_its_accounts_token_and_goes_with_it() {
        let mut world = World::default();
        let account = world.put::<ServiceAccount>("metadata: {name: robot}");
        let secret = world.put::<Secret>(SECRET);
        let controller = controller();
        let plan = controller.decide(&secret, &world.caches);
        let [Step::Patch(patch)] = plan.steps.as_slice() else { panic!("{plan}") };
        let data = |key: &str| {
            let text = patch.patch["data"][key].as_str().unwrap();
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
        };
        assert_eq!((data("ca.crt").as_str(), data("namespace").as_str()), ("the CA", "default"));
        assert_eq!(patch.patch["metadata"]["annotations"][UID], account.uid());
        let token = data("token");
        let claims = token.split('.').nth(1).map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["sub"], "system:serviceaccount:default:robot");
        assert_eq!(claims["kubernetes.io/serviceaccount/secret.name"], "s");
        assert_eq!(claims["kubernetes.io/serviceaccount/service-account.uid"], account.uid());
    }

    #[test]
    fn a_secret_without_its_account_is_deleted() {
        let mut world = World::default();
        let secret = world.put::<Secret>(SECRET);
        let gone = expect![[r#"
            delete Secret default/s (its service account is gone)
        "#]];
        gone.assert_eq(&controller().decide(&secret, &world.caches).to_string());
        world.put::<ServiceAccount>("metadata: {name: robot}");
        let of_another = SECRET.replace("annotations: {", "annotations: {kubernetes.io/service-account.uid: another, ");
        let secret = world.put::<Secret>(&of_another);
        gone.assert_eq(&controller().decide(&secret, &world.caches).to_string());
    }
}
