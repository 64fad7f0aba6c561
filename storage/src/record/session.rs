//! The header of a session.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use verge_model::{Claim, ClientKey, Incarnation, UnixMillis};

use super::{Record, RecordError, WillRecord};
use crate::key::TimerKey;

/// The header of a session; its subscriptions, queue and marks are rows of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Whose session it is; the key holds only the number this node gave it.
    pub client: ClientKey,
    /// The claim by which this node owns, or owned, the session.
    pub claim: Claim,
    /// How long the session outlives its connection; `None`: for ever.
    pub session_expiry_secs: Option<u32>,
    /// Protocol level of the last CONNECT: 3, 4 or 5.
    pub protocol_version: u8,
    /// The will of the last CONNECT, until it is published or removed.
    pub will: Option<WillRecord>,
    /// When the last connection ended; `None` while connected, and after a crash.
    pub disconnected_at: Option<UnixMillis>,
    /// Whether this node still writes the session.
    pub state: SessionState,
    /// Fragments other nodes hold and this one has not imported to their end.
    pub open_fragments: Vec<FragmentRecord>,
    /// Causal context of the replicated subscriptions, opaque here.
    pub subscription_clock: Bytes,
    /// The life of the node in which it last knew that nobody else has the session; 0 if that is not
    /// known.
    ///
    /// Version 2 has it behind what version 1 has.
    #[serde(skip)]
    pub confirmed_in: Incarnation,
    /// The life that wrote it, and how often the wall clock had leapt in it: what leapt later was no
    /// time without a connection. Behind `confirmed_in`.
    #[serde(skip)]
    pub written_in: (Incarnation, u32),
}

/// An older log of the session that is still being pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FragmentRecord {
    /// The claim it was written under.
    pub claim: Claim,
    /// Whether what its header says has been taken in.
    pub headed: bool,
}

/// Whether a node still writes a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionState {
    /// This node serves it.
    Open,
    /// Another node took it over; what is here is being pulled, and then deleted.
    Sealed {
        /// The claim that superseded this node's.
        to: Claim,
        /// When.
        sealed_at: UnixMillis,
    },
}

impl Record for SessionRecord {
    const NAME: &'static str = "session";
    const VERSION: u8 = 2;

    fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len_hint() + self.subscription_clock.len());
        out.push(Self::VERSION);
        let out = postcard::to_extend(self, out).expect(WRITABLE);
        postcard::to_extend(&(self.confirmed_in, self.written_in), out).expect(WRITABLE).into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let malformed = |detail| RecordError::Malformed { record: Self::NAME, detail };
        let Some((&version, body)) = bytes.split_first() else {
            return Err(RecordError::Empty { record: Self::NAME });
        };
        if version != FIRST && version != Self::VERSION {
            return Self::decode_old(version, body);
        }
        let (mut record, mut rest) = postcard::take_from_bytes::<Self>(body).map_err(malformed)?;
        if version == Self::VERSION {
            let (added, after) = postcard::take_from_bytes(rest).map_err(malformed)?;
            (record.confirmed_in, record.written_in) = added;
            rest = after;
        }
        if !rest.is_empty() {
            return Err(RecordError::Trailing { record: Self::NAME, bytes: rest.len() });
        }
        Ok(record)
    }
}

/// The version that says nothing of lives.
const FIRST: u8 = 1;

const WRITABLE: &str = "records hold only what postcard can write, into memory that grows";

impl SessionRecord {
    /// When a node that does not hold the session in memory has to look at it: the due of its row in
    /// [`Family::Timer`](crate::Family::Timer). `None`: not before somebody asks for it.
    #[must_use]
    pub fn attention(&self) -> Option<UnixMillis> {
        if self.state != SessionState::Open || !self.open_fragments.is_empty() {
            return Some(TimerKey::MOVING);
        }
        let Some(since) = self.disconnected_at else { return Some(TimerKey::CONNECTED) };
        let will = self.will.as_ref().map(|will| will.delay_secs);
        let secs = self.session_expiry_secs.into_iter().chain(will).min()?;
        let due = since.0.saturating_add(u64::from(secs) * 1_000);
        Some(UnixMillis(due).max(TimerKey::FIRST))
    }
}

#[cfg(test)]
mod tests {
    use verge_model::NodeKey;

    use super::*;
    use crate::record::golden;

    #[test]
    fn golden_bytes() {
        let open = SessionRecord {
            client: ClientKey::anonymous("v"),
            claim: Claim { epoch: 2, node: NodeKey(5) },
            session_expiry_secs: None,
            protocol_version: 4,
            will: None,
            disconnected_at: None,
            state: SessionState::Open,
            open_fragments: Vec::new(),
            subscription_clock: Bytes::new(),
            confirmed_in: 0,
            written_in: (0, 0),
        };
        golden::holds(&open, "02000176020500040000000000000000");
        let first = b"\x01\x00\x01v\x02\x05\x00\x04\x00\x00\x00\x00\x00";
        assert_eq!(SessionRecord::decode(first).as_ref(), Ok(&open));
        let sealed = SessionRecord {
            session_expiry_secs: Some(300),
            protocol_version: 5,
            will: Some(WillRecord {
                topic: "w".into(),
                payload: Bytes::from_static(b"x"),
                qos: 1,
                retain: true,
                delay_secs: 9,
                properties: Bytes::new(),
            }),
            disconnected_at: Some(UnixMillis(1_000)),
            state: SessionState::Sealed {
                to: Claim { epoch: 3, node: NodeKey(6) },
                sealed_at: UnixMillis(2_000),
            },
            open_fragments: vec![FragmentRecord {
                claim: Claim { epoch: 1, node: NodeKey(4) },
                headed: true,
            }],
            subscription_clock: Bytes::from_static(&[0xcc]),
            confirmed_in: 300,
            written_in: (301, 2),
            ..open
        };
        golden::holds(
            &sealed,
            "02000176020501ac020501017701780101090001e807010306d00f0101040101ccac02ad0202",
        );
    }

    #[test]
    fn a_session_is_looked_at_when_something_is_due() {
        let mut header = SessionRecord {
            client: ClientKey::anonymous("v"),
            claim: Claim { epoch: 1, node: NodeKey(5) },
            session_expiry_secs: None,
            protocol_version: 5,
            will: None,
            disconnected_at: None,
            state: SessionState::Open,
            open_fragments: Vec::new(),
            subscription_clock: Bytes::new(),
            confirmed_in: 1,
            written_in: (1, 0),
        };
        assert_eq!(header.attention(), Some(TimerKey::CONNECTED));
        header.disconnected_at = Some(UnixMillis(5_000));
        assert_eq!(header.attention(), None, "it waits for ever");
        header.session_expiry_secs = Some(60);
        assert_eq!(header.attention(), Some(UnixMillis(65_000)));
        header.will = Some(WillRecord {
            topic: "w".into(),
            payload: Bytes::new(),
            qos: 0,
            retain: false,
            delay_secs: 9,
            properties: Bytes::new(),
        });
        assert_eq!(header.attention(), Some(UnixMillis(14_000)));
        header.disconnected_at = Some(UnixMillis(u64::MAX));
        assert_eq!(header.attention(), Some(UnixMillis(u64::MAX)));
        let to = Claim { epoch: 2, node: NodeKey(6) };
        header.state = SessionState::Sealed { to, sealed_at: UnixMillis(1) };
        assert_eq!(header.attention(), Some(TimerKey::MOVING));
    }
}
