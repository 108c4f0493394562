//! A program that runs beside the test: what it says is collected, and it can be spoken to.

use crate::cluster::PATIENCE;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub struct Conversation {
    child: Child,
    stdin: Option<ChildStdin>,
    said: Arc<Mutex<String>>,
}

impl Conversation {
    /// Standard error stays the test's own, but for what `command` does with it.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program is installed");
        let mut stdout = child.stdout.take().expect("piped");
        let said = Arc::new(Mutex::new(String::new()));
        let collected = said.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                collected.lock().expect("no holder panics").push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        Conversation { stdin: child.stdin.take(), child, said }
    }

    /// In a terminal of its own: the shell command is what the terminal's user would type.
    pub fn in_terminal(script: &str) -> Self {
        Self::start(Command::new("script").args(["--quiet", "--return", "--command", script, "/dev/null"]))
    }

    pub fn say(&mut self, text: &str) {
        self.stdin.as_mut().expect("not ended").write_all(text.as_bytes()).expect("the program reads");
    }

    pub fn said(&self) -> String {
        self.said.lock().expect("no holder panics").clone()
    }

    /// Waits until it has said this.
    pub fn until(&mut self, wanted: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.said().contains(wanted) {
            let ended = self.child.try_wait().expect("the child is ours");
            // What it said last may still be on its way.
            if ended.is_some() {
                std::thread::sleep(Duration::from_millis(200));
                assert!(self.said().contains(wanted), "ended ({ended:?}) without {wanted:?}:\n{}", self.said());
                return;
            }
            assert!(Instant::now() < until, "waited in vain for {wanted:?}:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks it to end, by a signal, and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("the child is ours");
        self.ended()
    }

    /// Waits until it ends by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
