//! Asks the API server whether somebody may do something (a SubjectAccessReview). It writes nothing.

use async_trait::async_trait;
use serde_json::{Value, json};
use slipway_api::certificates::CertificateSigningRequest;

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

#[async_trait]
pub trait Access: Send + Sync {
    /// Whether the one who asks for a certificate may `create` this subresource of certificate requests.
    async fn may_create(&self, subresource: &str, csr: &CertificateSigningRequest) -> Result<bool, kube::Error>;
}

/// The API server's answer.
pub struct Api(pub kube::Client);

#[async_trait]
impl Access for Api {
    async fn may_create(&self, subresource: &str, csr: &CertificateSigningRequest) -> Result<bool, kube::Error> {
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
        let request = http::Request::post(REVIEWS).header("content-type", "application/json");
        let request = request.body(review.to_string().into_bytes()).map_err(kube::Error::HttpError)?;
        let answer: Value = self.0.request(request).await?;
        Ok(answer["status"]["allowed"] == true)
    }
}
