//! As much of SPDY/3.1 as a node's agent wants of a client: streams are opened and half-closed, data goes both ways, pings
//! are answered. There is no flow control: the other end has none either.
//!
//! What the other end says of its streams (the headers in its replies) nobody needs, so it is passed over. Headers that are
//! sent are compressed without SPDY's dictionary, which zlib's format says for itself.

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, FlushCompress};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The other end copies in parts of 32 KiB.
const FRAME_BYTES_MAX: usize = 1 << 20;

const SYN_STREAM: u16 = 1;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;
const CONTROL: u32 = 0x8003_0000;
const FIN: u32 = 1 << 24;
const LENGTH: u32 = (1 << 24) - 1;

/// What the other end sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Data {
        stream: u32,
        bytes: Bytes,
        /// No more comes on this stream.
        last: bool,
    },
    Ping(u32),
    GoAway,
    /// Replies, settings, resets: nothing follows from them here.
    Other,
}

/// The next frame; `None` at the end of the connection.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let mut head = [0; 8];
    match from.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let [a, b, c, d, e, f, g, h] = head;
    let (first, second) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    let length = (second & LENGTH) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    let mut bytes = BytesMut::zeroed(length);
    from.read_exact(&mut bytes).await?;
    let bytes = bytes.freeze();
    if first & 0x8000_0000 == 0 {
        return Ok(Some(Frame::Data { stream: first, bytes, last: second & FIN != 0 }));
    }
    Ok(Some(match ((first & 0xffff) as u16, bytes.first_chunk::<4>()) {
        (PING, Some(id)) => Frame::Ping(u32::from_be_bytes(*id)),
        (GO_AWAY, _) => Frame::GoAway,
        _ => Frame::Other,
    }))
}

/// The sending half of a connection.
pub struct Writer<W> {
    to: W,
    headers: Compress,
    next: u32,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub fn new(to: W) -> Self {
        Writer { to, headers: Compress::new(Compression::fast(), true), next: 1 }
    }

    /// Opens a stream, and answers with its number.
    pub async fn open(&mut self, headers: &[(&str, &str)]) -> io::Result<u32> {
        let stream = self.next;
        self.next += 2; // The even ones are the server's.
        let block = self.compressed(headers)?;
        let mut frame = BytesMut::with_capacity(18 + block.len());
        frame.put_u32(CONTROL | u32::from(SYN_STREAM));
        frame.put_u32(10 + length(&block)?);
        frame.put_u32(stream);
        frame.put_u32(0);
        frame.put_u16(0);
        frame.extend_from_slice(&block);
        self.to.write_all(&frame).await?;
        Ok(stream)
    }

    pub async fn data(&mut self, stream: u32, bytes: &[u8], last: bool) -> io::Result<()> {
        let mut frame = BytesMut::with_capacity(8 + bytes.len());
        frame.put_u32(stream);
        frame.put_u32(length(bytes)? | if last { FIN } else { 0 });
        frame.extend_from_slice(bytes);
        self.to.write_all(&frame).await
    }

    /// Answers a ping.
    pub async fn pong(&mut self, id: u32) -> io::Result<()> {
        let mut frame = BytesMut::with_capacity(12);
        frame.put_u32(CONTROL | u32::from(PING));
        frame.put_u32(4);
        frame.put_u32(id);
        self.to.write_all(&frame).await
    }

    fn compressed(&mut self, headers: &[(&str, &str)]) -> io::Result<Vec<u8>> {
        let mut plain = BytesMut::new();
        plain.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(length(text.as_bytes())?);
            plain.extend_from_slice(text.as_bytes());
        }
        // Room for what deflate adds to data that it cannot make smaller.
        let mut out = Vec::with_capacity(plain.len() + 64);
        self.headers.compress_vec(&plain, &mut out, FlushCompress::Sync).map_err(io::Error::other)?;
        Ok(out)
    }
}

fn length(bytes: &[u8]) -> io::Result<u32> {
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= LENGTH);
    length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "more than a frame can hold"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Decompress;
    use futures::executor::block_on;
    use proptest::prelude::*;

    #[tokio::test]
    async fn streams_have_odd_numbers_and_compressed_headers() {
        let mut bytes = vec![];
        let mut writer = Writer::new(&mut bytes);
        assert_eq!(writer.open(&[("streamtype", "error")]).await.unwrap(), 1);
        assert_eq!(writer.open(&[("streamtype", "stdin")]).await.unwrap(), 3);
        let mut inflate = Decompress::new(true);
        let mut rest = &bytes[..];
        for name in ["error", "stdin"] {
            assert_eq!(&rest[..4], [0x80, 3, 0, 1]);
            let length = u32::from_be_bytes([0, rest[5], rest[6], rest[7]]) as usize;
            let (frame, after) = rest.split_at(8 + length);
            let mut plain = Vec::with_capacity(100);
            inflate.decompress_vec(&frame[18..], &mut plain, flate2::FlushDecompress::Sync).unwrap();
            let mut wanted = vec![0, 0, 0, 1, 0, 0, 0, 10];
            wanted.extend_from_slice(b"streamtype\0\0\0\x05");
            wanted.extend_from_slice(name.as_bytes());
            assert_eq!(plain, wanted);
            rest = after;
        }
        assert!(rest.is_empty());
    }

    #[tokio::test]
    async fn what_was_written_is_read() {
        let mut bytes = vec![];
        let mut writer = Writer::new(&mut bytes);
        writer.open(&[]).await.unwrap();
        writer.data(3, b"abc", false).await.unwrap();
        writer.data(3, b"", true).await.unwrap();
        writer.pong(7).await.unwrap();
        bytes.extend_from_slice(&[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut from = &bytes[..];
        let mut frames = vec![];
        while let Some(frame) = read(&mut from).await.unwrap() {
            frames.push(frame);
        }
        let data = |bytes: &'static [u8], last| Frame::Data { stream: 3, bytes: bytes.into(), last };
        assert_eq!(frames, [Frame::Other, data(b"abc", false), data(b"", true), Frame::Ping(7), Frame::GoAway]);
        let mut huge: &[u8] = &[0, 0, 0, 1, 0, 0xff, 0xff, 0xff];
        assert!(read(&mut huge).await.is_err());
    }

    async fn frames(mut from: impl AsyncRead + Unpin) -> Vec<Frame> {
        let mut frames = vec![];
        while let Ok(Some(frame)) = read(&mut from).await {
            frames.push(frame);
        }
        frames
    }

    proptest! {
        /// However they arrive, bytes are the same frames or none, and no frame is larger than what was sent.
        #[test]
        fn any_bytes_are_frames_or_not(bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(0x80), any::<u8>()], 0..300), at: prop::sample::Index) {
            let whole = block_on(frames(&bytes[..]));
            let (first, rest) = bytes.split_at(at.index(bytes.len() + 1));
            prop_assert_eq!(&block_on(frames(first.chain(rest))), &whole);
            let held: usize = whole.iter().map(|frame| if let Frame::Data { bytes, .. } = frame { bytes.len() } else { 0 }).sum();
            prop_assert!(held <= bytes.len());
        }

        #[test]
        fn data_comes_back(sent in prop::collection::vec((1u32..0x7fff_ffff, prop::collection::vec(any::<u8>(), 0..100), any::<bool>()), 0..10)) {
            let mut bytes = vec![];
            let mut writer = Writer::new(&mut bytes);
            for (stream, data, last) in &sent {
                block_on(writer.data(*stream, data, *last)).unwrap();
            }
            let expected: Vec<Frame> =
                sent.into_iter().map(|(stream, data, last)| Frame::Data { stream, bytes: data.into(), last }).collect();
            prop_assert_eq!(block_on(frames(&bytes[..])), expected);
        }
    }
}
