//! A container's output, from the log files that the runtime writes: `TIME stdout|stderr F|P TEXT`.

use super::{Refused, Shared, find};
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use slipway_api::core::{Pod, PodStatus};
use std::collections::{HashMap, VecDeque};
use std::io::SeekFrom;
use std::path::PathBuf;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

/// How often a log that is followed is looked at.
const FOLLOW_PERIOD: Duration = Duration::from_millis(200);
/// Checked against the runtime less often: whether what is followed still runs.
const ALIVE_EVERY: u32 = 5;
const CHUNKS_MAX: usize = 16;
const CHUNK_BYTES: usize = 32 << 10;

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Wanted {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<i64>,
    limit_bytes: Option<i64>,
    since_seconds: Option<i64>,
    since_time: Option<String>,
    stream: Option<String>,
}

fn yes(flag: Option<&String>) -> bool {
    flag.is_some_and(|flag| matches!(flag.as_str(), "true" | "1" | ""))
}

/// One line of the log as it stands in the file.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    time: &'a str,
    stream: &'a str,
    whole: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let word = |part: Option<&'_ [u8]>| part.and_then(|part| std::str::from_utf8(part).ok().map(str::to_owned));
    let (time, stream, tag) = (parts.next()?, parts.next()?, word(parts.next())?);
    let text = parts.next().unwrap_or_default();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let whole = tag.split(':').next() != Some("P");
    Some(Line { time: std::str::from_utf8(time).ok()?, stream: std::str::from_utf8(stream).ok()?, whole, text })
}

struct Filter {
    since: Option<Timestamp>,
    stream: Option<String>,
    timestamps: bool,
    /// The line before was a part of the one that follows.
    within: bool,
    left: Option<u64>,
}

impl Filter {
    fn new(wanted: &Wanted, now: Timestamp) -> Result<Filter, Refused> {
        let bad = |why: String| Refused(StatusCode::BAD_REQUEST, why);
        let since = match (&wanted.since_time, wanted.since_seconds) {
            (Some(time), _) => Some(time.parse::<Timestamp>().map_err(|error| bad(error.to_string()))?),
            (None, Some(seconds)) => now.checked_sub(SignedDuration::from_secs(seconds)).ok(),
            _ => None,
        };
        let stream = wanted.stream.as_ref().map(|stream| stream.to_lowercase()).filter(|stream| stream != "all");
        let left = wanted.limit_bytes.and_then(|limit| u64::try_from(limit).ok());
        Ok(Filter { since, stream, timestamps: yes(wanted.timestamps.as_ref()), within: false, left })
    }

    /// What of this line goes out.
    fn pass(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        let Some(line) = parse(raw) else { return };
        if self.stream.as_deref().is_some_and(|stream| stream != line.stream) {
            return;
        }
        if let Some(since) = self.since
            && line.time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return;
        }
        let from = out.len();
        if self.timestamps && !self.within {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if line.whole {
            out.push(b'\n');
        }
        self.within = !line.whole;
        if let Some(left) = &mut self.left {
            let written = (out.len() - from) as u64;
            out.truncate(from + written.min(*left) as usize);
            *left = left.saturating_sub(written);
        }
    }

    fn is_full(&self) -> bool {
        self.left == Some(0)
    }
}

pub async fn serve(
    State(context): State<Shared>,
    Path(path): Path<HashMap<String, String>>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Refused> {
    let previous = yes(wanted.previous.as_ref());
    let container = match find(&context, &path, previous).await {
        Err(refused) if !previous => return Err(why_no_log(&context, &path).await.unwrap_or(refused)),
        found => found?,
    };
    let status = context.runtime.container_status(&container.id).await?;
    let log = PathBuf::from(status.log_path);
    let filter = Filter::new(&wanted, Timestamp::now())?;
    let follow = yes(wanted.follow.as_ref());
    let (sender, mut chunks) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    let tail = wanted.tail_lines.and_then(|lines| usize::try_from(lines).ok());
    tokio::spawn(async move {
        if let Err(error) = send(context, container.id, log, filter, tail, follow, sender).await {
            tracing::debug!(%error, "reading a log");
        }
    });
    let stream = futures::stream::poll_fn(move |cx| chunks.poll_recv(cx).map(|chunk| chunk.map(Ok::<_, std::io::Error>)));
    Ok(([(header::CONTENT_TYPE, "text/plain")], Body::from_stream(stream)).into_response())
}

/// What a container that has never run waits for, as its pod's status says it.
async fn why_no_log(context: &Shared, path: &HashMap<String, String>) -> Option<Refused> {
    let (namespace, name, container) = (path.get("namespace")?, path.get("pod")?, path.get("container")?);
    let pods: kube::Api<Pod> = kube::Api::namespaced(context.objects.client.clone(), namespace);
    let status = pods.get_opt(name).await.ok()??.status?;
    let said = waiting(&status, container)?;
    Some(Refused(StatusCode::BAD_REQUEST, format!("container \"{container}\" in pod \"{name}\" is waiting to start: {said}")))
}

fn waiting(status: &PodStatus, container: &str) -> Option<String> {
    let all = [&status.container_statuses, &status.init_container_statuses];
    let found = all.into_iter().flatten().flatten().find(|status| status.name == container)?;
    let reason = found.state.as_ref()?.waiting.as_ref()?.reason.clone()?;
    Some(match reason.as_str() {
        "ErrImagePull" => "image can't be pulled".into(),
        "ImagePullBackOff" => "trying and failing to pull image".into(),
        _ => reason,
    })
}

async fn send(
    context: Shared,
    id: String,
    log: PathBuf,
    mut filter: Filter,
    tail: Option<usize>,
    follow: bool,
    sender: mpsc::Sender<Bytes>,
) -> std::io::Result<()> {
    let mut file = match File::open(&log).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !follow => return Ok(()),
        Err(error) => return Err(error),
    };
    if let Some(lines) = tail {
        let at = tail_offset(&mut file, lines).await?;
        file.seek(SeekFrom::Start(at)).await?;
    }
    let mut reader = BufReader::new(file);
    let (mut line, mut out, mut alive, mut idle) = (vec![], vec![], true, 0u32);
    loop {
        let read = reader.read_until(b'\n', &mut line).await?;
        if read > 0 && line.ends_with(b"\n") {
            filter.pass(&line, &mut out);
            line.clear();
            if out.len() < CHUNK_BYTES && !filter.is_full() {
                continue;
            }
        }
        if !out.is_empty() && sender.send(Bytes::from(std::mem::take(&mut out))).await.is_err() {
            return Ok(());
        }
        if filter.is_full() {
            return Ok(());
        }
        if read > 0 {
            continue;
        }
        if !follow {
            return Ok(());
        }
        // A new file of the same name took over: go on there.
        if is_rotated(reader.get_ref(), &log).await {
            reader = BufReader::new(File::open(&log).await?);
            line.clear();
            continue;
        }
        if !alive || sender.is_closed() {
            return Ok(());
        }
        idle += 1;
        if idle.is_multiple_of(ALIVE_EVERY) {
            let running = crate::runtime::api::ContainerState::ContainerRunning as i32;
            // What ended is read once more to its end.
            alive = context.runtime.container_status(&id).await.is_ok_and(|status| status.state == running);
        }
        tokio::time::sleep(FOLLOW_PERIOD).await;
    }
}

async fn is_rotated(file: &File, log: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(open), Ok(named)) = (file.metadata().await, tokio::fs::metadata(log).await) else { return false };
    open.ino() != named.ino()
}

/// Where the last `lines` lines begin, found from the end; parts of a line count as one.
async fn tail_offset(file: &mut File, lines: usize) -> std::io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let length = file.metadata().await?.len();
    let mut starts: VecDeque<u64> = VecDeque::new();
    let (mut end, mut rest) = (length, Vec::<u8>::new());
    if lines == 0 {
        return Ok(length);
    }
    loop {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start)).await?;
        let mut block = vec![0; (end - start) as usize];
        file.read_exact(&mut block).await?;
        block.extend_from_slice(&rest);
        starts.clear();
        // The first line of the block may have begun before it.
        let first = if start == 0 { 0 } else { block.iter().position(|byte| *byte == b'\n').map_or(block.len(), |at| at + 1) };
        let mut at = first;
        let mut within = false;
        for line in block[first..].split_inclusive(|byte| *byte == b'\n') {
            if !within {
                starts.push_back(start + at as u64);
            }
            within = parse(line).is_some_and(|line| !line.whole);
            at += line.len();
        }
        if start == 0 || starts.len() > lines {
            let skip = starts.len().saturating_sub(lines);
            return Ok(starts.get(skip).copied().unwrap_or(length));
        }
        (rest, end) = (block, start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stderr P tw\n2026-01-01T00:00:02Z stderr F o\n\
                       2026-01-01T00:00:03Z stdout F three\n";

    fn filtered(wanted: &Wanted) -> String {
        let mut filter = Filter::new(wanted, "2026-01-01T00:00:04Z".parse().unwrap()).unwrap_or_else(|_| panic!("refused"));
        let mut out = vec![];
        LOG.split_inclusive('\n').for_each(|line| filter.pass(line.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_filtered_and_parts_are_joined() {
        assert_eq!(filtered(&Wanted::default()), "one\ntwo\nthree\n");
        assert_eq!(filtered(&Wanted { since_seconds: Some(2), ..Wanted::default() }), "two\nthree\n");
        assert_eq!(filtered(&Wanted { stream: Some("Stderr".into()), ..Wanted::default() }), "two\n");
        assert_eq!(filtered(&Wanted { limit_bytes: Some(6), ..Wanted::default() }), "one\ntw");
        let stamped = filtered(&Wanted { timestamps: Some("true".into()), ..Wanted::default() });
        assert_eq!(stamped.lines().nth(1), Some("2026-01-01T00:00:02Z two"));
    }

    #[test]
    fn a_container_that_never_ran_says_what_it_waits_for() {
        let with = |reason: &str| -> PodStatus {
            let waits = serde_json::json!({ "waiting": { "reason": reason } });
            let container = serde_json::json!({ "name": "web", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": waits });
            serde_json::from_value(serde_json::json!({ "containerStatuses": [container] })).unwrap()
        };
        assert_eq!(waiting(&with("ContainerCreating"), "web").unwrap(), "ContainerCreating");
        assert_eq!(waiting(&with("ImagePullBackOff"), "web").unwrap(), "trying and failing to pull image");
        assert_eq!(waiting(&with("ContainerCreating"), "other"), None);
    }

    #[tokio::test]
    async fn the_tail_counts_lines_not_parts() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), LOG).unwrap();
        let mut file = File::open(path.path()).await.unwrap();
        for (lines, wanted) in [(0, ""), (1, "three"), (2, "tw"), (3, "one"), (9, "one")] {
            let at = tail_offset(&mut file, lines).await.unwrap() as usize;
            let first = LOG[at..].lines().next().and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
            assert_eq!(first, wanted, "{lines} lines");
        }
    }
}
