//! Connections that are slow, idle or flooded: they come to an end, and others are served.

use crate::hostile::{Listening, TOKEN, listen};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

type Stream = TlsStream<TcpStream>;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is read until the other end hangs up.
async fn rest(stream: &mut Stream) -> Vec<u8> {
    let mut all = vec![];
    // A connection may be reset instead of closed.
    stream.read_to_end(&mut all).await.ok();
    all
}

fn seconds(since: Instant) -> u64 {
    since.elapsed().as_secs()
}

/// Time runs by itself from here on whenever everybody waits.
fn hurry() -> Instant {
    tokio::time::pause();
    Instant::now()
}

#[tokio::test]
async fn who_says_nothing_is_cut_off() {
    let listening = listen().await;
    let mut silent = listening.connect().await;
    let mut silent_too = listening.connect_with(b"h2").await;
    let mut settled = listening.connect_with(b"h2").await;
    settled.write_all(&[PREFACE, &frame(4, 0, 0, b"")].concat()).await.unwrap();
    let started = hurry();
    assert_eq!(rest(&mut silent).await, b"");
    rest(&mut silent_too).await;
    rest(&mut settled).await;
    assert!((28..40).contains(&seconds(started)), "after {} s", seconds(started));
}

#[tokio::test]
async fn who_has_nothing_more_to_ask_is_cut_off() {
    let listening = listen().await;
    let mut stream = listening.connect_with(b"h2").await;
    let authorization = format!("Bearer {TOKEN}");
    let ask = [PREFACE, &frame(4, 0, 0, b""), &frame(1, 5, 1, &head("GET", "/version", &authorization))].concat();
    stream.write_all(&ask).await.unwrap();
    let started = hurry();
    // Whoever doesn't answer pings is cut off earlier.
    let mut answered = false;
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        answered |= head[3] == 1;
        if head[3] == 6 && head[4] == 0 {
            stream.write_all(&frame(6, 1, 0, &payload)).await.unwrap();
        }
    }
    assert!(answered, "the request is answered");
    assert!((80..130).contains(&seconds(started)), "after {} s", seconds(started));
}

#[tokio::test]
async fn a_watch_is_not_idle() {
    let listening = listen().await;
    let mut stream = listening.connect().await;
    let head = format!(
        "GET {MAPS}?watch=1&timeoutSeconds=600 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut some = [0; 12];
    stream.read_exact(&mut some).await.unwrap();
    assert_eq!(&some, b"HTTP/1.1 200");
    let started = hurry();
    rest(&mut stream).await;
    assert!((500..=610).contains(&seconds(started)), "after {} s", seconds(started));
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_not_waited_for() {
    let listening = listen().await;
    let stream = listening.connect().await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let head = format!("GET {MAPS} HTTP/1.1\r\nHost: localhost\r\nX-Long: {}", "x".repeat(1000));
    let started = hurry();
    let slowly = tokio::spawn(async move {
        for byte in head.into_bytes() {
            if writer.write_all(&[byte]).await.and(writer.flush().await).is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let mut answer = vec![];
    reader.read_to_end(&mut answer).await.ok();
    assert!((20..45).contains(&seconds(started)), "after {} s", seconds(started));
    slowly.abort();
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_is_not_waited_for() {
    let listening = listen().await;
    let mut stream = listening.connect().await;
    let head = format!(
        "POST {MAPS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let started = hurry();
    let slowly = tokio::spawn(async move {
        while writer.write_all(b" ").await.and(writer.flush().await).is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let mut answer = [0; 12];
    reader.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 504");
    assert!((55..80).contains(&seconds(started)), "after {} s", seconds(started));
    slowly.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_too_long_is_refused() {
    let listening = listen().await;
    let answer = listening.ask(&format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(100_000))).await;
    assert!(answer.contains("414") || answer.contains("400") || answer.is_empty(), "{answer}");
    listening.is_served().await;
}

// === HTTP/2, by hand ===

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field that is in no table: its name is `name` or, if that is empty, number `index` of the static table.
fn field(index: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let text = |text: &[u8]| {
        assert!(text.len() < 127);
        [&[u8::try_from(text.len()).unwrap()], text].concat()
    };
    match index {
        0 => [vec![0], text(name), text(value)].concat(),
        // Four bits, and the rest of the number behind them.
        15.. => [vec![0x0f, index - 15], text(value)].concat(),
        _ => [vec![index], text(value)].concat(),
    }
}

fn head(method: &str, path: &str, authorization: &str) -> Vec<u8> {
    let fields = [field(2, b"", method.as_bytes()), vec![0x87], field(4, b"", path.as_bytes()), field(1, b"", b"localhost")];
    let own = if authorization.is_empty() { vec![] } else { field(23, b"", authorization.as_bytes()) };
    [fields.concat(), own].concat()
}

/// Writes until everything is written or the other end doesn't want it; what that had to say, and how much was written.
async fn flood(listening: &Listening, chunks: impl Iterator<Item = Vec<u8>> + Send + 'static) -> (Vec<u8>, usize) {
    let stream = listening.connect_with(b"h2").await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let writing = tokio::spawn(async move {
        writer.write_all(&[PREFACE, &frame(4, 0, 0, b"")].concat()).await.ok();
        for chunk in chunks {
            if writer.write_all(&chunk).await.is_err() {
                return;
            }
            count.fetch_add(chunk.len(), Ordering::SeqCst);
        }
        writer.flush().await.ok();
    });
    let mut said = vec![];
    let mut buffer = vec![0; 65536];
    // The end comes by the server, or after a while without a word.
    while let Ok(Ok(length @ 1..)) = tokio::time::timeout(Duration::from_secs(3), reader.read(&mut buffer)).await {
        said.extend_from_slice(&buffer[..length]);
    }
    // Where nobody reads any more, writing comes to an end by itself, but for what is in buffers.
    writing.abort();
    (said, written.load(Ordering::SeqCst))
}

/// Of the frames that were read, those of a kind: their payloads.
fn frames_of(mut bytes: &[u8], kind: u8) -> Vec<&[u8]> {
    let mut found = vec![];
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { return found };
        if head[3] == kind {
            found.push(payload);
        }
        bytes = rest;
    }
    found
}

const RST_STREAM: u8 = 3;
const GO_AWAY: u8 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

fn code(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[payload.len().min(8) - 4..][..4].try_into().unwrap())
}

/// Streams that are reset as soon as they are opened: CVE-2023-44487.
#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_end_the_connection() {
    let listening = listen().await;
    let chunks = (0..500u32).map(|chunk| {
        let pairs = (0..100).flat_map(move |n| {
            let stream = 2 * (chunk * 100 + n) + 1;
            [frame(1, 5, stream, &head("GET", MAPS, "")), frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
        });
        pairs.collect()
    });
    let (said, _) = flood(&listening, chunks).await;
    let codes: Vec<u32> = frames_of(&said, GO_AWAY).into_iter().map(code).collect();
    assert_eq!(codes, [ENHANCE_YOUR_CALM]);
    listening.is_served().await;
}

/// A head without an end: CVE-2024-27316.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_goes_on_and_on_ends_the_connection() {
    let listening = listen().await;
    let more = (0..100).flat_map(|n| field(0, format!("x-{n}").as_bytes(), &[b'x'; 100])).collect::<Vec<u8>>();
    let first = std::iter::once(frame(1, 1, 1, &head("GET", MAPS, "")));
    let (said, written) = flood(&listening, first.chain((0..20_000).map(move |_| frame(9, 0, 1, &more)))).await;
    let codes: Vec<u32> = frames_of(&said, GO_AWAY).into_iter().map(code).collect();
    assert_eq!(codes, [ENHANCE_YOUR_CALM]);
    assert!(written < 32 << 20, "{written} bytes of one head were read");
    listening.is_served().await;
}

/// More streams than are let in.
#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_limit_are_refused() {
    let listening = listen().await;
    let authorization = format!("Bearer {TOKEN}");
    let watch = head("GET", &format!("{MAPS}?watch=1"), &authorization);
    let (said, _) = flood(&listening, (0..2_500u32).map(move |n| frame(1, 5, 2 * n + 1, &watch))).await;
    let refused = frames_of(&said, RST_STREAM).into_iter().filter(|payload| code(payload) == 7).count();
    let ended = frames_of(&said, GO_AWAY).len();
    assert!(refused > 0 || ended > 0, "all 2500 streams were let in");
    listening.is_served().await;
}

/// Frames that mean work and no request.
#[tokio::test(flavor = "multi_thread")]
async fn pings_settings_and_empty_frames_leave_others_served() {
    let listening = listen().await;
    for (kind, payload) in [(6, &[0; 8][..]), (4, &[0, 4, 0, 0, 0x10, 0]), (8, &[0, 0, 0, 1]), (2, &[0, 0, 0, 3, 1])] {
        let stream = u32::from(kind == 2) * 5;
        let many = frame(kind, 0, stream, payload).repeat(1_000);
        let (said, _) = flood(&listening, std::iter::repeat_n(many, 100)).await;
        assert!(said.len() < 8 << 20, "{} bytes came back", said.len());
        listening.is_served().await;
    }
}
