//! Events in a file, one a line, which is changed for a new one when it is long.

use super::{Event, Sink};
use parking_lot::Mutex;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// When a file is changed for a new one, and which old ones are kept; as kube-apiserver's `--audit-log-maxsize`,
/// `--audit-log-maxbackup` and `--audit-log-maxage`.
#[derive(Debug, Clone)]
pub struct Rotation {
    pub bytes_max: u64,
    /// 0: all.
    pub backups_max: usize,
    /// `None`: for ever.
    pub age_max: Option<Duration>,
}

impl Default for Rotation {
    fn default() -> Self {
        Rotation { bytes_max: 100 * 1024 * 1024, backups_max: 0, age_max: None }
    }
}

/// See the module. It is written before the answer is sent, as kube-apiserver does it (mode `blocking`).
pub struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    open: Mutex<Open>,
    failed: AtomicU64,
}

struct Open {
    out: Box<dyn Write + Send>,
    bytes: u64,
}

impl LogFile {
    /// `-` is the standard output.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let open = if path == Path::new("-") { Open { out: Box::new(io::stdout()), bytes: 0 } } else { append(path)? };
        Ok(LogFile { path: path.to_owned(), rotation, open: Mutex::new(open), failed: AtomicU64::new(0) })
    }

    fn write(&self, line: &str) -> io::Result<()> {
        let mut open = self.open.lock();
        let length = line.len() as u64 + 1;
        if self.path != Path::new("-") && open.bytes > 0 && open.bytes + length > self.rotation.bytes_max {
            fs::rename(&self.path, backup(&self.path, jiff::Timestamp::now()))?;
            *open = append(&self.path)?;
            self.forget(SystemTime::now())?;
        }
        // In one go, so that a line is never cut by another process that writes to the file.
        open.out.write_all(format!("{line}\n").as_bytes())?;
        open.out.flush()?;
        open.bytes += length;
        Ok(())
    }

    /// Removes the oldest backups.
    fn forget(&self, now: SystemTime) -> io::Result<()> {
        let mut backups = backups(&self.path)?;
        backups.sort_by(|a, b| b.cmp(a));
        for (n, path) in backups.iter().enumerate() {
            let modified = fs::metadata(path)?.modified()?;
            let old = self.rotation.age_max.is_some_and(|max| now.duration_since(modified).is_ok_and(|age| age > max));
            if old || (self.rotation.backups_max > 0 && n >= self.rotation.backups_max) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

impl Sink for LogFile {
    fn keep(&self, event: &Event) {
        if let Err(error) = self.write(&event.line) {
            // The first of many: a full disk must not fill the log too.
            if self.failed.fetch_add(1, Ordering::Relaxed).is_power_of_two() {
                tracing::error!(path = %self.path.display(), %error, "the audit log could not be written");
            }
        }
    }

    fn dropped(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn name(&self) -> &'static str {
        "log"
    }
}

fn append(path: &Path) -> io::Result<Open> {
    let file: File = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Open { out: Box::new(file), bytes })
}

/// `audit.log` becomes `audit-2026-01-02T03-04-05.000000.log`.
fn backup(path: &Path, now: jiff::Timestamp) -> PathBuf {
    let (stem, extension) = stem_and_extension(path);
    path.with_file_name(format!("{stem}-{}{extension}", now.strftime("%Y-%m-%dT%H-%M-%S%.6f")))
}

fn stem_and_extension(path: &Path) -> (String, String) {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy())).unwrap_or_default();
    (stem, extension)
}

fn backups(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (stem, extension) = stem_and_extension(path);
    let is_backup = |name: &str| {
        let middle = name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(extension.as_str()));
        middle.is_some_and(|middle| middle.len() == 26 && middle.as_bytes()[10] == b'T')
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(folder)?.flatten();
    Ok(entries.filter(|entry| is_backup(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_long_file_is_changed_for_a_new_one_and_old_ones_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        fs::write(folder.path().join("audit-notes.log"), "somebody else's").unwrap();
        let log = LogFile::open(&path, Rotation { bytes_max: 25, backups_max: 2, age_max: None }).unwrap();
        for n in 0..9 {
            log.keep(&Event { value: Value::Null, line: format!("line {n} x") });
        }
        assert_eq!(log.dropped(), 0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 8 x\n");
        let mut kept: Vec<String> = backups(&path).unwrap().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        kept.sort();
        assert_eq!(kept, ["line 4 x\nline 5 x\n", "line 6 x\nline 7 x\n"]);
        assert!(folder.path().join("audit-notes.log").exists());
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_is_appended_to_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        for n in 0..2 {
            let log = LogFile::open(&path, Rotation::default()).unwrap();
            log.keep(&Event { value: Value::Null, line: n.to_string() });
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "0\n1\n");
    }
}
