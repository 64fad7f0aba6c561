//! What a case is given: a node, a version, a way to it, and names nobody else uses.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::node::Node;
use crate::site::Site;
use crate::wire::bytes::Connect;
use crate::wire::received::{Packet, Properties};
use crate::wire::stream::Transport;
use crate::wire::{Version, Wire};

/// Receive Maximum that the node grants, small enough to be exceeded.
pub(crate) const RECEIVE_MAXIMUM: u16 = 16;

/// Largest packet that the node takes.
pub(crate) const PACKET_BYTES_MAX: usize = 65_536;

/// Topic Alias Maximum that the node grants.
pub(crate) const TOPIC_ALIAS_MAXIMUM: u16 = 32;

/// Keep alive that the strict node grants, in seconds.
pub(crate) const STRICT_KEEP_ALIVE_SECS: u16 = 20;

/// The nodes under test, each one process; they end with their last user.
pub(crate) struct Nodes {
    /// Takes everyone, and grants what the constants above say.
    pub(crate) open: Node,
    /// Takes nobody without credentials.
    pub(crate) closed: Node,
    /// Grants QoS 1 at most, and a short keep alive.
    pub(crate) strict: Node,
    _site: Site,
}

impl Nodes {
    /// The nodes of this process, started if need be.
    pub(crate) fn get() -> Arc<Self> {
        static RUNNING: Mutex<Weak<Nodes>> = Mutex::new(Weak::new());
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(nodes) = running.upgrade() {
            return nodes;
        }
        let nodes = Arc::new(Self::start());
        *running = Arc::downgrade(&nodes);
        nodes
    }

    fn start() -> Self {
        let site = Site::new();
        let open = site.node("open").with([
            &format!("session.receive_maximum={RECEIVE_MAXIMUM}"),
            &format!("session.packet_bytes_max={PACKET_BYTES_MAX}"),
            &format!("session.topic_alias_maximum={TOPIC_ALIAS_MAXIMUM}"),
        ]);
        let closed = site.node("closed").with(["auth.allow_anonymous=never"]);
        let keep_alive = format!("session.keep_alive_max={STRICT_KEEP_ALIVE_SECS}s");
        let strict = site.node("strict").with(["session.qos_max=1", &keep_alive]);
        let (open, closed, strict) = (open.started(), closed.started(), strict.started());
        Self { open, closed, strict, _site: site }
    }
}

/// What a case is given.
pub(crate) struct Bench {
    pub(crate) version: Version,
    pub(crate) nodes: Arc<Nodes>,
    transport: Transport,
    single_bytes: bool,
    number: u32,
}

/// A CONNACK.
#[derive(Debug)]
pub(crate) struct Connack {
    pub(crate) session_present: bool,
    pub(crate) reason: u8,
    pub(crate) properties: Properties,
}

impl Bench {
    pub(crate) fn new(
        nodes: Arc<Nodes>,
        version: Version,
        transport: Transport,
        single_bytes: bool,
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { version, nodes, transport, single_bytes, number }
    }

    pub(crate) fn is_v5(&self) -> bool {
        self.version == Version::V5
    }

    /// A number that no other run of a case has.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// A ClientId of this run: up to 23 letters and digits for names of up to ten.
    pub(crate) fn id(&self, name: &str) -> String {
        format!("c{}x{name}", self.number)
    }

    /// A topic of this run.
    pub(crate) fn topic(&self, name: &str) -> String {
        format!("t{}/{name}", self.number)
    }

    /// A CONNECT of a client of this run, for a session that ends with the connection.
    pub(crate) fn connect(&self, name: &str) -> Connect {
        Connect::new(self.version, self.id(name))
    }

    /// A connection without a word.
    pub(crate) fn open(&self) -> Wire {
        self.open_to(self.nodes.open.mqtt)
    }

    /// A connection to another of the nodes.
    pub(crate) fn open_to(&self, addr: SocketAddr) -> Wire {
        Wire::new(self.version, self.transport.open(addr), self.single_bytes)
    }

    /// A connection that is accepted.
    pub(crate) fn accept(&self, connect: &Connect) -> (Wire, Connack) {
        let mut wire = self.open();
        wire.send(&connect.bytes());
        let connack = connack(&mut wire);
        assert_eq!(connack.reason, 0, "CONNACK: {connack:?}");
        (wire, connack)
    }

    /// A client of this run with a session that ends with its connection.
    pub(crate) fn client(&self, name: &str) -> Wire {
        self.accept(&self.connect(name)).0
    }

    /// A client of this run with a session that stays.
    pub(crate) fn kept(&self, name: &str) -> (Wire, Connack) {
        self.accept(&self.connect(name).kept())
    }

    /// What comes back for a CONNECT that must not be accepted: the reason of CONNACK, if there is
    /// one, and then the end.
    pub(crate) fn refusal(&self, bytes: &[u8]) -> Option<u8> {
        let mut wire = self.open();
        wire.send(bytes);
        refusal(&mut wire)
    }
}

/// The next packet, which is CONNACK.
pub(crate) fn connack(wire: &mut Wire) -> Connack {
    let packet = wire.receive();
    let Packet::Connack { session_present, reason, properties } = packet else {
        panic!("CONNACK comes first [MQTT-3.2.0-1], not {packet:?}")
    };
    Connack { session_present, reason, properties }
}

/// At most a CONNACK with an error, and then the end.
pub(crate) fn refusal(wire: &mut Wire) -> Option<u8> {
    let words = wire.last_words();
    if words.is_empty() {
        return None;
    }
    let [Packet::Connack { reason: reason @ 1.., .. }] = &words[..] else {
        panic!("a refusal and the end were to come, not {words:?}")
    };
    Some(*reason)
}
