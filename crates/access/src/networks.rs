//! IP networks such as `10.0.0.0/24`, or single addresses.

use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;

use metrifold_base::keys::{Shape, Shaped};

/// Length of the prefix of IPv4-mapped IPv6 addresses, in bits.
const MAPPED: u32 = 96;

/// A network of IP addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    address: IpAddr,
    /// Length of the prefix, in bits.
    bits: u32,
}

impl Network {
    /// Whether the network contains an address. An IPv4-mapped IPv6 address counts as IPv4.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = u32::from(own) ^ u32::from(other);
                differ.leading_zeros() >= self.bits
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = u128::from(own) ^ u128::from(other);
                differ.leading_zeros() >= self.bits
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is neither an address nor a network: write \"10.0.0.7\" or \"10.0.0.0/24\""
            )
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u32 = match bits {
            Some(bits) => bits.parse().map_err(|_| wrong())?,
            None => most,
        };
        if bits > most {
            return Err(wrong());
        }
        // Addresses are compared in their canonical form.
        let (address, bits) = match address.to_canonical() {
            canonical if canonical == address => (address, bits),
            canonical => (canonical, bits.checked_sub(MAPPED).ok_or_else(wrong)?),
        };
        Ok(Self { address, bits })
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Shaped for Network {
    const SHAPE: Shape = Shape::Text;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_that_begin_as_it_does() {
        for (network, address, holds) in [
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "10.0.0.6", false),
            ("10.0.0.0/24", "10.0.0.255", true),
            ("10.0.0.0/24", "10.0.1.0", false),
            ("10.0.0.0/24", "::ffff:10.0.0.9", true),
            ("::ffff:10.0.0.0/120", "10.0.0.255", true),
            ("::ffff:10.0.0.0/120", "10.0.1.0", false),
            ("::ffff:10.0.0.0/120", "::ffff:10.0.0.9", true),
            ("::ffff:10.0.0.7", "10.0.0.7", true),
            ("::ffff:0.0.0.0/96", "10.0.0.7", true),
            ("0.0.0.0/0", "255.1.1.1", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::1", "::1", true),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(
                network.holds(address.parse().unwrap()),
                holds,
                "{network:?} {address}"
            );
        }
        for wrong in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/",
            "host",
            "::/129",
            "::ffff:10.0.0.0/95",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
