//! The PROXY protocol, versions 1 and 2: what a proxy says about the client behind it before the
//! first byte of the client (haproxy.org, proxy-protocol.txt).
//!
//! The format is the crate `ppp`'s. Here it is decided whose word counts, how much of it is read
//! (never a byte of the client), and what follows from it.

mod checksum;
mod header;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ppp::{v1, v2};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

pub(super) use self::header::Source;
use self::header::{Malformed, source};
use super::transport::Socket;
use crate::config::text::{Network, Text};

/// How long a proxy may take for its header, which it sends with the connection. The protocol asks
/// for at least three seconds.
const HEADER_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest header of version 1, with its end of line (section 2.1).
const V1_BYTES_MAX: usize = 107;

/// First bytes of a header of version 2: signature, command, family, length (section 2.2).
const V2_START_BYTES: usize = 16;

/// Longest header of version 2 that is taken. One with a client's certificate in full is a few
/// kilobytes; proxies send names out of it.
const V2_BYTES_MAX: usize = 4 * 1024;

/// Why a proxy's connection comes to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("{0} is no proxy that is trusted: see proxy_trusted of the listener")]
    Untrusted(IpAddr),
    #[error("no PROXY header in time")]
    Timeout,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("it ended within its PROXY header: {0}")]
    Ended(#[from] io::Error),
}

impl ProxyError {
    /// Its name in metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Untrusted(_) => "proxy_untrusted",
            Self::Timeout => "proxy_timeout",
            Self::Malformed(_) | Self::Ended(_) => "proxy_header",
        }
    }
}

/// Reads the header of a connection from `peer`.
///
/// # Errors
/// The peer may not speak for others, or does not speak the protocol.
pub(super) async fn accept(
    socket: &mut Socket,
    peer: SocketAddr,
    trusted: &[Text<Network>],
) -> Result<Source, ProxyError> {
    if !trusted.iter().any(|network| network.0.contains(peer.ip())) {
        return Err(ProxyError::Untrusted(peer.ip()));
    }
    let header = timeout(HEADER_TIMEOUT, read(socket)).await.map_err(|_| ProxyError::Timeout)??;
    Ok(source(&header, peer)?)
}

/// Reads the header and nothing after it.
async fn read(socket: &mut Socket) -> Result<Vec<u8>, ProxyError> {
    let mut start = [0; V2_START_BYTES];
    let mut header = Vec::new();
    let seen = socket.peek(&mut start).await?;
    if seen == 0 {
        return Err(ProxyError::Ended(io::ErrorKind::UnexpectedEof.into()));
    }
    let begins = |word: &[u8]| start[..seen.min(word.len())] == word[..seen.min(word.len())];
    if begins(v1::PROTOCOL_PREFIX.as_bytes()) {
        return read_line(socket).await;
    }
    let foreign = || Malformed("neither version begins so".to_owned()).into();
    if !begins(v2::PROTOCOL_PREFIX) {
        return Err(foreign());
    }
    header.resize(V2_START_BYTES, 0);
    socket.read_exact(&mut header).await?;
    if !header.starts_with(v2::PROTOCOL_PREFIX) {
        return Err(foreign());
    }
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if V2_START_BYTES + length > V2_BYTES_MAX {
        return Err(Malformed(format!("{length} bytes are too many")).into());
    }
    header.resize(V2_START_BYTES + length, 0);
    socket.read_exact(&mut header[V2_START_BYTES..]).await?;
    Ok(header)
}

/// Reads a header of version 1: a line.
async fn read_line(socket: &mut Socket) -> Result<Vec<u8>, ProxyError> {
    let mut line = Vec::new();
    loop {
        let mut seen = [0; V1_BYTES_MAX];
        let count = socket.peek(&mut seen[..V1_BYTES_MAX - line.len()]).await?;
        let end = seen[..count].iter().position(|byte| *byte == b'\n');
        let take = end.map_or(count, |place| place + 1);
        let before = line.len();
        line.resize(before + take, 0);
        socket.read_exact(&mut line[before..]).await?;
        if end.is_some() {
            return Ok(line);
        }
        if count == 0 || line.len() == V1_BYTES_MAX {
            return Err(Malformed("a line without end".to_owned()).into());
        }
    }
}
