//! The status of a claim: the devices that were allocated, for whom they are reserved, and what their drivers tell of them.

use super::request::{REQUESTS_MAX, RequestNames};
use super::{CONFIG_MAX, binding_conditions, is_short, label, opaque, pool_name, raw, tolerations, unique};
use crate::http::error::Invalid;
use crate::kind::remove;
use crate::resources::csi_driver::driver_name;
use crate::resources::{addresses, fill, pod, rules};
use serde_json::{Value, json};
use slipway_api::meta::Condition;
use slipway_api::name;
use slipway_api::resource::{AllocatedDeviceStatus, AllocationResult, DeviceRequestAllocationResult, ResourceClaim};
use std::collections::BTreeSet;

const CONSUMERS_MAX: usize = 256;
/// Of a class and of a claim.
const CONFIGS_MAX: usize = 2 * CONFIG_MAX;
const DATA_BYTES_MAX: usize = 10 << 10;
const CONDITIONS_MAX: usize = 8;
const INTERFACE_NAME_MAX: usize = 256;
const HARDWARE_ADDRESS_MAX: usize = 128;
const ADDRESSES_MAX: usize = 16;
const REASON_MAX: usize = 1024;
const MESSAGE_MAX: usize = 32 << 10;

pub fn fill_status(claim: &mut Value) {
    if let Some(devices) = claim.pointer_mut("/status/allocation/devices") {
        for result in fill::items(devices, "results") {
            for toleration in fill::items(result, "tolerations") {
                fill::empty(toleration, "operator", "Equal");
            }
        }
    }
}

/// Takes out what is alpha, and what drivers told of devices that are not allocated any more.
pub fn prepare(claim: &mut Value) {
    let mut allocated = BTreeSet::new();
    if let Some(devices) = claim.pointer_mut("/status/allocation/devices") {
        for result in fill::items(devices, "results") {
            remove(result, "skipNodeOperations");
            allocated.insert(device_of(result));
        }
    }
    let Some(status) = fill::inner(claim, "status") else { return };
    if status.get("allocation").is_none_or(Value::is_null) {
        remove(status, "devices");
    }
}

fn device_of(result: &Value) -> String {
    let parts = ["driver", "pool", "device", "shareID"].map(|field| fill::text(result, field));
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/")
}

pub fn check(claim: &ResourceClaim, old: &ResourceClaim, names: &RequestNames<'_>) -> Vec<Invalid> {
    let mut errors = vec![];
    let (status, before) = (claim.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let consumers = status.reserved_for.as_deref().unwrap_or(&[]);
    let at = "status.reservedFor";
    if is_short(at, consumers.len(), CONSUMERS_MAX, &mut errors) {
        for (index, consumer) in consumers.iter().enumerate() {
            for (field, value) in [("resource", &consumer.resource), ("name", &consumer.name), ("uid", &consumer.uid)] {
                if value.is_empty() {
                    errors.push(Invalid::required(format!("{at}[{index}].{field}"), ""));
                }
            }
        }
        unique(at, consumers.iter().map(|consumer| &consumer.uid), &mut errors);
    }
    let allocated: BTreeSet<String> =
        results(status.allocation.as_ref()).iter().map(|result| device_of(&json!(result))).collect();
    let devices = status.devices.as_deref().unwrap_or(&[]);
    for (index, device) in devices.iter().enumerate() {
        check_device(&format!("status.devices[{index}]"), device, &allocated, &mut errors);
    }
    unique("status.devices", devices.iter().map(|device| device_of(&json!(device))), &mut errors);
    if !consumers.is_empty() {
        let known = before.reserved_for.as_deref().unwrap_or(&[]);
        if status.allocation.is_none() {
            errors.push(Invalid::forbidden(at, "may not be specified when `allocated` is not set"));
        } else if claim.metadata.deletion_timestamp.is_some() && consumers.iter().any(|consumer| !known.contains(consumer)) {
            let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(Invalid::forbidden(at, why));
        }
    }
    match (&status.allocation, &before.allocation) {
        (Some(_), Some(_)) => rules::same("status.allocation", &status.allocation, &before.allocation, &mut errors),
        (Some(allocation), None) => check_allocation("status.allocation", allocation, names, &mut errors),
        _ => {}
    }
    errors
}

fn results(allocation: Option<&AllocationResult>) -> &[DeviceRequestAllocationResult] {
    let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
    devices.and_then(|devices| devices.results.as_deref()).unwrap_or(&[])
}

fn check_allocation(at: &str, allocation: &AllocationResult, names: &RequestNames<'_>, errors: &mut Vec<Invalid>) {
    let (results, place) = (results(Some(allocation)), format!("{at}.devices.results"));
    if is_short(&place, results.len(), REQUESTS_MAX, errors) {
        for (index, result) in results.iter().enumerate() {
            let at = format!("{place}[{index}]");
            names.check(&format!("{at}.request"), &result.request, errors);
            driver_name(&format!("{at}.driver"), &result.driver, errors);
            pool_name(&format!("{at}.pool"), &result.pool, errors);
            label(&format!("{at}.device"), &result.device, errors);
            let (conditions, failures) = (&result.binding_conditions, &result.binding_failure_conditions);
            binding_conditions(&at, conditions.as_deref(), failures.as_deref(), errors);
            tolerations(&format!("{at}.tolerations"), result.tolerations.as_deref(), errors);
            share_id(&format!("{at}.shareID"), result.share_id.as_deref(), errors);
        }
    }
    let configs = allocation.devices.as_ref().and_then(|devices| devices.config.as_deref()).unwrap_or(&[]);
    let place = format!("{at}.devices.config");
    if is_short(&place, configs.len(), CONFIGS_MAX, errors) {
        for (index, config) in configs.iter().enumerate() {
            let at = format!("{place}[{index}]");
            rules::one_of(&format!("{at}.source"), Some(&config.source), &["FromClaim", "FromClass"], errors);
            names.check_all(&format!("{at}.requests"), config.requests.as_deref(), errors);
            opaque(&at, config.opaque.as_ref(), errors);
        }
    }
    if let Some(selector) = &allocation.node_selector {
        pod::scheduling::node_selector(&format!("{at}.nodeSelector"), selector, errors);
    }
}

fn share_id(at: &str, id: Option<&str>, errors: &mut Vec<Invalid>) {
    let Some(id) = id else { return };
    let why = match uuid::Uuid::parse_str(id) {
        Err(error) => format!("error validating uid: {error}"),
        Ok(parsed) if parsed.hyphenated().to_string() != id => {
            "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters"
                .to_owned()
        }
        Ok(_) => return,
    };
    errors.push(Invalid::value(at, &json!(id), &why));
}

fn check_device(at: &str, device: &AllocatedDeviceStatus, allocated: &BTreeSet<String>, errors: &mut Vec<Invalid>) {
    driver_name(&format!("{at}.driver"), &device.driver, errors);
    pool_name(&format!("{at}.pool"), &device.pool, errors);
    label(&format!("{at}.device"), &device.device, errors);
    share_id(&format!("{at}.shareID"), device.share_id.as_deref(), errors);
    let id = device_of(&json!(device));
    if !allocated.contains(&id) {
        errors.push(Invalid::value(at, &json!(id), "must be an allocated device in the claim"));
    }
    let (all, place) = (device.conditions.as_deref().unwrap_or(&[]), format!("{at}.conditions"));
    if is_short(&place, all.len(), CONDITIONS_MAX, errors) {
        conditions(&place, all, errors);
    }
    if let Some(data) = device.data.as_ref().filter(|data| !data.0.is_null()) {
        raw(&format!("{at}.data"), &data.0, DATA_BYTES_MAX, errors);
    }
    let Some(network) = &device.network_data else { return };
    let at = format!("{at}.networkData");
    let texts = [
        ("interfaceName", &network.interface_name, INTERFACE_NAME_MAX),
        ("hardwareAddress", &network.hardware_address, HARDWARE_ADDRESS_MAX),
    ];
    for (field, text, max) in texts {
        if text.as_ref().is_some_and(|text| text.len() > max) {
            errors.push(Invalid::too_long(format!("{at}.{field}"), max));
        }
    }
    let (ips, place) = (network.ips.as_deref().unwrap_or(&[]), format!("{at}.ips"));
    if is_short(&place, ips.len(), ADDRESSES_MAX, errors) {
        for (index, ip) in ips.iter().enumerate() {
            addresses::interface(&format!("{place}[{index}]"), ip, errors);
        }
        unique(&place, ips.iter(), errors);
    }
}

fn conditions(at: &str, conditions: &[Condition], errors: &mut Vec<Invalid>) {
    unique(at, conditions.iter().map(|condition| &condition.type_), errors);
    for (index, condition) in conditions.iter().enumerate() {
        let at = format!("{at}[{index}]");
        rules::all(&format!("{at}.type"), &condition.type_, name::qualified_name(&condition.type_), errors);
        let statuses = ["False", "True", "Unknown"];
        rules::maybe_one_of(&format!("{at}.status"), Some(&condition.status), &statuses, errors);
        let place = format!("{at}.reason");
        let reason = condition.reason.as_bytes();
        let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b',' | b':');
        let ends = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        if reason.is_empty() {
            errors.push(Invalid::required(place, ""));
        } else if reason.len() > REASON_MAX {
            errors.push(Invalid::too_long(place, REASON_MAX));
        } else if !reason[0].is_ascii_alphabetic() || !ends(reason.last()) || !reason.iter().all(inner) {
            let why = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric \
                       characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or \
                       'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is \
                       '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
            errors.push(Invalid::value(place, &json!(condition.reason), why));
        }
        if condition.message.len() > MESSAGE_MAX {
            errors.push(Invalid::too_long(format!("{at}.message"), MESSAGE_MAX));
        }
    }
}
