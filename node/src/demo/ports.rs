//! Free ports of the loopback interface.
//!
//! Nodes are told their ports, since a node that is killed comes back on the same ones. They lie
//! below the range the kernel takes for outgoing connections, or else a vehicle's socket could sit
//! on the port of a roadside unit that is down.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use super::dice::Dice;

/// Ports to choose from: above what services are registered for, below the kernel's own (32,768 and
/// up unless somebody changed it).
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// Finds ports, each once.
#[derive(Debug)]
pub struct Ports {
    next: u16,
    tried: u16,
}

impl Ports {
    /// Begins at a place of its own for each process, so that two runs at once seldom meet.
    #[must_use]
    pub fn new() -> Self {
        let mut dice = Dice::new(u64::from(std::process::id()), "ports", 0);
        Self { next: FIRST + dice.below(usize::from(LAST - FIRST)) as u16, tried: 0 }
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
            if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
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
        let mut again = Ports { next: first.port(), tried: 0 };
        assert_ne!(again.take().unwrap(), first, "a port in use is passed over");
        let mut taken: Vec<u16> = (0..50).map(|_| ports.take().unwrap().port()).collect();
        assert!(taken.iter().all(|port| (FIRST..LAST).contains(port)));
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), 50);
    }
}
