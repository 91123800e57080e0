//! Who a node is within its fleet.

use super::Name;
use crate::secret::Secret;

/// The identity of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node's name: logs, metrics, the file prefix of DPDK and the default API socket bear it.
    pub name: Name,
    /// The node's number, unique in a cluster; receiver indices encode it.
    pub id: u8,
    /// The key that permutes receiver indices, shared by all nodes of a cluster; without one the node draws its own.
    pub index_key: Option<Secret>,
}
