//! The node's network, tried with real connections in network namespaces. Needs root, nft, iptables, conntrack, iproute2
//! and the CNI plugins; without root it says that it is skipped.
#![allow(clippy::unwrap_used)]

mod cni;
mod dns;
mod netns;
mod proxy;
