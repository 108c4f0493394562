//! Upgraded streams, handed on as raw bytes to the runtime's streaming server.

use super::Refused;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

fn failed(error: impl std::fmt::Display) -> Refused {
    Refused(StatusCode::BAD_GATEWAY, format!("the runtime's streaming server: {error}"))
}

/// Sends the request on to `url`, and joins the two connections if both sides switch protocols.
pub async fn through(url: &str, mut request: Request) -> Result<Response, Refused> {
    let url: http::Uri = url.parse().map_err(failed)?;
    let authority = url.authority().ok_or_else(|| failed("no address"))?.clone();
    let stream = TcpStream::connect(authority.as_str()).await.map_err(failed)?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(connection.with_upgrades());
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let mut onward = http::Request::builder().method(request.method().clone()).uri(path);
    for (name, value) in request.headers() {
        if !matches!(name.as_str(), "host" | "authorization" | "content-length" | "transfer-encoding") {
            onward = onward.header(name, value);
        }
    }
    let onward = onward.header("host", authority.as_str()).body(Empty::<Bytes>::new()).map_err(failed)?;
    let mut response = sender.send_request(onward).await.map_err(failed)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(Body::new).into_response());
    }
    let (client, runtime) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut response));
    tokio::spawn(async move {
        if let (Ok(client), Ok(runtime)) = tokio::join!(client, runtime) {
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(runtime)).await;
        }
    });
    let (parts, _) = response.into_parts();
    let mut answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    for (name, value) in &parts.headers {
        answer = answer.header(name, value);
    }
    answer.body(Body::empty()).map_err(failed)
}
