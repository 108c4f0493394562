//! End-to-end tests: the real binary, containerd, kubectl.
#![allow(clippy::unwrap_used)] // a test fails by it

mod cluster;
mod jobs;
mod kubectl;
mod lifecycle;
mod pods;
mod service;
mod simulated;
