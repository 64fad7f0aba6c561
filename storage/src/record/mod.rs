//! Values of rows: a version byte, then postcard.
//!
//! postcard writes fields in order and without names, so a record's fields are never reordered,
//! removed or added to; a change makes a new version, and [`Record::decode_old`] reads the old one.
//! Each file ends with the golden bytes of its version.

mod delayed;
mod inflight;
mod link_in;
mod mark;
mod member;
mod message;
mod open;
mod outbox;
mod queue;
mod registry;
mod retained;
mod route;
mod session;
mod subscription;
mod will;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use delayed::DelayedRecord;
pub use inflight::InflightRecord;
pub use link_in::LinkInRecord;
pub use mark::{ReceivedRecord, SeenRecord};
pub use member::MemberRecord;
pub use message::{MessageRecord, MessageView, StoredMessage};
pub use open::{OpenRecord, TimerRecord};
pub use outbox::OutboxRecord;
pub use queue::{Held, QueueHead, QueueRecord, QueueState};
pub use registry::RegistryRecord;
pub use retained::RetainedRecord;
pub use route::{RouteHeadRecord, RouteRecord};
pub use session::{FragmentRecord, SessionRecord, SessionState};
pub use subscription::{SubscriberRecord, SubscriptionRecord};
pub use will::WillRecord;

/// The value of a row.
pub trait Record: Serialize + DeserializeOwned {
    /// What it is called in errors.
    const NAME: &'static str;

    /// The version written.
    const VERSION: u8;

    /// About how many bytes the encoding takes; saves growing the buffer.
    fn encoded_len_hint(&self) -> usize {
        64
    }

    /// The stored bytes.
    fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len_hint());
        out.push(Self::VERSION);
        postcard::to_extend(self, out)
            .expect("records hold only what postcard can write, into memory that grows")
            .into()
    }

    /// The inverse of [`Record::encode`], of any version ever written.
    ///
    /// # Errors
    /// The bytes are no record of this kind, or of a version that is not known here.
    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let Some((&version, body)) = bytes.split_first() else {
            return Err(RecordError::Empty { record: Self::NAME });
        };
        if version != Self::VERSION {
            return Self::decode_old(version, body);
        }
        let (record, rest) = postcard::take_from_bytes(body)
            .map_err(|error| RecordError::Malformed { record: Self::NAME, detail: error })?;
        if !rest.is_empty() {
            return Err(RecordError::Trailing { record: Self::NAME, bytes: rest.len() });
        }
        Ok(record)
    }

    /// Reads the body of an earlier version. Records of version 1 have none.
    ///
    /// # Errors
    /// The version is not known here, or its body is malformed.
    fn decode_old(version: u8, _body: &[u8]) -> Result<Self, RecordError> {
        Err(RecordError::UnknownVersion { record: Self::NAME, version, known: Self::VERSION })
    }
}

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// There is not even a version byte.
    #[error("{record} record is empty")]
    Empty {
        /// The record's name.
        record: &'static str,
    },
    /// A newer Verge wrote it, or it is damaged.
    #[error("{record} record has version {version}; versions up to {known} are known")]
    UnknownVersion {
        /// The record's name.
        record: &'static str,
        /// The version found.
        version: u8,
        /// The newest version known here.
        known: u8,
    },
    /// The body does not follow its version's layout.
    #[error("{record} record is malformed: {detail}")]
    Malformed {
        /// The record's name.
        record: &'static str,
        /// What postcard found.
        detail: postcard::Error,
    },
    /// The body goes on after its last field.
    #[error("{record} record has {bytes} bytes too many")]
    Trailing {
        /// The record's name.
        record: &'static str,
        /// How many.
        bytes: usize,
    },
}

#[cfg(test)]
pub(crate) mod golden {
    //! Golden bytes: what was written once must be read for ever.

    use std::fmt::Debug;

    use super::{Record, RecordError};

    /// The record encodes to exactly `hex`, and `hex` decodes to it; nothing shorter or longer does.
    pub(crate) fn holds<R: Record + PartialEq + Debug>(record: &R, hex: &str) {
        let bytes = record.encode();
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, hex, "bytes of {}", R::NAME);
        assert_eq!(R::decode(&bytes).as_ref(), Ok(record));
        for len in 0..bytes.len() {
            assert!(R::decode(&bytes[..len]).is_err(), "{} of {len} bytes", R::NAME);
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(R::decode(&longer), Err(RecordError::Trailing { bytes: 1, .. })));
        let mut newer = bytes.to_vec();
        newer[0] = R::VERSION + 1;
        let error = R::decode(&newer).unwrap_err();
        assert!(matches!(error, RecordError::UnknownVersion { .. }), "{error}");
    }
}
