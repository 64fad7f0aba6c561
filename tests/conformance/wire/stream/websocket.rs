//! WebSocket over a stream (RFC 6455), as a client: each write is one binary frame.

use std::io::{Error, ErrorKind, Read, Result, Write};

/// A continuation of the frame before.
pub(crate) const CONTINUATION: u8 = 0;
/// A text frame.
pub(crate) const TEXT: u8 = 1;
/// A binary frame.
pub(crate) const BINARY: u8 = 2;
/// A close frame.
pub(crate) const CLOSE: u8 = 8;
/// Set on the last frame of a message.
pub(crate) const FINAL: u8 = 0x80;

/// The key of the RFC's example, and the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A connection after its HTTP exchange.
pub(crate) struct WebSocket<S> {
    stream: S,
    /// What the last frame holds beyond what was read.
    input: Vec<u8>,
    /// The subprotocol that the server chose.
    pub(crate) protocol: Option<String>,
}

impl<S: Read + Write> WebSocket<S> {
    /// Asks for the subprotocol `mqtt`, and must be granted it.
    pub(crate) fn open(stream: S) -> Self {
        let socket = Self::offering(stream, "mqtt");
        assert_eq!(socket.protocol.as_deref(), Some("mqtt"), "[MQTT-6.0.0-4]");
        socket
    }

    /// Asks for one of these subprotocols.
    pub(crate) fn offering(mut stream: S, protocols: &str) -> Self {
        let request = format!(
            "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: {protocols}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("the request can be written");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("an answer comes");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("an answer is text");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let field = |name: &str| {
            head.lines().find_map(|line| {
                let (of, value) = line.split_once(':')?;
                of.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        assert_eq!(field("Sec-WebSocket-Accept").as_deref(), Some(ACCEPT));
        let protocol = field("Sec-WebSocket-Protocol");
        Self { stream, input: Vec::new(), protocol }
    }

    /// Writes a frame: its first byte, and what it holds.
    pub(crate) fn send_frame(&mut self, first: u8, payload: &[u8]) -> Result<()> {
        const MASK: [u8; 4] = [0x5A, 0xC3, 0x0F, 0x96];
        let mut frame = vec![first];
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(length @ ..126), _) => frame.push(0x80 | length),
            (_, Ok(length)) => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
            (_, Err(_)) => {
                frame.push(0x80 | 127);
                frame.extend((payload.len() as u64).to_be_bytes());
            }
        }
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.stream.write_all(&frame)?;
        self.stream.flush()
    }

    /// Reads a frame: its first byte, and what it holds.
    pub(crate) fn receive_frame(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        assert_eq!(head[1] & 0x80, 0, "a server masks nothing");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length)?;
                u64::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.stream.read_exact(&mut length)?;
                u64::from_be_bytes(length)
            }
            length => u64::from(length),
        };
        let mut payload = vec![0; usize::try_from(length).map_err(Error::other)?];
        self.stream.read_exact(&mut payload)?;
        Ok((head[0], payload))
    }
}

impl<S: Read + Write> Read for WebSocket<S> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        while self.input.is_empty() {
            let (first, payload) = self.receive_frame()?;
            match first & 0x0F {
                CLOSE => return Err(ErrorKind::UnexpectedEof.into()),
                CONTINUATION | BINARY => self.input = payload,
                9 => self.send_frame(FINAL | 10, &payload)?,
                opcode => panic!("a frame with opcode {opcode} [MQTT-6.0.0-1]"),
            }
        }
        let count = out.len().min(self.input.len());
        out[..count].copy_from_slice(&self.input[..count]);
        self.input.drain(..count);
        Ok(count)
    }
}

impl<S: Read + Write> Write for WebSocket<S> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.send_frame(FINAL | BINARY, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        self.stream.flush()
    }
}
