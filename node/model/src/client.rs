//! Names of clients.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// "The Client Identifier (ClientID) identifies the Client to the Server. Each Client connecting to
/// the Server has a unique ClientID." [MQTT-3.1.3-2]
///
/// UTF-8 text of at most 65,535 bytes without U+0000; the codec admits nothing else.
pub type ClientId = Arc<str>;

/// The name of a session in the whole mesh: who proved to be whom, and the ClientId they chose.
///
/// Another principal with the same ClientId is another session, on every node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClientKey {
    /// The authenticated principal; empty for an anonymous client.
    pub principal: Arc<str>,
    /// The MQTT Client Identifier.
    pub client_id: ClientId,
}

impl ClientKey {
    /// The key of an anonymous client.
    #[must_use]
    pub fn anonymous(client_id: &str) -> Self {
        Self { principal: Arc::default(), client_id: client_id.into() }
    }

    /// The session's name as one text, for messages that say who published them: the ClientId,
    /// and behind U+0000, which no name contains, the principal, if there is one.
    #[must_use]
    pub fn author(&self) -> Arc<str> {
        if self.principal.is_empty() {
            return Arc::clone(&self.client_id);
        }
        [&*self.client_id, "\0", &*self.principal].concat().into()
    }

    /// A hash that is the same on every node and in every version: FNV-1a over principal, a zero
    /// byte, and ClientId, then mixed, since the low bits choose shards and the high bits buckets.
    #[must_use]
    pub fn stable_hash(&self) -> u64 {
        let bytes = self.principal.bytes().chain([0]).chain(self.client_id.bytes());
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        // The finaliser of MurmurHash3.
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }
}

/// The ClientId of an [author](ClientKey::author).
#[must_use]
pub fn client_id_of(author: &ClientId) -> ClientId {
    match author.split_once('\0') {
        None => Arc::clone(author),
        Some((client_id, _)) => client_id.into(),
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.principal.is_empty() {
            f.write_str(&self.client_id)
        } else {
            write!(f, "{}/{}", self.principal, self.client_id)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_names_the_session_and_its_client() {
        let anonymous = ClientKey::anonymous("c");
        let known = ClientKey { principal: "u".into(), ..anonymous.clone() };
        assert_eq!(*anonymous.author(), *"c");
        assert_ne!(known.author(), anonymous.author());
        assert_ne!(known.author(), ClientKey { principal: "v".into(), ..anonymous }.author());
        assert_eq!(client_id_of(&known.author()), known.client_id);
        assert_eq!(*client_id_of(&"c".into()), *"c");
    }
}
