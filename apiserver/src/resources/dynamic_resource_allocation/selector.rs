//! Selectors of devices, in CEL: compiled when they are written, so that nobody learns of a typing error from a pod that waits.

use super::is_short;
use crate::cel::{Environment, Program, Type};
use crate::http::error::Invalid;
use serde_json::json;
use slipway_api::resource::DeviceSelector;
use std::sync::LazyLock;

const SELECTORS_MAX: usize = 32;
const EXPRESSION_BYTES_MAX: usize = 10 << 10;

/// `device`, with its driver and what the driver tells of it by domain and name.
static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    let by_name = |value| Type::map(Type::String, Type::map(Type::String, value));
    let device = Type::object(
        "kubernetes.DRADevice",
        [
            ("driver", Type::String),
            ("allowMultipleAllocations", Type::Bool),
            ("attributes", by_name(Type::Dyn)),
            ("capacity", by_name(Type::Opaque("kubernetes.Quantity"))),
        ],
    );
    Environment::new().variable("device", device).bindings()
});

pub fn check(at: &str, selectors: Option<&[DeviceSelector]>, errors: &mut Vec<Invalid>) {
    let selectors = selectors.unwrap_or(&[]);
    if !is_short(at, selectors.len(), SELECTORS_MAX, errors) {
        return;
    }
    for (index, selector) in selectors.iter().enumerate() {
        let at = format!("{at}[{index}].cel");
        match &selector.cel {
            None => errors.push(Invalid::required(at, "")),
            Some(cel) => expression(&format!("{at}.expression"), &cel.expression, errors),
        }
    }
}

fn expression(at: &str, source: &str, errors: &mut Vec<Invalid>) {
    if source.len() > EXPRESSION_BYTES_MAX {
        errors.push(Invalid::too_long(at, EXPRESSION_BYTES_MAX));
        return;
    }
    match Program::compile(source, &ENVIRONMENT) {
        Err(error) => errors.push(Invalid::value(at, &json!(source), &error.to_string())),
        Ok(program) if matches!(program.output(), Type::Bool | Type::Dyn) => {}
        Ok(program) => {
            let why = format!("must evaluate to bool or the unknown type, not {}", program.output());
            errors.push(Invalid::value(at, &json!(source), &why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_compiled() {
        let wrong = |source: &str| {
            let mut errors = vec![];
            expression("e", source, &mut errors);
            errors.first().map(|error| error.message.clone()).unwrap_or_default()
        };
        for good in [
            "false",
            "device.driver == 'gpu.example.com'",
            "device.attributes['gpu.example.com'].model == 'x1' && device.capacity['gpu.example.com'].memory.compareTo(quantity('1Gi')) >= 0",
            "device.attributes['gpu.example.com'].version.isGreaterThan(semver('1.0.0'))",
            "cel.bind(gpu, device.attributes['gpu.example.com'], gpu.fast && gpu.large)",
            "device.attributes['gpu.example.com'].fast",
        ] {
            assert_eq!(wrong(good), "", "{good}");
        }
        assert!(wrong("device.name == 'a'").contains("compilation failed: ERROR: <input>:1:7: undefined field 'name'"));
        assert!(wrong("device.driver").ends_with("must evaluate to bool or the unknown type, not string"));
        assert_eq!(wrong(&"a".repeat(10_241)), "Too long: may not be more than 10240 bytes");
    }
}
