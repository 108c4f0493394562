//! PriorityLevelConfiguration: how many requests of a level are worked on at a time, and what becomes of more.

use super::{check_mandatory, names};
use crate::flow_control::queues::entropy_bits;
use crate::http::error::Invalid;
use crate::kind::{Column, Kind, Names, age};
use crate::resources::{fill, rules, show};
use serde_json::{Value, json};
pub use slipway_api::flowcontrol::PriorityLevelConfiguration;
use slipway_api::flowcontrol::{LimitedPriorityLevelConfiguration, QueuingConfiguration};

const QUEUES_MAX: i32 = 10_000_000;
/// A flow's hand of queues is dealt from a hash of 64 bits.
const ENTROPY_BITS_MAX: u32 = 60;

impl Kind for PriorityLevelConfiguration {
    const NAMES: Names = names("PriorityLevelConfiguration", "prioritylevelconfigurations", "prioritylevelconfiguration");

    fn fill_defaults(object: &mut Value) {
        let Some(spec) = fill::inner(object, "spec") else { return };
        if let Some(exempt) = fill::inner(spec, "exempt") {
            fill::missing(exempt, "nominalConcurrencyShares", 0);
            fill::missing(exempt, "lendablePercent", 0);
        }
        let Some(limited) = fill::inner(spec, "limited") else { return };
        fill::missing(limited, "nominalConcurrencyShares", 30);
        fill::missing(limited, "lendablePercent", 0);
        if let Some(queuing) = fill::inner(limited, "limitResponse").and_then(|response| fill::inner(response, "queuing")) {
            fill::missing(queuing, "queues", 64);
            fill::missing(queuing, "handSize", 8);
            fill::missing(queuing, "queueLengthLimit", 50);
        }
    }

    fn validate(&self) -> Vec<Invalid> {
        let mut errors = vec![];
        let spec = &self.spec;
        let exempt = self.metadata.name.as_deref() == Some("exempt");
        if exempt != (spec.type_ == "Exempt") {
            let why = "type must be 'Exempt' if and only if `name` is 'exempt'";
            errors.push(Invalid::value("spec.type", &json!(spec.type_), why));
        }
        match (spec.type_.as_str(), &spec.limited, &spec.exempt) {
            ("Exempt", Some(_), _) => errors.push(Invalid::forbidden("spec.limited", "must be nil if the type is not Limited")),
            ("Limited", _, Some(_)) => errors.push(Invalid::forbidden("spec.exempt", "must be nil if the type is Limited")),
            ("Limited", None, _) => errors.push(Invalid::required("spec.limited", "must not be empty when type is Limited")),
            ("Limited", Some(limited), _) => check_limited(limited, &mut errors),
            ("Exempt", None, _) => {}
            (other, ..) => errors.push(Invalid::not_supported("spec.type", &json!(other), &["Exempt", "Limited"])),
        }
        errors
    }

    fn validate_whole(&self, object: &Value) -> Vec<Invalid> {
        let mut errors = self.validate();
        // The exempt level may be given shares and lend them.
        if self.metadata.name.as_deref() != Some("exempt") {
            check_mandatory(&crate::flow_control::bootstrap::levels(), object, &mut errors);
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::NAME,
            Column::text("Type", "Whether its requests are limited."),
            Column::text("NominalConcurrencyShares", "Its part of the server's seats."),
            Column::text("Queues", "Among how many queues its flows are spread."),
            Column::text("HandSize", "How many of them one flow uses."),
            Column::text("QueueLengthLimit", "How many requests wait in one."),
            Column::AGE,
        ]
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, limited) = (&object["spec"], &object["spec"]["limited"]);
        let queuing = &limited["limitResponse"]["queuing"];
        let shown = |value: &Value| if value.is_null() { json!(show::NONE) } else { value.to_string().into() };
        vec![
            show::name(object),
            spec["type"].clone(),
            shown(&limited["nominalConcurrencyShares"]),
            shown(&queuing["queues"]),
            shown(&queuing["handSize"]),
            shown(&queuing["queueLengthLimit"]),
            age(object, now),
        ]
    }
}

fn check_limited(limited: &LimitedPriorityLevelConfiguration, errors: &mut Vec<Invalid>) {
    let at = "spec.limited";
    if let Some(shares) = limited.nominal_concurrency_shares.filter(|shares| *shares < 0) {
        errors.push(Invalid::value(format!("{at}.nominalConcurrencyShares"), &json!(shares), "must be a non-negative integer"));
    }
    if let Some(percent) = limited.lendable_percent.filter(|percent| !(0..=100).contains(percent)) {
        errors.push(Invalid::value(format!("{at}.lendablePercent"), &json!(percent), "must be between 0 and 100, inclusive"));
    }
    if let Some(percent) = limited.borrowing_limit_percent.filter(|percent| *percent < 0) {
        let why = "if specified, must be a non-negative integer";
        errors.push(Invalid::value(format!("{at}.borrowingLimitPercent"), &json!(percent), why));
    }
    let response = &limited.limit_response;
    let type_ = Some(response.type_.as_str());
    rules::one_of(&format!("{at}.limitResponse.type"), type_, &["Queue", "Reject"], errors);
    match (type_, response.queuing.as_ref()) {
        (Some("Reject"), Some(_)) => {
            let why = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(Invalid::forbidden(format!("{at}.limitResponse.queuing"), why));
        }
        (Some("Queue"), None) => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(Invalid::required(format!("{at}.limitResponse.queuing"), why));
        }
        (Some("Queue"), Some(queuing)) => check_queuing(&format!("{at}.limitResponse.queuing"), queuing, errors),
        _ => {}
    }
}

fn check_queuing(at: &str, queuing: &QueuingConfiguration, errors: &mut Vec<Invalid>) {
    let (queues, hand) = (queuing.queues.unwrap_or(0), queuing.hand_size.unwrap_or(0));
    let mut positive = |field: &str, value: Option<i32>| {
        if value.unwrap_or(0) <= 0 {
            errors.push(Invalid::value(format!("{at}.{field}"), &json!(value.unwrap_or(0)), "must be positive"));
        }
    };
    positive("queueLengthLimit", queuing.queue_length_limit);
    positive("queues", queuing.queues);
    positive("handSize", queuing.hand_size);
    if queues <= 0 || hand <= 0 {
        return;
    }
    if queues > QUEUES_MAX {
        errors.push(Invalid::value(format!("{at}.queues"), &json!(queues), &format!("must not be greater than {QUEUES_MAX}")));
    } else if hand > queues {
        let why = format!("should not be greater than queues ({queues})");
        errors.push(Invalid::value(format!("{at}.handSize"), &json!(hand), &why));
    } else if hand as u32 > ENTROPY_BITS_MAX || entropy_bits(queues as usize, hand as usize) > ENTROPY_BITS_MAX {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {ENTROPY_BITS_MAX}"
        );
        errors.push(Invalid::value(format!("{at}.handSize"), &json!(hand), &why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{Builtin, Strategy};

    fn fields(name: &str, mut spec: Value) -> Vec<String> {
        let strategy = Builtin::<PriorityLevelConfiguration>::new();
        let mut level = json!({"metadata": {"name": name}, "spec": spec.take()});
        strategy.fill_defaults(&mut level);
        strategy.validate(&level).into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn what_is_refused() {
        let queue =
            |queuing: Value| json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}});
        assert_eq!(fields("a", queue(json!({}))), Vec::<String>::new());
        assert_eq!(fields("exempt", queue(json!({}))), ["spec.type"]);
        assert_eq!(fields("a", json!({"type": "Exempt"})), ["spec.type"]);
        assert_eq!(fields("a", json!({"type": "Limited"})), ["spec.limited"]);
        assert_eq!(fields("a", queue(json!({"queues": 4}))), ["spec.limited.limitResponse.queuing.handSize"]);
        assert_eq!(fields("a", queue(json!({"queues": 512, "handSize": 8}))), ["spec.limited.limitResponse.queuing.handSize"]);
        assert_eq!(fields("a", queue(json!({"queueLengthLimit": -1}))), ["spec.limited.limitResponse.queuing.queueLengthLimit"]);
        let reject = json!({"type": "Limited", "limited": {"lendablePercent": 101, "limitResponse": {"type": "Reject"}}});
        assert_eq!(fields("a", reject.clone()), ["spec.limited.lendablePercent"]);
        assert_eq!(fields("catch-all", json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}})), ["spec"]);
    }

    #[test]
    fn what_every_cluster_has_is_valid() {
        let strategy = Builtin::<PriorityLevelConfiguration>::new();
        for mut level in crate::flow_control::bootstrap::levels() {
            strategy.fill_defaults(&mut level);
            assert_eq!(strategy.validate(&level), vec![], "{}", level["metadata"]["name"]);
        }
    }
}
