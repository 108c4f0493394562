//! The etcd face, driven by Debian's `etcdctl`, and beside Debian's `etcd` by the same random requests.

// Helpers of tests are tests too, which clippy does not see.
#![allow(clippy::unwrap_used)]

#[path = "etcd/etcdctl.rs"]
mod etcdctl;
#[path = "etcd/place.rs"]
mod place;
#[path = "etcd/same.rs"]
mod same;
