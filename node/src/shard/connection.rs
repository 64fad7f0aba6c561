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
//! start of a packet whose end has not arrived.

use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use slab::Slab;
use verge_broker_core::shard::api::ConnId;
use verge_model::Millis;

use crate::listener::Seat;
use crate::listener::transport::Transport;

/// How long a closed connection may take to read its last packet and end its side.
pub(super) const CLOSE_LINGER: Duration = Duration::from_secs(5);

/// Bits of a [`ConnId`] that are the slot in the table: as many connections as ports and addresses
/// of a large site could ever bring to one thread. The rest counts, and never repeats.
const SLOT_BITS: u32 = 24;

/// One connection.
pub(super) struct Connection {
    id: ConnId,
    pub(super) transport: Transport,
    /// The start of a packet, or bytes the core does not take yet.
    pub(super) partial: Vec<u8>,
    /// The connection's task.
    pub(super) waker: Option<Waker>,
    /// The transport took less than there was; its task goes on when it is writable.
    pub(super) write_blocked: bool,
    pub(super) closing: Option<Closing>,
    _seat: Seat,
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
    lingering: std::collections::VecDeque<(Millis, ConnId)>,
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
            partial: bytes,
            waker: None,
            write_blocked: false,
            closing: None,
            _seat: seat,
        });
        id
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.slots.get_mut(slot(id)).filter(|connection| connection.id == id)
    }

    /// Ends a connection; its task ends when it is woken.
    pub(super) fn remove(&mut self, id: ConnId) {
        if self.get_mut(id).is_some() {
            let connection = self.slots.remove(slot(id));
            if let Some(waker) = connection.waker {
                waker.wake();
            }
        }
    }

    /// Lets a connection write its last bytes and end.
    pub(super) fn begin_close(&mut self, id: ConnId, last: Bytes, until: Millis) {
        let Some(connection) = self.get_mut(id) else { return };
        connection.closing = Some(Closing { last, shut_down: false });
        connection.partial = Vec::new();
        if let Some(waker) = &connection.waker {
            waker.wake_by_ref();
        }
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
