//! Upgraded streams, handed on as raw bytes to the runtime's streaming server.

use super::Refused;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes that wait in each direction.
const BUFFER_BYTES: usize = 16 * 1024;
/// How long the runtime may go on when nothing more comes from the client.
const LINGER: Duration = Duration::from_secs(30);

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
            join(TokioIo::new(client), TokioIo::new(runtime)).await;
        }
    });
    let (parts, _) = response.into_parts();
    let mut answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    for (name, value) in &parts.headers {
        answer = answer.header(name, value);
    }
    answer.body(Body::empty()).map_err(failed)
}

/// Joins the two until the runtime has said all.
///
/// It ends when the command does, whatever it has not read yet: that the client's bytes cannot be delivered any more is no
/// reason to lose the runtime's last ones, which say how the command ended.
async fn join(client: impl AsyncRead + AsyncWrite, runtime: impl AsyncRead + AsyncWrite) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_runtime, mut to_runtime) = tokio::io::split(runtime);
    let inwards = async {
        carry(&mut from_client, &mut to_runtime).await;
        tokio::time::sleep(LINGER).await;
    };
    let outwards = carry(&mut from_runtime, &mut to_client);
    tokio::select! {
        () = inwards => {}
        () = outwards => {}
    }
}

/// Carries what comes until its end, and tells that end. Which of the two has failed is the same to both. (`tokio::io::copy`
/// reads on while it writes, and gives up what it still holds when that fails.)
async fn carry(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..length]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    // It may be gone already.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    /// The runtime closes with input unread, which resets its connection.
    #[tokio::test]
    async fn what_the_runtime_said_last_comes_though_it_reads_no_more() {
        for _ in 0..50 {
            let ((mut client, client_end), (runtime_end, mut runtime)) = (pair().await, pair().await);
            let joined = tokio::spawn(join(client_end, runtime_end));
            client.write_all(&[1; 10_000]).await.unwrap();
            runtime.read_exact(&mut [0]).await.unwrap();
            runtime.write_all(b"status").await.unwrap();
            drop(runtime);
            client.write_all(&[2; 10_000]).await.unwrap();
            let mut said = String::new();
            client.read_to_string(&mut said).await.unwrap();
            assert_eq!(said, "status");
            joined.await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_end_of_the_input_is_not_that_of_the_output() {
        let ((mut client, client_end), (runtime_end, mut runtime)) = (pair().await, pair().await);
        tokio::spawn(join(client_end, runtime_end));
        client.write_all(b"all").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut heard, mut said) = (String::new(), String::new());
        runtime.read_to_string(&mut heard).await.unwrap();
        runtime.write_all(heard.to_uppercase().as_bytes()).await.unwrap();
        drop(runtime);
        client.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "ALL");
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_does_not_end_is_left() {
        let ((client, client_end), (runtime_end, _runtime)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        drop(client);
        tokio::time::timeout(2 * LINGER, join(client_end, runtime_end)).await.expect("it is not waited for");
    }
}
