//! Which acknowledgements are covered by a commit.
//!
//! What a client asked for in a turn is covered by the batch that turn handed out. An answer that
//! leaves before that batch is committed is a lie, whether or not a crash happens to expose it.

use std::collections::{BTreeMap, BTreeSet};

use verge_broker_core::shard::api::{ConnId, Ticket};
use verge_mqtt_proto::{AckKind, DecodeLimits, Packet, ProtocolVersion, QoS, ReasonCode, decode};
use verge_storage::{MemoryStore, StoreRows as _};

/// A question of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    Connect,
    Subscribe(u16),
    Publish(u16),
    Pubrel(u16),
}

/// What is asked and not yet answered.
#[derive(Debug, Default)]
pub(crate) struct Honesty {
    versions: BTreeMap<ConnId, ProtocolVersion>,
    /// Questions of the turn under way, by shard.
    turn: Vec<Vec<(ConnId, Asked)>>,
    /// QoS 2 messages first sent on this connection and not yet released.
    fresh: BTreeSet<(ConnId, u16)>,
    needs: BTreeMap<(ConnId, Asked), (usize, Ticket)>,
    committed: Vec<Ticket>,
    /// Bytes written and not yet read as whole packets.
    partial: BTreeMap<ConnId, Vec<u8>>,
}

impl Honesty {
    /// For this many shards.
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            turn: vec![Vec::new(); shards],
            committed: vec![Ticket(0); shards],
            ..Self::default()
        }
    }

    /// A shard consumed these bytes of a client.
    pub(crate) fn consumed(&mut self, shard: usize, conn: ConnId, mut bytes: &[u8]) {
        let limits = DecodeLimits::default();
        loop {
            let version = self.versions.get(&conn).copied().unwrap_or(ProtocolVersion::V5);
            let Ok(Some((packet, size))) = decode(bytes, version, &limits) else { return };
            bytes = &bytes[size..];
            let asked = match packet {
                Packet::Connect(connect) => {
                    self.versions.insert(conn, connect.version);
                    Asked::Connect
                }
                Packet::Subscribe(subscribe) => Asked::Subscribe(subscribe.packet_id.get()),
                Packet::Publish(publish) => match publish.packet_id {
                    // What comes again may have been stored long before.
                    Some(id) if !publish.dup => {
                        self.fresh.insert((conn, id.get()));
                        Asked::Publish(id.get())
                    }
                    Some(_) | None => continue,
                },
                Packet::Ack(ack) if ack.kind == AckKind::Pubrel => {
                    let id = ack.packet_id.get();
                    if !self.fresh.remove(&(conn, id)) {
                        continue;
                    }
                    Asked::Pubrel(id)
                }
                Packet::Unsubscribe(_)
                | Packet::Pingreq
                | Packet::Disconnect(_)
                | Packet::Auth(_)
                | Packet::Ack(_)
                | Packet::Connack(_)
                | Packet::Suback(_)
                | Packet::Unsuback(_)
                | Packet::Pingresp => continue,
            };
            self.turn[shard].push((conn, asked));
        }
    }

    /// The turn's batch, if it had one.
    pub(crate) fn turn_ended(&mut self, shard: usize, ticket: Option<Ticket>) {
        for asked in std::mem::take(&mut self.turn[shard]) {
            match ticket {
                Some(ticket) => self.needs.insert(asked, (shard, ticket)),
                None => self.needs.remove(&asked),
            };
        }
    }

    /// A batch is committed.
    pub(crate) fn committed(&mut self, shard: usize, ticket: Ticket) {
        self.committed[shard] = self.committed[shard].max(ticket);
    }

    /// A shard writes to a client; says what it may not say yet, and which ids of QoS 2 messages
    /// must be stored by now.
    pub(crate) fn written(&mut self, conn: ConnId, bytes: &[u8]) -> (Vec<String>, Vec<Stored>) {
        let Some(version) = self.versions.get(&conn).copied() else {
            return (Vec::new(), Vec::new());
        };
        let mut partial = self.partial.remove(&conn).unwrap_or_default();
        partial.extend_from_slice(bytes);
        let (mut lies, mut stored) = (Vec::new(), Vec::new());
        let mut at = 0;
        let limits = DecodeLimits::default();
        while let Ok(Some((packet, size))) = decode(&partial[at..], version, &limits) {
            at += size;
            let asked = match &packet {
                Packet::Connack(ack) if ack.reason == ReasonCode::Success => Asked::Connect,
                Packet::Suback(ack) => Asked::Subscribe(ack.packet_id.get()),
                Packet::Ack(ack) => match ack.kind {
                    AckKind::Puback | AckKind::Pubrec => Asked::Publish(ack.packet_id.get()),
                    AckKind::Pubcomp => Asked::Pubrel(ack.packet_id.get()),
                    AckKind::Pubrel if ack.reason.is_error() => continue,
                    AckKind::Pubrel => {
                        stored.push(Stored { id: ack.packet_id.get(), released: true });
                        continue;
                    }
                },
                Packet::Publish(publish) if publish.qos == QoS::ExactlyOnce => {
                    let id = publish.packet_id.map_or(0, |id| id.get());
                    stored.push(Stored { id, released: false });
                    continue;
                }
                Packet::Publish(_)
                | Packet::Connack(_)
                | Packet::Unsuback(_)
                | Packet::Pingresp
                | Packet::Disconnect(_)
                | Packet::Auth(_)
                | Packet::Connect(_)
                | Packet::Subscribe(_)
                | Packet::Unsubscribe(_)
                | Packet::Pingreq => continue,
            };
            if let Some((shard, ticket)) = self.needs.get(&(conn, asked))
                && self.committed[*shard] < *ticket
            {
                lies.push(format!("{conn:?} {packet:?} before {ticket:?}"));
            }
        }
        partial.drain(..at);
        if !partial.is_empty() {
            self.partial.insert(conn, partial);
        }
        (lies, stored)
    }
}

/// A packet id the client is told of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    id: u16,
    released: bool,
}

impl Stored {
    /// Whether the store knows the id as the client now does.
    pub(crate) fn is_in(self, store: &MemoryStore) -> bool {
        store.inflight_all().any(|row| {
            row.is_ok_and(|(_, record)| {
                record.packet_id == self.id && (record.released || !self.released)
            })
        })
    }
}
