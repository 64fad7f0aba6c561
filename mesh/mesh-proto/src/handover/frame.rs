//! Frames of the handover.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use verge_model::{Claim, ClientKey, MessageId, UnixMillis};
use verge_storage::record::{MessageRecord, WillRecord};

use crate::wire::RouteHead;

/// Version of the encoding; a frame of another version is not understood.
const VERSION: u8 = 1;

/// A frame with entries of shared subscriptions: behind what version 1 has stand the place of each
/// such entry and its filter. No other frame is written so.
const VERSION_SHARED: u8 = 2;

/// A place in a fragment's order: entries are pulled after it. The default is before all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// Lane of the queue.
    pub lane: u8,
    /// Position in the lane.
    pub seq: u64,
}

/// One frame between the owners of a session. `client` and `fragment` name what it is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HandoverFrame {
    /// The session.
    pub client: ClientKey,
    /// The log that moves; its node is the giver. The default names whatever the giver has.
    pub fragment: Claim,
    /// The new owner's claim.
    pub claim: Claim,
    /// What is said.
    pub body: Body,
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// New → old: I own this session now; seal your log.
    Takeover,
    /// Old → new: sealed durably, and this is what the session was.
    Sealed(Box<SealedHeader>),
    /// Old → new: not mine to give.
    Refused(Refusal),
    /// New → old: everything up to `after` is durable here; what comes next?
    Pull {
        /// The last entry the new owner has.
        after: Cursor,
    },
    /// Old → new: the entries after `after`, in order.
    Entries {
        /// The cursor of the Pull this answers.
        after: Cursor,
        /// The entries; none if there is nothing after the cursor now.
        entries: Vec<TransferEntry>,
        /// Whether more are ready.
        more: bool,
        /// Whether nothing can follow: no route leads to the old owner any more.
        closed: bool,
    },
    /// Old → new: something new is there to pull.
    Nudge,
    /// New → old: the session's filters are among this node's routes.
    Routed {
        /// From this operation on.
        head: RouteHead,
        /// Whether the log may stay open for what nodes that are away may still send to it. The
        /// oldest logs of a session that has very many may not.
        patient: bool,
    },
    /// New → old: the whole log is durable here and closed; forget it.
    Drained,
}

/// Why the old owner does not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No such fragment is here: it ended, or never was.
    Unknown,
    /// A greater claim holds the session already.
    Superseded {
        /// That claim.
        by: Claim,
    },
    /// The session is being claimed here at this moment; ask again.
    Busy,
}

/// What a session was at the moment it was sealed, apart from its queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealedHeader {
    /// The claim under which the giver wrote the fragment.
    pub fragment: Claim,
    /// The last entry that was there when the log was sealed: an import is complete up to here
    /// before newer messages are delivered.
    pub end: Cursor,
    /// How many entries the log held.
    pub entries: u64,
    /// Packet ids of QoS 2 messages received and not released; after a 0, which is none, those that
    /// were received on streams other than the control stream.
    pub received: Vec<u16>,
    /// Messages settled a short time ago, which may arrive at the new owner by another way.
    pub settled: Vec<MessageId>,
    /// The Will.
    pub will: Option<WillRecord>,
    /// Session Expiry Interval in seconds; `None` never expires.
    pub session_expiry_secs: Option<u32>,
    /// The state of the session's `Orswot` of subscriptions.
    pub subscriptions: Bytes,
    /// Older fragments the giver had not finished pulling: the new owner pulls them now.
    pub open_fragments: Vec<Claim>,
}

/// An entry of a fragment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransferEntry {
    /// Its place in the giver's order.
    pub cursor: Cursor,
    /// The message's name.
    pub id: MessageId,
    /// The message.
    pub message: MessageRecord,
    /// QoS of the delivery.
    pub qos: u8,
    /// RETAIN flag of the delivery.
    pub retain: bool,
    /// Identifiers of the matching subscriptions.
    pub subscription_ids: Vec<u32>,
    /// When it was first enqueued.
    pub enqueued_at: UnixMillis,
    /// How far it has come.
    pub state: EntryState,
    /// The shared subscription that chose the session, as its whole filter.
    #[serde(skip)]
    pub share: Option<Arc<str>>,
}

/// How far an entry had come at the giver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryState {
    /// Not sent.
    Queued,
    /// Sent under this packet id.
    Sent {
        /// The packet id, of the giver's band.
        packet_id: u16,
    },
    /// PUBREC came; PUBREL is owed under this packet id.
    Released {
        /// The packet id, of the giver's band.
        packet_id: u16,
    },
}

/// A frame that is not one: the peer speaks another version, or is broken. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No bytes.
    #[error("an empty handover frame")]
    Empty,
    /// Another version.
    #[error("a handover frame of version {0}; this node speaks {VERSION}")]
    Version(u8),
    /// The bytes do not decode.
    #[error("a malformed handover frame: {0}")]
    Malformed(postcard::Error),
}

impl HandoverFrame {
    /// The frame's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        const WRITABLE: &str = "frames hold nothing that postcard cannot encode";
        let shares = self.shares();
        if shares.is_empty() {
            return postcard::to_extend(self, vec![VERSION]).expect(WRITABLE).into();
        }
        let out = postcard::to_extend(self, vec![VERSION_SHARED]).expect(WRITABLE);
        postcard::to_extend(&shares, out).expect(WRITABLE).into()
    }

    /// The places of entries of shared subscriptions, with their filters.
    fn shares(&self) -> Vec<(u32, Arc<str>)> {
        let Body::Entries { entries, .. } = &self.body else { return Vec::new() };
        let places = (0..).zip(entries);
        places.filter_map(|(place, entry)| Some((place, entry.share.clone()?))).collect()
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        match bytes {
            [] => Err(FrameError::Empty),
            [VERSION, body @ ..] => postcard::from_bytes(body).map_err(FrameError::Malformed),
            [VERSION_SHARED, body @ ..] => {
                let (mut frame, rest) =
                    postcard::take_from_bytes::<Self>(body).map_err(FrameError::Malformed)?;
                let shares: Vec<(u32, Arc<str>)> =
                    postcard::from_bytes(rest).map_err(FrameError::Malformed)?;
                if let Body::Entries { entries, .. } = &mut frame.body {
                    for (place, share) in shares {
                        if let Some(entry) = entries.get_mut(place as usize) {
                            entry.share = Some(share);
                        }
                    }
                }
                Ok(frame)
            }
            [version, ..] => Err(FrameError::Version(*version)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back_and_another_version_is_named() {
        let frame = HandoverFrame {
            client: ClientKey::anonymous("v1"),
            fragment: Claim::default(),
            claim: Claim { epoch: 3, node: verge_model::NodeKey(9) },
            body: Body::Pull { after: Cursor { lane: 1, seq: 70 } },
        };
        let bytes = frame.encode();
        assert_eq!(HandoverFrame::decode(&bytes), Ok(frame));
        let mut other = bytes.to_vec();
        other[0] = 9;
        assert_eq!(HandoverFrame::decode(&other), Err(FrameError::Version(9)));
        assert_eq!(HandoverFrame::decode(&[]), Err(FrameError::Empty));
        assert!(matches!(HandoverFrame::decode(&bytes[..5]), Err(FrameError::Malformed(_))));
    }
}
