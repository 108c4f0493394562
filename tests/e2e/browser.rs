//! A browser for a test: Debian's Chromium, driven through chromedriver by the WebDriver protocol.
//!
//! Small and our own, because the crate for it makes `serde_json` keep the order of keys for the whole workspace.

use crate::cluster::PATIENCE;
use base64::Engine;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Free in the network namespace that the test's cluster has to itself.
const ADDRESS: &str = "127.0.0.1:9515";
const CHROMEDRIVER: &str = "/usr/bin/chromedriver";
const CHROMIUM: &str = "/usr/bin/chromium";
/// By which WebDriver names an element in JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
];

/// A window with a profile of its own. It closes when this is dropped.
pub struct Browser {
    driver: Child,
    session: String,
    _profile: tempfile::TempDir,
}

/// Whether there is a browser here; says loudly if not.
pub fn installed(test: &str) -> bool {
    let missing = [CHROMEDRIVER, CHROMIUM].into_iter().find(|program| !Path::new(program).exists());
    if let Some(program) = missing {
        eprintln!("SKIPPED {test}: {program} isn't installed (Debian: chromium, chromium-driver)");
    }
    missing.is_none()
}

impl Browser {
    /// Starts in the network namespace that this thread is in.
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new(CHROMEDRIVER);
        command.arg(format!("--port={}", ADDRESS.rsplit(':').next().unwrap())).env("HOME", profile.path());
        let driver = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let arguments = ARGUMENTS.into_iter().map(str::to_owned);
        let arguments: Vec<String> =
            arguments.chain([format!("--user-data-dir={}", profile.path().join("data").display())]).collect();
        let options = json!({
            "acceptInsecureCerts": true, "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": CHROMIUM, "args": arguments},
        });
        let mut browser = Browser { driver, session: String::new(), _profile: profile };
        let until = Instant::now() + PATIENCE;
        while let Err(why) = exchange("GET", "/status", &Value::Null) {
            assert!(Instant::now() < until, "chromedriver does not answer: {why}");
            std::thread::sleep(Duration::from_millis(50));
        }
        let made = exchange("POST", "/session", &json!({"capabilities": {"alwaysMatch": options}})).unwrap();
        browser.session = made["sessionId"].as_str().expect("a session").to_owned();
        browser
    }

    fn call(&self, method: &str, path: &str, body: Value) -> Result<Value, String> {
        exchange(method, &format!("/session/{}{path}", self.session), &body)
    }

    pub fn goto(&self, url: &str) {
        self.call("POST", "/url", json!({"url": url})).unwrap();
    }

    pub fn url(&self) -> String {
        self.call("GET", "/url", Value::Null).unwrap().as_str().unwrap_or_default().to_owned()
    }

    /// What a script returns, which is the body of a function with `arguments`. A promise is waited for.
    pub fn run(&self, script: &str, arguments: Value) -> Value {
        self.call("POST", "/execute/sync", json!({"script": script, "args": arguments})).unwrap()
    }

    /// The text that is to be seen of the first element that a CSS selector finds; empty without one.
    pub fn text(&self, css: &str) -> String {
        let text = self.run("return document.querySelector(arguments[0])?.innerText ?? ''", json!([css]));
        text.as_str().unwrap_or_default().to_owned()
    }

    pub fn count(&self, css: &str) -> u64 {
        self.run("return document.querySelectorAll(arguments[0]).length", json!([css])).as_u64().unwrap_or_default()
    }

    /// An attribute of the first element that a CSS selector finds, as the browser understands it.
    pub fn property(&self, css: &str, name: &str) -> String {
        let value = self.run("return document.querySelector(arguments[0])?.[arguments[1]] ?? ''", json!([css, name]));
        value.as_str().unwrap_or_default().to_owned()
    }

    /// Does something to an element as soon as it is there and lets it be done.
    fn act(&self, css: &str, what: &str, body: &Value) {
        let mut last = String::new();
        let done = || {
            let found = self.call("POST", "/element", json!({"using": "css selector", "value": css}))?;
            let id = found[ELEMENT].as_str().unwrap_or_default().to_owned();
            self.call("POST", &format!("/element/{id}/{what}"), body.clone())
        };
        self.wait(&format!("{what} of {css}"), || done().map_err(|why| last = why).is_ok());
    }

    pub fn click(&self, css: &str) {
        self.act(css, "click", &json!({}));
    }

    /// Writes over what stands in an input.
    pub fn fill(&self, css: &str, text: &str) {
        self.act(css, "clear", &json!({}));
        if !text.is_empty() {
            self.act(css, "value", &json!({"text": text}));
        }
    }

    pub fn wait(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so() {
            if Instant::now() > until {
                let picture = std::env::temp_dir().join("slipway-e2e-browser.png");
                self.screenshot(&picture);
                let picture = picture.display();
                panic!("waited in vain for {what} at {}\n{}\n{}\n{picture}", self.url(), self.text("body"), self.console());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn wait_for_text(&self, css: &str, text: &str) {
        self.wait(&format!("{text:?} in {css}"), || self.text(css).contains(text));
    }

    pub fn screenshot(&self, path: &Path) {
        let picture = self.call("GET", "/screenshot", Value::Null).unwrap();
        let picture = base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap_or_default()).unwrap();
        std::fs::write(path, picture).unwrap();
    }

    /// What the page wrote to the browser's console since it was last asked: panics above all.
    pub fn console(&self) -> String {
        let entries = self.call("POST", "/se/log", json!({"type": "browser"})).unwrap();
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries.iter().filter_map(|entry| entry["message"].as_str()).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.call("DELETE", "", Value::Null);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// One command; the `value` of its answer, or WebDriver's error.
fn exchange(method: &str, path: &str, body: &Value) -> Result<Value, String> {
    let broken = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(ADDRESS).map_err(broken)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {ADDRESS}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .map_err(broken)?;
    let answer = read_answer(BufReader::new(stream)).map_err(broken)?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    match answer["value"]["error"].as_str() {
        Some(error) => Err(format!("{error}: {}", answer["value"]["message"].as_str().unwrap_or_default())),
        None => Ok(answer["value"].clone()),
    }
}

/// An answer's body. chromedriver keeps the connection open, so its length is what ends it.
fn read_answer(mut stream: impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or_default();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}
