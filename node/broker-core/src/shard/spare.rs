//! Memory for output, lent to connections that have something to write: most have nothing, and own
//! no buffer then.

use bytes::BytesMut;

/// Buffers kept for the next connections; what one turn uses again while it is still in the cache.
const SPARE_MAX: usize = 64;

/// Largest buffer kept, in bytes: with [`SPARE_MAX`] of them, 4 MiB.
const SPARE_BYTES_MAX: usize = 64 * 1024;

/// Room a new buffer has: a batch of small packets.
const ROOM_BYTES: usize = 4 * 1024;

/// Buffers nobody uses now.
#[derive(Debug, Default)]
pub(super) struct Spare(Vec<BytesMut>);

impl Spare {
    /// Makes sure that `out`, which is about to be written to, has a buffer.
    pub(super) fn lend(&mut self, out: &mut BytesMut) {
        if out.capacity() == 0 {
            *out = self.0.pop().unwrap_or_else(|| BytesMut::with_capacity(ROOM_BYTES));
        }
    }

    /// Takes the buffer of an output, if there is nothing in it.
    pub(super) fn take_back(&mut self, out: &mut BytesMut) {
        if !out.is_empty() {
            return;
        }
        let mut buffer = std::mem::take(out);
        if self.0.len() < SPARE_MAX && (ROOM_BYTES..=SPARE_BYTES_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_in_number_and_size() {
        let mut spare = Spare::default();
        for size in (0..4 * SPARE_MAX).map(|count| count * 1024) {
            let mut out = BytesMut::with_capacity(size);
            spare.take_back(&mut out);
            assert_eq!(out.capacity(), 0);
        }
        assert_eq!(spare.0.len(), 61, "those of 4 to 64 KiB");
        for _ in 0..2 * SPARE_MAX {
            spare.take_back(&mut BytesMut::with_capacity(ROOM_BYTES));
        }
        assert_eq!(spare.0.len(), SPARE_MAX);
        let mut out = BytesMut::new();
        spare.lend(&mut out);
        assert_eq!((out.len(), out.capacity() >= ROOM_BYTES, spare.0.len()), (0, true, 63));
    }
}
