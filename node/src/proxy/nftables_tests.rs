use super::*;
use crate::proxy::testing::{model, pod_cidr};
use proptest::prelude::*;

/// As much of nft as the text uses: enough to know what a table holds after a series of transactions, and strict
/// about what the kernel is strict about.
#[derive(Clone, Debug, Default, PartialEq)]
struct Kernel {
    chains: BTreeMap<String, Vec<String>>,
    sets: BTreeMap<String, String>,
    elements: BTreeMap<(String, String), String>,
}

impl Kernel {
    fn load(&mut self, text: &str) {
        let text = match text.split_once("\n}\n") {
            Some((_, rest)) if text.starts_with(CLEANUP) => {
                *self = Kernel::default();
                rest
            }
            _ => text,
        };
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(6, ' ').collect();
            let [verb, what, "ip", "slipway", name, ..] = words[..] else { panic!("cannot read {line:?}") };
            let rest = words.get(5).copied().unwrap_or_default();
            match (verb, what) {
                ("add", "chain") => assert!(self.chains.insert(name.into(), vec![]).is_none(), "{line}"),
                ("flush", "chain") => self.chains.get_mut(name).expect(line).clear(),
                ("delete", "chain") => {
                    assert_eq!(self.chains.remove(name).expect(line), Vec::<String>::new());
                    self.nothing_refers_to(name);
                }
                ("add", "rule") => self.chains.get_mut(name).expect(line).push(rest.into()),
                ("add", "set") => assert!(self.sets.insert(name.into(), rest.into()).is_none(), "{line}"),
                ("delete", "set") => {
                    assert!(self.sets.remove(name).is_some(), "{line}");
                    assert!(!self.chains.values().flatten().any(|rule| rule.contains(&format!("@{name} "))), "{line}");
                }
                ("add", "element") => self.each(rest).for_each(|(key, value)| {
                    assert!(self.elements.insert((name.into(), key), value).is_none(), "{line}");
                }),
                ("delete", "element") => self.each(rest).for_each(|(key, _)| {
                    assert!(self.elements.remove(&(name.into(), key)).is_some(), "{line}");
                }),
                _ => panic!("cannot read {line:?}"),
            }
        }
        self.all_references_exist();
    }

    fn each(&self, list: &str) -> impl Iterator<Item = (String, String)> + use<> {
        let inner = list.trim_start_matches("{ ").trim_end_matches(" }").to_string();
        let pair = |element: &str| element.split_once(" : ").map_or((element.into(), "".into()), |(k, v)| (k.into(), v.into()));
        inner.split(", ").map(pair).collect::<Vec<_>>().into_iter()
    }

    fn nothing_refers_to(&self, chain: &str) {
        let to = format!("goto {chain}");
        assert!(!self.elements.values().any(|verdict| *verdict == to), "{chain} is still a verdict");
    }

    fn all_references_exist(&self) {
        let known = ["local-policy", "node-local-policy", "mark-masquerade"];
        for verdict in self.elements.values().filter_map(|value| value.strip_prefix("goto ")) {
            assert!(known.contains(&verdict) || self.chains.contains_key(verdict), "no chain {verdict}");
        }
        for rule in self.chains.values().flatten() {
            for chain in rule.split(" goto ").skip(1).filter_map(|rest| rest.split([' ', ',']).next()) {
                assert!(known.contains(&chain) || self.chains.contains_key(chain), "no chain {chain}");
            }
        }
    }
}

proptest! {
    #[test]
    fn applying_what_changed_is_as_good_as_loading_everything(models in prop::collection::vec(model(), 1..6)) {
        let mut kernel = Kernel::default();
        kernel.load(&full(&models[0], pod_cidr()));
        for pair in models.windows(2) {
            kernel.load(&diff(&pair[0], &pair[1], pod_cidr()));
            let mut fresh = Kernel::default();
            fresh.load(&full(&pair[1], pod_cidr()));
            prop_assert_eq!(&kernel, &fresh);
        }
        let last = &models[models.len() - 1];
        prop_assert_eq!(diff(last, last, pod_cidr()), "");
    }

    #[test]
    fn every_target_has_one_index_and_indices_are_dense(model in model()) {
        let mut kernel = Kernel::default();
        kernel.load(&full(&model, pod_cidr()));
        for (front, route) in model.routes.iter().filter(|(_, route)| route.affinity.is_none()) {
            let (map, key) = match front {
                Front::Address { ip, protocol, port } => ("endpoints", format!("{ip} . {} . {port}", protocol.name())),
                Front::Node { protocol, port } => ("node-endpoints", format!("{} . {port}", protocol.name())),
            };
            let found: Vec<String> = (0..route.targets.len())
                .map(|index| kernel.elements[&(map.to_string(), format!("{key} . {index}"))].clone())
                .collect();
            let expected: Vec<String> = route.targets.iter().map(|t| format!("{} . {}", t.ip, t.port)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn changing_one_target_of_many_services_says_little() {
    let mut old = Model::default();
    for number in 0..200u8 {
        let route = Route {
            service: format!("default/s{number}:").into(),
            entry: Entry::Cluster,
            targets: (0..4).map(|n| Target { ip: [10, 244, number, n].into(), port: 80 }).collect(),
            local: None,
            elsewhere: false,
            affinity: None,
            sources: [].into(),
        };
        let front = Front::Address { ip: [10, 96, 0, number].into(), protocol: crate::proxy::model::Protocol::Tcp, port: 80 };
        old.routes.insert(front, Arc::new(route));
    }
    let mut new = old.clone();
    let route = Arc::make_mut(new.routes.first_entry().unwrap().into_mut());
    route.targets = route.targets[..3].iter().copied().chain([Target { ip: [10, 244, 0, 9].into(), port: 80 }]).collect();
    let expected = "\
delete element ip slipway endpoints { 10.96.0.0 . tcp . 80 . 3 }
add element ip slipway endpoints { 10.96.0.0 . tcp . 80 . 3 : 10.244.0.9 . 80 }
";
    assert_eq!(diff(&old, &new, pod_cidr()), expected);
}
