//! End-to-end tests: the real binary, containerd, kubectl.
#![allow(clippy::unwrap_used)] // a test fails by it

mod apart;
mod autoscaling;
mod browser;
mod clients;
mod cloud;
mod cluster;
mod conversation;
mod dashboard;
mod debug;
mod emulator;
mod features;
mod helm;
mod jobs;
mod kubectl;
mod kubectl_suite;
mod lifecycle;
mod machine;
mod machines;
mod namespaces;
mod operator;
mod pods;
mod rbac;
mod rollouts;
mod scheduling;
mod service;
mod simulated;
mod stateful_sets;
mod verbs;
mod walkthrough;
