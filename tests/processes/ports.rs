//! Ports on loopback that a node keeps over its restarts.
//!
//! They lie below the range from which the system gives ports to outgoing connections, so that
//! nobody takes one while its node is down, and a port that was given is this process' until it
//! ends: a name that others would ask for first is held with it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as Name, UnixListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Above what well-known services use.
const FIRST: u16 = 12_000;

/// Below 20,000, where the ports of `verge demo` and `verge bench` begin.
const COUNT: u16 = 8_000;

/// A port that nothing uses, and that no other test gets, of this process or of another.
pub(crate) fn free() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at once begin at different places.
    let start = u16::try_from(std::process::id().wrapping_mul(997) % u32::from(COUNT));
    let start = start.expect("less than 65,536");
    for _ in 0..COUNT {
        let place = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + ((u32::from(start) + u32::from(place)) % u32::from(COUNT)) as u16;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let name = Name::from_abstract_name(format!("verge-port-{port}"));
        let Ok(held) = UnixListener::bind_addr(&name.expect("a short name")) else { continue };
        if TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok() {
            // Until the process ends.
            std::mem::forget(held);
            return addr;
        }
    }
    panic!("no port is free between {FIRST} and {}", FIRST + COUNT);
}
