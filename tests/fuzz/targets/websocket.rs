//! Frames of a WebSocket client: however the stream is cut, the same payload comes out of it, and
//! the same end.
#![no_main]

#[path = "../../../node/src/listener/ws/frames.rs"]
#[allow(dead_code, reason = "names for metrics are the listener's")]
mod frames;

use frames::{Frames, Owed, Violation};

/// Largest frame taken.
const FRAME_BYTES_MAX: u64 = 1_024;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    assert_eq!(
        read(input, input.len().max(1)),
        read(input, 1),
        "cutting the stream changes nothing"
    );
});

/// The payload, the close that came, and what broke the protocol.
fn read(input: &[u8], step: usize) -> (Vec<u8>, Option<Option<u16>>, Option<Violation>) {
    let mut frames = Frames::new(FRAME_BYTES_MAX);
    let (mut payload, mut closed) = (Vec::new(), None);
    for piece in input.chunks(step) {
        let (mut bytes, mut owed) = (piece.to_vec(), None);
        match frames.handle_bytes(&mut bytes, &mut owed) {
            Ok(count) => payload.extend_from_slice(&bytes[..count]),
            // What came before it in the same read is not believed either.
            Err(violation) => return (Vec::new(), None, Some(violation)),
        }
        if let Some(Owed::Close(code)) = owed {
            closed = Some(code);
            assert!(frames.is_ended());
        }
    }
    (payload, closed, None)
}
