//! What carries the bytes: one function for each transport.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::time::SOON;

/// A connected transport. Reads give up after [`SOON`].
pub(crate) trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A way to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// `tcp://`
    Tcp,
}

impl Transport {
    /// A new connection.
    pub(crate) fn open(self, addr: SocketAddr) -> Box<dyn Stream> {
        match self {
            Self::Tcp => Box::new(tcp(addr)),
        }
    }
}

fn tcp(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the node listens");
    stream.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    stream.set_nodelay(true).expect("a socket option can be set");
    stream
}
