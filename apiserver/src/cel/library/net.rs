//! IP addresses and networks.

use super::opaque::Opaque;
use super::{Line, bool_of, string_of, text};
use crate::cel::evaluate::Error;
use crate::cel::value::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const LIBRARY: &[Line] = &[
    ("ip(string):net.IP", |_, args| read_ip(text(args, 0)?)),
    ("isIP(string):bool", |_, args| bool_of(parse_ip(text(args, 0)?).is_some())),
    ("ip.isCanonical(string):bool", |_, args| {
        let given = text(args, 0)?;
        let ip = parse_ip(given)
            .ok_or_else(|| Error::new(format!("IP Address {given:?} parse error during conversion from string")))?;
        bool_of(ip.to_string() == given)
    }),
    ("string(net.IP):string", |_, args| string_of(ip(args, 0)?.to_string())),
    (".family(net.IP):int", |_, args| Ok(Value::Int(if ip(args, 0)?.is_ipv4() { 4 } else { 6 }))),
    (".isUnspecified(net.IP):bool", |_, args| bool_of(ip(args, 0)?.is_unspecified())),
    (".isLoopback(net.IP):bool", |_, args| bool_of(ip(args, 0)?.is_loopback())),
    (".isLinkLocalMulticast(net.IP):bool", |_, args| bool_of(is_link_local_multicast(ip(args, 0)?))),
    (".isLinkLocalUnicast(net.IP):bool", |_, args| bool_of(is_link_local_unicast(ip(args, 0)?))),
    (".isGlobalUnicast(net.IP):bool", |_, args| bool_of(is_global_unicast(ip(args, 0)?))),
    ("cidr(string):net.CIDR", |_, args| {
        let given = text(args, 0)?;
        let (ip, bits) = parse_cidr(given)
            .ok_or_else(|| Error::new(format!("network address parse error during conversion from string: {given:?}")))?;
        Ok(Value::Opaque(Opaque::Cidr(ip, bits)))
    }),
    ("isCIDR(string):bool", |_, args| bool_of(parse_cidr(text(args, 0)?).is_some())),
    ("string(net.CIDR):string", |_, args| {
        let (ip, bits) = cidr(args, 0)?;
        string_of(format!("{ip}/{bits}"))
    }),
    (".containsIP(net.CIDR,net.IP):bool", |_, args| bool_of(contains(cidr(args, 0)?, ip(args, 1)?))),
    (".containsIP(net.CIDR,string):bool", |_, args| {
        let Value::Opaque(Opaque::Ip(ip)) = read_ip(text(args, 1)?)? else { return Err(Error::no_overload()) };
        bool_of(contains(cidr(args, 0)?, ip))
    }),
    (".containsCIDR(net.CIDR,net.CIDR):bool", |_, args| bool_of(contains_network(cidr(args, 0)?, cidr(args, 1)?))),
    (".containsCIDR(net.CIDR,string):bool", |_, args| {
        let given = text(args, 1)?;
        let inner = parse_cidr(given)
            .ok_or_else(|| Error::new(format!("network address parse error during conversion from string: {given:?}")))?;
        bool_of(contains_network(cidr(args, 0)?, inner))
    }),
    (".ip(net.CIDR):net.IP", |_, args| Ok(Value::Opaque(Opaque::Ip(cidr(args, 0)?.0)))),
    (".masked(net.CIDR):net.CIDR", |_, args| {
        let (ip, bits) = cidr(args, 0)?;
        Ok(Value::Opaque(Opaque::Cidr(masked(ip, bits), bits)))
    }),
    (".prefixLength(net.CIDR):int", |_, args| Ok(Value::Int(i64::from(cidr(args, 0)?.1)))),
];

fn read_ip<'a>(given: &str) -> Result<Value<'a>, Error> {
    let ip =
        parse_ip(given).ok_or_else(|| Error::new(format!("IP Address {given:?} parse error during conversion from string")))?;
    Ok(Value::Opaque(Opaque::Ip(ip)))
}

fn ip(args: &[Value<'_>], at: usize) -> Result<IpAddr, Error> {
    match args.get(at) {
        Some(Value::Opaque(Opaque::Ip(ip))) => Ok(*ip),
        _ => Err(Error::no_overload()),
    }
}

fn cidr(args: &[Value<'_>], at: usize) -> Result<(IpAddr, u8), Error> {
    match args.get(at) {
        Some(Value::Opaque(Opaque::Cidr(ip, bits))) => Ok((*ip, *bits)),
        _ => Err(Error::no_overload()),
    }
}

/// Without a zone, and without IPv4 addresses in the clothes of IPv6.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    match text.parse().ok()? {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => None,
        ip => Some(ip),
    }
}

pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = text.split_once('/')?;
    let ip = parse_ip(ip)?;
    let plain = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let bits: u8 = if plain { bits.parse().ok()? } else { return None };
    (bits <= width(ip)).then_some((ip, bits))
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip) & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)).into(),
    }
}

fn contains((network, bits): (IpAddr, u8), ip: IpAddr) -> bool {
    network.is_ipv4() == ip.is_ipv4() && masked(network, bits) == masked(ip, bits)
}

fn contains_network(outer: (IpAddr, u8), inner: (IpAddr, u8)) -> bool {
    outer.1 <= inner.1 && contains(outer, inner.0)
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

fn is_link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn is_global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local_unicast(ip))
}
