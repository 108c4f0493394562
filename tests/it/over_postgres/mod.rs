//! What must hold whatever the store is, over a real Postgres.

use slipway_tests::TestServer;

async fn server() -> TestServer {
    TestServer::postgres().await
}

#[path = "../deletion.rs"]
#[allow(clippy::duplicate_mod, reason = "the same tests over two stores")]
mod deletion;
#[path = "../lists.rs"]
#[allow(clippy::duplicate_mod, reason = "the same tests over two stores")]
mod lists;
#[path = "../objects.rs"]
#[allow(clippy::duplicate_mod, reason = "the same tests over two stores")]
mod objects;
#[path = "../watches.rs"]
#[allow(clippy::duplicate_mod, reason = "the same tests over two stores")]
mod watches;
