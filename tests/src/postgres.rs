//! One Postgres for all tests that run at a time, with a database for each.

use slipway_store::postgres::private::Private;
use slipway_store::postgres::{Options, Postgres};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use tokio::process::Command;
use tokio::sync::Mutex;

static SHARED: Mutex<Weak<Cluster>> = Mutex::const_new(Weak::new());
static DATABASES: AtomicUsize = AtomicUsize::new(0);

/// Ends with the last test that holds it.
pub struct Cluster {
    private: Private,
    folder: tempfile::TempDir,
}

impl Cluster {
    pub async fn shared() -> Arc<Cluster> {
        let mut shared = SHARED.lock().await;
        if let Some(cluster) = shared.upgrade() {
            return cluster;
        }
        let folder = tempfile::Builder::new().prefix("slipway-it-").tempdir().expect("a temporary folder");
        open_to_all(folder.path());
        let private = Private::start(&folder.path().join("postgres")).await.expect("Postgres starts");
        let cluster = Arc::new(Cluster { private, folder });
        *shared = Arc::downgrade(&cluster);
        cluster
    }

    /// A store in a new database.
    pub async fn store(&self) -> Arc<Postgres> {
        let url = self.database().await;
        Postgres::connect(&url, Options::default()).await.expect("the store opens")
    }

    /// The URL of a new, empty database.
    pub async fn database(&self) -> String {
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let url = self.private.url();
        let statement = format!("create database {name}");
        let mut psql = Command::new("psql");
        psql.args([&url, "-q", "-c", &statement]).stdin(Stdio::null());
        assert!(psql.status().await.expect("psql is installed").success(), "the database {name} is made");
        let (server, socket) = url.split_once('?').expect("the URL names the socket");
        let (server, _) = server.rsplit_once('/').expect("the URL names a database");
        format!("{server}/{name}?{socket}")
    }

    /// Where Postgres keeps everything.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some(pid) = self.private.pid().and_then(|pid| i32::try_from(pid).ok()) else { return };
        let pid = nix::unistd::Pid::from_raw(pid);
        // At once: nothing in it is needed any more.
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT).ok();
        while nix::sys::signal::kill(pid, None).is_ok() && self.private.pid().is_some() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Postgres runs as another user, who must be able to get there.
fn open_to_all(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("the folder is ours");
}

/// What a statement answers, columns divided by `|`, one row a line.
pub async fn query(url: &str, statement: &str) -> String {
    let mut psql = Command::new("psql");
    let answer = psql.args([url, "-qAt", "-c", statement]).stdin(Stdio::null()).output().await.expect("psql is installed");
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    String::from_utf8_lossy(&answer.stdout).trim_end().to_owned()
}
