//! One connection of the generator or of the null broker: its socket, its TLS, what is to be written.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use bytes::BytesMut;
use rustls::ClientConnection;
use verge_mqtt_proto::ProtocolVersion;

/// Plain bytes handed to TLS at once.
const TLS_WRITE_BYTES: usize = 64 << 10;
/// Room that one TLS read may need.
const TLS_READ_BYTES: usize = 32 << 10;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// CONNECT was sent.
    Connecting,
    /// CONNACK came, SUBSCRIBE was sent.
    Subscribing,
    /// It does what the workload asks.
    Ready,
    /// DISCONNECT was sent.
    Leaving,
    /// Gone.
    Closed,
}

/// A connection.
pub(super) struct Conn {
    /// None when closed.
    pub(super) stream: Option<TcpStream>,
    pub(super) tls: Option<Box<ClientConnection>>,
    pub(super) state: State,
    pub(super) version: ProtocolVersion,
    /// Which client this is, to the workload.
    pub(super) tag: u32,
    /// The broker's Receive Maximum.
    pub(super) receive_maximum: u16,
    /// A subscription to make after CONNACK.
    pub(super) wants: Option<Box<(String, u8)>>,
    /// When it was due to begin.
    pub(super) started: u64,
    pub(super) out: BytesMut,
    /// The beginning of a packet.
    pub(super) partial: Vec<u8>,
    /// The socket was full.
    pub(super) blocked: bool,
    /// Listed to be written.
    pub(super) dirty: bool,
    /// Which use of its slot.
    pub(super) generation: u32,
}

impl Conn {
    /// Writes what is there; true when all is out.
    pub(super) fn write_out(&mut self) -> io::Result<bool> {
        let done = self.try_write();
        match done {
            Err(error) if is_blocked(&error) => Ok(false),
            other => other,
        }
    }

    fn try_write(&mut self) -> io::Result<bool> {
        let Some(stream) = &mut self.stream else { return Ok(true) };
        loop {
            if let Some(tls) = &mut self.tls {
                while tls.wants_write() {
                    tls.write_tls(stream)?;
                }
                if tls.is_handshaking() {
                    return Ok(true);
                }
            }
            if self.out.is_empty() {
                return Ok(true);
            }
            let written = match &mut self.tls {
                Some(tls) => {
                    tls.writer().write(&self.out[..self.out.len().min(TLS_WRITE_BYTES)])?
                }
                None => stream.write(&self.out)?,
            };
            if written == self.out.len() {
                // Keeps the memory, where `advance` would give it away bit by bit.
                self.out.clear();
            } else {
                bytes::Buf::advance(&mut self.out, written);
            }
        }
    }

    /// Reads plain bytes; 0 at the end of the stream, none if there is nothing now.
    pub(super) fn read_in(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let read = match &mut self.tls {
            None => stream.read(buffer),
            Some(tls) => read_tls(tls, stream, buffer),
        };
        match read {
            Ok(count) => Ok(Some(count)),
            Err(error) if is_blocked(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn read_tls(
    tls: &mut ClientConnection,
    stream: &mut TcpStream,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut count = 0;
    while count + TLS_READ_BYTES < buffer.len() {
        match tls.read_tls(stream) {
            Ok(0) => return Ok(count),
            Ok(_) => {}
            Err(error) if is_blocked(&error) && count > 0 => return Ok(count),
            Err(error) => return Err(error),
        }
        tls.process_new_packets().map_err(io::Error::other)?;
        loop {
            match tls.reader().read(&mut buffer[count..]) {
                Ok(0) => return Ok(count),
                Ok(more) => count += more,
                Err(error) if is_blocked(&error) => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(count)
}

fn is_blocked(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}
