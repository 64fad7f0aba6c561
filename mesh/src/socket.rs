//! The UDP socket of the mesh, with buffers that hold the bursts of several links.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::SOCKET_BUFFER_BYTES;

/// Binds the socket. The kernel may give smaller buffers than asked for; that is told once.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&addr.into())?;
    // Refusals are not errors: the size that counts is the one read back.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    // Linux reports twice what it gives to data.
    let (receive, send) = (socket.recv_buffer_size()? / 2, socket.send_buffer_size()? / 2);
    if receive.min(send) < SOCKET_BUFFER_BYTES {
        tracing::warn!(
            wanted_bytes = SOCKET_BUFFER_BYTES,
            receive_bytes = receive,
            send_bytes = send,
            "the kernel gives small socket buffers, which loses packets under load; raise \
             net.core.rmem_max and net.core.wmem_max"
        );
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// An IPv4 address seen through an IPv6 socket is the IPv4 address.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
