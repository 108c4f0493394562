//! IP addresses and ranges of them, in fields that are strict about how they are written.

use super::rules;
use crate::http::error::Invalid;
use serde_json::json;
use std::net::IpAddr;

const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
const ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// A range as `10.9.8.0/24`: the address as it was written, and how many of its bits count.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let written = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let bits: u8 = bits.parse().ok().filter(|_| written)?;
    (bits <= width(address)).then_some((address, bits))
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first address of the range.
fn network((address, bits): (IpAddr, u8)) -> IpAddr {
    let unused = u32::from(width(address) - bits);
    match address {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & u32::MAX.checked_shl(unused).unwrap_or(0)).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & u128::MAX.checked_shl(unused).unwrap_or(0)).into()),
    }
}

/// Whether all of `inner` is in `outer`, which has more than that.
pub fn is_strictly_within(inner: (IpAddr, u8), outer: (IpAddr, u8)) -> bool {
    inner.0.is_ipv4() == outer.0.is_ipv4() && inner.1 > outer.1 && network((inner.0, outer.1)) == network(outer)
}

/// The range as it should be written.
pub fn canonical(text: &str) -> Option<String> {
    let range = parse_cidr(text)?;
    Some(format!("{}/{}", network(range), range.1))
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some())
}

/// A range of a field that is as old as lenient reading: bits beyond the prefix are taken.
pub fn lenient_cidr(at: &str, text: &str, errors: &mut Vec<Invalid>) {
    if parse_cidr(text).is_none() {
        errors.push(Invalid::value(at, &json!(text), CIDR));
    }
}

pub fn cidr(at: &str, text: &str, errors: &mut Vec<Invalid>) {
    let why = match parse_cidr(text) {
        None => CIDR.to_owned(),
        Some((address, _)) if is_mapped(address) => "must not have an IPv4-mapped IPv6 address".to_owned(),
        Some(range) if network(range) != range.0 => "must not have bits set beyond the prefix length".to_owned(),
        Some((address, bits)) => {
            let canonical = format!("{address}/{bits}");
            if canonical == text {
                return;
            }
            format!("must be in canonical form ({})", json!(canonical))
        }
    };
    errors.push(Invalid::value(at, &json!(text), &why));
}

/// What is wrong with an address.
pub fn address(text: &str) -> Vec<String> {
    match text.parse::<IpAddr>() {
        Err(_) => vec![ADDRESS.to_owned()],
        Ok(address) if is_mapped(address) => vec!["must not be an IPv4-mapped IPv6 address".to_owned()],
        Ok(address) if address.to_string() != text => vec![format!("must be in canonical form ({})", json!(address))],
        Ok(_) => vec![],
    }
}

/// An address with the length of its network's prefix, as an interface has it.
pub fn interface(at: &str, text: &str, errors: &mut Vec<Invalid>) {
    let why = match parse_cidr(text) {
        None => "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)".to_owned(),
        Some((address, _)) if is_mapped(address) => "must not have an IPv4-mapped IPv6 address".to_owned(),
        Some((address, bits)) if format!("{address}/{bits}") != text => {
            format!("must be in canonical form ({})", json!(format!("{address}/{bits}")))
        }
        Some(_) => return,
    };
    rules::all(at, text, vec![why], errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let wrong = |text: &str| {
            let mut errors = vec![];
            cidr("f", text, &mut errors);
            errors.first().map(|error| error.message.clone()).unwrap_or_default()
        };
        for good in ["10.0.0.0/8", "0.0.0.0/0", "192.168.1.7/32", "2001:db8::/64", "::/0"] {
            assert_eq!(wrong(good), "", "{good}");
        }
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/08", "x/8", "10.0.0.0/+8"] {
            assert!(wrong(bad).ends_with(CIDR), "{bad}");
        }
        assert!(wrong("10.0.0.1/8").ends_with("must not have bits set beyond the prefix length"));
        assert!(wrong("::ffff:1.2.3.0/120").ends_with("must not have an IPv4-mapped IPv6 address"));
        assert!(wrong("2001:DB8::/64").ends_with("must be in canonical form (\"2001:db8::/64\")"));
    }

    #[test]
    fn a_range_within_another() {
        let within = |inner, outer| is_strictly_within(parse_cidr(inner).unwrap(), parse_cidr(outer).unwrap());
        assert!(within("10.1.0.0/16", "10.0.0.0/8") && within("10.1.0.0/16", "0.0.0.0/0") && within("fd00::/64", "fd00::/8"));
        assert!(!within("10.0.0.0/8", "10.0.0.0/8") && !within("11.0.0.0/16", "10.0.0.0/8") && !within("fd00::/64", "0.0.0.0/0"));
    }

    #[test]
    fn addresses() {
        assert_eq!(address("10.9.8.7"), Vec::<String>::new());
        assert_eq!(address("fe80::42:1dff:fe84:f9e2"), Vec::<String>::new());
        assert_eq!(address("FE80::1"), ["must be in canonical form (\"fe80::1\")"]);
        assert_eq!(address("::ffff:1.2.3.4"), ["must not be an IPv4-mapped IPv6 address"]);
        assert_eq!(address("010.1.1.1"), [ADDRESS]);
    }
}
