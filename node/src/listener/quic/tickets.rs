//! TLS sessions that may be resumed: a bounded store of single-use tickets.
//!
//! rustls takes early data (0-RTT) only with tickets that are kept here and not by the client, and
//! takes a ticket out when it is used. So the first flight of a client cannot be replayed at this
//! node; at another node its ticket is unknown, and the client falls back to a full handshake.
//! Tickets are not shared between nodes for that reason.
//!
//! A ticket holds the client's certificate chain, so the store is bounded in bytes too. The oldest
//! tickets make room. A client whose ticket is gone pays a full handshake, nothing else.

use std::collections::VecDeque;
use std::fmt;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use rustls::server::StoresServerSessions;

/// Most tickets: the clients of one node expected back within a day.
pub const TICKETS_MAX: usize = 65_536;

/// Most bytes of tickets: 65,536 of about 500 bytes, which is one without a client certificate.
/// With certificates (1 to 2 KB) it is some 20,000.
pub const TICKET_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What one ticket costs beside its value: its entry in the map, with what is free there, and in
/// the order.
const TICKET_OVERHEAD: usize = 192;

/// A ticket's key, of the size rustls makes them in.
type Key = [u8; 32];

/// The store. One lock: it is taken twice in a handshake, which costs a thousand times more.
pub struct Tickets {
    held: Mutex<Held>,
    count_max: usize,
    bytes_max: usize,
}

/// Keys are random, chosen by rustls; queried ones are a client's, and only compared.
#[derive(Default)]
struct Held {
    values: FxHashMap<Key, (u64, Box<[u8]>)>,
    /// Keys in order of age with the number each was put under; what was taken is skipped.
    order: VecDeque<(u64, Key)>,
    next: u64,
    bytes: usize,
}

impl Tickets {
    /// An empty store.
    #[must_use]
    pub fn new(count_max: usize, bytes_max: usize) -> Self {
        Self { held: Mutex::default(), count_max, bytes_max }
    }

    /// Tickets that may be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.lock().values.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Tickets {
    fn default() -> Self {
        Self::new(TICKETS_MAX, TICKET_BYTES_MAX)
    }
}

impl fmt::Debug for Tickets {
    /// What tickets hold is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Held {
    fn remove(&mut self, key: &Key) -> Option<Box<[u8]>> {
        let (_, value) = self.values.remove(key)?;
        self.bytes -= cost(&value);
        Some(value)
    }

    /// Drops the oldest until the rest fits.
    fn make_room(&mut self, count_max: usize, bytes_max: usize) {
        while self.values.len() > count_max || self.bytes > bytes_max || self.is_littered() {
            let Some((number, key)) = self.order.pop_front() else { return };
            if self.values.get(&key).is_some_and(|(put, _)| *put == number) {
                if self.values.len() <= count_max && self.bytes <= bytes_max {
                    // Only litter was wanted out; this one goes on, at its age.
                    self.order.push_front((number, key));
                    self.order.retain(|(number, key)| {
                        self.values.get(key).is_some_and(|(put, _)| put == number)
                    });
                    return;
                }
                self.remove(&key);
            }
        }
    }

    /// Whether more keys of used tickets are remembered than tickets.
    fn is_littered(&self) -> bool {
        self.order.len() > 2 * self.values.len() + 64
    }
}

fn cost(value: &[u8]) -> usize {
    value.len() + TICKET_OVERHEAD
}

impl StoresServerSessions for Tickets {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let cost = cost(&value);
        let Ok(key) = Key::try_from(key) else { return false };
        if cost > self.bytes_max {
            return false;
        }
        let mut held = self.held.lock();
        held.remove(&key);
        let number = held.next;
        held.next += 1;
        held.bytes += cost;
        held.order.push_back((number, key));
        held.values.insert(key, (number, value.into()));
        held.make_room(self.count_max, self.bytes_max);
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.held.lock().values.get(key).map(|(_, value)| value.to_vec())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let key = Key::try_from(key).ok()?;
        self.held.lock().remove(&key).map(Vec::from)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Vec<u8> {
        number.to_be_bytes().repeat(8)
    }

    #[test]
    fn a_ticket_is_taken_once_security() {
        let tickets = Tickets::new(8, 1 << 20);
        assert!(tickets.put(key(1), b"secret".to_vec()));
        assert_eq!(tickets.take(&key(1)), Some(b"secret".to_vec()));
        assert_eq!(tickets.take(&key(1)), None);
        assert!(tickets.is_empty() && !format!("{tickets:?}").contains("secret"));
    }

    #[test]
    fn the_oldest_make_room_by_count_and_by_bytes_security() {
        let tickets = Tickets::new(4, 1 << 20);
        for number in 0..10 {
            tickets.put(key(number), vec![0; 100]);
        }
        assert_eq!(tickets.len(), 4);
        assert!(tickets.get(&key(5)).is_none() && tickets.get(&key(6)).is_some());

        let tickets = Tickets::new(1_000, 10 * (1_000 + TICKET_OVERHEAD));
        for number in 0..100 {
            tickets.put(key(number), vec![0; 1_000]);
        }
        assert_eq!(tickets.len(), 10);
        assert!(!tickets.put(key(200), vec![0; 1 << 20]), "larger than all of it");
    }

    #[test]
    fn what_was_used_is_not_remembered_for_ever_security() {
        let tickets = Tickets::new(1_000, 1 << 20);
        tickets.put(key(0), vec![1]);
        for number in 1..10_000 {
            tickets.put(key(number), vec![0; 10]);
            assert!(tickets.take(&key(number)).is_some());
        }
        assert_eq!(tickets.get(&key(0)), Some(vec![1]), "an unused one stays");
        let held = tickets.held.lock();
        assert!(held.order.len() < 200, "{}", held.order.len());
        assert_eq!(held.bytes, cost(&[1]));
    }
}
