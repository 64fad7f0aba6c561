//! UDP relays in front of the nodes: links that can be cut.
//!
//! ```text
//!  node a ────► front of b ──► [session a] ────► node b
//!         ◄──── front of b ◄── [session a] ◄────
//! ```
//!
//! Every node advertises its relay's front instead of its own address, so whoever dials it passes
//! here, in either direction. A node dials from the socket it listens on, which tells a relay who
//! sends: so the cloud tier can be separated from all others while those go on talking.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::task::{JoinHandle, JoinSet};

/// Senders one relay keeps apart; each has a socket. A mesh of the demo has a few nodes, and a
/// node's restart brings no new sender.
const SESSIONS_MAX: usize = 1_024;

/// What a socket is asked to hold; the kernel grants what it allows.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// The largest UDP payload.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// The relays of a run. Dropping it stops them.
#[derive(Debug)]
pub struct Relays {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// The node that can be separated.
    separable: SocketAddr,
    is_cut: AtomicBool,
    forwarded: AtomicU64,
    dropped: AtomicU64,
}

impl Relays {
    /// No relays yet. `separable` is the node that [`cut`](Self::cut) separates.
    #[must_use]
    pub fn new(separable: SocketAddr) -> Self {
        let shared = Shared {
            separable,
            is_cut: AtomicBool::new(false),
            forwarded: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), tasks: Vec::new() }
    }

    /// Puts a relay in front of a node, and returns the address to advertise.
    ///
    /// # Errors
    /// The system gives no socket.
    pub async fn add(&mut self, node: SocketAddr) -> io::Result<SocketAddr> {
        let front = Arc::new(bind().await?);
        let address = front.local_addr()?;
        let shared = Arc::clone(&self.shared);
        self.tasks.push(tokio::spawn(relay(shared, front, node)));
        Ok(address)
    }

    /// Separates the node: every datagram from or to it is dropped.
    pub fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::Relaxed);
    }

    /// Joins it again.
    pub fn restore(&self) {
        self.shared.is_cut.store(false, Ordering::Relaxed);
    }

    /// Datagrams that were passed on.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        self.shared.forwarded.load(Ordering::Relaxed)
    }

    /// Datagrams that met a cut.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    /// Whether a datagram between these two meets a cut; counts it either way.
    fn stops(&self, separable: bool) -> bool {
        let stops = separable && self.is_cut.load(Ordering::Relaxed);
        let counter = if stops { &self.dropped } else { &self.forwarded };
        counter.fetch_add(1, Ordering::Relaxed);
        stops
    }
}

async fn bind() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let options = SockRef::from(&socket);
    options.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    options.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    Ok(socket)
}

/// Passes on what comes to a front. UDP promises nothing, so an error on one datagram, such as the
/// refusal of a node that is down, is a lost datagram.
async fn relay(shared: Arc<Shared>, front: Arc<UdpSocket>, node: SocketAddr) {
    let mut sessions: BTreeMap<SocketAddr, (Arc<UdpSocket>, bool)> = BTreeMap::new();
    let mut returns = JoinSet::new();
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((size, sender)) = front.recv_from(&mut datagram).await else {
            tokio::task::yield_now().await;
            continue;
        };
        if !sessions.contains_key(&sender) {
            if sessions.len() == SESSIONS_MAX {
                continue;
            }
            let Ok(socket) = bind().await else { continue };
            if socket.connect(node).await.is_err() {
                continue;
            }
            let socket = Arc::new(socket);
            let separable = shared.separable == sender || shared.separable == node;
            returns.spawn(back(
                Arc::clone(&shared),
                Arc::clone(&socket),
                Arc::clone(&front),
                sender,
                separable,
            ));
            sessions.insert(sender, (socket, separable));
        }
        let Some((socket, separable)) = sessions.get(&sender) else { continue };
        if !shared.stops(*separable) {
            let _ = socket.send(&datagram[..size]).await;
        }
    }
}

/// Passes back what a node answers to one sender.
async fn back(
    shared: Arc<Shared>,
    socket: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    sender: SocketAddr,
    separable: bool,
) {
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match socket.recv(&mut datagram).await {
            Ok(size) if !shared.stops(separable) => {
                let _ = front.send_to(&datagram[..size], sender).await;
            }
            Ok(_) => {}
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn datagrams_pass_both_ways_and_senders_are_kept_apart() {
        let (cloud, node) = (bind().await.unwrap(), bind().await.unwrap());
        let mut relays = Relays::new(cloud.local_addr().unwrap());
        let front = relays.add(node.local_addr().unwrap()).await.unwrap();
        let (a, b) = (bind().await.unwrap(), bind().await.unwrap());
        for (peer, text) in [(&a, b"a"), (&b, b"b")] {
            peer.send_to(text, front).await.unwrap();
            let (got, from) = receive(&node).await.unwrap();
            assert_eq!(got, text);
            node.send_to(&got, from).await.unwrap();
            assert_eq!(receive(peer).await.unwrap(), (text.to_vec(), front));
        }
        assert_eq!((relays.forwarded(), relays.dropped()), (4, 0));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_cut_separates_one_node_in_both_directions_and_no_other() {
        let (cloud, node, other) =
            (bind().await.unwrap(), bind().await.unwrap(), bind().await.unwrap());
        let mut relays = Relays::new(cloud.local_addr().unwrap());
        let to_cloud = relays.add(cloud.local_addr().unwrap()).await.unwrap();
        let to_node = relays.add(node.local_addr().unwrap()).await.unwrap();
        relays.cut();
        cloud.send_to(b"1", to_node).await.unwrap();
        node.send_to(b"2", to_cloud).await.unwrap();
        assert!(receive(&node).await.is_none() && receive(&cloud).await.is_none());
        other.send_to(b"3", to_node).await.unwrap();
        assert_eq!(receive(&node).await.unwrap().0, b"3");
        relays.restore();
        cloud.send_to(b"4", to_node).await.unwrap();
        assert_eq!(receive(&node).await.unwrap().0, b"4");
        assert_eq!(relays.dropped(), 2);
    }

    async fn receive(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
        let mut datagram = vec![0; 100];
        let received = timeout(Duration::from_millis(300), socket.recv_from(&mut datagram)).await;
        let (size, from) = received.ok()?.unwrap();
        datagram.truncate(size);
        Some((datagram, from))
    }
}
