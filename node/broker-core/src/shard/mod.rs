//! A shard: a share of the node's sessions and their connections, without I/O.
//!
//! A client belongs to one shard of a node, by hash; within a shard nothing is locked. The driver
//! owns sockets, clocks and threads, and turns in this order:
//!
//! 1. inputs: `handle_open`, `handle_bytes`, `handle_closed`, `handle_writable`, `handle_mail`,
//!    `handle_commit`, `handle_timeout`, and `handle_stream_…` for further [`streams`];
//! 2. [`Shard::end_turn`], which closes the turn's batch;
//! 3. [`Shard::poll_output`] until it is empty;
//! 4. [`Shard::poll_dirty`] until it is empty: write these connections' outputs; a driver whose
//!    connections have streams, [`Shard::poll_dirty_stream`] too.
//!
//! What must not be said before something is durable (acknowledgements, CONNACK, PUBREL, answers to
//! other nodes) is an [`Effect`](turn::Effect) of the batch, and happens in
//! [`Shard::handle_commit`].
//!
//! | file | holds |
//! |---|---|
//! | [`api`] | inputs, outputs, configuration |
//! | `turn` | the batch under way, its effects, and what waits for a commit |
//! | `connection` | a connection, and its events |
//! | `authenticate` | who the client is |
//! | `connect` | CONNECT: new, resumed, taken over, or sought at other nodes |
//! | `seek` | asking a session's homes who owns it |
//! | `admit` | whether a PUBLISH is within what was granted |
//! | `publish` | PUBLISH and its acknowledgements, inward |
//! | `pass` | QoS 0, inward and outward at once |
//! | `deliver`, `at_once`, `owed` | messages owed, outward |
//! | `away` | what only the store has of them |
//! | `hold` | publishers that wait for a subscriber's queue |
//! | `replay` | how much is replayed to new subscriptions |
//! | `redeliver` | what a member of a shared subscription leaves to the others |
//! | `subscribe`, `subscriptions`, `asked` | SUBSCRIBE, UNSUBSCRIBE; filters and topics with prefixes |
//! | `auto_subscribe`, `delayed`, `own` | what goes beyond the standard |
//! | [`streams`] | further streams of a connection: MQTT over QUIC |
//! | `open`, `listener` | sessions by client; what connections of a listener share |
//! | `rows`, `park`, `slot`, `load`, `attend` | sessions out of memory, what is left, back, and what is due meanwhile |
//! | [`restore`] | what is read before a node serves |
//! | `lifecycle` | the end of connections and sessions, Wills, timers |
//! | `replica` | what a session's homes are told, and when |
//! | `claimant`, `giver`, `moving` | the two sides of a handover, and what a session keeps of it |
//! | [`terms`] | what clients are granted |
//! | `words` | reasons in words |
//! | `view` | answers to the administrator |

mod admit;
pub mod api;
mod asked;
mod at_once;
mod attend;
mod authenticate;
mod authors;
mod auto_subscribe;
mod away;
mod claimant;
mod connack;
mod connect;
mod connection;
mod delayed;
mod deliver;
mod due;
mod giver;
mod hold;
mod lifecycle;
mod listener;
mod load;
mod moving;
mod open;
mod owed;
mod own;
mod park;
mod pass;
mod publish;
mod redeliver;
mod replay;
mod replica;
pub mod restore;
mod rows;
mod seek;
mod session;
mod slot;
mod spare;
pub mod streams;
mod subscribe;
mod subscriptions;
mod tally;
pub mod terms;
#[cfg(test)]
mod tests;
mod turn;
mod view;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustc_hash::FxHashMap;
use verge_model::{Claim, ClientKey, Millis, NodeKey, Now};
use verge_storage::StoreError;

use self::api::{ConnId, ConnectionInfo, HubMail, Mail, Output, SessionNo, ShardConfig, Ticket};
use self::attend::Attend;
use self::authors::Authors;
use self::away::Late;
use self::connection::Conn;
use self::delayed::Delayed;
use self::giver::Pointers;
use self::hold::Holds;
use self::listener::{Listener, Listeners};
use self::open::Open;
use self::park::Parking;
use self::pass::Frames;
use self::session::Session;
use self::spare::Spare;
use self::tally::Tally;
use self::turn::{Effect, Turn};
use crate::extension::events::EventBudget;
use crate::planner::Planner;
use crate::shared::NodeShared;
use crate::spread::{Numbered, Numbers};

/// A share of the node's sessions.
pub struct Shard {
    config: ShardConfig,
    shared: Arc<NodeShared>,
    planner: Planner,
    frames: Frames,
    authors: Authors,
    spare: Spare,
    tally: Tally,
    conns: Numbers<Conn>,
    sessions: Numbers<Session>,
    /// The session this node owns for a client, if any.
    open: Open,
    listeners: Listeners,
    /// Logs on their way out, by client and the claim they were written under.
    sealed: BTreeMap<(ClientKey, Claim), SessionNo>,
    /// Where clients went whose logs have gone too.
    pointers: Pointers,
    /// Sessions with older logs to pull.
    importing: BTreeSet<SessionNo>,
    /// Sessions that leave memory, and those that are not in it.
    parking: Parking,
    /// How far it looked after those.
    attend: Attend,
    turn: Turn,
    timers: BTreeSet<(Millis, Timer)>,
    /// Connections that wait for the hub to find an owner.
    lookups: BTreeMap<u64, Lookup>,
    /// Those of clients that are not served before the answer: one a client.
    seeking: FxHashMap<ClientKey, u64>,
    /// Sessions that wait for the hub to say how far their routes are.
    settling: BTreeMap<u64, SessionNo>,
    /// Messages that are published later.
    delayed: Delayed,
    /// Who does not keep up, and who waits.
    holds: Holds,
    /// Sessions with a row that was not there when it was looked for.
    late: BTreeMap<SessionNo, Late>,
    /// Events of clients in this second.
    events: EventBudget,
    next_number: u64,
    /// Nodes a link leads to.
    peers: BTreeSet<NodeKey>,
    shutting_down: bool,
    seed: u64,
}

/// What a timer stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Connection(ConnId),
    Session(SessionNo),
    Lookup(u64),
    Delayed,
    /// Retained messages were sent, and the client is read from again.
    Replay(ConnId),
    /// A session does not keep up.
    Slow(SessionNo),
    /// Sessions may leave memory.
    Leave,
    /// Something may be due for sessions that are not in memory.
    Attend,
    /// A row was not there, and is looked for again.
    Late(SessionNo),
}

/// Why the hub was asked for an owner.
#[derive(Debug)]
enum Lookup {
    /// A client wants to resume.
    Resume(Box<connect::PendingConnect>),
    /// It does, and homes of its session were out of reach: they are asked again.
    Again(Box<connect::PendingConnect>),
    /// A client started clean here; an older session elsewhere must hear of it.
    Clean(ClientKey),
}

impl Numbered for Conn {
    type Number = ConnId;

    fn number(&self) -> ConnId {
        self.id
    }
}

impl Numbered for Session {
    type Number = SessionNo;

    fn number(&self) -> SessionNo {
        self.no
    }

    fn touched(&mut self) {
        self.leave.stop();
    }
}

impl Shard {
    /// A shard without sessions. `seed` makes the ClientIds it assigns unpredictable.
    #[must_use]
    pub fn new(config: ShardConfig, shared: Arc<NodeShared>, seed: u64) -> Self {
        Self {
            planner: Planner::new(Arc::clone(&shared)),
            frames: Frames::default(),
            authors: Authors::default(),
            spare: Spare::default(),
            tally: Tally::default(),
            turn: Turn::new(&config, shared.incarnation),
            config,
            shared,
            conns: Numbers::default(),
            sessions: Numbers::default(),
            open: Open::default(),
            listeners: Listeners::default(),
            sealed: BTreeMap::new(),
            pointers: Pointers::default(),
            importing: BTreeSet::new(),
            parking: Parking::default(),
            attend: Attend::default(),
            timers: BTreeSet::new(),
            lookups: BTreeMap::new(),
            seeking: FxHashMap::default(),
            settling: BTreeMap::new(),
            delayed: Delayed::default(),
            holds: Holds::default(),
            late: BTreeMap::new(),
            events: EventBudget::default(),
            next_number: 1,
            peers: BTreeSet::new(),
            shutting_down: false,
            seed,
        }
    }

    /// A transport was accepted.
    pub fn handle_open(&mut self, conn: ConnId, info: ConnectionInfo, now: Now) {
        let listener = self.listeners.of(&info, &self.config);
        self.conns.insert(Box::new(Conn::new(conn, info, listener, now)));
        self.arm_connection(conn, now);
    }

    /// Bytes arrived that were not consumed before. Returns how many are consumed now; the driver
    /// offers the rest again with what follows them, or after [`Output::Feed`].
    pub fn handle_bytes(&mut self, conn: ConnId, input: &[u8], now: Now) -> usize {
        let mut used = 0;
        while let Some(step) = self.next_event(conn, &input[used..], now) {
            used += step;
        }
        self.arm_connection(conn, now);
        used
    }

    /// Whether bytes of this connection would be consumed now. If not, leave them in the socket.
    #[must_use]
    pub fn wants_bytes(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|conn| conn.wants_bytes())
    }

    /// The transport ended, or broke.
    pub fn handle_closed(&mut self, conn: ConnId, now: Now) {
        self.event_disconnected(conn, "socket_closed", now);
        self.connection_lost(conn, now);
    }

    /// The connection's output has fallen below half of the high mark.
    pub fn handle_writable(&mut self, conn: ConnId, now: Now) {
        self.replay_waiting(conn, now);
        if let Some(no) = self.conns.get(&conn).and_then(|conn| conn.session()) {
            self.pump(no, now);
        }
    }

    /// The peer of a connection is reached at another address.
    pub fn handle_moved(&mut self, conn: ConnId, peer: SocketAddr) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.peer = peer;
        }
    }

    /// Counts a connection that its driver ends for a reason of the transport's.
    pub fn count_closed(&self, label: &'static str) {
        self.shared.counters.connection_closed(label);
    }

    /// Mail from another shard, the hub or the administrator.
    pub fn handle_mail(&mut self, mail: Mail, now: Now) {
        match mail {
            Mail::Deliver(deliveries) => {
                for delivery in deliveries {
                    self.take_delivery(delivery, now);
                }
            }
            Mail::Handover { from, frame } => self.handle_handover(from, &frame, now),
            Mail::LookupAnswer { ticket, entry, complete } => {
                self.lookup_answered(ticket, entry, complete, now);
            }
            Mail::Superseded { client, winner, clean } => {
                self.superseded(&client, winner, clean, now);
            }
            Mail::RouteHead { token, head } => self.routed(token, head, now),
            Mail::Flushed { owner, head } => self.flushed(owner, head, now),
            Mail::PasswordChecked { conn, verdict } => self.password_checked(conn, verdict, now),
            Mail::Barrier => self.turn.when_durable(Effect::Barrier),
            Mail::PeerUp(peer) => self.peer_up(peer, now),
            Mail::PeerDown(peer) => {
                self.peers.remove(&peer);
            }
            Mail::Relieved(no) => self.relieved(no),
            Mail::Publish(messages) => {
                for message in messages {
                    self.publish_own(message, now);
                }
            }
            Mail::Query(query, reply) => {
                self.tally.flush(&self.shared);
                reply(self.answer(&query));
            }
            Mail::Kick(client) => self.kick(&client, now),
            Mail::Shutdown => self.shut_down(now),
        }
    }

    /// The batch named by `ticket` is durable at its promise, or was not stored.
    pub fn handle_commit(&mut self, ticket: Ticket, result: Result<(), StoreError>, now: Now) {
        // A batch that was lost takes the promises of later ones with it only if they fail too:
        // each has its own result.
        if result.is_err() {
            self.note_unstored();
        }
        for effect in self.turn.committed(ticket) {
            match &result {
                Ok(()) => self.effect_durable(effect, now),
                Err(error) => self.effect_failed(effect, error, now),
            }
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(&(due, timer)) = self.timers.first() {
            if due > now.mono {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Connection(conn) => self.connection_timeout(conn, now),
                Timer::Session(no) => self.session_timeout(no, now),
                Timer::Lookup(ticket) => self.lookup_timeout(ticket, now),
                Timer::Delayed => self.delayed_timeout(now),
                Timer::Replay(conn) => self.replay_timeout(conn),
                Timer::Slow(no) => self.slow_timeout(no, now),
                Timer::Leave => self.leave_timeout(now),
                Timer::Attend => self.attend_timeout(now),
                Timer::Late(no) => self.late_timeout(no, now),
            }
        }
    }

    /// When [`Shard::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Ends the turn: its rows are handed out as one batch.
    pub fn end_turn(&mut self, now: Now) {
        while let Some(frame) = self.turn.loopback.pop_front() {
            self.handle_handover(self.config.node, &frame, now);
        }
        self.turn.close();
        self.tally.flush(&self.shared);
    }

    /// Whether no more should be read in this turn.
    #[must_use]
    pub fn is_turn_full(&self) -> bool {
        self.turn.is_full()
    }

    /// The next thing for the driver to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.turn.outputs.pop_front()
    }

    /// The next connection whose output has grown.
    pub fn poll_dirty(&mut self) -> Option<ConnId> {
        loop {
            let conn = self.turn.dirty.pop_front()?;
            if let Some(state) = self.conns.get_mut(&conn) {
                state.dirty = false;
                return Some(conn);
            }
        }
    }

    /// Bytes to write to a connection; the driver removes what it wrote, and says so when that was
    /// all ([`Shard::output_written`]).
    pub fn output_mut(&mut self, conn: ConnId) -> Option<&mut BytesMut> {
        self.conns.get_mut(&conn).map(|state| &mut state.out)
    }

    /// Everything in the connection's output was written: it needs no memory now.
    pub fn output_written(&mut self, conn: ConnId) {
        if let Some(state) = self.conns.get_mut(&conn) {
            self.spare.take_back(&mut state.out);
        }
    }

    /// The high mark of a connection's output, in bytes.
    #[must_use]
    pub fn output_bytes_high(&self) -> usize {
        self.config.output_bytes_high
    }

    /// Changes the high mark of connections' outputs: there is less room, or more again. Who was
    /// above it is told of room as always ([`Shard::handle_writable`]).
    pub fn set_output_bytes_high(&mut self, bytes: usize) {
        self.config.output_bytes_high = bytes;
    }

    /// Whether every batch handed out has come back.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.turn.is_idle()
    }

    /// Panics if a documented relation between the parts does not hold.
    pub fn check_invariants(&self) {
        for no in self.open.numbers().collect::<BTreeSet<_>>() {
            let session = &self.sessions[&no];
            assert_eq!(self.open_of(&session.client), Some(no));
            assert!(!session.is_sealed());
            session.outbound.check_invariants();
            self.check_streams(session);
        }
        for ((client, claim), no) in &self.sealed {
            let session = &self.sessions[no];
            assert_eq!((client, *claim), (&session.client, session.claim));
            assert!(session.is_sealed() && session.conn.is_none());
        }
        assert_eq!(self.sessions.len(), self.open.len() + self.sealed.len());
        self.check_lookups();
        self.check_holds();
    }

    /// Makes sure that the session's timer fires no later than its next deadline.
    fn arm(&mut self, no: SessionNo) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let Some(due) = session.next_deadline() else { return };
        if session.armed.at().is_some_and(|armed| armed <= due) {
            return;
        }
        if let Some(armed) = std::mem::replace(&mut session.armed, due.into()).at() {
            self.timers.remove(&(armed, Timer::Session(no)));
        }
        self.timers.insert((due, Timer::Session(no)));
    }

    /// Sends a handover frame; one to this node itself takes the short way.
    fn send_handover(&mut self, to: NodeKey, frame: Bytes) {
        if to == self.config.node {
            self.turn.loopback.push_back(frame);
        } else {
            self.turn.outputs.push_back(Output::Hub(HubMail::Handover { to, frame }));
        }
    }
}
