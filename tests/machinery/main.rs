//! Tests of the API machinery alone, over the real router and without controllers or nodes: one binary, one file a topic.
#![allow(clippy::unwrap_used)] // a test fails by it

mod admission_policies;
mod aggregation;
mod apply;
mod audit;
mod authentication;
mod cel;
mod classes;
mod compression;
mod conformance;
mod consistency;
mod custom_resources;
mod devices;
mod encryption;
mod extension_server;
mod flow_control;
mod hostile;
mod hostile_routes;
mod kubectl_apply;
mod leader_election;
mod limit_range;
mod lists;
mod namespaces;
mod networks;
mod operations;
mod owner_references;
mod patching;
mod pod_security;
mod protobuf;
mod rbac;
mod resource_quota;
mod servers;
mod storage_drivers;
mod volumes;
mod webhooks;
