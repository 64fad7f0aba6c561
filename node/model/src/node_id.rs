//! Names of nodes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::NODE_ID_BYTES_MAX;

/// The name of a node: 1 to 63 characters of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
///
/// It is the subject of the node's mesh certificate, it never changes, and no two nodes of a mesh
/// share one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Arc<str>);

/// Why a text is not a [`NodeId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeIdError {
    /// The text has no characters.
    #[error("a node id needs at least one character")]
    Empty,
    /// The text is longer than [`NODE_ID_BYTES_MAX`].
    #[error("a node id has at most {NODE_ID_BYTES_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// The text holds a character that certificates and file names cannot carry safely.
    #[error(
        "a node id holds letters, digits, '.', '_' and '-' and begins with a letter or digit; \
         '{0}' does not fit"
    )]
    BadCharacter(char),
}

impl NodeId {
    /// The text of the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The fixed-size form used in stamps, dots and keys.
    #[must_use]
    pub fn key(&self) -> NodeKey {
        // FNV-1a, 64 bit: stable over versions and machines, and the input is short.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in self.0.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        NodeKey(hash)
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let Some(first) = text.chars().next() else { return Err(NodeIdError::Empty) };
        if text.len() > NODE_ID_BYTES_MAX {
            return Err(NodeIdError::TooLong(text.len()));
        }
        if !first.is_ascii_alphanumeric() {
            return Err(NodeIdError::BadCharacter(first));
        }
        let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match text.chars().find(|c| !fits(c)) {
            Some(bad) => Err(NodeIdError::BadCharacter(bad)),
            None => Ok(Self(text.into())),
        }
    }
}

impl TryFrom<String> for NodeId {
    type Error = NodeIdError;

    fn try_from(text: String) -> Result<Self, NodeIdError> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.0)
    }
}

/// The 64-bit FNV-1a hash of a [`NodeId`]: eight bytes instead of a name wherever bytes count.
///
/// Two names with one key are refused when the second joins, so within a mesh a key names a node.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct NodeKey(pub u64);

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a node is for: a profile of defaults, and what other nodes may expect of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A roadside unit: vehicles in radio reach and local V2X applications.
    Rsu,
    /// A regional edge server: second copies, session homes, the region's uplink.
    Regional,
    /// The cloud tier's process: commits uplinks, serves no MQTT.
    Cloud,
}

impl Role {
    /// The role's name in configuration files and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rsu => "rsu",
            Self::Regional => "regional",
            Self::Cloud => "cloud",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "rsu" => Ok(Self::Rsu),
            "regional" => Ok(Self::Regional),
            "cloud" => Ok(Self::Cloud),
            _ => Err(format!("'{text}' is not a role; roles are rsu, regional and cloud")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_names_that_certificates_carry() {
        for name in ["r", "rsu-1", "edge.bavaria_2", "7"] {
            assert_eq!(name.parse::<NodeId>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn refuses_what_is_not_a_name() {
        assert_eq!("".parse::<NodeId>(), Err(NodeIdError::Empty));
        assert_eq!("-a".parse::<NodeId>(), Err(NodeIdError::BadCharacter('-')));
        assert_eq!("a b".parse::<NodeId>(), Err(NodeIdError::BadCharacter(' ')));
        assert_eq!("x".repeat(64).parse::<NodeId>(), Err(NodeIdError::TooLong(64)));
    }

    #[test]
    fn key_is_stable_over_versions() {
        // Written once; stored bytes and links of other versions depend on it.
        assert_eq!("rsu-1".parse::<NodeId>().unwrap().key(), NodeKey(0xe09b_b29f_6c3d_5f8b));
    }
}
