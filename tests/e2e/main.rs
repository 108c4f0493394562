//! End-to-end tests: the real binary, containerd, kubectl.

mod cluster;
mod lifecycle;
mod service;
mod simulated;
