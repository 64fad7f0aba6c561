//! QUIC: one connection with one bidirectional stream, ALPN `mqtt`.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use tokio::runtime::Runtime;

use super::tls;
use crate::time::SOON;

/// A connection and its stream, driven by the thread that uses it.
pub(crate) struct Quic {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
}

/// The runtime and the socket of all connections of this process.
fn endpoint() -> &'static (Runtime, Endpoint) {
    static ENDPOINT: OnceLock<(Runtime, Endpoint)> = OnceLock::new();
    ENDPOINT.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let endpoint = {
            let _inside = runtime.enter();
            Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket can be made")
        };
        (runtime, endpoint)
    })
}

pub(crate) fn open(addr: SocketAddr, authority: &str) -> Quic {
    let mut config = tls::config(authority);
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    let config = QuicClientConfig::try_from(config).expect("TLS 1.3 is there");
    let config = ClientConfig::new(Arc::new(config));
    let (runtime, endpoint) = endpoint();
    runtime.block_on(async {
        let connecting = endpoint.connect_with(config, addr, "localhost").expect("a right address");
        let connection = connecting.await.expect("the node listens");
        let (send, receive) = connection.open_bi().await.expect("a stream may be opened");
        Quic { connection, send, receive }
    })
}

impl Read for Quic {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        let read = async { tokio::time::timeout(SOON, self.receive.read(out)).await };
        match endpoint().0.block_on(read) {
            Err(_) => Err(ErrorKind::TimedOut.into()),
            Ok(Ok(count)) => Ok(count.unwrap_or(0)),
            // The connection is closed, whatever is said with it.
            Ok(Err(_)) => Err(ErrorKind::ConnectionReset.into()),
        }
    }
}

impl Write for Quic {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        endpoint().0.block_on(self.send.write(bytes)).map_err(Error::other)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Drop for Quic {
    fn drop(&mut self) {
        // As a process that ends: whatever was written is gone with the connection.
        self.connection.close(0_u8.into(), b"");
    }
}
