//! What a case is given: a node, a version, a way to it, and names nobody else uses.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::node::Node;
use crate::ports;
use crate::programs::output_of;
use crate::site::Site;
use crate::table::Bytes;
use crate::wire::bytes::Connect;
use crate::wire::received::{Packet, Properties};
use crate::wire::stream::{Transport, Ways};
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
    pub(crate) open: Served,
    /// Takes nobody without credentials.
    pub(crate) closed: Served,
    /// Grants QoS 1 at most, and a short keep alive.
    pub(crate) strict: Served,
    _site: Site,
}

/// A node, and the ways to it.
pub(crate) struct Served {
    _node: Node,
    pub(crate) ways: Ways,
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
        let text = |name: &str| site.path(name).display().to_string();
        let (ca, certs) = (text("ca"), text("certs"));
        output_of(&mut site.verge(["pki", "init", "--ca", &ca]));
        let mut issue = site.verge(["pki", "issue", "server", "localhost", "127.0.0.1"]);
        output_of(issue.args(["--ca", &ca, "--out", &certs]));
        let keep_alive = format!("session.keep_alive_max={STRICT_KEEP_ALIVE_SECS}s");
        let open = [
            &*format!("session.receive_maximum={RECEIVE_MAXIMUM}"),
            &format!("session.packet_bytes_max={PACKET_BYTES_MAX}"),
            &format!("session.topic_alias_maximum={TOPIC_ALIAS_MAXIMUM}"),
        ];
        Self {
            open: Served::start(&site, "open", &certs, &open),
            closed: Served::start(&site, "closed", &certs, &["auth.allow_anonymous=never"]),
            strict: Served::start(&site, "strict", &certs, &["session.qos_max=1", &keep_alive]),
            _site: site,
        }
    }
}

impl Served {
    fn start(site: &Site, name: &str, certs: &str, settings: &[&str]) -> Self {
        let mut node = site.node(name);
        for setting in settings {
            node.args(["--set", setting]);
        }
        let pair =
            [format!("tls.cert={certs}/localhost.pem"), format!("tls.key={certs}/localhost.key")];
        let mut node = node.with([&pair[0], &pair[1]]);
        let mut listen = |scheme: &str| {
            let addr = ports::free();
            node.args(["--listen", &format!("{scheme}://{addr}")]);
            addr
        };
        let (tls, ws, wss, quic) = (listen("tls"), listen("ws"), listen("wss"), listen("quic"));
        let authority = format!("{certs}/ca.pem");
        let ways = Ways { tcp: node.mqtt, tls, ws, wss, quic, authority };
        node.start();
        Self { _node: node, ways }
    }
}

/// What a case is given.
pub(crate) struct Bench {
    pub(crate) version: Version,
    pub(crate) nodes: Arc<Nodes>,
    transport: Transport,
    bytes: Bytes,
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
        bytes: Bytes,
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { version, nodes, transport, bytes, number }
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
        self.open_to(&self.nodes.open)
    }

    /// A connection to another of the nodes.
    pub(crate) fn open_to(&self, node: &Served) -> Wire {
        Wire::new(self.version, self.transport.open(&node.ways), self.bytes == Bytes::Single)
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
