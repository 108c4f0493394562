//! `authorizer` in expressions: asks the server's own.

use crate::admission::AdmissionContext;
use crate::admission::dynamic::Request;
use crate::authorization;
use crate::cel::{Attributes, Authorizer, Decision};
use crate::http::authenticate::User;
use crate::server::ApiServer;

pub struct Ask<'a> {
    server: &'a ApiServer,
    user: &'a User,
}

impl<'a> Ask<'a> {
    pub fn new(context: &AdmissionContext<'a>) -> Self {
        Ask { server: context.server, user: context.user }
    }
}

/// `authorizer.requestResource`.
pub fn request_resource(request: &Request<'_>) -> Attributes {
    let names = request.context.strategy.names();
    Attributes {
        group: names.group.to_owned(),
        resource: names.plural.to_owned(),
        subresource: request.context.subresource.to_owned(),
        namespace: request.namespace.clone(),
        name: request.name.clone(),
        ..Attributes::default()
    }
}

impl Authorizer for Ask<'_> {
    fn decide(&self, attributes: &Attributes) -> Decision {
        let account = attributes.service_account.as_ref().map(|(namespace, name)| {
            let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), User::AUTHENTICATED];
            User::new(&format!("system:serviceaccount:{namespace}:{name}"), &groups)
        });
        let user = account.as_ref().unwrap_or(self.user);
        let asked = authorization::Attributes {
            verb: &attributes.verb,
            is_resource: attributes.path.is_none(),
            group: &attributes.group,
            version: "*",
            resource: &attributes.resource,
            subresource: &attributes.subresource,
            namespace: &attributes.namespace,
            name: &attributes.name,
            path: attributes.path.as_deref().unwrap_or_default(),
            ..Default::default()
        };
        let decision = authorization::decide(self.server, user, &asked);
        Decision { allowed: decision.allowed, reason: decision.reason().to_owned(), error: String::new() }
    }
}
