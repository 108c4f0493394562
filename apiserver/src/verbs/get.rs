//! GET of one object.

use crate::http::Call;
use crate::http::error::Status;
use crate::http::negotiate::{Accept, Form, Media};
use crate::http::{protobuf, respond};
use crate::kind::Strategy;
use crate::server::{ApiServer, find};
use crate::stored::{self, Snapshot};
use crate::verbs::{list_options, status_of};
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

pub async fn get(call: Call) -> Result<Response, Status> {
    let names = call.strategy.names();
    let version = list_options::version(call.info.query.get("resourceVersion"))?;
    let snapshot = list_options::snapshot(&call.server, names, version).await?;
    let entry = find(&snapshot, &*call.strategy, call.namespace(), call.name())
        .ok_or_else(|| Status::not_found(names.group, names.plural, call.name()))?;
    stored::check_readable(entry)?;
    let entry = &crate::custom_resources::present(&call.server, &*call.strategy, entry).await?;
    let accept = call.accept()?;
    if accept == Accept::JSON && names.stored_as.is_none() {
        return Ok(respond::bytes("application/json", StatusCode::OK, entry.bytes.clone()));
    }
    if let (Some(message), (Media::Protobuf, Form::Object), None) =
        (protobuf::of_strategy(&*call.strategy), (accept.media, accept.form), names.stored_as)
    {
        let object = stored::protobuf(entry, message)?;
        let body = [protobuf::wrapped(names, false, object.len()), object.to_vec()].concat();
        return Ok(respond::bytes(protobuf::CONTENT_TYPE, StatusCode::OK, body.into()));
    }
    let object = stored::decode(&*call.strategy, &entry.bytes).map_err(|error| Status::internal(&error))?;
    respond::object(&call, StatusCode::OK, &object, &[])
}

/// The object as fresh as the store has it. `namespace` is empty for kinds of the cluster.
pub async fn get_object(server: &ApiServer, strategy: &dyn Strategy, namespace: &str, name: &str) -> Result<Value, Status> {
    let snapshot = server.cache.fresh().await.map_err(|error| status_of(error, strategy.names(), name))?;
    let entry = find(&snapshot, strategy, namespace, name)
        .ok_or_else(|| Status::not_found(strategy.names().group, strategy.names().plural, name))?;
    stored::check_readable(entry)?;
    let entry = crate::custom_resources::present(server, strategy, entry).await?;
    stored::decode(strategy, &entry.bytes).map_err(|error| Status::internal(&error))
}

/// The object as the snapshot has it: for admission and authorisation, which may lag a little.
pub fn get_cached(snapshot: &Snapshot, strategy: &dyn Strategy, namespace: &str, name: &str) -> Option<Value> {
    let entry = find(snapshot, strategy, namespace, name)?;
    stored::decode(strategy, &entry.bytes).ok()
}
