//! What slow connections are owed, together: many of them must not cost what one may.
//!
//! ```text
//!  owed together        one connection may be owed
//!  below half of total  queue.output_bytes_high
//!  half of total        OUTPUT_BYTES_LOW     so much a client that reads loses no time by
//!  total                OUTPUT_BYTES_LEAST   a packet or two at a time
//! ```

use rustc_hash::FxHashMap;
use verge_broker_core::shard::api::ConnId;

/// What one connection may be owed where half of the total is in use, in bytes: what a socket of the
/// kernel holds anyhow.
const OUTPUT_BYTES_LOW: usize = 64 * 1024;

/// What one connection may be owed where the total is in use, in bytes.
const OUTPUT_BYTES_LEAST: usize = 4 * 1024;

/// What connections that did not take all they were offered are owed.
#[derive(Debug, Default)]
pub(super) struct Owed {
    // Only those that are slow now.
    by_conn: FxHashMap<ConnId, usize>,
    bytes: usize,
}

impl Owed {
    /// A connection is owed so many bytes now.
    pub(super) fn set(&mut self, id: ConnId, bytes: usize) {
        let before =
            if bytes == 0 { self.by_conn.remove(&id) } else { self.by_conn.insert(id, bytes) };
        self.bytes = self.bytes - before.unwrap_or(0) + bytes;
    }

    /// What one connection may be owed, by what is configured for one and for all together, in bytes.
    pub(super) fn high(&self, one: usize, total: usize) -> usize {
        if self.bytes < total / 2 {
            one
        } else if self.bytes < total {
            one.min(OUTPUT_BYTES_LOW)
        } else {
            one.min(OUTPUT_BYTES_LEAST)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_slow_connections_hold_less_each() {
        const ONE: usize = 1 << 20;
        const TOTAL: usize = 8 << 20;
        let mut owed = Owed::default();
        let mut highs = Vec::new();
        for id in 0..10 {
            owed.set(ConnId(id), 3);
            owed.set(ConnId(id), ONE);
            highs.push(owed.high(ONE, TOTAL));
        }
        let low = [OUTPUT_BYTES_LOW; 4];
        assert_eq!(highs[..3], [ONE; 3]);
        assert_eq!(highs[3..7], low);
        assert_eq!(highs[7..], [OUTPUT_BYTES_LEAST; 3]);
        assert_eq!(owed.high(1_000, TOTAL), 1_000, "never more than is configured");
        (0..10).for_each(|id| owed.set(ConnId(id), 0));
        assert_eq!((owed.bytes, owed.by_conn.len(), owed.high(ONE, TOTAL)), (0, 0, ONE));
    }
}
