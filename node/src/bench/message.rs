//! What a payload says of its message, and the book that proves each came once, in order.

/// Bytes at the head of every payload.
pub(super) const HEADER_BYTES: usize = 24;

/// The name of a message, carried in its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Which run of the benchmark.
    pub(super) run: u32,
    /// Which publisher.
    pub(super) publisher: u32,
    /// Its place among the publisher's messages, from 0.
    pub(super) seq: u64,
    /// When it was due (open loop) or written (closed loop), in nanoseconds.
    pub(super) due: u64,
}

impl Header {
    /// As bytes.
    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.run.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.publisher.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.seq.to_be_bytes());
        bytes[16..].copy_from_slice(&self.due.to_be_bytes());
        bytes
    }

    /// From a payload; what follows it is the filling.
    pub(super) fn split(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (head, filling) = payload.split_first_chunk::<HEADER_BYTES>()?;
        let half = |at: usize| head[at..at + 4].try_into().map(u32::from_be_bytes).ok();
        let whole = |at: usize| head[at..at + 8].try_into().map(u64::from_be_bytes).ok();
        let header = Self { run: half(0)?, publisher: half(4)?, seq: whole(8)?, due: whole(16)? };
        Some((header, filling))
    }
}

/// What follows the header in a payload of this size; every byte is compared on arrival.
pub(super) fn filling(payload_bytes: usize) -> Vec<u8> {
    let count = payload_bytes.saturating_sub(HEADER_BYTES);
    (0..count).map(|at| (at * 197 + 11) as u8).collect()
}

/// Bytes that no compression makes smaller, another sequence for each name.
pub(super) fn fill_with_noise(header: Header, bytes: &mut [u8]) {
    let name = u64::from(header.run) << 32 | u64::from(header.publisher);
    let mut state = name ^ header.seq.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for chunk in bytes.chunks_mut(8) {
        // splitmix64
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        chunk.copy_from_slice(&(mixed ^ mixed >> 31).to_be_bytes()[..chunk.len()]);
    }
}

/// What an arrival is to its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Greater than all before.
    Next,
    /// Missed before, and here now.
    Late,
    /// Here before.
    Again,
}

/// Arrivals of one publisher's messages at one receiver: a subscriber, or a shared group.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// One more than the greatest seen.
    next: u64,
    /// What was passed over, as half-open ranges in order.
    missed: Vec<(u64, u64)>,
}

impl Stream {
    /// Notes an arrival.
    pub(super) fn note(&mut self, seq: u64) -> Arrival {
        if seq >= self.next {
            if seq > self.next {
                self.missed.push((self.next, seq));
            }
            self.next = seq + 1;
            return Arrival::Next;
        }
        let at = self.missed.partition_point(|range| range.1 <= seq);
        let Some(&(start, end)) = self.missed.get(at).filter(|range| range.0 <= seq) else {
            return Arrival::Again;
        };
        let rest = [(start, seq), (seq + 1, end)];
        self.missed.splice(at..=at, rest.into_iter().filter(|range| range.0 < range.1));
        Arrival::Late
    }

    /// How many of the first `sent` have not arrived.
    pub(super) fn lost(&self, sent: u64) -> u64 {
        let missed: u64 = self.missed.iter().map(|(start, end)| end - start).sum();
        sent.saturating_sub(self.next) + missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_as_it_was_written() {
        let header = Header { run: 1, publisher: 2, seq: 3, due: u64::MAX };
        let mut payload = header.to_bytes().to_vec();
        payload.extend(filling(30));
        assert_eq!(Header::split(&payload), Some((header, &filling(30)[..])));
        assert_eq!(Header::split(&payload[..23]), None);
    }

    #[test]
    fn what_is_lost_late_or_doubled_is_seen() {
        let mut stream = Stream::default();
        assert_eq!(stream.note(0), Arrival::Next);
        assert_eq!(stream.note(5), Arrival::Next);
        assert_eq!(stream.lost(8), 6);
        assert_eq!(stream.note(3), Arrival::Late);
        assert_eq!([stream.note(3), stream.note(0)], [Arrival::Again; 2]);
        assert_eq!([stream.note(1), stream.note(2), stream.note(4)], [Arrival::Late; 3]);
        assert_eq!(stream.lost(6), 0);
    }
}
