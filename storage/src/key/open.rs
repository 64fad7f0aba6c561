//! `client`: the session this node owns for a client.
//!
//! ```text
//! principal, each byte 00 as 00 FF │ 00 │ client id
//! ```
//!
//! Logs on their way to another node are not named here, and there may be several for one client.

use verge_model::ClientKey;

use super::{Key, KeyBuf, KeyError, Row, client};
use crate::family::Family;
use crate::record::OpenRecord;

/// The key under which a client's session is found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenKey(pub ClientKey);

impl Key for OpenKey {
    const FAMILY: Family = Family::Client;

    fn encode(&self) -> KeyBuf {
        let mut out = KeyBuf::new();
        client::encode(&self.0, &mut out);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        client::decode(bytes).map(Self)
    }
}

impl Row for OpenKey {
    type Record = OpenRecord;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_by_principal_then_client_id() {
        let key = |principal: &str, client_id: &str| {
            OpenKey(ClientKey { principal: principal.into(), client_id: client_id.into() })
        };
        order::holds(&[key("", "a"), key("", "b"), key("fleet", ""), key("fleet", "a")]);
    }
}
