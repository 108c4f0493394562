//! The API server: the only crate that serves the API, and the only one above the store.
//!
//! One request: TLS → authenticate → request info → authorise → decode → default → mutate (admission) → prepare →
//! validate → store → encode. `http` has the way in and out, `verbs` what is done to objects of any kind, `resources`
//! one file a kind.

pub mod admission;
pub mod aggregation;
pub mod audit;
pub mod authorization;
mod bootstrap;
pub mod cel;
pub mod custom_resources;
pub mod discovery;
pub mod encryption;
mod event_expiry;
pub mod field_selector;
pub mod flow_control;
pub mod http;
pub mod kind;
pub mod openapi;
pub mod patch;
pub mod registry;
pub mod resources;
pub mod server;
mod stack;
pub mod stored;
pub mod subresources;
pub mod table;
pub mod verbs;

pub use http::authenticate::User;
pub use server::{ApiServer, Error, Options};
