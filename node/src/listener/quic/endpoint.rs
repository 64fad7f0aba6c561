//! The endpoint of a `quic://` listener: its socket, and every number QUIC is configured with.
//!
//! Two relations hold between the numbers. The connection's receive window is the streams' windows
//! together, else one stream that is not read could stop all others. And the idle timeout is one
//! and a half times the longest keep alive, since it cannot be changed once a client has said its
//! own: MQTT's keep alive is what ends a dead client, not QUIC's idle timeout.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

use super::connection_id::NodeIds;
use super::keys::QuicKeys;
use super::tickets::Tickets;
use super::{ALPN, accept::ClientCheck};
use crate::listener::tls::TlsError;
use crate::listener::tls::live::Live;

/// QUIC version 1, RFC 9000; clients of others are told so.
const VERSIONS: [u32; 1] = [1];

/// Bidirectional streams a client may open at first: the control stream and what clients that use
/// several are known to open. Each costs some 60 bytes whether it is used or not.
pub(super) const BIDI_STREAMS: u32 = 10;

/// Unidirectional streams a client may open at first; there are more for who uses them. With
/// [`BIDI_STREAMS`] no more than fit into a table of sixteen.
pub(super) const UNI_STREAMS: u32 = 2;

/// Bytes of one stream a client may send before they are read.
pub(super) const STREAM_WINDOW: u32 = 64 * 1024;

/// Bytes in flight, or waiting in quinn, to one client. More waits in the session's queue, where it
/// can expire: with megabytes here a lossy link would be seconds behind.
const SEND_WINDOW: u64 = 256 * 1024;

/// Longest keep alive of a 5.0 client on QUIC.
pub const KEEP_ALIVE_SECS_MAX: u16 = 1_200;

/// When a silent peer is given up whatever its keep alive: [`KEEP_ALIVE_SECS_MAX`] and half of it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1_800);

/// First datagrams of clients that wait to be accepted. They are taken at once, so that a few
/// thousand mean an overloaded machine.
const INCOMING_MAX: usize = 4_096;

/// Bytes of one client kept before it is accepted: its first flight with early data.
const INCOMING_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of all clients kept before they are accepted.
const INCOMING_BYTES_TOTAL_MAX: u64 = 16 * 1024 * 1024;

/// Socket buffers asked for. With the usual 208 KiB, bursts of a few clients lose packets.
const SOCKET_BYTES: usize = 8 * 1024 * 1024;

/// Socket buffers below which the operator is told.
const SOCKET_BYTES_LEAST: usize = 4 * 1024 * 1024;

/// A listener's socket, and what its endpoint will be made of.
pub struct Door {
    socket: UdpSocket,
    config: rustls::ServerConfig,
    keys: Option<(QuicKeys, NodeIds)>,
    pub(super) check: ClientCheck,
}

impl Door {
    /// Takes the port's socket and the listeners' TLS.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn new(socket: UdpSocket, live: &Arc<Live>) -> Result<Self, TlsError> {
        let mut config = live.server_config()?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(Tickets::default());
        config.send_tls13_tickets = 1;
        // All or nothing is what QUIC asks for; stream windows are the bound.
        config.max_early_data_size = u32::MAX;
        let check = ClientCheck::new(live.verifier());
        Ok(Self { socket, config, keys: None, check })
    }

    /// Gives the node's secrets; without, each start has its own.
    pub fn set_keys(&mut self, keys: QuicKeys, node_key: u64) {
        self.keys = Some((keys, NodeIds::new(node_key)));
    }

    /// Starts the endpoint on the present runtime.
    pub(super) fn open(&self) -> io::Result<Endpoint> {
        let crypto = QuicServerConfig::try_from(self.config.clone()).map_err(io::Error::other)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        server
            .transport_config(Arc::new(transport()))
            .migration(true)
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(INCOMING_BYTES_MAX)
            .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
        let mut config = EndpointConfig::default();
        config.supported_versions(VERSIONS.to_vec());
        if let Some((keys, ids)) = &self.keys {
            let ids = *ids;
            server.token_key(Arc::new(keys.token()));
            config.reset_key(Arc::new(keys.reset())).cid_generator(move || Box::new(ids));
        }
        let socket = self.socket.try_clone()?;
        Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime))
    }
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("half an hour fits into 62 bits");
    config
        .max_concurrent_bidi_streams(BIDI_STREAMS.into())
        .max_concurrent_uni_streams(UNI_STREAMS.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(VarInt::from_u32(STREAM_WINDOW * (BIDI_STREAMS + UNI_STREAMS + 1)))
        .send_window(SEND_WINDOW)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(None)
        // Datagrams of 1,200 bytes, which every path takes (RFC 9000, section 14). Larger ones
        // would save a sixth of those of large packets, and cost each client 1.6 KB here, several
        // probes when it connects and one more every ten minutes while it sleeps.
        .mtu_discovery_config(None)
        // quinn's BBR sends several times the payload where buffers are small.
        .congestion_controller_factory(Arc::new(CubicConfig::default()))
        .datagram_receive_buffer_size(None)
        .allow_spin(false);
    config
}

/// Binds the socket of a listener.
pub(in crate::listener) fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&addr.into())?;
    // Refusals are not errors: the size that counts is the one read back.
    let _ = socket.set_recv_buffer_size(SOCKET_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BYTES);
    // Linux reports twice what it gives to data.
    let (receive, send) = (socket.recv_buffer_size()? / 2, socket.send_buffer_size()? / 2);
    if receive.min(send) < SOCKET_BYTES_LEAST {
        tracing::warn!(
            wanted_bytes = SOCKET_BYTES,
            receive_bytes = receive,
            send_bytes = send,
            "the kernel gives the quic:// listener small buffers, which loses packets under load; \
             raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
