//! A container's last words: from its termination log, or from the end of its output.

use super::observed::Container;
use super::{Context, config};
use slipway_api::core;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

const MESSAGE_BYTES_MAX: usize = 4096;
const FALLBACK_LINES_MAX: usize = 80;
const FALLBACK_BYTES_MAX: usize = 2048;

pub fn message(context: &Context, pod_uid: &str, spec: &core::Container, ended: &Container) -> String {
    let path = config::termination_log(context, pod_uid, &spec.name, ended.attempt);
    let mut bytes = vec![];
    if let Ok(file) = File::open(path) {
        let _ = file.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut bytes);
    }
    let fallback = spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if bytes.is_empty() && fallback && ended.exit_code != 0 {
        return last_lines(Path::new(&ended.log_path));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn last_lines(log: &Path) -> String {
    // A line of the log has a stamp of some forty bytes before what was printed.
    const READ_BACK: u64 = (FALLBACK_BYTES_MAX + FALLBACK_LINES_MAX * 64) as u64;
    let mut bytes = vec![];
    if let Ok(mut file) = File::open(log) {
        let length = file.metadata().map_or(0, |found| found.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(READ_BACK)));
        let _ = file.take(READ_BACK).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let mut said = lines[lines.len().saturating_sub(FALLBACK_LINES_MAX)..].join("\n");
    if !said.is_empty() {
        said.push('\n');
    }
    let mut cut = said.len().saturating_sub(FALLBACK_BYTES_MAX);
    while !said.is_char_boundary(cut) {
        cut += 1;
    }
    said.split_off(cut)
}
