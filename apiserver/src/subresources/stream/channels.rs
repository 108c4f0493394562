//! `v5.channel.k8s.io`: exec and attach over one WebSocket, whose messages begin with the number of a channel. It is the first
//! of these protocols in which a client can end its input without ending the connection. Container runtimes don't speak it, so
//! it is translated here into SPDY, which they do (KEP-4006).

use super::spdy::{self, Frame};
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde_json::json;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite, WriteHalf};
use tokio::sync::Mutex;

pub const PROTOCOL: &str = "v5.channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Followed by the number of a channel: nothing more is coming on that one.
const CLOSE: u8 = 255;

/// What the client asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// The number of the stream that carries each channel.
struct Streams(Vec<(u8, u32)>);

impl Streams {
    fn stream(&self, channel: u8) -> Option<u32> {
        self.0.iter().find(|(number, _)| *number == channel).map(|(_, stream)| *stream)
    }

    fn channel(&self, stream: u32) -> Option<u8> {
        self.0.iter().find(|(_, number)| *number == stream).map(|(channel, _)| *channel)
    }
}

type Writer<B> = Mutex<spdy::Writer<WriteHalf<B>>>;

/// Translates between the two until one of them ends.
pub async fn translate(socket: WebSocket, backend: impl AsyncRead + AsyncWrite, wanted: Wanted) {
    let (mut reader, writer) = tokio::io::split(backend);
    let mut writer = spdy::Writer::new(writer);
    let (mut to_client, from_client) = socket.split();
    let streams = match open(&mut writer, wanted).await {
        Ok(streams) => streams,
        Err(error) => return end(&mut to_client, Some(&error)).await,
    };
    // Tells the client that the connection stands.
    let first = if wanted.stdout {
        STDOUT
    } else if wanted.stderr {
        STDERR
    } else {
        ERROR
    };
    if to_client.send(message(first, &[])).await.is_err() {
        return;
    }
    let writer = Mutex::new(writer);
    let mut told = false;
    let ended = tokio::select! {
        ended = outwards(&mut reader, &mut to_client, &streams, &writer, &mut told) => ended,
        () = inwards(from_client, &streams, &writer) => return,
    };
    match ended {
        // Once that is told, it is no news that the node hangs up, in whatever manner.
        _ if told => end(&mut to_client, None).await,
        Ok(()) => end(&mut to_client, Some(&"the connection to the node was lost")).await,
        Err(error) => end(&mut to_client, Some(&error)).await,
    }
}

async fn open<W: AsyncWrite + Unpin>(writer: &mut spdy::Writer<W>, wanted: Wanted) -> io::Result<Streams> {
    let all = [
        (ERROR, "error", true),
        (STDIN, "stdin", wanted.stdin),
        (STDOUT, "stdout", wanted.stdout),
        (STDERR, "stderr", wanted.stderr),
        (RESIZE, "resize", wanted.tty),
    ];
    let mut streams = vec![];
    for (channel, name, _) in all.into_iter().filter(|(_, _, wanted)| *wanted) {
        streams.push((channel, writer.open(&[("streamtype", name)]).await?));
    }
    Ok(Streams(streams))
}

/// From the node to the client. `told`: whether the client was told how it ended.
async fn outwards<B: AsyncRead + AsyncWrite>(
    reader: &mut tokio::io::ReadHalf<B>,
    to_client: &mut SplitSink<WebSocket, Message>,
    streams: &Streams,
    writer: &Writer<B>,
    told: &mut bool,
) -> io::Result<()> {
    while let Some(frame) = spdy::read(reader).await? {
        match frame {
            Frame::Data { stream, bytes, .. } if !bytes.is_empty() => {
                let Some(channel) = streams.channel(stream) else { continue };
                to_client.send(message(channel, &bytes)).await.map_err(io::Error::other)?;
                *told |= channel == ERROR;
            }
            Frame::Ping(id) => {
                // A node that reads no more may still have something to say.
                let _ = writer.lock().await.pong(id).await;
            }
            Frame::GoAway => break,
            Frame::Data { .. } | Frame::Other => {}
        }
    }
    Ok(())
}

/// From the client to the node, until the client goes away. A node that reads no more may still have something to say, so
/// the rest is read for nothing then.
async fn inwards<B: AsyncRead + AsyncWrite>(mut from_client: SplitStream<WebSocket>, streams: &Streams, writer: &Writer<B>) {
    while let Some(Ok(received)) = from_client.next().await {
        let bytes: Bytes = match received {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        let Some((channel, data)) = bytes.split_first() else { continue };
        let (stream, data, last) = match (*channel, data) {
            (CLOSE, [channel, ..]) => (streams.stream(*channel), &[][..], true),
            (STDIN | RESIZE, data) => (streams.stream(*channel), data, false),
            _ => (None, data, false),
        };
        if let Some(stream) = stream
            && let Err(error) = writer.lock().await.data(stream, data, last).await
        {
            tracing::debug!(%error, "a stream to a node broke");
        }
    }
}

async fn end(to_client: &mut SplitSink<WebSocket, Message>, why: Option<&(dyn std::fmt::Display + Sync)>) {
    if let Some(why) = why {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "InternalError",
            "message": format!("Internal error occurred: {why}"), "code": 500,
        });
        if to_client.send(message(ERROR, status.to_string().as_bytes())).await.is_err() {
            return;
        }
    }
    let close = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    // The client may be gone already.
    let _ = to_client.send(Message::Close(Some(close))).await;
}

fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(1 + data.len());
    bytes.put_u8(channel);
    bytes.extend_from_slice(data);
    Message::Binary(bytes.freeze())
}
