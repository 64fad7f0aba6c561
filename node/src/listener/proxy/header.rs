//! A whole header of the PROXY protocol, and what it says.

use std::net::SocketAddr;
use std::sync::Arc;

use ppp::{HeaderResult, PartialResult, v1, v2};

use super::checksum;

/// The client's side of TLS, in the first byte of `PP2_TYPE_SSL` (section 2.2.6).
const CLIENT_SSL: u8 = 0x01;
/// It showed a certificate on this connection.
const CLIENT_CERT_CONN: u8 = 0x02;
/// It showed a certificate on the session that this connection resumed.
const CLIENT_CERT_SESS: u8 = 0x04;

/// Type and length of a value.
const TLV_HEADER_BYTES: usize = 3;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// The client, or the proxy if it does not say.
    pub(crate) peer: SocketAddr,
    /// The address is the client's own. If not, nothing may be granted for it.
    pub(crate) is_known: bool,
    /// The common name of the certificate that the proxy verified.
    pub(crate) subject: Option<Arc<str>>,
    /// The server name that the client asked the proxy for.
    pub(crate) server_name: Option<Arc<str>>,
}

impl Source {
    /// A peer with no proxy between.
    pub(crate) fn direct(peer: SocketAddr) -> Self {
        Self { peer, is_known: true, subject: None, server_name: None }
    }
}

/// Why a header is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY header: {0}")]
pub(crate) struct Malformed(pub(super) String);

/// What a whole header says.
pub(crate) fn source(header: &[u8], proxy: SocketAddr) -> Result<Source, Malformed> {
    let parsed = HeaderResult::parse(header);
    if parsed.is_incomplete() {
        return Err(Malformed("it is not whole".to_owned()));
    }
    let malformed = |error: &dyn std::fmt::Display| Malformed(error.to_string());
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
            let whole = header.as_bytes();
            let mut at = whole.len().saturating_sub(header.tlv_bytes().len());
            for value in header.tlvs() {
                let value = value.map_err(|error| malformed(&error))?;
                let (begins, len) = (at + TLV_HEADER_BYTES, value.value.len());
                at = begins + len;
                if value.kind == v2::Type::CRC32C as u8 && !checksum::holds(whole, begins, len) {
                    return Err(Malformed("its checksum is another".to_owned()));
                }
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

/// An IPv4 client behind an IPv6 socket is shown by its IPv4 address.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
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
    fn security_a_checksum_that_is_there_must_be_right() {
        let of = |crc: &[u8], name: &[u8]| {
            // Behind it and before it are others.
            let values: &[(u8, &[u8])] = &[(0x02, name), (0x03, crc), (0x04, b"noop")];
            source(&v2(1, 0x11, &V4, values), proxy())
        };
        let right = [0xbb, 0x68, 0xa3, 0x88];
        assert_eq!(of(&right, b"edge.example").unwrap().peer, "192.0.2.7:4660".parse().unwrap());
        for (crc, name) in [
            (&right[..], b"edge.exampl3"),
            (&[0; 4], b"edge.example"),
            (&right[..3], b"edge.example"),
            (&[0xbb, 0x68, 0xa3, 0x88, 0], b"edge.example"),
            (&[], b"edge.example"),
        ] {
            assert_eq!(of(crc, name), Err(Malformed("its checksum is another".to_owned())));
        }
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
            assert!(matches!(refused, Err(Malformed(_))), "{header:x?}: {refused:?}");
        }
    }
}
