//! A member of the mesh.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use verge_model::NodeId;

use super::Record;

/// What this node knows of a member, so that it can be found again after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The member's name; the key holds only its hash.
    pub node_id: NodeId,
    /// What membership keeps of it, opaque here.
    pub body: Bytes,
}

impl Record for MemberRecord {
    const NAME: &'static str = "member";
    const VERSION: u8 = 1;

    fn encoded_len_hint(&self) -> usize {
        8 + self.node_id.as_str().len() + self.body.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::golden;

    #[test]
    fn golden_bytes() {
        let member =
            MemberRecord { node_id: "r-1".parse().unwrap(), body: Bytes::from_static(&[9, 8]) };
        golden::holds(&member, "0103722d31020908");
    }

    #[test]
    fn a_name_that_is_no_node_id_is_malformed() {
        assert!(MemberRecord::decode(b"\x01\x01/\x00").is_err());
    }
}
