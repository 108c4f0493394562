use super::*;
use crate::proxy::testing::{model, pod_cidr};
use proptest::prelude::*;

/// `iptables-restore --noflush`, with what it is strict about.
#[derive(Clone, Debug, Default, PartialEq)]
struct Kernel(Chains);

impl Kernel {
    fn load(&mut self, text: &str) {
        let mut table = Table::Nat;
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(3, ' ').collect();
            match words[0] {
                "*nat" => table = Table::Nat,
                "*filter" => table = Table::Filter,
                "-A" => self.0.get_mut(&(table, words[1].into())).expect(line).push(words[2].into()),
                "-X" => assert_eq!(self.0.remove(&(table, words[1].into())).expect(line), Vec::<String>::new()),
                "COMMIT" => self.all_references_exist(table),
                declared => drop(self.0.insert((table, declared.strip_prefix(':').expect(line).into()), vec![])),
            }
        }
    }

    fn all_references_exist(&self, table: Table) {
        for ((_, chain), rules) in self.0.iter().filter(|((of, _), _)| *of == table) {
            assert!(chain.len() <= 28, "the kernel refuses {chain}");
            for to in rules.iter().filter_map(|rule| rule.split("-j ").nth(1)?.split(' ').next()) {
                assert!(!to.starts_with(PREFIX) || self.0.contains_key(&(table, to.into())), "no chain {to}");
            }
        }
    }
}

proptest! {
    #[test]
    fn applying_what_changed_is_as_good_as_loading_everything(models in prop::collection::vec(model(), 1..6)) {
        let mut kernel = Kernel::default();
        kernel.load(&full(&models[0], pod_cidr(), &BTreeSet::new()));
        for pair in models.windows(2) {
            let before = kernel.clone();
            kernel.load(&diff(&pair[0], &pair[1], pod_cidr()));
            let mut fresh = Kernel::default();
            fresh.load(&full(&pair[1], pod_cidr(), &BTreeSet::new()));
            prop_assert_eq!(&kernel, &fresh);
            // A process that starts anew finds the chains of the last one.
            let mut adopted = before;
            let existing = adopted.0.keys().cloned().collect();
            adopted.load(&full(&pair[1], pod_cidr(), &existing));
            prop_assert_eq!(&adopted, &fresh);
        }
        let last = &models[models.len() - 1];
        prop_assert_eq!(diff(last, last, pod_cidr()), "");
        let existing = kernel.0.keys().cloned().collect();
        kernel.load(&removal(&existing));
        prop_assert_eq!(kernel, Kernel::default());
    }

    #[test]
    fn each_target_is_equally_likely(model in model()) {
        for ((_, chain), rules) in chains(&model, pod_cidr()) {
            if !chain.starts_with("SLIPWAY-SVC-") {
                continue;
            }
            let draws: Vec<&String> = rules.iter().filter(|rule| !rule.contains("recent")).collect();
            let mut left = 1.0;
            for rule in &draws {
                let share = rule.split("--probability ").nth(1).map_or(1.0, |rest| rest.split(' ').next().unwrap().parse().unwrap());
                prop_assert!((left * share - 1.0 / draws.len() as f64).abs() < 1e-6);
                left -= left * share;
            }
        }
    }
}

#[test]
fn finds_only_our_own_chains() {
    let saved =
        "*nat\n:PREROUTING ACCEPT [0:0]\n:SLIPWAY-SERVICES - [0:0]\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j SLIPWAY-SERVICES\n";
    assert_eq!(existing(Table::Nat, saved).collect::<Vec<_>>(), [(Table::Nat, "SLIPWAY-SERVICES".into())]);
}
