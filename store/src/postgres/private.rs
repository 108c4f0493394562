//! A Postgres cluster of one's own in a directory, reached over a Unix socket only.
//!
//! It is started with the system's binaries, as an unprivileged user since Postgres refuses to be root. It does not end
//! with the process that started it: that one, killed and started again, finds it running and takes it over.

use super::Backoff;
use nix::unistd::{Gid, Uid, User};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What the address of a Unix socket may take, of which Postgres' name of the socket takes the end.
const SOCKET_PATH_BYTES_MAX: usize = 107;
const SOCKET_NAME: &str = "/.s.PGSQL.5432.lock";
/// How long a start may take, recovery from the log included, and how long what a crash left may take to go away.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT_SECONDS: &str = "30";
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Whom Postgres runs as if we are root: Debian's package makes the first, every system has the second.
const USERS: [&str; 2] = ["postgres", "nobody"];
const DATABASE: &str = "slipway";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("Postgres is not installed: there is no initdb in /usr/lib/postgresql/*/bin nor in PATH (Debian: postgresql)")]
    NotInstalled,
    #[error("the cluster in {dir} was made by Postgres {version}, which is not installed")]
    OtherVersion { dir: PathBuf, version: String },
    #[error("there is no user that Postgres could run as: neither postgres nor nobody exists")]
    NoUser,
    #[error("{dir} cannot be entered by the user {user}, who runs Postgres (chmod o+x {blocked})", dir = .dir.display(), blocked = .blocked.display())]
    Unreachable { dir: PathBuf, blocked: PathBuf, user: String },
    #[error("{command} failed: {output}")]
    Command { command: &'static str, output: String },
    #[error("could not {what} {path}", path = .path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the database could not be made")]
    Database(#[source] sqlx::Error),
}

/// A running cluster.
#[derive(Debug, Clone)]
pub struct Private {
    dir: PathBuf,
    data: PathBuf,
    sockets: PathBuf,
    binaries: PathBuf,
    owner: Option<User>,
}

impl Private {
    /// Makes the cluster if `dir` has none, and starts it unless it runs.
    pub async fn start(dir: &Path) -> Result<Private, Error> {
        fs::create_dir_all(dir).map_err(|source| failed("create", dir, source))?;
        let dir = dir.canonicalize().map_err(|source| failed("resolve", dir, source))?;
        let owner = owner()?;
        let data = dir.join("data");
        let binaries = binaries(&data)?;
        let private = Private { sockets: socket_dir(&dir), dir, data, binaries, owner };
        private.own(&private.dir)?;
        private.check_reachable()?;
        fs::create_dir_all(&private.sockets).map_err(|source| failed("create", &private.sockets, source))?;
        private.own(&private.sockets)?;
        if !private.data.join("PG_VERSION").exists() {
            private.init().await?;
        }
        private.run().await?;
        private.make_database().await?;
        Ok(private)
    }

    pub fn url(&self) -> String {
        self.url_of(DATABASE)
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://slipway@localhost/{database}?host={}&sslmode=disable", self.sockets.display())
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process that all of Postgres depends on, if it runs.
    pub fn pid(&self) -> Option<u32> {
        let pid: u32 = fs::read_to_string(self.data.join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()?;
        // Nothing but Postgres stands in the data directory; after a crash the number may be somebody else's.
        (working_dir(pid)? == self.data).then_some(pid)
    }

    /// Ends Postgres, its clients notwithstanding.
    pub async fn stop(&self) -> Result<(), Error> {
        if self.pid().is_none() {
            return Ok(());
        }
        let mut stop = self.command("pg_ctl");
        stop.args(["stop", "-s", "-w", "-m", "fast", "-t", STOP_TIMEOUT_SECONDS, "-D"]).arg(&self.data);
        run("pg_ctl stop", stop).await
    }

    /// Starts Postgres again whenever it has died, until `shutdown`.
    pub async fn keep(&self, shutdown: CancellationToken) {
        let mut backoff = Backoff::new();
        while shutdown.run_until_cancelled(tokio::time::sleep(CHECK_INTERVAL)).await.is_some() {
            if self.pid().is_some() {
                backoff = Backoff::new();
                continue;
            }
            tracing::warn!(dir = %self.dir.display(), "Postgres has died and is started again");
            if let Err(error) = self.run().await {
                tracing::error!(error = &error as &dyn std::error::Error, "Postgres could not be started again");
                backoff.wait().await;
            }
        }
    }

    /// A file or directory becomes that of the user who runs Postgres, and of nobody else.
    fn own(&self, path: &Path) -> Result<(), Error> {
        if let Some(User { uid, gid, .. }) = &self.owner {
            chown(path, Some(uid.as_raw()), Some(gid.as_raw())).map_err(|source| failed("give away", path, source))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|source| failed("close", path, source))
    }

    /// initdb's own message would name the directory only.
    fn check_reachable(&self) -> Result<(), Error> {
        let Some(User { uid, gid, name, .. }) = &self.owner else { return Ok(()) };
        for blocked in self.dir.ancestors().skip(1) {
            use std::os::unix::fs::MetadataExt;
            let meta = fs::metadata(blocked).map_err(|source| failed("look at", blocked, source))?;
            let enter = match () {
                () if meta.uid() == uid.as_raw() => 0o100,
                () if meta.gid() == gid.as_raw() => 0o010,
                () => 0o001,
            };
            if meta.mode() & enter == 0 {
                let (dir, blocked, user) = (self.dir.clone(), blocked.to_owned(), name.clone());
                return Err(Error::Unreachable { dir, blocked, user });
            }
        }
        Ok(())
    }

    /// Under another name first, so that a cluster that was half made is never taken for a whole one.
    async fn init(&self) -> Result<(), Error> {
        let new = self.dir.join("data.new");
        if new.exists() {
            fs::remove_dir_all(&new).map_err(|source| failed("remove", &new, source))?;
        }
        let mut initdb = self.command("initdb");
        initdb.args(["-U", "slipway", "-E", "UTF8", "--locale=C", "--auth=trust", "--no-instructions", "--data-checksums"]);
        initdb.arg("-D").arg(&new);
        run("initdb", initdb).await?;
        let config = new.join("postgresql.conf");
        let include = "\ninclude 'slipway.conf'\n";
        let all = fs::read_to_string(&config).map(|all| all + include);
        all.and_then(|all| fs::write(&config, all)).map_err(|source| failed("write", &config, source))?;
        self.configure(&new)?;
        fs::rename(&new, &self.data).map_err(|source| failed("rename", &new, source))
    }

    /// The socket's directory is for its owner alone, so whoever gets as far as the socket may be trusted.
    fn configure(&self, data: &Path) -> Result<(), Error> {
        let path = data.join("slipway.conf");
        let text = format!(
            "# Written at every start.\n\
             listen_addresses = ''\nunix_socket_directories = '{}'\nunix_socket_permissions = 0700\nport = 5432\n\
             max_connections = 60\nshared_buffers = 128MB\nmax_wal_size = 2GB\nwal_compression = on\n\
             default_toast_compression = lz4\nfsync = on\nfull_page_writes = on\nsynchronous_commit = on\n\
             autovacuum_naptime = 15s\nlog_checkpoints = off\n",
            self.sockets.display()
        );
        fs::write(&path, text).map_err(|source| failed("write", &path, source))?;
        self.own(&path)
    }

    async fn run(&self) -> Result<(), Error> {
        let deadline = Instant::now() + START_TIMEOUT;
        let mut backoff = Backoff::new();
        loop {
            if self.pid().is_some() {
                match self.connect("postgres").await {
                    Ok(()) => return Ok(()),
                    // It starts, recovers or is about to end.
                    Err(error) if Instant::now() < deadline => tracing::debug!(%error, "Postgres does not answer yet"),
                    Err(error) => return Err(Error::Database(error)),
                }
            } else {
                self.clear_stale_pid_file()?;
                self.configure(&self.data)?;
                match self.start_server().await {
                    Ok(()) => continue,
                    // What a killed server left may hold its shared memory for a moment.
                    Err(error) if Instant::now() < deadline => tracing::debug!(%error, "Postgres does not start yet"),
                    Err(error) => return Err(error),
                }
            }
            backoff.wait().await;
        }
    }

    /// `postmaster.pid` guards against a second server on the same data. Postgres clears one whose process is gone; but
    /// it refuses to start if the number is by now somebody else's. It is removed only if nothing works on the data.
    fn clear_stale_pid_file(&self) -> Result<(), Error> {
        let path = self.data.join("postmaster.pid");
        let Ok(content) = fs::read_to_string(&path) else { return Ok(()) };
        let pid: Option<u32> = content.lines().next().and_then(|line| line.trim().parse().ok());
        let number_is_taken = pid.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists());
        if number_is_taken && !self.is_worked_on() {
            tracing::warn!(path = %path.display(), "removing the pid file of a Postgres that is gone");
            fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?;
        }
        Ok(())
    }

    fn is_worked_on(&self) -> bool {
        let Ok(processes) = fs::read_dir("/proc") else { return true };
        let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(working_dir).any(|dir| dir == self.data)
    }

    async fn start_server(&self) -> Result<(), Error> {
        let log = self.dir.join("postgres.log");
        let mut start = self.command("pg_ctl");
        start.args(["start", "-s", "-w", "-t", "60", "-D"]).arg(&self.data).arg("-l").arg(&log);
        run("pg_ctl start", start).await.map_err(|error| match error {
            Error::Command { command, output } => {
                let log = fs::read_to_string(&log).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                Error::Command { command, output: format!("{output}; its log ends: {}", last.join(" | ")) }
            }
            other => other,
        })
    }

    async fn connect(&self, database: &str) -> Result<(), sqlx::Error> {
        let server = PgConnectOptions::from_str(&self.url_of(database))?.disable_statement_logging();
        server.connect().await?.close().await
    }

    async fn make_database(&self) -> Result<(), Error> {
        let made = async {
            let server = PgConnectOptions::from_str(&self.url_of("postgres"))?.disable_statement_logging();
            let mut connection = server.connect().await?;
            let exists = sqlx::query("SELECT FROM pg_database WHERE datname = 'slipway'");
            if exists.fetch_optional(&mut connection).await?.is_none() {
                sqlx::query("CREATE DATABASE slipway").execute(&mut connection).await?;
            }
            connection.close().await
        };
        made.await.map_err(Error::Database)
    }

    /// One of Postgres' programs, as the user who owns the cluster.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        if let Some(User { uid, gid, .. }) = &self.owner {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        // The caller's directory may be closed to that user, and its locale may not exist.
        command.current_dir(&self.dir).env("LC_ALL", "C").env_remove("PGDATA").env_remove("PGHOST").env_remove("PGPORT");
        command
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { what, path: path.to_owned(), source }
}

/// Its output goes to a file: a pipe would be held open by the server that `pg_ctl` leaves behind.
async fn run(name: &'static str, mut command: Command) -> Result<(), Error> {
    let output = tempfile().map_err(|source| failed("write", Path::new("a temporary file"), source))?;
    let (out, err) = (output.try_clone(), output.try_clone());
    let io_failed = |source| Error::Command { command: name, output: format!("{source}") };
    command.stdin(Stdio::null()).stdout(out.map_err(io_failed)?).stderr(err.map_err(io_failed)?);
    let status = command.status().await.map_err(io_failed)?;
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    let mut output = output;
    let _ = io::Seek::rewind(&mut output).and_then(|()| io::Read::read_to_string(&mut output, &mut text));
    Err(Error::Command { command: name, output: text.trim().replace('\n', " | ") })
}

/// A file without a name.
fn tempfile() -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = nix::libc::O_TMPFILE;
    fs::OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(flags).open(std::env::temp_dir())
}

fn working_dir(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// Whom Postgres runs as; `None` for ourselves.
fn owner() -> Result<Option<User>, Error> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let found = USERS.iter().find_map(|name| User::from_name(name).ok().flatten());
    found.filter(|user| !user.uid.is_root() && user.gid != Gid::from_raw(0)).map(Some).ok_or(Error::NoUser)
}

/// The programs of the version that made the cluster, or the newest.
fn binaries(data: &Path) -> Result<PathBuf, Error> {
    let made_by = fs::read_to_string(data.join("PG_VERSION")).ok().map(|version| version.trim().to_owned());
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut installed: Vec<(u32, PathBuf)> = installed
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    installed.sort();
    let fits = |(version, _): &&(u32, PathBuf)| made_by.as_ref().is_none_or(|made_by| *made_by == version.to_string());
    if let Some((_, bin)) = installed.iter().rev().find(fits) {
        return Ok(bin.clone());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).find(|dir| dir.join("initdb").exists());
    match (in_path, made_by) {
        (Some(bin), _) => Ok(bin),
        (None, Some(version)) if !installed.is_empty() => Err(Error::OtherVersion { dir: data.to_owned(), version }),
        _ => Err(Error::NotInstalled),
    }
}

/// Beside the data, unless that path is too long for a socket's address. It depends on the directory alone, so that
/// whoever comes next finds it.
fn socket_dir(dir: &Path) -> PathBuf {
    let beside = dir.join("socket");
    if beside.as_os_str().len() + SOCKET_NAME.len() <= SOCKET_PATH_BYTES_MAX {
        return beside;
    }
    let mut hasher = DefaultHasher::new();
    dir.hash(&mut hasher);
    let parent = if Uid::effective().is_root() { PathBuf::from("/run") } else { std::env::temp_dir() };
    parent.join(format!("slipway-postgres-{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_an_address_that_fits() {
        let short = socket_dir(Path::new("/var/lib/slipway/postgres"));
        assert_eq!(short, Path::new("/var/lib/slipway/postgres/socket"));
        let deep = PathBuf::from(format!("/var/{}", "deep/".repeat(30)));
        let long = socket_dir(&deep);
        assert!(long.as_os_str().len() + SOCKET_NAME.len() <= SOCKET_PATH_BYTES_MAX, "{}", long.display());
        assert_eq!(long, socket_dir(&deep));
    }
}
