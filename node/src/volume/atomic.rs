//! Files that change all at once: they stand in a directory of their own behind a link, and the link is swapped.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub bytes: Vec<u8>,
    pub mode: u32,
    /// Whose it is, if not root's.
    pub owner: Option<u32>,
}

const DATA: &str = "..data";
const NEW: &str = "..data_tmp";

/// Makes `dir` show exactly these files, by relative path. Readers see all of the old or all of the new.
pub fn write(dir: &Path, files: &BTreeMap<String, File>, group: Option<i64>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    let before = fs::read_link(dir.join(DATA)).ok();
    if before.is_some() && is_same(&dir.join(DATA), files) {
        return Ok(());
    }
    let stamp = format!("..{}", jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S.%9f"));
    let fresh = dir.join(&stamp);
    fs::create_dir(&fresh)?;
    let group = group.and_then(|group| u32::try_from(group).ok());
    for (path, file) in files {
        let at = fresh.join(path);
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&at, &file.bytes)?;
        if group.is_some() || file.owner.is_some() {
            chown(&at, file.owner, group)?;
        }
        // Who is in the group may read; the set mode comes last, because chown clears bits.
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        fs::set_permissions(&at, Permissions::from_mode(mode))?;
    }
    let _ = fs::remove_file(dir.join(NEW));
    symlink(&stamp, dir.join(NEW))?;
    fs::rename(dir.join(NEW), dir.join(DATA))?;
    let shown: std::collections::BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &shown {
        if dir.join(name).symlink_metadata().is_err() {
            symlink(Path::new(DATA).join(name), dir.join(name))?;
        }
    }
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !shown.contains(name.as_ref()) {
            let _ = fs::remove_file(entry.path());
        }
    }
    if let Some(before) = before {
        let _ = fs::remove_dir_all(dir.join(before));
    }
    Ok(())
}

fn is_same(data: &Path, files: &BTreeMap<String, File>) -> bool {
    let same = |(path, file): (&String, &File)| fs::read(data.join(path)).is_ok_and(|bytes| bytes == file.bytes);
    count(data) == files.len() && files.iter().all(same)
}

fn count(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> BTreeMap<String, File> {
        let file = |text: &str| File { bytes: text.into(), mode: 0o640, owner: None };
        list.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    #[test]
    fn a_change_swaps_all_files_and_drops_what_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), None).unwrap();
        let first = fs::read_link(dir.path().join(DATA)).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.path().join("d/b")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        write(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), None).unwrap();
        assert_eq!(fs::read_link(dir.path().join(DATA)).unwrap(), first, "the same again changes nothing");
        write(dir.path(), &files(&[("a", "3")]), None).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        assert!(dir.path().join("d").symlink_metadata().is_err());
        assert!(!dir.path().join(first).exists());
    }
}
