//! Free ports of the loopback interface.
//!
//! Nodes are told their ports, since a node that is killed comes back on the same ones. They lie
//! below the range the kernel takes for outgoing connections, or else a vehicle's socket could sit
//! on the port of a roadside unit that is down. A name in the kernel is held for each, so that two
//! runs at once never get the same.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as Name, UnixListener};

use super::dice::Dice;

/// Ports to choose from: above what services are registered for, below the kernel's own (32,768 and
/// up unless somebody changed it).
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// Finds ports, each once; they are its own until it is dropped.
#[derive(Debug)]
pub struct Ports {
    next: u16,
    tried: u16,
    held: Vec<UnixListener>,
}

impl Ports {
    /// Begins at a place of its own for each process, so that two runs at once seldom meet.
    #[must_use]
    pub fn new() -> Self {
        let mut dice = Dice::new(u64::from(std::process::id()), "ports", 0);
        let next = FIRST + dice.below(usize::from(LAST - FIRST)) as u16;
        Self { next, tried: 0, held: Vec::new() }
    }

    /// A loopback address whose port nobody uses, neither for TCP nor for UDP.
    ///
    /// # Errors
    /// Every port is in use.
    pub fn take(&mut self) -> io::Result<SocketAddr> {
        while self.tried < LAST - FIRST {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.next));
            self.tried += 1;
            self.next = if self.next + 1 < LAST { self.next + 1 } else { FIRST };
            let name = Name::from_abstract_name(format!("verge-port-{}", address.port()))?;
            let Ok(held) = UnixListener::bind_addr(&name) else { continue };
            if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
                self.held.push(held);
                return Ok(address);
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port on the loopback interface"))
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_distinct_and_below_the_kernel_s_own() {
        let mut ports = Ports::new();
        let first = ports.take().unwrap();
        let _held = TcpListener::bind(first).unwrap();
        let from = |port: u16| Ports { next: port, tried: 0, held: Vec::new() };
        assert_ne!(from(first.port()).take().unwrap(), first, "a port in use is passed over");
        let second = ports.take().unwrap();
        assert_ne!(from(second.port()).take().unwrap(), second, "as is another run's");
        let mut taken: Vec<u16> = (0..50).map(|_| ports.take().unwrap().port()).collect();
        assert!(taken.iter().all(|port| (FIRST..LAST).contains(port)));
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), 50);
    }
}
