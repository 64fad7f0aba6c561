//! A registry entry.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Record;

/// What a home keeps of a session: owner, subscriptions and fragments, merged by `verge-mesh-proto`
/// and opaque here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryRecord {
    /// The entry.
    pub body: Bytes,
}

impl Record for RegistryRecord {
    const NAME: &'static str = "registry";
    const VERSION: u8 = 1;

    fn encoded_len_hint(&self) -> usize {
        8 + self.body.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::golden;

    #[test]
    fn golden_bytes() {
        golden::holds(&RegistryRecord { body: Bytes::from_static(&[7]) }, "010107");
    }
}
