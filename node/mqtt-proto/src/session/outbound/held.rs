//! What a session holds, counted from what it holds: the other side of the books.

use std::ops::AddAssign;

use verge_model::Class;

use super::{Inflight, Outbound};

/// Messages queued or in flight, by class in the order of [`Class::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// How many.
    pub messages: [u64; Class::ALL.len()],
    /// Their bytes, by [`Message::queue_bytes`](crate::message::Message::queue_bytes); a message
    /// that several sessions are owed counts for each.
    pub bytes: [u64; Class::ALL.len()],
}

impl Held {
    /// Counts `messages` of a class, of `bytes` together.
    pub fn add(&mut self, class: Class, messages: usize, bytes: usize) {
        self.messages[class as usize] += messages as u64;
        self.bytes[class as usize] += bytes as u64;
    }

    /// Messages of all classes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.messages.iter().sum()
    }

    /// Bytes of all classes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.bytes.iter().sum()
    }
}

impl AddAssign for Held {
    fn add_assign(&mut self, other: Self) {
        for (mine, others) in self.messages.iter_mut().zip(other.messages) {
            *mine += others;
        }
        for (mine, others) in self.bytes.iter_mut().zip(other.bytes) {
            *mine += others;
        }
    }
}

impl Outbound {
    /// What is queued or in flight.
    #[must_use]
    pub fn held(&self) -> Held {
        let mut held = Held::default();
        for (_, Inflight { entry, .. }) in self.inflight.iter() {
            held.add(entry.message.class, 1, entry.message.queue_bytes());
        }
        self.lanes.iter().for_each(|lane| held.add(lane.class, lane.len(), lane.bytes()));
        held
    }
}
