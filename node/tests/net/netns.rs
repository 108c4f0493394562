//! Network namespaces that exist as long as their file is open: nothing is left behind.

use nix::sched::{CloneFlags, setns, unshare};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// How often a spread is sampled.
const TRIES: usize = 150;
/// For what must not get through; everything else is waited for as long as it takes.
const DROPPED: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(20);

/// A network namespace.
pub struct Net(File);

impl Net {
    pub fn new() -> Net {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let net = Net(thread::spawn(make).join().unwrap());
        net.sh("ip link set lo up");
        net
    }

    /// Does something inside.
    pub fn within<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            action()
        };
        thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }

    pub fn sh(&self, script: &str) -> String {
        let output = self.within(|| Command::new("sh").args(["-ec", script]).output().unwrap());
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// How iproute2 can name it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Answers connections and datagrams on port 8080 with `NAME CLIENT`.
    pub fn serve(&self, name: &'static str) {
        self.within(|| {
            let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
            let socket = UdpSocket::bind("0.0.0.0:8080").unwrap();
            thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let client = stream.peer_addr().unwrap().ip();
                    let _ = stream.write_all(format!("{name} {client}").as_bytes());
                }
            });
            thread::spawn(move || {
                let mut data = [0; 64];
                while let Ok((_, from)) = socket.recv_from(&mut data) {
                    let _ = socket.send_to(format!("{name} {}", from.ip()).as_bytes(), from);
                }
            });
        });
    }

    /// Who answers, and whom it sees.
    pub fn ask(&self, address: &str) -> std::io::Result<(String, String)> {
        let address: SocketAddr = address.parse().unwrap();
        self.within(|| ask(address, PATIENCE))
    }

    pub fn is_dropped(&self, address: &str) {
        let address: SocketAddr = address.parse().unwrap();
        let error = self.within(|| ask(address, DROPPED)).expect_err("nobody may answer");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    }

    pub fn is_refused(&self, address: &str) {
        let error = self.ask(address).expect_err("nobody can answer");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    }

    /// How often each of the endpoints answers.
    pub fn spread(&self, address: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..TRIES {
            *counts.entry(self.ask(address).unwrap().0).or_default() += 1;
        }
        counts
    }
}

fn ask(address: SocketAddr, patience: Duration) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (name, client) = answer.split_once(' ').unwrap();
    Ok((name.to_string(), client.to_string()))
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A cable from `node`, where it is called `name`, to `other`, where it is eth0 and has the address.
pub fn join(node: &Net, other: &Net, address: &str, name: &str) {
    node.sh(&format!("ip link add {name} type veth peer name far && ip link set far netns {}", other.path()));
    node.sh(&format!("ip link set {name} up"));
    other.sh(&format!("ip link set far name eth0 && ip addr add {address} dev eth0 && ip link set eth0 up"));
}
