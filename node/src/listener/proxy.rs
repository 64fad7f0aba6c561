//! The PROXY protocol, versions 1 and 2: what a proxy says about the client behind it before the
//! first byte of the client (haproxy.org, proxy-protocol.txt).
//!
//! The format is the crate `ppp`'s. Here it is decided whose word counts, how much of it is read
//! (never a byte of the client), and what follows from it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::transport::{Socket, canonical};
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

/// The client's side of TLS, in the first byte of `PP2_TYPE_SSL` (section 2.2.6).
const CLIENT_SSL: u8 = 0x01;
/// It showed a certificate on this connection.
const CLIENT_CERT_CONN: u8 = 0x02;
/// It showed a certificate on the session that this connection resumed.
const CLIENT_CERT_SESS: u8 = 0x04;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// The client, or the proxy if it does not say.
    pub(super) peer: SocketAddr,
    /// The address is the client's own. If not, nothing may be granted for it.
    pub(super) is_known: bool,
    /// The common name of the certificate that the proxy verified.
    pub(super) subject: Option<Arc<str>>,
    /// The server name that the client asked the proxy for.
    pub(super) server_name: Option<Arc<str>>,
}

impl Source {
    /// A peer with no proxy between.
    pub(super) fn direct(peer: SocketAddr) -> Self {
        Self { peer, is_known: true, subject: None, server_name: None }
    }
}

/// Why a proxy's connection comes to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("{0} is no proxy that is trusted: see proxy_trusted of the listener")]
    Untrusted(IpAddr),
    #[error("no PROXY header in time")]
    Timeout,
    #[error("no PROXY header: {0}")]
    Malformed(String),
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
    source(&header, peer)
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
    let foreign = || ProxyError::Malformed("neither version begins so".to_owned());
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
        return Err(ProxyError::Malformed(format!("{length} bytes are too many")));
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
            return Err(ProxyError::Malformed("a line without end".to_owned()));
        }
    }
}

/// What a whole header says.
fn source(header: &[u8], proxy: SocketAddr) -> Result<Source, ProxyError> {
    let parsed = HeaderResult::parse(header);
    if parsed.is_incomplete() {
        return Err(ProxyError::Malformed("it is not whole".to_owned()));
    }
    let malformed = |error: &dyn std::fmt::Display| ProxyError::Malformed(error.to_string());
    // What comes without an address comes from the proxy, who does not say for whom.
    let unknown = Source { is_known: false, ..Source::direct(proxy) };
    match parsed {
        HeaderResult::V1(header) => {
            let peer = match header.map_err(|error| malformed(&error))?.addresses {
                v1::Addresses::Unknown => return Ok(unknown),
                v1::Addresses::Tcp4(tcp) => SocketAddr::from((tcp.source_address, tcp.source_port)),
                v1::Addresses::Tcp6(tcp) => SocketAddr::from((tcp.source_address, tcp.source_port)),
            };
            Ok(Source::direct(canonical(peer)))
        }
        HeaderResult::V2(header) => {
            let header = header.map_err(|error| malformed(&error))?;
            if header.command == v2::Command::Local {
                // The proxy for itself: it looks whether we are well.
                return Ok(Source::direct(proxy));
            }
            let mut source = match header.addresses {
                v2::Addresses::IPv4(ip) => {
                    Source::direct((ip.source_address, ip.source_port).into())
                }
                v2::Addresses::IPv6(ip) => {
                    Source::direct(canonical((ip.source_address, ip.source_port).into()))
                }
                v2::Addresses::Unspecified | v2::Addresses::Unix(_) => unknown,
            };
            for value in header.tlvs() {
                let value = value.map_err(|error| malformed(&error))?;
                if value.kind == v2::Type::SSL as u8 {
                    source.subject = verified_name(&value.value).map_err(|e| malformed(&e))?;
                } else if value.kind == v2::Type::Authority as u8 {
                    source.server_name = str::from_utf8(&value.value).ok().map(Arc::from);
                }
            }
            Ok(source)
        }
    }
}

/// The common name in `PP2_TYPE_SSL`, if the proxy says that it verified the certificate.
fn verified_name(ssl: &[u8]) -> Result<Option<Arc<str>>, v2::ParseError> {
    let Some((&[client, verify @ ..], values)) = ssl.split_first_chunk::<5>() else {
        return Err(v2::ParseError::Leftovers(ssl.len()));
    };
    let shown = client & CLIENT_SSL != 0 && client & (CLIENT_CERT_CONN | CLIENT_CERT_SESS) != 0;
    let mut name = None;
    for value in v2::TypeLengthValues::from(values) {
        let value = value?;
        if value.kind == v2::Type::SSLCommonName as u8 {
            name = str::from_utf8(&value.value).ok().map(Arc::from);
        }
    }
    Ok(name.filter(|name: &Arc<str>| shown && verify == [0; 4] && !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy() -> SocketAddr {
        "127.0.0.1:9".parse().unwrap()
    }

    /// A header of version 2: its command and family, address and values.
    fn v2(command: u8, family: u8, address: &[u8], values: &[(u8, &[u8])]) -> Vec<u8> {
        let mut rest = address.to_vec();
        for (kind, value) in values {
            rest.push(*kind);
            rest.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            rest.extend_from_slice(value);
        }
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, &rest].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 1, 0x12, 0x34, 0x07, 0x5b];

    fn ssl(client: u8, verify: u32, name: &[u8]) -> Vec<u8> {
        let length = u16::try_from(name.len()).unwrap().to_be_bytes();
        [&[client][..], &verify.to_be_bytes(), &[0x22], &length, name].concat()
    }

    #[test]
    fn both_versions_say_who_the_client_is() {
        let of = |header: &[u8]| source(header, proxy()).unwrap();
        let v1 = of(b"PROXY TCP4 192.0.2.7 192.0.2.1 4660 1883\r\n");
        assert_eq!(v1, Source::direct("192.0.2.7:4660".parse().unwrap()));
        assert_eq!(of(&v2(1, 0x11, &V4, &[])), v1);
        let v6 = of(b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4660 1883\r\n");
        assert_eq!(v6, v1, "an IPv4 client is shown by its IPv4 address");
        let address: Vec<u8> = [&[0x20; 16][..], &[0; 16], &[0, 5, 0, 6]].concat();
        let peer = "[2020:2020:2020:2020:2020:2020:2020:2020]:5".parse().unwrap();
        assert_eq!(of(&v2(1, 0x21, &address, &[])), Source::direct(peer));
    }

    #[test]
    fn a_proxy_that_does_not_say_for_whom_grants_nothing() {
        let of = |header: &[u8]| source(header, proxy()).unwrap();
        for header in
            [b"PROXY UNKNOWN\r\n".to_vec(), v2(1, 0, &[], &[]), v2(1, 0x31, &[0; 216], &[])]
        {
            let source = of(&header);
            assert_eq!((source.peer, source.is_known), (proxy(), false));
        }
        assert_eq!(of(&v2(0, 0, &[], &[])), Source::direct(proxy()), "LOCAL is the proxy itself");
    }

    #[test]
    fn security_only_a_verified_certificate_names_a_client() {
        let named = |client, verify| {
            let value = ssl(client, verify, b"vehicle-7");
            let header = v2(1, 0x11, &V4, &[(0x20, &value), (0x02, b"edge.example")]);
            let source = source(&header, proxy()).unwrap();
            assert_eq!(source.server_name.as_deref(), Some("edge.example"));
            source.subject.as_deref().map(str::to_owned)
        };
        assert_eq!(named(0x03, 0).as_deref(), Some("vehicle-7"));
        assert_eq!(named(0x05, 0).as_deref(), Some("vehicle-7"), "on a session before");
        assert_eq!(named(0x01, 0), None, "it showed none");
        assert_eq!(named(0x02, 0), None, "without TLS");
        assert_eq!(named(0x03, 1), None, "it was not verified");
    }

    #[test]
    fn security_broken_headers_are_refused() {
        for header in [
            b"PROXY TCP4 192.0.2.7 192.0.2.1 99999 1\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 1\r\n".to_vec(),
            b"PROXY \xff\r\n".to_vec(),
            b"PROXY TCP4\r\n".to_vec(),
            v2(2, 0x11, &V4, &[]),
            v2(1, 0x41, &V4, &[]),
            v2(1, 0x11, &V4[..4], &[]),
            v2(1, 0x11, &V4, &[(0x20, &[1, 0])]),
            [&v2(1, 0x11, &V4, &[])[..14], &[0, 13], &V4, &[0x20]].concat(),
        ] {
            let refused = source(&header, proxy());
            assert!(matches!(refused, Err(ProxyError::Malformed(_))), "{header:x?}: {refused:?}");
        }
    }
}
