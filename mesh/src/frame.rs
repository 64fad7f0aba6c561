//! Frames on a lane's stream: the lane's number once, then per frame a `u32` length (little endian)
//! and that many bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::config::FRAME_BYTES_MAX;

/// Bytes of a frame's length.
pub(crate) const LENGTH_BYTES: usize = 4;

/// Frames up to this size are copied together into one write; a larger one is handed on as it is.
const COALESCE_BYTES_MAX: usize = 4 << 10;

/// The peer announced a frame longer than [`FRAME_BYTES_MAX`]. The stream cannot be read further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes is announced, at most {FRAME_BYTES_MAX} are taken")]
pub(crate) struct FrameTooLong(usize);

/// Cuts a lane's bytes into frames.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Takes bytes from the stream.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether nothing is left of a frame.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole frame.
    pub(crate) fn poll_frame(&mut self) -> Result<Option<Bytes>, FrameTooLong> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameTooLong(length));
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// Writes frames as a few large chunks.
pub(crate) fn encode(frames: &[Bytes], prefix: &[u8]) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut small = BytesMut::with_capacity(coalesced_bytes(frames) + prefix.len());
    small.put_slice(prefix);
    for frame in frames {
        let length = u32::try_from(frame.len()).expect("frames are bounded by FRAME_BYTES_MAX");
        small.put_u32_le(length);
        if frame.len() <= COALESCE_BYTES_MAX {
            small.put_slice(frame);
        } else {
            chunks.push(small.split().freeze());
            chunks.push(frame.clone());
        }
    }
    if !small.is_empty() {
        chunks.push(small.freeze());
    }
    chunks
}

fn coalesced_bytes(frames: &[Bytes]) -> usize {
    let copied = |frame: &Bytes| if frame.len() <= COALESCE_BYTES_MAX { frame.len() } else { 0 };
    frames.iter().map(|frame| LENGTH_BYTES + copied(frame)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_in_steps(bytes: &[u8], step: usize) -> Vec<Bytes> {
        let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
        for part in bytes.chunks(step) {
            decoder.push(part);
            while let Some(frame) = decoder.poll_frame().unwrap() {
                frames.push(frame);
            }
        }
        assert!(decoder.is_empty());
        frames
    }

    #[test]
    fn frames_survive_any_cut() {
        let frames: Vec<Bytes> = [0, 1, 5, COALESCE_BYTES_MAX, COALESCE_BYTES_MAX + 1, 3, 100_000]
            .into_iter()
            .map(|len| (0..len).map(|n| n as u8).collect())
            .collect();
        let wire = encode(&frames, &[7]).concat();
        assert_eq!(wire[0], 7);
        for step in [1, 3, 4, 1000, wire.len()] {
            assert_eq!(decode_in_steps(&wire[1..], step), frames, "in steps of {step}");
        }
    }

    #[test]
    fn small_frames_share_a_chunk_and_large_ones_are_not_copied() {
        let small = Bytes::from_static(b"small");
        let large = Bytes::from(vec![1; COALESCE_BYTES_MAX + 1]);
        let chunks = encode(&[small.clone(), small.clone(), large.clone(), small], &[]);
        assert_eq!(chunks.len(), 3);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
    }

    #[test]
    fn security_an_announced_length_beyond_the_bound_is_refused_at_once() {
        let mut decoder = Decoder::default();
        decoder.push(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
        assert_eq!(decoder.poll_frame(), Err(FrameTooLong(FRAME_BYTES_MAX + 1)));
    }
}
