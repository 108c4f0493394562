//! WebSockets: the upgrade, and answers that go on and on (logs, watches) as messages instead of a body.

use crate::http::error::Status;
use axum::body::{Body, BodyDataStream};
use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};

/// A client has no reason to send larger ones: stdin and tunnels come in parts.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Messages of text with base64 in them, for clients that cannot take bytes.
const BASE64: &str = "base64.binary.k8s.io";
const BINARY: &str = "binary.k8s.io";

/// Whether a request wants to go on as a WebSocket.
pub fn is_asked(parts: &Parts) -> bool {
    parts.method == Method::GET
        && parts.headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Whether the client offers to speak `protocol`.
pub fn offers(headers: &HeaderMap, protocol: &str) -> bool {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|offered| offered.trim() == protocol)
}

/// The upgrade of a request, still to be answered. `protocols`: what is spoken, best first.
pub async fn upgrade(parts: &mut Parts, protocols: &[&'static str]) -> Result<WebSocketUpgrade, Status> {
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await;
    let upgrade = upgrade.map_err(|refused| Status::bad_request(refused.body_text()))?;
    Ok(upgrade.max_message_size(MESSAGE_BYTES_MAX).protocols(protocols.iter().copied()))
}

/// What a message is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Each line one message of text: a watch in JSON.
    Lines,
    /// The bytes as they come: a log.
    Bytes,
}

/// Makes messages of an answer's body; an answer that is none stays as it is.
pub async fn messages(mut parts: Parts, answer: Response, framing: Framing) -> Result<Response, Status> {
    if answer.status() != StatusCode::OK {
        return Ok(answer);
    }
    let in_text = framing == Framing::Bytes && offers(&parts.headers, BASE64) && !offers(&parts.headers, BINARY);
    let upgrade = upgrade(&mut parts, &[BINARY, BASE64]).await?;
    let body = answer.into_body();
    Ok(upgrade.on_upgrade(move |socket| send(socket, body, framing, in_text)).into_response())
}

async fn send(mut socket: WebSocket, body: Body, framing: Framing, in_text: bool) {
    let mut body = body.into_data_stream();
    let mut rest = BytesMut::new();
    while let Some(part) = next(&mut socket, &mut body).await {
        let sent = match framing {
            Framing::Bytes if in_text => socket.send(Message::text(STANDARD.encode(&part))).await,
            Framing::Bytes => socket.send(Message::Binary(part)).await,
            Framing::Lines => {
                rest.extend_from_slice(&part);
                lines(&mut socket, &mut rest).await
            }
        };
        if sent.is_err() {
            return;
        }
    }
    let close = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    // The client may be gone already.
    let _ = socket.send(Message::Close(Some(close))).await;
}

/// The next part of the body; `None` if there is no more, or the client has gone.
async fn next(socket: &mut WebSocket, body: &mut BodyDataStream) -> Option<Bytes> {
    loop {
        tokio::select! {
            part = body.next() => return part?.ok(),
            said = socket.recv() => match said? {
                Ok(Message::Close(_)) | Err(_) => return None,
                // What else it says is nobody's business.
                Ok(_) => {}
            },
        }
    }
}

/// Sends the whole lines at the beginning of `rest`.
async fn lines(socket: &mut WebSocket, rest: &mut BytesMut) -> Result<(), axum::Error> {
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let line = rest.split_to(end + 1);
        let text = String::from_utf8_lossy(&line[..end]).into_owned();
        socket.send(Message::text(text)).await?;
    }
    Ok(())
}
