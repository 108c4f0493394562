//! An IPv4 network in CIDR notation.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// `ADDRESS/BITS` with the host bits cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: Ipv4Addr,
    bits: u8,
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an IPv4 network in CIDR notation")]
pub struct NotACidr(String);

impl Cidr {
    /// Bits beyond 32 count as 32.
    pub fn new(address: Ipv4Addr, bits: u8) -> Cidr {
        let bits = bits.min(32);
        Cidr { address: Ipv4Addr::from_bits(address.to_bits() & mask(bits)), bits }
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    pub fn bits(&self) -> u8 {
        self.bits
    }

    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.bits) == self.address.to_bits()
    }

    /// Sorted, and without those that lie in others: sets of the kernel refuse overlaps.
    pub fn merged(cidrs: impl IntoIterator<Item = Cidr>) -> Vec<Cidr> {
        let mut sorted: Vec<Cidr> = cidrs.into_iter().collect();
        // A network sorts before those within it.
        sorted.sort();
        let mut merged: Vec<Cidr> = vec![];
        for cidr in sorted {
            if !merged.last().is_some_and(|last| last.contains(cidr.address)) {
                merged.push(cidr);
            }
        }
        merged
    }
}

fn mask(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Cidr {
    type Err = NotACidr;

    fn from_str(text: &str) -> Result<Cidr, NotACidr> {
        let parse = || {
            let (address, bits) = text.trim().split_once('/')?;
            let bits: u8 = bits.parse().ok().filter(|bits| *bits <= 32)?;
            Some(Cidr::new(address.parse().ok()?, bits))
        };
        parse().ok_or_else(|| NotACidr(text.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_clears_host_bits_and_merges() {
        let cidr = |text: &str| text.parse::<Cidr>().unwrap();
        assert_eq!(cidr("10.244.3.7/24").to_string(), "10.244.3.0/24");
        assert!(cidr("0.0.0.0/0").contains(Ipv4Addr::new(9, 9, 9, 9)));
        assert!(!cidr("10.0.0.1/32").contains(Ipv4Addr::new(10, 0, 0, 2)));
        assert!("10.0.0.0/33".parse::<Cidr>().is_err());
        assert!("fd00::/8".parse::<Cidr>().is_err());
        let merged = Cidr::merged([cidr("10.1.0.0/16"), cidr("10.0.0.0/8"), cidr("11.0.0.0/8"), cidr("10.0.0.0/8")]);
        assert_eq!(merged, [cidr("10.0.0.0/8"), cidr("11.0.0.0/8")]);
    }
}
