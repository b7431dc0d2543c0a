//! A container's network: its own namespace, the host's, or another container's.

pub mod files;

use serde::{Deserialize, Serialize};

/// A container's place in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Name of the network.
    pub network: String,
    /// IPv4 address.
    pub address: String,
    /// Length of the network part.
    pub prefix: u8,
    /// IPv4 gateway.
    pub gateway: String,
    /// Ethernet address.
    pub mac: String,
}
