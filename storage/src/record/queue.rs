//! A message owed to a session.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use verge_model::{Class, MessageId, UnixMillis};

use super::{MessageRecord, MessageView, Record, RecordError};

/// A message owed to a session.
///
/// Version 3:
///
/// ```text
/// 3 │ flags u8 │ enqueued_at │ subscription ids? │ share? │ message, or its row and size
/// flags: bits 0-1 QoS │ 2 RETAIN │ 3-4 class │ 5 the message is here │ 6 ids │ 7 share
/// ```
///
/// Versions 1 and 2 named the message's row always, and held the packet id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecord {
    /// The message, or where it is.
    pub held: Held,
    /// QoS of the delivery: the lesser of the publication's and the subscription's.
    pub qos: u8,
    /// RETAIN flag of the delivery.
    pub retain: bool,
    /// The message's class: the more urgent goes first.
    pub class: Class,
    /// Subscription Identifiers of the subscriptions that matched.
    pub subscription_ids: Vec<u32>,
    /// When it was queued.
    pub enqueued_at: UnixMillis,
    /// The shared subscription that chose the session, as its whole filter.
    pub share: Option<Arc<str>>,
}

/// Where the message of a debt is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// In the row of the debt: it is owed to one session.
    Here(MessageRecord),
    /// In a row of its own, once for all it is owed to.
    Row {
        /// The row's name.
        row: MessageId,
        /// What it counts for in a bounded queue; 0 if that was not noted.
        bytes: u32,
    },
}

/// What a row says of a debt beside its message, for writing.
#[derive(Debug, Clone, Copy)]
pub struct QueueHead<'a> {
    /// [`QueueRecord::qos`].
    pub qos: u8,
    /// [`QueueRecord::retain`].
    pub retain: bool,
    /// [`QueueRecord::class`].
    pub class: Class,
    /// [`QueueRecord::subscription_ids`].
    pub subscription_ids: &'a [u32],
    /// [`QueueRecord::enqueued_at`].
    pub enqueued_at: UnixMillis,
    /// [`QueueRecord::share`].
    pub share: Option<&'a str>,
}

impl QueueHead<'_> {
    /// The bytes of a row that holds the message.
    #[must_use]
    pub fn with_message(&self, message: &MessageView<'_>) -> Bytes {
        let out = self.begin(HERE, message.encoded_len_hint());
        postcard::to_extend(message, out).expect(WRITABLE).into()
    }

    /// The bytes of a row that names the message's row, which counts for so many bytes.
    #[must_use]
    pub fn with_row(&self, row: MessageId, bytes: u32) -> Bytes {
        let out = self.begin(0, ROW_BYTES);
        postcard::to_extend(&(row, bytes), out).expect(WRITABLE).into()
    }

    fn begin(&self, flags: u8, more: usize) -> Vec<u8> {
        let share = self.share.map_or(0, |share| share.len() + 2);
        let mut out =
            Vec::with_capacity(HEAD_BYTES + 4 * self.subscription_ids.len() + share + more);
        let flags = flags
            | (self.qos & QOS)
            | if self.retain { RETAIN } else { 0 }
            | ((self.class as u8) << CLASS_SHIFT)
            | if self.subscription_ids.is_empty() { 0 } else { IDS }
            | if self.share.is_some() { SHARE } else { 0 };
        out.extend_from_slice(&[QueueRecord::VERSION, flags]);
        out = postcard::to_extend(&self.enqueued_at, out).expect(WRITABLE);
        if !self.subscription_ids.is_empty() {
            out = postcard::to_extend(self.subscription_ids, out).expect(WRITABLE);
        }
        if let Some(share) = self.share {
            out = postcard::to_extend(share, out).expect(WRITABLE);
        }
        out
    }
}

const QOS: u8 = 0b11;
const RETAIN: u8 = 1 << 2;
const CLASS_SHIFT: u8 = 3;
const CLASS: u8 = 0b11;
const HERE: u8 = 1 << 5;
const IDS: u8 = 1 << 6;
const SHARE: u8 = 1 << 7;

/// About what stands before the message.
const HEAD_BYTES: usize = 12;

/// About what a row's name and size take.
const ROW_BYTES: usize = 24;

const WRITABLE: &str = "records hold only what postcard can write, into memory that grows";

impl Record for QueueRecord {
    const NAME: &'static str = "queue";
    const VERSION: u8 = 3;

    fn encode(&self) -> Bytes {
        let head = QueueHead {
            qos: self.qos,
            retain: self.retain,
            class: self.class,
            subscription_ids: &self.subscription_ids,
            enqueued_at: self.enqueued_at,
            share: self.share.as_deref(),
        };
        match &self.held {
            Held::Here(message) => head.with_message(&message.view()),
            Held::Row { row, bytes } => head.with_row(*row, *bytes),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes {
            [] => Err(RecordError::Empty { record: Self::NAME }),
            [Self::VERSION, flags, body @ ..] => Self::decode_body(*flags, body),
            [Self::VERSION] => Err(malformed(postcard::Error::DeserializeUnexpectedEnd)),
            [version, body @ ..] => Self::decode_old(*version, body),
        }
    }

    fn decode_old(version: u8, body: &[u8]) -> Result<Self, RecordError> {
        Self::decode_early(version, body).map(|(record, _)| record)
    }
}

impl QueueRecord {
    fn decode_body(flags: u8, body: &[u8]) -> Result<Self, RecordError> {
        let (enqueued_at, mut rest) = take(body)?;
        let (mut subscription_ids, mut share) = (Vec::new(), None);
        if flags & IDS != 0 {
            (subscription_ids, rest) = take(rest)?;
        }
        if flags & SHARE != 0 {
            let (text, after) = take(rest)?;
            (share, rest) = (Some(text), after);
        }
        let held = if flags & HERE != 0 {
            let (message, after) = take(rest)?;
            rest = after;
            Held::Here(message)
        } else {
            let ((row, bytes), after) = take(rest)?;
            rest = after;
            Held::Row { row, bytes }
        };
        ended(rest)?;
        let class = (flags >> CLASS_SHIFT) & CLASS;
        Ok(Self {
            held,
            qos: flags & QOS,
            retain: flags & RETAIN != 0,
            class: Class::from_u8(class).unwrap_or_default(),
            subscription_ids,
            enqueued_at,
            share,
        })
    }

    /// Reads a record of version 1 or 2, and how far its delivery was: later versions leave that to
    /// rows of their own.
    ///
    /// # Errors
    /// The bytes are no such record.
    pub fn decode_early(version: u8, body: &[u8]) -> Result<(Self, QueueState), RecordError> {
        if version != PLAIN && version != SHARED {
            let (record, known) = (Self::NAME, Self::VERSION);
            return Err(RecordError::UnknownVersion { record, version, known });
        }
        let (early, mut rest) = take::<Early>(body)?;
        let mut share = None;
        if version == SHARED {
            let (text, after) = take(rest)?;
            (share, rest) = (Some(text), after);
        }
        ended(rest)?;
        let record = Self {
            held: Held::Row { row: early.message, bytes: 0 },
            qos: early.qos,
            retain: early.retain,
            class: Class::default(),
            subscription_ids: early.subscription_ids,
            enqueued_at: early.enqueued_at,
            share,
        };
        Ok((record, early.state))
    }
}

/// The version of a message of no group, before version 3.
const PLAIN: u8 = 1;

/// The version of a message of a group, before version 3.
const SHARED: u8 = 2;

/// A record of version 1; version 2 has the group behind it.
#[derive(Serialize, Deserialize)]
struct Early {
    message: MessageId,
    qos: u8,
    retain: bool,
    subscription_ids: Vec<u32>,
    enqueued_at: UnixMillis,
    state: QueueState,
}

/// How far the delivery of a queued message was, in records before version 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueueState {
    /// Not sent yet.
    Queued,
    /// PUBLISH may have been sent; no PUBACK or PUBREC yet.
    Sent {
        /// The packet id it was sent with.
        packet_id: u16,
    },
    /// PUBREC came, PUBREL may have been sent; no PUBCOMP yet.
    Released {
        /// The packet id it was sent with.
        packet_id: u16,
    },
}

fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), RecordError> {
    postcard::take_from_bytes(bytes).map_err(malformed)
}

fn malformed(detail: postcard::Error) -> RecordError {
    RecordError::Malformed { record: QueueRecord::NAME, detail }
}

fn ended(rest: &[u8]) -> Result<(), RecordError> {
    match rest.len() {
        0 => Ok(()),
        bytes => Err(RecordError::Trailing { record: QueueRecord::NAME, bytes }),
    }
}

#[cfg(test)]
mod tests {
    use verge_model::{Hlc, NodeKey};

    use super::*;
    use crate::record::golden;

    fn row() -> MessageId {
        MessageId { node: NodeKey(1), incarnation: 2, seq: 300 }
    }

    fn queued() -> QueueRecord {
        QueueRecord {
            held: Held::Row { row: row(), bytes: 80 },
            qos: 2,
            retain: false,
            class: Class::Telemetry,
            subscription_ids: vec![1, 200],
            enqueued_at: UnixMillis(1_000),
            share: None,
        }
    }

    #[test]
    fn golden_bytes() {
        golden::holds(&queued(), "0352e8070201c8010102ac0250");
        let shared = QueueRecord { share: Some("$share/g/t".into()), ..queued() };
        golden::holds(&shared, "03d2e8070201c8010a2473686172652f672f740102ac0250");
        let message = MessageRecord {
            id: row(),
            publisher: "v".into(),
            stamp: Hlc(4),
            expires_at: None,
            topic: "a/b".into(),
            qos: 1,
            retain: false,
            class: Class::Safety,
            properties: Bytes::new(),
            payload: Bytes::from_static(b"hi"),
        };
        let here = QueueRecord {
            held: Held::Here(message),
            qos: 1,
            retain: true,
            class: Class::Safety,
            subscription_ids: Vec::new(),
            ..queued()
        };
        golden::holds(&here, "0325e8070102ac020176040003612f6201000000026869");
    }

    #[test]
    fn early_versions_are_read_with_their_state() {
        let bytes = |hex: &str| -> Vec<u8> {
            let digits = hex.as_bytes().chunks(2);
            digits
                .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
                .collect()
        };
        let expected = QueueRecord { held: Held::Row { row: row(), bytes: 0 }, ..queued() };
        let expected = QueueRecord { class: Class::default(), ..expected };
        let share = QueueRecord { share: Some("$share/g/t".into()), ..expected.clone() };
        for (hex, record, state) in [
            ("010102ac0202000201c801e80700", &expected, QueueState::Queued),
            ("010102ac0202000201c801e8070101", &expected, QueueState::Sent { packet_id: 1 }),
            (
                "010102ac0202000201c801e80702ffff03",
                &expected,
                QueueState::Released { packet_id: 65_535 },
            ),
            ("020102ac0202000201c801e807000a2473686172652f672f74", &share, QueueState::Queued),
        ] {
            let bytes = bytes(hex);
            let read = QueueRecord::decode_early(bytes[0], &bytes[1..]);
            assert_eq!(read, Ok((record.clone(), state)));
            assert_eq!(QueueRecord::decode(&bytes).as_ref(), Ok(record));
        }
    }

    #[test]
    fn a_reference_is_at_most_32_bytes_without_identifiers() {
        let row = MessageId { node: NodeKey(u64::MAX), incarnation: 10_000, seq: 1 << 40 };
        let record = QueueRecord {
            held: Held::Row { row, bytes: 1_000 },
            qos: 1,
            subscription_ids: Vec::new(),
            enqueued_at: UnixMillis(1_800_000_000_000),
            ..queued()
        };
        assert!(record.encode().len() <= 32, "{} bytes", record.encode().len());
    }
}
