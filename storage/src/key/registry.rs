//! `registry`: entries of the sessions this node is a home of.
//!
//! ```text
//! principal, each byte 00 as 00 FF │ 00 │ client id
//! ```

use verge_model::ClientKey;

use super::{Key, KeyBuf, KeyError, Row, client};
use crate::family::Family;
use crate::record::RegistryRecord;

/// The key of a registry entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegistryKey(pub ClientKey);

impl Key for RegistryKey {
    const FAMILY: Family = Family::Registry;

    fn encode(&self) -> KeyBuf {
        let mut out = KeyBuf::new();
        client::encode(&self.0, &mut out);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        client::decode(bytes).map(Self)
    }
}

impl Row for RegistryKey {
    type Record = RegistryRecord;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_by_principal_then_client_id() {
        let key = |principal: &str, client_id: &str| {
            RegistryKey(ClientKey { principal: principal.into(), client_id: client_id.into() })
        };
        order::holds(&[key("", "a"), key("", "b"), key("fleet", ""), key("fleet", "a")]);
    }
}
