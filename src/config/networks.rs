//! IP addresses and networks in CIDR notation: `"192.0.2.7"`, `"10.0.0.0/8"`, `"2001:db8::/32"`.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Pattern of an address or a network for the JSON Schema (ECMA-262).
const PATTERN: &str = r"^\s*[0-9A-Fa-f:.]+(/[0-9]{1,3})?\s*$";

/// An IP network; a single address is a network with the full prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(
    description = "An IP address, or a network in CIDR notation: address, slash, prefix length.",
    extend("pattern" = PATTERN, "examples" = ["192.0.2.7", "10.0.0.0/8", "2001:db8::/32"])
)]
pub struct Network(#[schemars(with = "String")] IpNet);

impl Network {
    /// Whether the network contains this address. An IPv4-mapped IPv6 address counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let network = match text.parse::<IpAddr>() {
            Ok(address) => Ok(address.to_canonical().into()),
            Err(_) => text.parse(),
        };
        let expected =
            "expected an address such as \"192.0.2.7\" or a network such as \"10.0.0.0/8\"";
        network.map(Self).map_err(|_| expected)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_are_parsed() {
        let contains = |network: &str, address: &str| {
            let network: Network = network.parse().unwrap();
            network.contains(address.parse().unwrap())
        };
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(!contains("192.0.2.7", "192.0.2.8"));
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(contains(" ::1 ", "::1"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1"));
        assert!(!contains("2001:db8::/32", "10.0.0.1"));
        for wrong in ["", "proxy", "10.0.0.0/33", "10.0.0", "10.0.0.1:80"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
