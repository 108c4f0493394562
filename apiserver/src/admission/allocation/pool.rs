//! What can be given out: the addresses of the service CIDR, and the node ports. Pure.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

/// A range of numbers, each of which one Service may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    kind: Kind,
    first: u32,
    count: u32,
    /// So many at the beginning are given out only when nothing else is left: they are for those who choose for
    /// themselves (the cluster's DNS, for instance).
    chosen: u32,
    /// As the messages show it.
    range: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Address,
    Port,
}

impl Pool {
    /// An IPv4 network, without its own and its broadcast address.
    pub fn addresses(cidr: &str) -> Result<Pool, String> {
        let bad = || format!("\"{cidr}\" is not an IPv4 network of at least four addresses");
        let (address, bits) = cidr.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let bits: u32 = bits.parse().ok().filter(|bits| (8..=30).contains(bits)).ok_or_else(bad)?;
        let size = 1u32 << (32 - bits);
        let network = u32::from(address) & !(size - 1);
        let chosen = (size / 16).clamp(16, 256).min(size - 2);
        let range = format!("{}/{bits}", Ipv4Addr::from(network));
        Ok(Pool { kind: Kind::Address, first: network + 1, count: size - 2, chosen, range })
    }

    pub fn ports(range: &RangeInclusive<u16>) -> Pool {
        let (first, last) = (u32::from(*range.start()), u32::from(*range.end()));
        let count = (last + 1).saturating_sub(first);
        let chosen = (count / 32).clamp(16, 128);
        let chosen = if count > chosen { chosen } else { 0 };
        Pool { kind: Kind::Port, first, count, chosen, range: format!("{first}-{last}") }
    }

    pub fn range(&self) -> &str {
        &self.range
    }

    pub fn prefix(&self) -> &'static str {
        match self.kind {
            Kind::Address => "/allocations/clusterips/",
            Kind::Port => "/allocations/nodeports/",
        }
    }

    pub fn key(&self, number: u32) -> String {
        match self.kind {
            Kind::Address => format!("{}{}", self.prefix(), Ipv4Addr::from(number)),
            Kind::Port => format!("{}{number}", self.prefix()),
        }
    }

    pub fn contains(&self, number: u32) -> bool {
        number.checked_sub(self.first).is_some_and(|offset| offset < self.count)
    }

    /// All numbers in the order in which they are tried: from a place that `random` says, those that are left to choose
    /// last.
    pub fn candidates(&self, random: u32) -> impl Iterator<Item = u32> + use<> {
        let (first, count, chosen) = (self.first, self.count, self.chosen);
        let usual = count - chosen;
        let start = if usual == 0 { 0 } else { random % usual };
        let usual = (0..usual).map(move |step| first + chosen + (start + step) % usual);
        usual.chain((0..chosen).map(move |step| first + step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn network_and_broadcast_are_not_given_out() {
        let pool = Pool::addresses("10.96.0.0/16").unwrap();
        let at = |text: &str| u32::from(text.parse::<Ipv4Addr>().unwrap());
        assert!(pool.contains(at("10.96.0.1")) && pool.contains(at("10.96.255.254")));
        assert!(!pool.contains(at("10.96.0.0")) && !pool.contains(at("10.96.255.255")) && !pool.contains(at("10.95.0.1")));
        assert_eq!(pool.key(at("10.96.0.10")), "/allocations/clusterips/10.96.0.10");
        assert!(pool.candidates(0).next().unwrap() > at("10.96.1.0"));
        for bad in ["", "10.0.0.0", "10.0.0.0/31", "10.0.0.0/x", "fd00::/64"] {
            assert!(Pool::addresses(bad).is_err(), "{bad}");
        }
        assert_eq!(Pool::ports(&(30_000..=32_767)).range(), "30000-32767");
    }

    proptest! {
        #[test]
        fn every_number_is_a_candidate_once(bits in 20u32..=30, random: u32) {
            let pool = Pool::addresses(&format!("10.0.0.0/{bits}")).unwrap();
            let all: Vec<u32> = pool.candidates(random).collect();
            prop_assert_eq!(all.len() as u32, (1 << (32 - bits)) - 2);
            prop_assert!(all.iter().all(|number| pool.contains(*number)));
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        }
    }
}
