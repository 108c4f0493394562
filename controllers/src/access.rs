//! Asks the API server whether somebody may do something (a SubjectAccessReview). It writes nothing.

use serde_json::{Value, json};
use slipway_api::certificates::CertificateSigningRequest;

/// Who answers.
#[derive(Clone)]
pub enum Access {
    Api(kube::Client),
    /// The groups that may create the subresource.
    #[cfg(test)]
    Granted(&'static [(&'static str, &'static str)]),
}

impl Access {
    /// Whether the one who asks for a certificate may `create` this subresource of certificate requests.
    pub async fn may_create(&self, subresource: &str, csr: &CertificateSigningRequest) -> Result<bool, kube::Error> {
        match self {
            Access::Api(client) => {
                let spec = &csr.spec;
                let review = json!({
                    "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                    "spec": {
                        "user": spec.username.as_deref().unwrap_or_default(), "uid": spec.uid.as_deref().unwrap_or_default(),
                        "groups": spec.groups.as_deref().unwrap_or(&[]), "extra": spec.extra.clone().unwrap_or_default(),
                        "resourceAttributes": {
                            "group": "certificates.k8s.io", "resource": "certificatesigningrequests", "verb": "create", "version": "*",
                            "subresource": subresource,
                        },
                    },
                });
                let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
                let request = http::Request::post(path).header("content-type", "application/json");
                let request = request.body(review.to_string().into_bytes()).map_err(kube::Error::HttpError)?;
                let answer: Value = client.request(request).await?;
                Ok(answer["status"]["allowed"] == true)
            }
            #[cfg(test)]
            Access::Granted(granted) => {
                let groups = csr.spec.groups.as_deref().unwrap_or(&[]);
                Ok(granted.iter().any(|(group, sub)| *sub == subresource && groups.iter().any(|own| own == group)))
            }
        }
    }
}
