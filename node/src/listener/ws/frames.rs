//! What a WebSocket client sends, frame by frame (RFC 6455, section 5), without I/O.
//!
//! ```text
//!           header whole, data          payload over
//! Between ───────────────────▶ Data ─────────────────▶ Between
//!    │      header whole, control       payload over
//!    └───────────────────────▶ Control ──────────────▶ Between, or Ended after a Close
//! ```
//!
//! To MQTT the binary frames of a connection are one run of bytes [MQTT-6.0.0-2], so no message is
//! ever put together: payload is unmasked where it was read and moved over the headers before it.
//! What is kept between two reads is the start of a header or of a control frame.

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// Longest header: two bytes, eight of length, four of mask (RFC 6455, 5.2).
const HEADER_BYTES_MAX: usize = 14;

/// Longest payload of a control frame (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// What a client must not send. The connection ends with the close code of the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A text frame [MQTT-6.0.0-1].
    #[error("a text frame, where MQTT is in binary frames only")]
    Text,
    /// A frame without a mask (RFC 6455, 5.1).
    #[error("a frame without a mask")]
    Unmasked,
    /// Reserved bits, opcodes or lengths, or fragments out of place (RFC 6455, 5.2 to 5.5).
    #[error("not a WebSocket frame: {0}")]
    Malformed(&'static str),
    /// A frame above the listener's bound.
    #[error("a frame that is too large")]
    TooLarge,
}

impl Violation {
    /// Its name in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Text => "websocket_text_frame",
            Self::Unmasked => "websocket_unmasked_frame",
            Self::Malformed(_) => "websocket_malformed_frame",
            Self::TooLarge => "websocket_frame_too_large",
        }
    }

    /// The close code the client is told (RFC 6455, 7.4.1).
    pub(super) fn code(self) -> CloseCode {
        match self {
            Self::Text => CloseCode::Unsupported,
            Self::Unmasked | Self::Malformed(_) => CloseCode::Protocol,
            Self::TooLarge => CloseCode::Size,
        }
    }
}

/// What is owed to the client for what it sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owed {
    /// An answer to its last ping; earlier ones need none (RFC 6455, 5.5.3).
    Pong(Vec<u8>),
    /// An answer to its Close: its code, if it gave one.
    Close(Option<u16>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A header is due.
    Between,
    /// Payload of a data frame is due.
    Data,
    /// Payload of a control frame is due.
    Control(Control),
    /// The client has sent its Close, after which nothing counts.
    Ended,
}

/// The frames of one client.
#[derive(Debug)]
pub(super) struct Frames {
    state: State,
    /// Payload bytes of the present frame that are still to come.
    left: u64,
    /// The present frame's mask, turned to its next byte.
    mask: [u8; 4],
    /// A message has begun whose last fragment has not.
    fragmented: bool,
    /// The start of a header.
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// The start of a control frame's payload.
    control: Vec<u8>,
    /// Largest data frame.
    frame_bytes_max: u64,
}

impl Frames {
    pub(super) fn new(frame_bytes_max: u64) -> Self {
        Self {
            state: State::Between,
            left: 0,
            mask: [0; 4],
            fragmented: false,
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
            control: Vec::new(),
            frame_bytes_max,
        }
    }

    /// Whether the client has sent its Close.
    pub(super) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Takes what was read. Payload is moved to the front; gives its length. What the client is to
    /// be answered is left in `owed`.
    ///
    /// # Errors
    /// The client broke the protocol; nothing of it counts any more, and the state is spent.
    pub(super) fn handle_bytes(
        &mut self,
        bytes: &mut [u8],
        owed: &mut Option<Owed>,
    ) -> Result<usize, Violation> {
        let (mut at, mut payload) = (0, 0);
        while at < bytes.len() {
            match self.state {
                State::Ended => break,
                State::Between => at += self.take_header(&bytes[at..])?,
                State::Data => {
                    let count = self.due(bytes.len() - at);
                    self.unmask(&mut bytes[at..at + count]);
                    bytes.copy_within(at..at + count, payload);
                    (at, payload) = (at + count, payload + count);
                    if self.left == 0 {
                        self.state = State::Between;
                    }
                }
                State::Control(_) => {
                    let count = self.due(bytes.len() - at);
                    self.unmask(&mut bytes[at..at + count]);
                    self.control.extend_from_slice(&bytes[at..at + count]);
                    at += count;
                }
            }
            if let State::Control(kind) = self.state
                && self.left == 0
            {
                self.take_control(kind, owed)?;
            }
        }
        Ok(payload)
    }

    /// Takes what belongs to the header that is due; gives how much that is.
    fn take_header(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let held = usize::from(self.header_len);
        let count = bytes.len().min(HEADER_BYTES_MAX - held);
        self.header[held..held + count].copy_from_slice(&bytes[..count]);
        let mut cursor = Cursor::new(&self.header[..held + count]);
        let parsed = FrameHeader::parse(&mut cursor)
            .map_err(|_| Violation::Malformed("a reserved opcode"))?;
        let Some((header, length)) = parsed else {
            // A header is whole at its longest, so there is room for more.
            self.header_len = (held + count) as u8;
            return Ok(count);
        };
        let used = cursor.position() as usize - held;
        self.header_len = 0;
        self.begin(&header, length)?;
        Ok(used)
    }

    fn begin(&mut self, header: &FrameHeader, length: u64) -> Result<(), Violation> {
        let malformed = |what| Err(Violation::Malformed(what));
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return malformed("a reserved bit");
        }
        self.mask = header.mask.ok_or(Violation::Unmasked)?;
        self.left = length;
        match header.opcode {
            OpCode::Control(kind) => {
                if !header.is_final || length > CONTROL_BYTES_MAX {
                    return malformed("a control frame in fragments, or above 125 bytes");
                }
                self.state = State::Control(kind);
                return Ok(());
            }
            OpCode::Data(Data::Text) => return Err(Violation::Text),
            OpCode::Data(Data::Binary) if self.fragmented => {
                return malformed("a new message within another");
            }
            OpCode::Data(Data::Continue) if !self.fragmented => {
                return malformed("a fragment without a first one");
            }
            OpCode::Data(Data::Binary | Data::Continue | Data::Reserved(_)) => {}
        }
        if length > self.frame_bytes_max {
            return Err(Violation::TooLarge);
        }
        self.fragmented = !header.is_final;
        self.state = if length == 0 { State::Between } else { State::Data };
        Ok(())
    }

    /// A control frame is whole.
    fn take_control(&mut self, kind: Control, owed: &mut Option<Owed>) -> Result<(), Violation> {
        let payload = std::mem::take(&mut self.control);
        self.state = State::Between;
        match kind {
            Control::Ping => *owed = Some(Owed::Pong(payload)),
            // Nobody asked, and anyone may tell (RFC 6455, 5.5.3).
            Control::Pong | Control::Reserved(_) => {}
            Control::Close => {
                let code = match *payload {
                    [] => None,
                    [_] => return Err(Violation::Malformed("a close code of one byte")),
                    [high, low, ..] => Some(u16::from_be_bytes([high, low])),
                };
                if code.is_some_and(|code| !CloseCode::from(code).is_allowed()) {
                    return Err(Violation::Malformed("a close code nobody may send"));
                }
                *owed = Some(Owed::Close(code));
                self.state = State::Ended;
            }
        }
        Ok(())
    }

    /// How much of `available` belongs to the present frame.
    fn due(&self, available: usize) -> usize {
        usize::try_from(self.left).map_or(available, |left| left.min(available))
    }

    /// Removes the mask from the next bytes of the present frame (RFC 6455, 5.3).
    fn unmask(&mut self, bytes: &mut [u8]) {
        let [a, b, c, d] = self.mask;
        let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let (words, rest) = bytes.as_chunks_mut::<8>();
        for chunk in words {
            *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
        }
        for (byte, mask) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
            *byte ^= mask;
        }
        self.mask.rotate_left(bytes.len() % 4);
        self.left -= bytes.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;

    use super::*;

    const MAX: u64 = 1 << 20;

    /// A frame as a client writes it.
    fn frame(opcode: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader {
            is_final,
            opcode: opcode.into(),
            mask: Some([1, 2, 3, 250]),
            ..FrameHeader::default()
        };
        let mut out = Vec::new();
        header.format(payload.len() as u64, &mut out).unwrap();
        let start = out.len();
        out.extend_from_slice(payload);
        for (byte, mask) in out[start..].iter_mut().zip([1, 2, 3, 250].into_iter().cycle()) {
            *byte ^= mask;
        }
        out
    }

    fn read(frames: &mut Frames, mut bytes: Vec<u8>) -> Result<(Vec<u8>, Option<Owed>), Violation> {
        let mut owed = None;
        let count = frames.handle_bytes(&mut bytes, &mut owed)?;
        bytes.truncate(count);
        Ok((bytes, owed))
    }

    fn refused(bytes: Vec<u8>) -> Violation {
        read(&mut Frames::new(MAX), bytes).unwrap_err()
    }

    #[test]
    fn mqtt_6_0_0_2_packets_span_and_share_frames_however_they_are_cut() {
        let payload: Vec<u8> = (0..70_000_u32).map(|number| (number * 7) as u8).collect();
        let mut wire = Vec::new();
        let mut rest = &payload[..];
        for (index, size) in [0, 1, 5, 125, 126, 300, 2_000, 66_000].into_iter().enumerate() {
            let size = size.min(rest.len());
            wire.extend(frame(2, true, &rest[..size]));
            wire.extend(frame(9, true, &vec![7; index]));
            rest = &rest[size..];
        }
        wire.extend(frame(2, false, &rest[..1]));
        wire.extend(frame(0xa, true, b"unasked"));
        wire.extend(frame(0, false, &rest[1..10]));
        wire.extend(frame(0, true, &rest[10..]));
        for size in [1, 2, 3, 13, 1_000, 65_536, wire.len()] {
            let mut frames = Frames::new(MAX);
            let mut got = Vec::new();
            for part in wire.chunks(size) {
                got.extend(read(&mut frames, part.to_vec()).unwrap().0);
            }
            assert!(got == payload, "in reads of {size} bytes");
            assert!(!frames.is_ended());
        }
    }

    #[test]
    fn pings_are_owed_one_answer_and_a_close_ends() {
        let mut frames = Frames::new(MAX);
        let both = [frame(9, true, b"one"), frame(9, true, b"two")].concat();
        let (payload, owed) = read(&mut frames, both).unwrap();
        assert_eq!((&payload[..], owed), (&[][..], Some(Owed::Pong(b"two".to_vec()))));
        let close = [frame(8, true, &[3, 232, b'x']), frame(2, true, b"late")].concat();
        let (payload, owed) = read(&mut frames, close).unwrap();
        assert_eq!((&payload[..], owed), (&[][..], Some(Owed::Close(Some(1_000)))));
        assert!(frames.is_ended());
        assert_eq!(read(&mut frames, b"anything".to_vec()).unwrap(), (Vec::new(), None));
    }

    #[test]
    fn security_what_no_client_may_send_is_refused() {
        // [MQTT-6.0.0-1]
        assert_eq!(refused(frame(1, true, b"text")), Violation::Text);
        assert_eq!(refused(vec![0x82, 0x01, 0]), Violation::Unmasked);
        assert_eq!(refused(vec![0x89, 0x00]), Violation::Unmasked, "control frames, too");
        let huge = [&[0x82, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
        assert_eq!(refused(huge), Violation::TooLarge);
        for (bytes, what) in [
            (frame(3, true, b""), "a reserved opcode"),
            (frame(0xb, true, b""), "a reserved control opcode"),
            (vec![0xc2, 0x80, 0, 0, 0, 0], "compression nobody agreed on"),
            (frame(0, true, b"x"), "a fragment without a first one"),
            ([frame(2, false, b"x"), frame(2, true, b"x")].concat(), "a message in another"),
            (frame(9, false, b""), "a ping in fragments"),
            (frame(9, true, &[0; 126]), "a large ping"),
            (frame(8, true, &[3]), "half a close code"),
            (frame(8, true, &[3, 237]), "close code 1005"),
        ] {
            assert!(matches!(refused(bytes), Violation::Malformed(_)), "{what}");
        }
    }

    #[test]
    fn security_what_is_kept_of_an_idle_client_is_small() {
        assert!(size_of::<Frames>() <= 80, "{}", size_of::<Frames>());
        let mut frames = Frames::new(MAX);
        read(&mut frames, frame(2, true, &vec![1; 100_000])).unwrap();
        assert_eq!(frames.control.capacity(), 0);
    }

    #[test]
    fn violations_have_the_close_codes_of_the_standard() {
        for (violation, code) in [
            (Violation::Text, 1_003),
            (Violation::Unmasked, 1_002),
            (Violation::Malformed("x"), 1_002),
            (Violation::TooLarge, 1_009),
        ] {
            assert_eq!(u16::from(violation.code()), code);
        }
        assert_eq!(Frame::close(None).header().opcode, OpCode::Control(Control::Close));
    }
}
