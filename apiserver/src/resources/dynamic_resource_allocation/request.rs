//! What a claim asks for: requests of devices, what must be alike among them, and what their drivers are told.

use super::{CONFIG_MAX, fully_qualified_name, is_short, label, opaque, selector, tolerations, unique};
use crate::http::error::Invalid;
use crate::kind::remove;
use crate::resources::{fill, rules};
use serde_json::{Value, json};
use slipway_api::name;
use slipway_api::resource::{DeviceClaim, DeviceConstraint, DeviceRequest, DeviceToleration};
use std::collections::{BTreeMap, BTreeSet};

/// Of requests, of constraints, and of the names in one of them.
pub const REQUESTS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const MODES: [&str; 2] = ["All", "ExactCount"];
const ONE_OF: &str = "exactly one of `exactly` or `firstAvailable` is required";
const REFERENCE: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// `spec` is a claim's, its own or a template's.
pub fn fill_claim(spec: &mut Value) {
    let Some(devices) = fill::made(spec, "devices") else { return };
    each_request(devices, &mut |request| {
        fill::empty(request, "allocationMode", "ExactCount");
        if request["allocationMode"] == "ExactCount" {
            fill::empty(request, "count", 1);
        }
        for toleration in fill::items(request, "tolerations") {
            fill::empty(toleration, "operator", "Equal");
        }
    });
}

/// Takes out what is alpha.
pub fn drop_alpha(spec: &mut Value) {
    if let Some(devices) = fill::inner(spec, "devices") {
        each_request(devices, &mut |request| remove(request, "derivedAttributes"));
    }
}

fn each_request(devices: &mut Value, change: &mut dyn FnMut(&mut Value)) {
    for request in fill::items(devices, "requests") {
        if let Some(exactly) = fill::inner(request, "exactly") {
            change(exactly);
        }
        for alternative in fill::items(request, "firstAvailable") {
            change(alternative);
        }
    }
}

/// The names of requests, with those of the alternatives of each.
pub struct RequestNames<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> RequestNames<'a> {
    pub fn of(claim: &'a DeviceClaim) -> Self {
        let named = claim.requests.iter().flatten().map(|request| {
            let alternatives = request.first_available.iter().flatten().map(|alternative| alternative.name.as_str());
            (request.name.as_str(), alternatives.collect())
        });
        RequestNames(named.collect())
    }

    fn has(&self, reference: &str) -> bool {
        match reference.split_once('/') {
            None => self.0.contains_key(reference),
            Some((request, alternative)) => self.0.get(request).is_some_and(|known| known.contains(alternative)),
        }
    }

    /// `request` or `request/alternative`.
    pub fn check(&self, at: &str, reference: &str, errors: &mut Vec<Invalid>) {
        let parts: Vec<&str> = reference.split('/').collect();
        if parts.len() > 2 {
            errors.push(Invalid::value(at, &json!(reference), REFERENCE));
            return;
        }
        for part in parts {
            label(at, part, errors);
        }
        if !self.has(reference) {
            errors.push(Invalid::value(at, &json!(reference), REFERENCE));
        }
    }

    pub fn check_all(&self, at: &str, references: Option<&[String]>, errors: &mut Vec<Invalid>) {
        let references = references.unwrap_or(&[]);
        if !is_short(at, references.len(), REQUESTS_MAX, errors) {
            return;
        }
        for (index, reference) in references.iter().enumerate() {
            self.check(&format!("{at}[{index}]"), reference, errors);
        }
        unique(at, references.iter(), errors);
    }
}

pub fn check(at: &str, claim: &DeviceClaim, errors: &mut Vec<Invalid>) {
    let names = RequestNames::of(claim);
    let (requests, place) = (claim.requests.as_deref().unwrap_or(&[]), format!("{at}.requests"));
    if is_short(&place, requests.len(), REQUESTS_MAX, errors) {
        for (index, request) in requests.iter().enumerate() {
            check_request(&format!("{place}[{index}]"), request, errors);
        }
        unique(&place, requests.iter().map(|request| &request.name), errors);
    }
    let (constraints, place) = (claim.constraints.as_deref().unwrap_or(&[]), format!("{at}.constraints"));
    if is_short(&place, constraints.len(), REQUESTS_MAX, errors) {
        for (index, constraint) in constraints.iter().enumerate() {
            check_constraint(&format!("{place}[{index}]"), constraint, &names, errors);
        }
    }
    let (configs, place) = (claim.config.as_deref().unwrap_or(&[]), format!("{at}.config"));
    if is_short(&place, configs.len(), CONFIG_MAX, errors) {
        for (index, config) in configs.iter().enumerate() {
            let at = format!("{place}[{index}]");
            names.check_all(&format!("{at}.requests"), config.requests.as_deref(), errors);
            opaque(&at, config.opaque.as_ref(), errors);
        }
    }
}

fn check_request(at: &str, request: &DeviceRequest, errors: &mut Vec<Invalid>) {
    label(&format!("{at}.name"), &request.name, errors);
    let alternatives = request.first_available.as_deref().unwrap_or(&[]);
    match &request.exactly {
        None if alternatives.is_empty() => errors.push(Invalid::required(at, ONE_OF)),
        Some(_) if !alternatives.is_empty() => {
            errors.push(Invalid::value(at, &Value::Null, &format!("{ONE_OF}, but multiple fields are set")));
        }
        Some(exactly) => {
            let at = format!("{at}.exactly");
            device_class(&at, &exactly.device_class_name, errors);
            selector::check(&format!("{at}.selectors"), exactly.selectors.as_deref(), errors);
            allocation_mode(&at, exactly.allocation_mode.as_deref(), exactly.count, errors);
            check_tolerations(&at, exactly.tolerations.as_deref(), errors);
        }
        None => {
            let at = format!("{at}.firstAvailable");
            if !is_short(&at, alternatives.len(), ALTERNATIVES_MAX, errors) {
                return;
            }
            for (index, one) in alternatives.iter().enumerate() {
                let at = format!("{at}[{index}]");
                label(&format!("{at}.name"), &one.name, errors);
                device_class(&at, &one.device_class_name, errors);
                selector::check(&format!("{at}.selectors"), one.selectors.as_deref(), errors);
                allocation_mode(&at, one.allocation_mode.as_deref(), one.count, errors);
                check_tolerations(&at, one.tolerations.as_deref(), errors);
            }
            unique(&at, alternatives.iter().map(|one| &one.name), errors);
        }
    }
}

fn check_tolerations(at: &str, list: Option<&[DeviceToleration]>, errors: &mut Vec<Invalid>) {
    tolerations(&format!("{at}.tolerations"), list, errors);
}

fn device_class(at: &str, class: &str, errors: &mut Vec<Invalid>) {
    let at = format!("{at}.deviceClassName");
    if class.is_empty() {
        errors.push(Invalid::required(at, ""));
    } else {
        rules::all(&at, class, name::dns1123_subdomain(class), errors);
    }
}

fn allocation_mode(at: &str, mode: Option<&str>, count: Option<i64>, errors: &mut Vec<Invalid>) {
    let count = count.unwrap_or(0);
    let why = match mode.unwrap_or("") {
        "All" if count != 0 => "must not be specified when allocationMode is 'All'",
        "ExactCount" if count <= 0 => "must be greater than zero",
        mode => {
            rules::maybe_one_of(&format!("{at}.allocationMode"), Some(mode), &MODES, errors);
            return;
        }
    };
    errors.push(Invalid::value(format!("{at}.count"), &json!(count), why));
}

fn check_constraint(at: &str, constraint: &DeviceConstraint, names: &RequestNames<'_>, errors: &mut Vec<Invalid>) {
    names.check_all(&format!("{at}.requests"), constraint.requests.as_deref(), errors);
    match (&constraint.match_attribute, &constraint.distinct_attribute) {
        (Some(_), Some(_)) => {
            let why = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            errors.push(Invalid::value(at, &Value::Null, why));
        }
        (Some(attribute), None) => fully_qualified_name(&format!("{at}.matchAttribute"), attribute, errors),
        (None, Some(attribute)) => fully_qualified_name(&format!("{at}.distinctAttribute"), attribute, errors),
        (None, None) => {
            let why = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required";
            errors.push(Invalid::required(at, why));
        }
    }
}
