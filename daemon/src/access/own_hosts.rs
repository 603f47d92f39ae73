//! The hosts that the daemon is asked by.

use crate::http::host::Host;
use std::net::IpAddr;

/// The hosts that are the daemon's own.
#[derive(Debug, Default)]
pub(super) struct OwnHosts {
    names: Vec<Box<str>>,
    addresses: Vec<IpAddr>,
}

impl OwnHosts {
    /// The configured hosts, and the machine's own name. What is no host counts for nothing.
    pub(super) fn new<'a>(configured: impl Iterator<Item = &'a str>, machine: &'a str) -> Self {
        let mut own = Self::default();
        for host in configured.chain([machine]).filter_map(Host::of_text) {
            match host {
                Host::Name(name) => own.names.push(name.into()),
                Host::Address(address) => own.addresses.push(address),
            }
        }
        own
    }

    /// Whether a request for this host may be for the daemon. Every address may: a browser asks by address only for pages that
    /// name the address, and DNS has no part in it.
    pub(super) fn may_be_asked(&self, host: &Host<'_>) -> bool {
        matches!(host, Host::Address(_)) || self.serves_pages(host)
    }

    /// Whether a page from this host is one of the daemon's machine or operator. An address alone says nothing about that: a
    /// stranger has one too.
    pub(super) fn serves_pages(&self, host: &Host<'_>) -> bool {
        host.is_loopback()
            || match host {
                Host::Name(name) => self.names.iter().any(|own| own.eq_ignore_ascii_case(name)),
                Host::Address(address) => self.addresses.contains(address),
            }
    }
}
