//! A connection as its shard's thread keeps it, and the shard's table of them.
//!
//! ```text
//!          arrival                core: Close             written, shut down, peer ended
//!  (new) ──────────▶ Serving ──────────────────▶ Closing ───────────────────────────────▶ (gone)
//!                       │ peer ended, transport broke                or CLOSE_LINGER over  ▲
//!                       └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! An idle connection owns no buffer: it reads into the shard's scratch buffer and keeps only the
//! start of a packet whose end has not arrived. It has no task either: those that are to be looked
//! after are in a queue. Only QUIC's have tasks, since what they wait for wakes tasks.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use slab::Slab;
use verge_broker_core::shard::api::ConnId;
use verge_model::Millis;

use super::owed::Owed;
use crate::listener::Seat;
use crate::listener::transport::Transport;

/// How long a closed connection may take to read its last packet and end its side.
pub(super) const CLOSE_LINGER: Duration = Duration::from_secs(5);

/// Bits of a [`ConnId`] that are the slot in the table: as many connections as ports and addresses
/// of a large site could ever bring to one thread. The rest counts, and never repeats.
const SLOT_BITS: u32 = 24;

/// One connection. What few have at a time is boxed: there may be a hundred thousand.
pub(super) struct Connection {
    id: ConnId,
    pub(super) transport: Transport,
    partial: Option<Box<Partial>>,
    pub(super) closing: Option<Box<Closing>>,
    _seat: Seat,
    /// The transport took less than there was; it goes on when it is writable. Only then it is in
    /// [`Connections::owed`].
    pub(super) write_blocked: bool,
    /// Whether it is in the queue.
    queued: bool,
}

/// The start of a packet, or bytes the core does not take yet.
struct Partial(Vec<u8>);

impl Connection {
    /// Takes the bytes that the core did not.
    pub(super) fn take_partial(&mut self) -> Vec<u8> {
        self.partial.take().map_or_else(Vec::new, |partial| partial.0)
    }

    /// Keeps bytes for the core, if there are any.
    pub(super) fn keep_partial(&mut self, bytes: Vec<u8>) {
        self.partial = (!bytes.is_empty()).then(|| Box::new(Partial(bytes)));
    }

    /// Whether the core left bytes.
    pub(super) fn has_partial(&self) -> bool {
        self.partial.is_some()
    }
}

/// The end of a connection the core has forgotten.
#[derive(Debug)]
pub(super) struct Closing {
    /// What is still to be written.
    pub(super) last: Bytes,
    /// Whether this side's half has ended.
    pub(super) shut_down: bool,
}

/// The connections of a shard.
#[derive(Default)]
pub(super) struct Connections {
    slots: Slab<Connection>,
    /// Connections there were.
    count: u64,
    /// Connections being closed, oldest first, and until when.
    lingering: VecDeque<(Millis, ConnId)>,
    /// Those to be looked after.
    queue: VecDeque<ConnId>,
    /// What slow ones are owed.
    pub(super) owed: Owed,
    /// What events of a connection are logged in, where anybody asks for it.
    spans: FxHashMap<ConnId, tracing::Span>,
}

impl Connections {
    /// Puts a new connection into the table.
    pub(super) fn insert(&mut self, transport: Transport, bytes: Vec<u8>, seat: Seat) -> ConnId {
        let entry = self.slots.vacant_entry();
        let slot = u64::try_from(entry.key()).expect("addresses have at most 64 bits");
        assert!(slot < 1 << SLOT_BITS, "listeners bound their connections far below");
        self.count += 1;
        let id = ConnId(self.count << SLOT_BITS | slot);
        entry.insert(Connection {
            id,
            transport,
            partial: (!bytes.is_empty()).then(|| Box::new(Partial(bytes))),
            closing: None,
            _seat: seat,
            write_blocked: false,
            queued: false,
        });
        id
    }

    /// Events of this connection are logged in this span.
    pub(super) fn set_span(&mut self, id: ConnId, span: tracing::Span) {
        self.spans.insert(id, span);
    }

    /// What events of this connection are logged in.
    pub(super) fn span(&self, id: ConnId) -> tracing::Span {
        if self.spans.is_empty() {
            return tracing::Span::none();
        }
        self.spans.get(&id).cloned().unwrap_or_else(tracing::Span::none)
    }

    /// Lets a connection be looked after: soon, by its task or by the queue.
    pub(super) fn wake(&mut self, id: ConnId) {
        let Some(connection) = self.slots.get_mut(slot(id)).filter(|c| c.id == id) else { return };
        match &connection.transport {
            Transport::Quic(transport) => transport.wake(),
            Transport::Tcp(_) | Transport::Tls(_) | Transport::Ws(_) | Transport::Wss(_) => {
                if !std::mem::replace(&mut connection.queued, true) {
                    self.queue.push_back(id);
                }
            }
        }
    }

    /// How many are to be looked after.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The next to be looked after.
    pub(super) fn next_queued(&mut self) -> Option<ConnId> {
        let id = self.queue.pop_front()?;
        if let Some(connection) = self.get_mut(id) {
            connection.queued = false;
        }
        Some(id)
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.slots.get_mut(slot(id)).filter(|connection| connection.id == id)
    }

    /// Ends a connection.
    pub(super) fn remove(&mut self, id: ConnId) {
        if self.get_mut(id).is_some() {
            // A QUIC connection's task ends when it is woken, which its transport's end does.
            let connection = self.slots.remove(slot(id));
            if connection.write_blocked {
                self.owed.set(id, 0);
            }
            if !self.spans.is_empty() {
                self.spans.remove(&id);
            }
        }
    }

    /// Lets a connection write its last bytes and end.
    pub(super) fn begin_close(&mut self, id: ConnId, last: Bytes, until: Millis) {
        let Some(connection) = self.get_mut(id) else { return };
        connection.closing = Some(Box::new(Closing { last, shut_down: false }));
        connection.partial = None;
        self.wake(id);
        self.lingering.push_back((until, id));
    }

    /// Drops connections that lingered too long.
    pub(super) fn end_lingering(&mut self, now: Millis) {
        while let Some((until, id)) = self.lingering.front().copied() {
            if until > now && self.get_mut(id).is_some() {
                break;
            }
            self.lingering.pop_front();
            self.remove(id);
        }
    }

    /// When [`Connections::end_lingering`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.lingering.front().map(|(until, _)| *until)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

fn slot(id: ConnId) -> usize {
    (id.0 & ((1 << SLOT_BITS) - 1)) as usize
}
