//! gzip for large answers.
//!
//! A list is compressed by pages: runs of objects whose borders the objects' keys decide, so that a change spoils one page
//! only. A compressed page is kept with its first entry for as long as that lives and the page has the same objects. The pages
//! are spliced into one gzip member: each begins afresh and ends at a whole byte, and their checksums are combined.

use crate::http::protobuf;
use crate::stored::Entry;
use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use slipway_store::Revision;
use std::convert::Infallible;
use std::sync::Arc;

/// Answers below this are sent as they are, as in kube-apiserver.
pub const THRESHOLD_BYTES: usize = 128 * 1024;
/// About every so many objects a page begins; and none has more than this, nor many more bytes.
const PAGE_OBJECTS_MEAN: u64 = 16;
const PAGE_OBJECTS_MAX: usize = 64;
const PAGE_BYTES_MAX: usize = 512 * 1024;

/// Whether `Accept-Encoding` has gzip, and not with weight 0.
pub fn is_accepted(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0);
        name.eq_ignore_ascii_case("gzip") && weight > 0.0
    })
}

/// How the objects of a list are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Json,
    Protobuf,
}

impl Wire {
    /// What stands in front of an object that is not the first.
    pub fn put_before(self, object: &[u8], out: &mut BytesMut) {
        match self {
            Wire::Json => out.extend_from_slice(b","),
            Wire::Protobuf => out.extend_from_slice(&protobuf::within_list(object)),
        }
    }
}

/// One object of a list: the entry, and its bytes as the list has them.
pub struct Object {
    pub entry: Arc<Entry>,
    pub bytes: Bytes,
}

/// A compressed page.
#[derive(Debug)]
pub struct Deflated {
    /// Of its objects: no two contents have the same.
    revisions: Box<[Revision]>,
    bytes: Bytes,
    crc: Crc,
}

/// `head`, which has the first object, then the others and `tail`, as one gzip member.
pub fn list(wire: Wire, head: Bytes, others: Vec<Object>, tail: &'static [u8]) -> Body {
    let mut crc = Crc::new();
    let mut start = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];
    let first = deflate(&head, &[]);
    start.extend_from_slice(&first.bytes);
    crc.combine(&first.crc);
    let mut rest = others.into_iter().peekable();
    let mut start = Some(Bytes::from(start));
    let mut ended = false;
    let frames = futures::stream::unfold((), move |()| {
        let frame = match start.take() {
            Some(start) => Some((start, false)),
            None if rest.peek().is_some() => {
                let page = take_page(&mut rest);
                let (page, fresh) = compressed(wire, &page);
                crc.combine(&page.crc);
                Some((page.bytes.clone(), fresh))
            }
            None if !ended => {
                ended = true;
                let last = deflate(tail, &[]);
                crc.combine(&last.crc);
                let mut end = last.bytes.to_vec();
                // An empty last block, the checksum, and the length modulo 2³².
                end.extend_from_slice(&[0x03, 0x00]);
                end.extend_from_slice(&crc.sum().to_le_bytes());
                end.extend_from_slice(&crc.amount().to_le_bytes());
                Some((end.into(), false))
            }
            None => None,
        };
        async move {
            let (frame, fresh) = frame?;
            if fresh {
                // Compressing takes a while; others may go first.
                tokio::task::yield_now().await;
            }
            Some((Ok::<_, Infallible>(frame), ()))
        }
    });
    Body::from_stream(frames)
}

fn take_page(rest: &mut std::iter::Peekable<std::vec::IntoIter<Object>>) -> Vec<Object> {
    let mut page: Vec<Object> = vec![];
    let mut len = 0;
    while let Some(next) = rest.next_if(|next| page.is_empty() || !begins_page(&next.entry.key)) {
        len += next.bytes.len();
        page.push(next);
        if page.len() == PAGE_OBJECTS_MAX || len > PAGE_BYTES_MAX {
            break;
        }
    }
    page
}

/// By the key alone, so that a list's pages stay where they are when objects come and go. FNV-1a, mixed once more for keys
/// that differ in their last letters.
fn begins_page(key: &str) -> bool {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    ((hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 32).is_multiple_of(PAGE_OBJECTS_MEAN)
}

/// The page as it was kept, or as it is now; and whether it had to be compressed.
fn compressed(wire: Wire, page: &[Object]) -> (Arc<Deflated>, bool) {
    let slot = &page[0].entry.attributes.encoded.pages;
    let kept = slot.lock()[wire as usize].clone();
    let same = |kept: &Arc<Deflated>| kept.revisions.iter().copied().eq(page.iter().map(|object| object.entry.mod_revision));
    if let Some(kept) = kept.filter(same) {
        return (kept, false);
    }
    let mut plain = BytesMut::with_capacity(page.iter().map(|object| object.bytes.len() + 6).sum());
    for object in page {
        wire.put_before(&object.bytes, &mut plain);
        plain.extend_from_slice(&object.bytes);
    }
    let revisions: Vec<Revision> = page.iter().map(|object| object.entry.mod_revision).collect();
    let made = Arc::new(deflate(&plain, &revisions));
    slot.lock()[wire as usize] = Some(Arc::clone(&made));
    (made, true)
}

/// A run of blocks that needs nothing before it and ends at a whole byte.
fn deflate(plain: &[u8], revisions: &[Revision]) -> Deflated {
    let mut crc = Crc::new();
    crc.update(plain);
    let mut compress = Compress::new(Compression::fast(), false);
    let mut out = Vec::with_capacity(plain.len() / 4 + 64);
    loop {
        let done = usize::try_from(compress.total_in()).unwrap_or(usize::MAX).min(plain.len());
        let status = compress.compress_vec(&plain[done..], &mut out, FlushCompress::Sync);
        let all = compress.total_in() == plain.len() as u64;
        // With room left over, the flush has been written too.
        if all && out.len() < out.capacity() || !matches!(status, Ok(Status::Ok | Status::BufError)) {
            break;
        }
        out.reserve(plain.len() / 4 + 64);
    }
    out.shrink_to_fit();
    Deflated { revisions: revisions.into(), bytes: out.into(), crc }
}

/// The answer compressed as a whole, if it is large and not compressed yet.
pub async fn whole(response: Response) -> Response {
    let large = response.body().size_hint().exact().is_some_and(|len| len > THRESHOLD_BYTES as u64);
    if !large || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(plain) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return Response::from_parts(parts, Body::empty());
    };
    let packed = tokio::task::spawn_blocking({
        let plain = plain.clone();
        move || {
            let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
            std::io::Write::write_all(&mut encoder, &plain)?;
            encoder.finish()
        }
    });
    match packed.await {
        Ok(Ok(packed)) => {
            parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(parts, Body::from(packed))
        }
        _ => Response::from_parts(parts, Body::from(plain)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::Attributes;
    use flate2::read::GzDecoder;
    use proptest::prelude::*;
    use std::io::Read;

    fn object(index: usize, text: &str) -> Object {
        let bytes = Bytes::from(format!("{{\"name\":\"{text}-{index}\"}}"));
        let entry = Entry {
            key: format!("/core/pods/default/pod-{index}").into(),
            bytes: bytes.clone(),
            attributes: Attributes::default(),
            create_revision: 1,
            mod_revision: index as Revision + 1,
            version: 1,
        };
        Object { entry: Arc::new(entry), bytes }
    }

    fn again(objects: &[Object]) -> Vec<Object> {
        objects.iter().map(|object| Object { entry: Arc::clone(&object.entry), bytes: object.bytes.clone() }).collect()
    }

    async fn unpacked(objects: &[Object]) -> (Bytes, String) {
        let packed = list(Wire::Json, "[0".into(), again(objects), b"]").collect().await.unwrap().to_bytes();
        let mut plain = String::new();
        let mut decoder = GzDecoder::new(&packed[..]);
        decoder.read_to_string(&mut plain).unwrap();
        // One member: nothing is left over.
        assert_eq!(decoder.into_inner().len(), 0);
        (packed, plain)
    }

    #[tokio::test]
    async fn pages_are_spliced_into_one_member() {
        for count in [0, 1, 3, 200] {
            let objects: Vec<Object> = (0..count).map(|index| object(index, "a")).collect();
            let texts: Vec<String> =
                objects.iter().map(|object| format!(",{}", std::str::from_utf8(&object.bytes).unwrap())).collect();
            let (first, plain) = unpacked(&objects).await;
            assert_eq!(plain, format!("[0{}]", texts.concat()));
            assert_eq!(unpacked(&objects).await.0, first);
        }
    }

    #[tokio::test]
    async fn a_change_spoils_one_page_only() {
        let mut objects: Vec<Object> = (0..400).map(|index| object(index, "a")).collect();
        unpacked(&objects).await;
        let kept = |objects: &[Object]| -> Vec<Option<*const Deflated>> {
            objects.iter().map(|object| object.entry.attributes.encoded.pages.lock()[0].as_ref().map(Arc::as_ptr)).collect()
        };
        let before = kept(&objects);
        let mut changed = object(123, "b");
        Arc::get_mut(&mut changed.entry).unwrap().mod_revision = 1000;
        objects[123] = changed;
        let (_, plain) = unpacked(&objects).await;
        assert!(plain.contains("b-123") && !plain.contains("a-123"));
        let after = kept(&objects);
        let differing = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!(before.iter().flatten().count() > 10 && differing == 1, "{differing} pages were made anew");
    }

    #[test]
    fn gzip_is_asked_for_by_name() {
        let check = |value: &str| is_accepted(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, value.parse().unwrap())]));
        assert!(check("gzip") && check("br, gzip;q=0.5") && check("deflate,GZIP"));
        assert!(!check("identity") && !check("gzip;q=0") && !check(""));
    }

    proptest! {
        #[test]
        fn any_page_is_inflated_to_what_it_was(plain in prop::collection::vec(any::<u8>(), 0..5000)) {
            let mut packed = deflate(&plain, &[]).bytes.to_vec();
            packed.extend_from_slice(&[3, 0]);
            let mut back = vec![];
            flate2::read::DeflateDecoder::new(&packed[..]).read_to_end(&mut back).unwrap();
            prop_assert_eq!(back, plain);
        }
    }
}
