//! Amounts, as far as a page shows them.

use crate::{list, text};
use serde_json::Value;

/// Thousandths of a core.
pub fn milli(quantity: &str) -> i64 {
    match quantity.strip_suffix('m') {
        Some(milli) => milli.parse().unwrap_or_default(),
        None => (quantity.parse::<f64>().unwrap_or_default() * 1000.0) as i64,
    }
}

pub fn bytes(quantity: &str) -> i64 {
    let units: [(&str, f64); 11] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("m", 1e-3),
    ];
    let found = units.iter().find_map(|(unit, factor)| Some((quantity.strip_suffix(unit)?, *factor)));
    let (digits, factor) = found.unwrap_or((quantity, 1.0));
    (digits.parse::<f64>().unwrap_or_default() * factor) as i64
}

/// As `4` or `0.5`.
pub fn cores(milli: i64) -> String {
    tenths(milli as f64 / 1000.0)
}

/// As `512 MiB` or `15.6 GiB`.
pub fn memory(bytes: i64) -> String {
    let mib = bytes as f64 / 1_048_576.0;
    if mib < 1000.0 { format!("{} MiB", mib.round()) } else { format!("{} GiB", tenths(mib / 1024.0)) }
}

fn tenths(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// The (milli cores, bytes) that a pod's containers ask for.
pub fn requests(pod: &Value) -> (i64, i64) {
    let containers = list(pod, "/spec/containers").iter();
    containers.fold((0, 0), |(cpu, memory), container| {
        let asked = |what: &str| text(container, &format!("/resources/requests/{what}"));
        (cpu + milli(asked("cpu")), memory + bytes(asked("memory")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_are_read_and_shown() {
        assert_eq!(["4", "500m", "0.25", ""].map(|text| cores(milli(text))), ["4", "0.5", "0.2", "0"]);
        assert_eq!(
            ["512Mi", "16384000Ki", "1G", "1073741824"].map(|text| memory(bytes(text))),
            ["512 MiB", "15.6 GiB", "954 MiB", "1 GiB"]
        );
    }

    #[test]
    fn a_pods_requests_are_those_of_its_containers() {
        let container = json!({"resources": {"requests": {"cpu": "250m", "memory": "64Mi"}}});
        assert_eq!(requests(&json!({"spec": {"containers": [container, container, {}]}})), (500, 128 * 1_048_576));
    }
}
