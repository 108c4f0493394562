//! What the tests of the whole share: a server to test against.
#![allow(clippy::unwrap_used)] // a test fails by it

pub mod authority;
pub mod postgres;

use axum::Extension;
use axum::body::Body;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use slipway_apiserver::http::authenticate::User;
use slipway_apiserver::{ApiServer, Options};
use slipway_store::Store;
use slipway_store::memory::Memory;
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

/// How long a test waits for what must come; only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An API server in this process, over a store of its own.
pub struct TestServer {
    pub api: Arc<ApiServer>,
    /// Held so that it does not end before the server.
    _cluster: Option<Arc<postgres::Cluster>>,
}

/// A request's answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub code: u16,
    pub body: Value,
}

impl TestServer {
    /// Over the store in memory.
    pub async fn memory() -> Self {
        Self::start(Memory::new(), Options::default()).await
    }

    pub async fn start(store: Arc<dyn Store>, options: Options) -> Self {
        Self::of(ApiServer::start(store, options).await.expect("the server starts"))
    }

    /// Of a server that was started already.
    pub fn of(api: Arc<ApiServer>) -> Self {
        TestServer { api, _cluster: None }
    }

    /// Over a database of its own in a real Postgres.
    pub async fn postgres() -> Self {
        let cluster = postgres::Cluster::shared().await;
        let mut server = Self::start(cluster.store().await, Options::default()).await;
        server._cluster = Some(cluster);
        server
    }

    /// A client that may do everything.
    pub fn client(&self) -> kube::Client {
        self.api.client(User::admin())
    }

    /// Sends a request as `user` (`None`: with only the credentials that it has itself).
    pub async fn send(&self, user: Option<User>, request: Request<Body>) -> Response<Body> {
        let router = self.api.router();
        let router = match user {
            Some(user) => router.layer(Extension(user)),
            None => router,
        };
        router.oneshot(request).await.expect("a router does not fail")
    }

    pub async fn call_as(&self, user: User, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let content_type = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let builder = Request::builder().method(method).uri(path).header("content-type", content_type);
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        Answer::of(self.send(Some(user), builder.body(body).expect("a request")).await).await
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.call_as(User::admin(), method, path, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, Some(&body)).await
    }

    /// A merge patch.
    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call("PATCH", path, Some(&body)).await
    }

    /// A patch of any kind.
    pub async fn patch_as(&self, content_type: &str, path: &str, body: Value) -> Answer {
        let builder = Request::builder().method(Method::PATCH).uri(path).header("content-type", content_type);
        let request = builder.body(Body::from(body.to_string())).expect("a request");
        Answer::of(self.send(Some(User::admin()), request).await).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, None).await
    }

    /// With an `Accept` header.
    pub async fn get_as(&self, accept: &str, path: &str) -> Answer {
        let request = Request::builder().uri(path).header("accept", accept).body(Body::empty()).expect("a request");
        Answer::of(self.send(Some(User::admin()), request).await).await
    }

    /// An answer's body as it is.
    pub async fn bytes(&self, path: &str) -> bytes::Bytes {
        let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
        let response = self.send(Some(User::admin()), request).await;
        assert!(response.status().is_success(), "{path} is answered with {}", response.status());
        response.into_body().collect().await.expect("the body comes to its end").to_bytes()
    }

    /// A watch; `path` has the query.
    pub async fn watch(&self, path: &str) -> Watch {
        self.watch_with("application/json", path).await
    }

    pub async fn watch_with(&self, accept: &str, path: &str) -> Watch {
        let request = Request::builder().uri(path).header("accept", accept).body(Body::empty()).expect("a request");
        let response = self.send(Some(User::admin()), request).await;
        let code = response.status();
        assert!(code.is_success(), "a watch is answered with {code}");
        Watch { body: response.into_body().into_data_stream(), buffer: vec![] }
    }
}

impl Answer {
    pub async fn of(response: Response<Body>) -> Self {
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("the body comes to its end").to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
        Answer { code, body }
    }

    /// The body, if the code is `code`; else the test fails with what was answered.
    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{:#}", self.body);
        self.body
    }

    /// Fails unless it is a Status of this code and reason; answers with its message.
    #[track_caller]
    pub fn expect_status(self, code: u16, reason: &str) -> String {
        // An empty reason is left out.
        let told = self.body["reason"].as_str().unwrap_or_default();
        assert_eq!((self.code, told), (code, reason), "{:#}", self.body);
        assert_eq!(self.body["kind"], "Status");
        assert_eq!(self.body["code"], code);
        self.body["message"].as_str().unwrap_or_default().to_owned()
    }
}

/// The events of a watch, in order.
pub struct Watch {
    body: axum::body::BodyDataStream,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(PATIENCE, self.next_unhurried()).await.expect("an event was expected")
    }

    /// The same, however long it takes: for tests whose clock is paused.
    pub async fn next_unhurried(&mut self) -> Option<Value> {
        self.line().await.map(|line| serde_json::from_slice(&line).expect("an event is JSON"))
    }

    /// The next event as it is sent, with the line's end.
    pub async fn next_line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.line()).await.expect("an event was expected");
        String::from_utf8(line.expect("the watch goes on")).expect("JSON is UTF-8")
    }

    async fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Some(self.buffer.drain(..=end).collect());
            }
            let chunk = self.body.next().await?;
            self.buffer.extend_from_slice(&chunk.expect("the stream goes on"));
        }
    }

    /// The type of the next event and its object's name, as `ADDED web`.
    pub async fn brief(&mut self) -> String {
        match self.next().await {
            Some(event) => {
                let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
                format!("{} {name}", event["type"].as_str().unwrap_or_default()).trim_end().to_owned()
            }
            None => "END".into(),
        }
    }
}

/// A ConfigMap as it is sent.
pub fn config_map(name: &str, value: &str) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": value}})
}

/// Asks again and again until there is an answer; fails after [`PATIENCE`].
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let patient = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, patient).await {
        Ok(answer) => answer,
        Err(_) => panic!("waited in vain for {what}"),
    }
}
