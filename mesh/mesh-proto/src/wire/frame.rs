//! Every frame, its number and its body.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use verge_model::{Claim, Class, ClientKey, Incarnation, NodeKey};

use super::hello::{Hello, RouteHead};
use crate::limits::FRAME_BYTES_MAX;

/// What travels on a link. The numbers are on the wire: never re-use one.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// 1: the greeting.
    Hello(Hello),
    /// 2: consecutive route operations of the sender.
    RouteOps(RouteOps),
    /// 3: part of a snapshot of the sender's routes.
    RouteChunk(RouteChunk),
    /// 4: the receiver's route operations are durable here up to a head.
    RouteAck(RouteAck),
    /// 5: a snapshot chunk arrived.
    RouteChunkAck(RouteChunkAck),
    /// 6: the receiver's operations do not follow what is known here.
    RouteResync(RouteResync),
    /// 7: merge this registry entry.
    RegistryPut(RegistryPut),
    /// 8: a put is merged and durable.
    RegistryAck(RegistryAck),
    /// 9: a session of the receiver has a greater claim.
    Superseded(Superseded),
    /// 10: what do you know of this session?
    LookupAsk(LookupAsk),
    /// 11: this.
    LookupReply(LookupReply),
    /// 12: digests of the registry groups both are homes of.
    GroupDigests(GroupDigests),
    /// 13: digests of a differing group's buckets.
    BucketDigests(BucketDigests),
    /// 14: keys and digests of a differing bucket's entries.
    BucketKeys(BucketKeys),
    /// 15: which entries the sender of the keys is to send.
    RepairWants(RepairWants),
    /// 16: entries to merge.
    RepairEntries(RepairEntries),
    /// 17: one message.
    Forward(Forward),
    /// 18: custody of messages.
    ForwardAck(ForwardAck),
    /// 19: the handover protocol's.
    Handover(Bytes),
    /// 20: the uplink protocol's.
    Uplink(Bytes),
    /// 21: the sender leaves the mesh.
    Leaving,
    /// 22: a session ended everywhere; its entry may go.
    RegistryForget(RegistryForget),
    /// 23: a message that nobody keeps (QoS 0): it goes now or never.
    Transient(Bytes),
    /// 24: the receiver is suspected to be dead; an update of SWIM's.
    Suspected(Bytes),
    /// 25: a SWIM packet that must not be lost.
    Swim(Bytes),
    /// 26: say when all you owe me from before you had your routes has reached me.
    FlushAsk,
    /// 27: it has.
    FlushDone(FlushDone),
}

/// Operations `first`, `first + 1`, … of one life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteOps {
    /// The sender's life.
    pub incarnation: Incarnation,
    /// The sequence of the first operation.
    pub first: u64,
    /// The operations.
    pub changes: Vec<RouteChange>,
}

/// One route operation. Its dot is (incarnation, sequence).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteChange {
    /// The origin wants messages matching the filter.
    Add(String),
    /// The origin does not want them any more.
    Remove {
        /// The filter.
        filter: String,
        /// The sequence of the addition it takes back.
        added: u64,
    },
}

/// Part of a snapshot: applied as a whole when the last part is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChunk {
    /// The head from which operations will follow.
    pub head: RouteHead,
    /// 0 for the first part, and so on.
    pub index: u64,
    /// Whether this is the last part.
    pub last: bool,
    /// Filters and the sequences of their additions.
    pub routes: Vec<(String, u64)>,
}

/// Durable up to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteAck {
    /// The head.
    pub head: RouteHead,
}

/// A chunk is staged; the sender may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChunkAck {
    /// The snapshot.
    pub head: RouteHead,
    /// The chunk.
    pub index: u64,
}

/// Start again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteResync {
    /// What is known; `None`: nothing.
    pub head: Option<RouteHead>,
}

/// Merge an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryPut {
    /// The sender's name for this state of the entry.
    pub id: u64,
    /// The entry.
    pub item: RegistryItem,
}

/// A registry entry on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryItem {
    /// Whose session.
    pub client: ClientKey,
    /// The entry, encoded.
    pub entry: Bytes,
}

/// Merged and durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryAck {
    /// The put.
    pub id: u64,
    /// Whose session.
    pub client: ClientKey,
    /// The owner's claim after the merge.
    pub winner: Claim,
    /// Whether that owner started clean.
    pub clean: bool,
}

/// A greater claim is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superseded {
    /// Whose session.
    pub client: ClientKey,
    /// The greatest claim.
    pub winner: Claim,
    /// Whether that owner started clean.
    pub clean: bool,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupAsk {
    /// The asker's name for it.
    pub id: u64,
    /// Whose session.
    pub client: ClientKey,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupReply {
    /// The asker's name for it.
    pub id: u64,
    /// The entry, encoded; `None`: not known here.
    pub entry: Option<Bytes>,
}

/// The first question of a repair round. The answer covers the first differing groups from `from`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDigests {
    /// The first group of interest.
    pub from: u8,
    /// Groups both are homes of and their digests, by group.
    pub groups: Vec<(u8, [u8; 8])>,
}

/// The second: buckets of one differing group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketDigests {
    /// The group.
    pub group: u8,
    /// Buckets that hold anything, by bucket.
    pub buckets: Vec<(u8, [u8; 8])>,
    /// Where the next round starts, in the last frame of a round that left differing groups out.
    pub next: Option<u8>,
}

/// The third: what one differing bucket holds at the sender. A bucket may take several frames: each
/// tells of the keys from `from` to `to`, hashes included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketKeys {
    /// First key hash covered.
    pub from: u64,
    /// Last key hash covered.
    pub to: u64,
    /// Hash of each client and digest of its entry, by hash.
    pub keys: Vec<([u8; 8], [u8; 8])>,
}

/// The fourth: entries the sender lacks or has otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairWants {
    /// Hashes of their clients.
    pub keys: Vec<[u8; 8]>,
}

/// Entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairEntries {
    /// The entries.
    pub items: Vec<RegistryItem>,
}

/// Drop an ended session's entry, if it is the same there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryForget {
    /// Whose session.
    pub client: ClientKey,
    /// The digest of the entry.
    pub digest: [u8; 8],
}

/// One message of the sender's log for the receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The class, and so the log.
    pub class: Class,
    /// The place in the log.
    pub seq: u64,
    /// The record.
    pub record: Bytes,
}

/// Everything up to `last` of the receiver's log is durable at the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardAck {
    /// The class.
    pub class: Class,
    /// Which log.
    pub log_id: u64,
    /// The last sequence.
    pub last: u64,
}

/// Whatever the sender planned before it had routes up to these heads, durably, is in the
/// receiver's custody, as far as it is the receiver's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlushDone {
    /// How far the sender has each origin's routes, its own among them.
    pub heads: Vec<(NodeKey, RouteHead)>,
}

/// Why bytes are no frame. The peer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// No bytes.
    #[error("a frame is empty")]
    Empty,
    /// More than [`FRAME_BYTES_MAX`].
    #[error("a frame has {0} bytes, more than {FRAME_BYTES_MAX}")]
    TooLarge(usize),
    /// The body does not follow its kind.
    #[error("a frame of kind {kind} is malformed: {detail}")]
    Malformed {
        /// The kind byte.
        kind: u8,
        /// What is wrong.
        detail: String,
    },
}

const HELLO: u8 = 1;
const ROUTE_OPS: u8 = 2;
const ROUTE_CHUNK: u8 = 3;
const ROUTE_ACK: u8 = 4;
const ROUTE_CHUNK_ACK: u8 = 5;
const ROUTE_RESYNC: u8 = 6;
const REGISTRY_PUT: u8 = 7;
const REGISTRY_ACK: u8 = 8;
const SUPERSEDED: u8 = 9;
const LOOKUP_ASK: u8 = 10;
const LOOKUP_REPLY: u8 = 11;
const GROUP_DIGESTS: u8 = 12;
const BUCKET_DIGESTS: u8 = 13;
const BUCKET_KEYS: u8 = 14;
const REPAIR_WANTS: u8 = 15;
const REPAIR_ENTRIES: u8 = 16;
const FORWARD: u8 = 17;
const FORWARD_ACK: u8 = 18;
const HANDOVER: u8 = 19;
const UPLINK: u8 = 20;
const LEAVING: u8 = 21;
const REGISTRY_FORGET: u8 = 22;
const TRANSIENT: u8 = 23;
const SUSPECTED: u8 = 24;
const SWIM: u8 = 25;
const FLUSH_ASK: u8 = 26;
const FLUSH_DONE: u8 = 27;

/// Kind, class and sequence.
const FORWARD_HEADER: usize = 1 + 1 + 8;

impl Frame {
    /// The bytes of the frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Hello(body) => encode(HELLO, body),
            Self::RouteOps(body) => encode(ROUTE_OPS, body),
            Self::RouteChunk(body) => encode(ROUTE_CHUNK, body),
            Self::RouteAck(body) => encode(ROUTE_ACK, body),
            Self::RouteChunkAck(body) => encode(ROUTE_CHUNK_ACK, body),
            Self::RouteResync(body) => encode(ROUTE_RESYNC, body),
            Self::RegistryPut(body) => encode(REGISTRY_PUT, body),
            Self::RegistryAck(body) => encode(REGISTRY_ACK, body),
            Self::Superseded(body) => encode(SUPERSEDED, body),
            Self::LookupAsk(body) => encode(LOOKUP_ASK, body),
            Self::LookupReply(body) => encode(LOOKUP_REPLY, body),
            Self::GroupDigests(body) => encode(GROUP_DIGESTS, body),
            Self::BucketDigests(body) => encode(BUCKET_DIGESTS, body),
            Self::BucketKeys(body) => encode(BUCKET_KEYS, body),
            Self::RepairWants(body) => encode(REPAIR_WANTS, body),
            Self::RepairEntries(body) => encode(REPAIR_ENTRIES, body),
            Self::Forward(Forward { class, seq, record }) => {
                let mut out = BytesMut::with_capacity(FORWARD_HEADER + record.len());
                out.put_u8(FORWARD);
                out.put_u8(*class as u8);
                out.put_u64(*seq);
                out.put_slice(record);
                out.freeze()
            }
            Self::ForwardAck(body) => encode(FORWARD_ACK, body),
            Self::Handover(body) => raw(HANDOVER, body),
            Self::Uplink(body) => raw(UPLINK, body),
            Self::Transient(body) => raw(TRANSIENT, body),
            Self::Suspected(body) => raw(SUSPECTED, body),
            Self::Swim(body) => raw(SWIM, body),
            Self::Leaving => Bytes::from_static(&[LEAVING]),
            Self::FlushAsk => Bytes::from_static(&[FLUSH_ASK]),
            Self::FlushDone(body) => encode(FLUSH_DONE, body),
            Self::RegistryForget(body) => encode(REGISTRY_FORGET, body),
        }
    }

    /// The inverse of [`Frame::encode`]; `None` if this version does not know the kind.
    ///
    /// # Errors
    /// The bytes are no frame.
    pub fn decode(mut bytes: Bytes) -> Result<Option<Self>, WireError> {
        if bytes.is_empty() {
            return Err(WireError::Empty);
        }
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(WireError::TooLarge(bytes.len()));
        }
        let kind = bytes.get_u8();
        let frame = match kind {
            HELLO => Self::Hello(decode(kind, &bytes)?),
            ROUTE_OPS => Self::RouteOps(decode(kind, &bytes)?),
            ROUTE_CHUNK => Self::RouteChunk(decode(kind, &bytes)?),
            ROUTE_ACK => Self::RouteAck(decode(kind, &bytes)?),
            ROUTE_CHUNK_ACK => Self::RouteChunkAck(decode(kind, &bytes)?),
            ROUTE_RESYNC => Self::RouteResync(decode(kind, &bytes)?),
            REGISTRY_PUT => Self::RegistryPut(decode(kind, &bytes)?),
            REGISTRY_ACK => Self::RegistryAck(decode(kind, &bytes)?),
            SUPERSEDED => Self::Superseded(decode(kind, &bytes)?),
            LOOKUP_ASK => Self::LookupAsk(decode(kind, &bytes)?),
            LOOKUP_REPLY => Self::LookupReply(decode(kind, &bytes)?),
            GROUP_DIGESTS => Self::GroupDigests(decode(kind, &bytes)?),
            BUCKET_DIGESTS => Self::BucketDigests(decode(kind, &bytes)?),
            BUCKET_KEYS => Self::BucketKeys(decode(kind, &bytes)?),
            REPAIR_WANTS => Self::RepairWants(decode(kind, &bytes)?),
            REPAIR_ENTRIES => Self::RepairEntries(decode(kind, &bytes)?),
            FORWARD => {
                let malformed = |detail: &str| WireError::Malformed { kind, detail: detail.into() };
                if bytes.len() < FORWARD_HEADER - 1 {
                    return Err(malformed("it ends within its header"));
                }
                let class =
                    Class::from_u8(bytes.get_u8()).ok_or_else(|| malformed("unknown class"))?;
                let seq = bytes.get_u64();
                Self::Forward(Forward { class, seq, record: bytes })
            }
            FORWARD_ACK => Self::ForwardAck(decode(kind, &bytes)?),
            HANDOVER => Self::Handover(bytes),
            UPLINK => Self::Uplink(bytes),
            TRANSIENT => Self::Transient(bytes),
            SUSPECTED => Self::Suspected(bytes),
            SWIM => Self::Swim(bytes),
            LEAVING => Self::Leaving,
            FLUSH_ASK => Self::FlushAsk,
            FLUSH_DONE => Self::FlushDone(decode(kind, &bytes)?),
            REGISTRY_FORGET => Self::RegistryForget(decode(kind, &bytes)?),
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }

    /// Whether a record of `len` bytes fits a [`Frame::Forward`].
    #[must_use]
    pub fn carries(len: usize) -> bool {
        len <= FRAME_BYTES_MAX - FORWARD_HEADER
    }
}

fn encode(kind: u8, body: &impl Serialize) -> Bytes {
    postcard::to_extend(body, vec![kind])
        .expect("frames hold only what postcard can write, into memory that grows")
        .into()
}

fn raw(kind: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + body.len());
    out.put_u8(kind);
    out.put_slice(body);
    out.freeze()
}

fn decode<T: DeserializeOwned>(kind: u8, bytes: &[u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(bytes) {
        Ok((body, _later_fields)) => Ok(body),
        Err(error) => Err(WireError::Malformed { kind, detail: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let head = RouteHead { incarnation: 2, seq: 9 };
        let client = ClientKey::anonymous("obu-1");
        let winner = Claim { epoch: 3, node: "b".parse::<verge_model::NodeId>().unwrap().key() };
        let item = RegistryItem { client: client.clone(), entry: Bytes::from_static(b"e") };
        vec![
            Frame::RouteOps(RouteOps {
                incarnation: 2,
                first: 8,
                changes: vec![
                    RouteChange::Add("a/#".into()),
                    RouteChange::Remove { filter: "b".into(), added: 3 },
                ],
            }),
            Frame::RouteChunk(RouteChunk {
                head,
                index: 0,
                last: true,
                routes: vec![("a".into(), 1)],
            }),
            Frame::RouteAck(RouteAck { head }),
            Frame::RouteChunkAck(RouteChunkAck { head, index: 4 }),
            Frame::RouteResync(RouteResync { head: None }),
            Frame::RegistryPut(RegistryPut { id: 1, item: item.clone() }),
            Frame::RegistryAck(RegistryAck { id: 1, client: client.clone(), winner, clean: true }),
            Frame::Superseded(Superseded { client: client.clone(), winner, clean: false }),
            Frame::RegistryForget(RegistryForget { client: client.clone(), digest: [3; 8] }),
            Frame::LookupAsk(LookupAsk { id: 5, client }),
            Frame::LookupReply(LookupReply { id: 5, entry: None }),
            Frame::GroupDigests(GroupDigests { from: 0, groups: vec![(255, [1; 8])] }),
            Frame::BucketDigests(BucketDigests {
                group: 255,
                buckets: vec![(3, [4; 8])],
                next: None,
            }),
            Frame::BucketKeys(BucketKeys { from: 0, to: u64::MAX, keys: vec![([0; 8], [2; 8])] }),
            Frame::RepairWants(RepairWants { keys: vec![[7; 8]] }),
            Frame::RepairEntries(RepairEntries { items: vec![item] }),
            Frame::Forward(Forward {
                class: Class::Safety,
                seq: 1 << 40,
                record: Bytes::from_static(b"denm"),
            }),
            Frame::ForwardAck(ForwardAck { class: Class::Bulk, log_id: 77, last: 12 }),
            Frame::Handover(Bytes::from_static(b"takeover")),
            Frame::Uplink(Bytes::from_static(b"batch")),
            Frame::Transient(Bytes::from_static(b"message")),
            Frame::Suspected(Bytes::from_static(b"update")),
            Frame::Swim(Bytes::from_static(b"packet")),
            Frame::Leaving,
            Frame::FlushAsk,
            Frame::FlushDone(FlushDone { heads: vec![(winner.node, head)] }),
        ]
    }

    #[test]
    fn frames_decode_to_what_was_encoded() {
        for frame in frames() {
            assert_eq!(Frame::decode(frame.encode()), Ok(Some(frame)));
        }
    }

    #[test]
    fn unknown_kinds_are_skipped_and_later_fields_ignored() {
        assert_eq!(Frame::decode(Bytes::from_static(&[250, 1, 2])), Ok(None));
        let ack = Frame::ForwardAck(ForwardAck { class: Class::Bulk, log_id: 7, last: 1 });
        let longer = [&ack.encode()[..], b"field of version 2"].concat();
        assert_eq!(Frame::decode(longer.into()), Ok(Some(ack)));
    }

    #[test]
    fn broken_bytes_are_refused_without_panic() {
        assert_eq!(Frame::decode(Bytes::new()), Err(WireError::Empty));
        for frame in frames() {
            let bytes = frame.encode();
            for len in 1..bytes.len() {
                let _ = Frame::decode(bytes.slice(..len));
            }
        }
        let forward = Bytes::from_static(&[FORWARD, 9, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(matches!(Frame::decode(forward), Err(WireError::Malformed { kind: FORWARD, .. })));
    }
}
