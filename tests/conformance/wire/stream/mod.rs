//! What carries the bytes: one function for each transport.

pub(crate) mod quic;
pub(crate) mod tls;
pub(crate) mod websocket;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use self::websocket::WebSocket;
use crate::time::SOON;

/// A connected transport. Reads give up after [`SOON`].
pub(crate) trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A way to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// `tcp://`
    Tcp,
    /// `tls://`
    Tls,
    /// `ws://`
    Ws,
    /// `wss://`
    Wss,
    /// `quic://`, with one stream.
    Quic,
}

/// Where a node serves each transport, and the authority of its certificate.
pub(crate) struct Ways {
    pub(crate) tcp: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) ws: SocketAddr,
    pub(crate) wss: SocketAddr,
    pub(crate) quic: SocketAddr,
    pub(crate) authority: String,
}

impl Transport {
    /// A new connection.
    pub(crate) fn open(self, ways: &Ways) -> Box<dyn Stream> {
        let authority = &ways.authority;
        match self {
            Self::Tcp => Box::new(tcp(ways.tcp)),
            Self::Tls => Box::new(tls::open(tcp(ways.tls), authority)),
            Self::Ws => Box::new(WebSocket::open(tcp(ways.ws))),
            Self::Wss => Box::new(WebSocket::open(tls::open(tcp(ways.wss), authority))),
            Self::Quic => Box::new(quic::open(ways.quic, authority)),
        }
    }
}

pub(crate) fn tcp(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the node listens");
    stream.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    stream.set_nodelay(true).expect("a socket option can be set");
    stream
}
