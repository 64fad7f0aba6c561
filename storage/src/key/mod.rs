//! Keys of rows: one file per family with its layout.
//!
//! Numbers are big-endian and text is last or escaped, so that the byte order of keys is the order
//! of their fields from left to right. Layouts are promises: one that must change becomes another
//! family with another number.

mod client;
mod delayed;
mod forward;
mod inflight;
mod link_in;
mod member;
mod message;
mod meta;
mod open;
mod outbox;
mod queue;
mod range;
mod received;
mod registry;
mod retained;
mod route;
mod route_head;
mod seen;
mod session;
mod subscription;
mod timer;

use std::str::Utf8Error;
use std::sync::Arc;

use smallvec::SmallVec;
use verge_model::{Class, MessageId, NodeKey};

pub use delayed::DelayedKey;
pub use forward::ForwardKey;
pub use inflight::InflightKey;
pub use link_in::LinkInKey;
pub use member::MemberKey;
pub use message::MessageKey;
pub use meta::MetaKey;
pub use open::OpenKey;
pub use outbox::OutboxKey;
pub use queue::{LANE_IMPORTED, LANE_OWN, QueueKey};
pub use range::KeyRange;
pub use received::ReceivedKey;
pub use registry::RegistryKey;
pub use retained::RetainedKey;
pub use route::RouteKey;
pub use route_head::RouteHeadKey;
pub use seen::SeenKey;
pub use session::SessionKey;
pub use subscription::SubscriptionKey;
pub use timer::TimerKey;

use crate::family::Family;
use crate::record::Record;

/// An encoded key. Those written for every message fit without an allocation.
pub type KeyBuf = SmallVec<[u8; 24]>;

/// The key of a row.
pub trait Key: Sized {
    /// The family of its rows.
    const FAMILY: Family;

    /// The stored bytes.
    fn encode(&self) -> KeyBuf;

    /// The inverse of [`Key::encode`].
    ///
    /// # Errors
    /// The bytes do not follow the family's layout.
    fn decode(bytes: &[u8]) -> Result<Self, KeyError>;
}

/// A key whose rows hold records of one kind; all but those of logs and of `meta`.
pub trait Row: Key {
    /// The value of its rows.
    type Record: Record;
}

/// Why bytes are not a key of their family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key ends within a field.
    #[error("the key is too short")]
    Short,
    /// The key goes on after its last field.
    #[error("the key has {0} bytes too many")]
    Trailing(usize),
    /// A text field is not UTF-8.
    #[error("the key's text is not UTF-8 ({0})")]
    NotText(Utf8Error),
    /// The number of no class.
    #[error("the key names class {0}, which does not exist")]
    NoClass(u8),
    /// The name of no `meta` row.
    #[error("the key names no row of its family")]
    NoName,
}

/// Takes a key apart, field by field.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], KeyError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(KeyError::Short)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u8(&mut self) -> Result<u8, KeyError> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, KeyError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, KeyError> {
        self.array().map(u64::from_be_bytes)
    }

    fn node(&mut self) -> Result<NodeKey, KeyError> {
        self.u64().map(NodeKey)
    }

    fn class(&mut self) -> Result<Class, KeyError> {
        let number = self.u8()?;
        Class::from_u8(number).ok_or(KeyError::NoClass(number))
    }

    fn message(&mut self) -> Result<MessageId, KeyError> {
        self.array().map(MessageId::from_bytes)
    }

    /// The last field, if it is text.
    fn text(self) -> Result<Arc<str>, KeyError> {
        text(self.0).map(Arc::from)
    }

    fn end(self) -> Result<(), KeyError> {
        if self.0.is_empty() { Ok(()) } else { Err(KeyError::Trailing(self.0.len())) }
    }
}

fn text(bytes: &[u8]) -> Result<&str, KeyError> {
    std::str::from_utf8(bytes).map_err(KeyError::NotText)
}

#[cfg(test)]
pub(crate) mod order {
    //! The two things every layout must show.

    use std::fmt::Debug;

    use super::{Key, KeyError};

    /// `keys`, given in the intended order, have ascending bytes, and decode to themselves.
    pub(crate) fn holds<K: Key + PartialEq + Debug>(keys: &[K]) {
        for pair in keys.windows(2) {
            assert!(pair[0].encode() < pair[1].encode(), "{:?} before {:?}", pair[0], pair[1]);
        }
        for key in keys {
            assert_eq!(K::decode(&key.encode()).as_ref(), Ok(key));
        }
    }

    /// A key of fixed length is refused at every other length.
    pub(crate) fn fixed_length<K: Key + Debug>(key: &K, len: usize) {
        let bytes = key.encode();
        assert_eq!(bytes.len(), len);
        for short in 0..len {
            assert_eq!(K::decode(&bytes[..short]).unwrap_err(), KeyError::Short);
        }
        let long = [&bytes[..], &[0]].concat();
        assert_eq!(K::decode(&long).unwrap_err(), KeyError::Trailing(1));
    }
}
