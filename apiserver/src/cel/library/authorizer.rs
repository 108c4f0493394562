//! `authorizer.group('apps').resource('deployments').check('create').allowed()`.

use super::opaque::{Attributes, Check, Decision, Opaque, Stage};
use super::{Line, bool_of, string_of, text};
use crate::cel::evaluate::{Error, Frame};
use crate::cel::value::Value;
use std::sync::Arc;

/// As in Kubernetes: a decision costs.
const CHECK_COST: u64 = 350_000;

pub const LIBRARY: &[Line] = &[
    (".path(kubernetes.authorization.Authorizer,string):kubernetes.authorization.PathCheck", |_, args| {
        narrow(args, Stage::Path, |attributes, text| attributes.path = Some(text))
    }),
    (".group(kubernetes.authorization.Authorizer,string):kubernetes.authorization.GroupCheck", |_, args| {
        narrow(args, Stage::Group, |attributes, text| attributes.group = text)
    }),
    (".serviceAccount(kubernetes.authorization.Authorizer,string,string):kubernetes.authorization.Authorizer", |_, args| {
        let name = text(args, 2)?.to_owned();
        narrow(args, Stage::Authorizer, |attributes, namespace| attributes.service_account = Some((namespace, name)))
    }),
    (".resource(kubernetes.authorization.GroupCheck,string):kubernetes.authorization.ResourceCheck", |_, args| {
        narrow(args, Stage::Resource, |attributes, text| attributes.resource = text)
    }),
    (".subresource(kubernetes.authorization.ResourceCheck,string):kubernetes.authorization.ResourceCheck", |_, args| {
        narrow(args, Stage::Resource, |attributes, text| attributes.subresource = text)
    }),
    (".namespace(kubernetes.authorization.ResourceCheck,string):kubernetes.authorization.ResourceCheck", |_, args| {
        narrow(args, Stage::Resource, |attributes, text| attributes.namespace = text)
    }),
    (".name(kubernetes.authorization.ResourceCheck,string):kubernetes.authorization.ResourceCheck", |_, args| {
        narrow(args, Stage::Resource, |attributes, text| attributes.name = text)
    }),
    (".fieldSelector(kubernetes.authorization.ResourceCheck,string):kubernetes.authorization.ResourceCheck", |_, args| {
        narrow(args, Stage::Resource, |attributes, text| attributes.field_selector = text)
    }),
    (".labelSelector(kubernetes.authorization.ResourceCheck,string):kubernetes.authorization.ResourceCheck", |_, args| {
        narrow(args, Stage::Resource, |attributes, text| attributes.label_selector = text)
    }),
    (".check(kubernetes.authorization.PathCheck,string):kubernetes.authorization.Decision", decide),
    (".check(kubernetes.authorization.ResourceCheck,string):kubernetes.authorization.Decision", decide),
    (".allowed(kubernetes.authorization.Decision):bool", |_, args| bool_of(decision(args)?.allowed)),
    (".reason(kubernetes.authorization.Decision):string", |_, args| string_of(decision(args)?.reason.as_str())),
    (".errored(kubernetes.authorization.Decision):bool", |_, args| bool_of(!decision(args)?.error.is_empty())),
    (".error(kubernetes.authorization.Decision):string", |_, args| string_of(decision(args)?.error.as_str())),
];

fn check<'v, 'a>(args: &'v [Value<'a>]) -> Result<&'v Check<'a>, Error> {
    match &args[0] {
        Value::Opaque(Opaque::Check(check)) => Ok(check),
        _ => Err(Error::no_overload()),
    }
}

fn narrow<'a>(args: &[Value<'a>], stage: Stage, set: impl FnOnce(&mut Attributes, String)) -> Result<Value<'a>, Error> {
    let check = check(args)?;
    let mut attributes = (*check.attributes).clone();
    set(&mut attributes, text(args, 1)?.to_owned());
    Ok(Value::Opaque(Opaque::Check(Check { authorizer: check.authorizer, attributes: Arc::new(attributes), stage })))
}

fn decide<'a>(frame: &mut Frame<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    frame.charge(CHECK_COST)?;
    let check = check(args)?;
    let mut attributes = (*check.attributes).clone();
    attributes.verb = text(args, 1)?.to_owned();
    Ok(Value::Opaque(Opaque::Decision(Arc::new(check.authorizer.decide(&attributes)))))
}

fn decision<'v>(args: &'v [Value<'_>]) -> Result<&'v Decision, Error> {
    match &args[0] {
        Value::Opaque(Opaque::Decision(decision)) => Ok(decision),
        _ => Err(Error::no_overload()),
    }
}
