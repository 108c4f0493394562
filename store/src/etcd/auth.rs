//! The Auth service, of which there is only that it is off: who may come is told by certificates.

use super::errors;
use http_body_util::combinators::UnsyncBoxBody;
use std::convert::Infallible;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::server::NamedService;

#[derive(Clone)]
pub(super) struct Auth;

impl NamedService for Auth {
    const NAME: &'static str = "etcdserverpb.Auth";
}

impl tower::Service<http::Request<Body>> for Auth {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = match request.uri().path().ends_with("/AuthStatus") {
            true => disabled(),
            false => errors::authentication_is_not_enabled().into_http(),
        };
        std::future::ready(Ok(answer))
    }
}

/// An AuthStatusResponse in which nothing is set.
fn disabled() -> http::Response<Body> {
    const EMPTY_MESSAGE: &[u8] = &[0; 5];
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let frames = [http_body::Frame::data(bytes::Bytes::from_static(EMPTY_MESSAGE)), http_body::Frame::trailers(trailers)];
    let frames = futures::stream::iter(frames.map(Ok::<_, tonic::Status>));
    let mut response = http::Response::new(Body::new(UnsyncBoxBody::new(http_body_util::StreamBody::new(frames))));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    response
}
