//! A connection of the shard: its protocol machine, its output, and who speaks through it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use verge_model::{ClientKey, Now, UnixMillis};
use verge_mqtt_proto::packet::ping::PINGRESP;
use verge_mqtt_proto::topic::alias::OutboundAliases;
use verge_mqtt_proto::{
    Ack, AckKind, CloseCause, CloseReason, Connection, Encode, Event, FarewellWords, PacketId,
    ProtocolVersion, ReasonCode,
};

use super::admit::Meter;
use super::api::{ConnId, ConnectionInfo, Output, SessionNo};
use super::authenticate::Authentication;
use super::due::Due;
use super::replay::Replay;
use super::streams::Streams;
use super::streams::api::Via;
use super::{Listener, Shard, Timer, words};

/// Who speaks through a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody said CONNECT yet.
    Fresh,
    /// CONNECT came, and its client was challenged to prove who it is.
    Authenticating,
    /// CONNECT came; an earlier owner of the session, or the disk, is awaited.
    Waiting,
    /// A session is served.
    Serving(SessionNo),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) machine: Connection,
    pub(super) listener: Arc<Listener>,
    pub(super) peer: SocketAddr,
    /// The subject of a verified certificate, until CONNECT. Boxed twice: few clients have one, and
    /// the others a word for it.
    pub(super) certificate: Option<Box<Arc<str>>>,
    pub(super) out: BytesMut,
    /// There once the client is accepted, if it takes topic aliases.
    pub(super) aliases: Option<Box<OutboundAliases>>,
    pub(super) dirty: bool,
    /// Streams beside the control stream; most transports have none.
    pub(super) streams: Option<Box<Streams>>,
    pub(super) phase: Phase,
    pub(super) client: Option<ClientKey>,
    /// There while the client has something to prove, and for one that may do so again.
    pub(super) auth: Option<Box<Authentication>>,
    /// There once the client is accepted, if what it publishes is metered.
    pub(super) meter: Option<Box<Meter>>,
    /// The User Name, where something is configured that needs it. Boxed twice, as above.
    pub(super) user: Option<Box<Box<str>>>,
    pub(super) replay: Replay,
    /// Whether its client is not read from, since a subscriber's queue has little room.
    pub(super) held: bool,
    pub(super) clean_start: bool,
    /// Whether the client brought no ClientId and was given one.
    pub(super) client_id_assigned: bool,
    pub(super) keep_alive_secs: u16,
    pub(super) connected_at: UnixMillis,
    armed: Due,
}

impl Conn {
    pub(super) fn new(id: ConnId, info: ConnectionInfo, listener: Arc<Listener>, now: Now) -> Self {
        Self {
            id,
            machine: Connection::new(Arc::clone(&listener.machine), now.mono),
            listener,
            peer: info.peer,
            certificate: info.certificate_subject.map(Box::new),
            out: BytesMut::new(),
            aliases: None,
            dirty: false,
            streams: None,
            phase: Phase::Fresh,
            client: None,
            auth: None,
            meter: None,
            user: None,
            replay: Replay::default(),
            held: false,
            clean_start: false,
            client_id_assigned: false,
            keep_alive_secs: 0,
            connected_at: now.wall,
            armed: Due::NEVER,
        }
    }

    /// The session this connection serves.
    pub(super) fn session(&self) -> Option<SessionNo> {
        match self.phase {
            Phase::Serving(no) => Some(no),
            Phase::Fresh | Phase::Authenticating | Phase::Waiting => None,
        }
    }

    pub(super) fn wants_bytes(&self) -> bool {
        self.phase != Phase::Waiting && !self.replay.paused && !self.held
    }

    /// Whether bytes of its further streams would be consumed now.
    pub(super) fn wants_stream_bytes(&self) -> bool {
        self.session().is_some() && !self.replay.paused && !self.held
    }

    /// The version the client speaks; before CONNECT, any.
    pub(super) fn version(&self) -> ProtocolVersion {
        self.machine.version().unwrap_or(ProtocolVersion::V4)
    }

    /// The words, if the client wants to read any beside CONNACK and DISCONNECT [MQTT-3.1.2-29].
    pub(super) fn words<'a>(&self, words: Option<&'a str>) -> Option<&'a str> {
        words.filter(|_| self.machine.client_wants_problem_information())
    }

    /// Writes a packet, if the client takes packets of its size; else the packet is left out, as
    /// the standard asks [MQTT-3.1.2-24]. Returns whether it was written.
    pub(super) fn write<P: Encode>(&mut self, packet: &P) -> bool {
        let limit = self.machine.client_packet_bytes_max();
        packet.encode_within(self.version(), limit, &mut self.out).is_ok()
    }
}

impl Shard {
    /// Takes one packet off `input`; `None` if there is no whole one, or the connection cannot go
    /// on now, or ended.
    pub(super) fn next_event(&mut self, id: ConnId, input: &[u8], now: Now) -> Option<usize> {
        let conn = self.conns.get_mut(&id)?;
        if !conn.wants_bytes() || input.is_empty() {
            return None;
        }
        if self.turn.is_full() {
            self.turn.feed_next(id);
            return None;
        }
        match conn.machine.handle_bytes(input, now.mono) {
            Ok(None) => None,
            Ok(Some((event, used))) => {
                self.handle_event(Via::control(id), event, now).then_some(used)
            }
            Err(reason) => {
                self.close_for(id, &reason, now);
                None
            }
        }
    }

    /// Does what a client asks for on one of its streams. False if the packet must wait: it is to be
    /// read again when the client is.
    pub(super) fn handle_event(&mut self, via: Via, event: Event<'_>, now: Now) -> bool {
        let id = via.conn;
        match event {
            Event::Connect(connect) => self.handle_connect(id, &connect, now),
            Event::Publish(publish) => return self.handle_publish(via, &publish, now),
            Event::Subscribe(subscribe) => self.handle_subscribe(via, &subscribe, now),
            Event::Unsubscribe(unsubscribe) => self.handle_unsubscribe(via, &unsubscribe, now),
            Event::Pingreq => self.write_raw(via, &PINGRESP),
            Event::Disconnect(disconnect) => self.handle_disconnect(id, &disconnect, now),
            Event::Auth(auth) => self.handle_auth(id, &auth, now),
            Event::Puback { packet_id, reason } => {
                if let Some(no) = self.session_of(id) {
                    self.handle_puback(via, no, packet_id, !reason.is_error(), now);
                }
            }
            Event::Pubrec { packet_id, reason } => {
                if let Some(no) = self.session_of(id) {
                    self.handle_pubrec(via, no, packet_id, !reason.is_error(), now);
                }
            }
            Event::Pubrel { packet_id, .. } => {
                if let Some(no) = self.session_of(id) {
                    self.handle_pubrel(via, no, packet_id);
                }
            }
            Event::Pubcomp { packet_id, .. } => {
                if let Some(no) = self.session_of(id) {
                    self.handle_pubcomp(via, no, packet_id, now);
                }
            }
        }
        true
    }

    /// The session a connection serves.
    pub(super) fn session_of(&self, id: ConnId) -> Option<SessionNo> {
        self.conns.get(&id).and_then(|conn| conn.session())
    }

    /// Ends a connection for a reason of its machine: says the farewell, then closes.
    pub(super) fn close_for(&mut self, id: ConnId, reason: &CloseReason, now: Now) {
        let words = if let CloseCause::Server(code) = reason.cause {
            words::of_close(code).map(Cow::Borrowed)
        } else {
            Some(Cow::Owned(reason.cause.to_string()))
        };
        let words = FarewellWords { reason_string: words.as_deref(), server_reference: None };
        self.close_saying(id, reason, words, now);
    }

    fn close_saying(
        &mut self,
        id: ConnId,
        reason: &CloseReason,
        words: FarewellWords<'_>,
        now: Now,
    ) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        self.shared.counters.connection_closed(reason.cause.label());
        reason.encode_farewell(words, conn.machine.client_packet_bytes_max(), &mut conn.out);
        tracing::debug!(
            peer = %conn.peer,
            client_id = conn.client.as_ref().map(|client| client.client_id.as_ref()),
            %reason,
            "connection closed"
        );
        self.event_disconnected(id, reason.cause.label(), now);
        self.connection_lost(id, now);
    }

    /// Ends a connection from our side: the farewell its client understands, then the transport.
    pub(super) fn disconnect(&mut self, id: ConnId, reason: ReasonCode, now: Now) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let reason = conn.machine.close(reason);
        self.close_for(id, &reason, now);
    }

    /// As [`Shard::disconnect`], with words of one's own.
    pub(super) fn disconnect_saying(
        &mut self,
        id: ConnId,
        reason: ReasonCode,
        words: &str,
        now: Now,
    ) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let reason = conn.machine.close(reason);
        let words = FarewellWords { reason_string: Some(words), server_reference: None };
        self.close_saying(id, &reason, words, now);
    }

    /// Ends a connection since the node goes down, and says where to go instead if that is known.
    pub(super) fn send_away(&mut self, id: ConnId, now: Now) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let reference = self.config.terms.server_reference.clone();
        let code = match &reference {
            Some(_) => ReasonCode::UseAnotherServer,
            None => ReasonCode::ServerShuttingDown,
        };
        let reason = conn.machine.close(code);
        let words = FarewellWords {
            reason_string: words::of_close(ReasonCode::ServerShuttingDown),
            server_reference: reference.as_deref(),
        };
        self.close_saying(id, &reason, words, now);
    }

    /// Writes the last of a connection and forgets it.
    pub(super) fn drop_connection(&mut self, id: ConnId) {
        self.free(id);
        let Some(mut conn) = self.conns.remove(&id) else { return };
        if let Some(armed) = conn.armed.at() {
            self.timers.remove(&(armed, Timer::Connection(id)));
        }
        let last: Bytes = conn.out.split().freeze();
        self.turn.outputs.push_back(Output::Close { conn: id, last });
    }

    /// Makes sure that the connection's timer fires no later than its next deadline.
    pub(super) fn arm_connection(&mut self, id: ConnId, now: Now) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let due = match conn.phase {
            Phase::Waiting => None,
            Phase::Fresh | Phase::Authenticating => conn.machine.poll_timeout(),
            Phase::Serving(_) => {
                let exchange = conn.auth.as_deref().and_then(|state| state.deadline);
                conn.machine.poll_timeout().into_iter().chain(exchange).min()
            }
        };
        let Some(due) = due else { return };
        let due = due.max(now.mono);
        if conn.armed.at().is_some_and(|armed| armed <= due) {
            return;
        }
        if let Some(armed) = std::mem::replace(&mut conn.armed, due.into()).at() {
            self.timers.remove(&(armed, Timer::Connection(id)));
        }
        self.timers.insert((due, Timer::Connection(id)));
    }

    pub(super) fn connection_timeout(&mut self, id: ConnId, now: Now) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.armed = Due::NEVER;
        let waiting = conn.phase == Phase::Waiting;
        if self.authentication_timeout(id, now) {
            return;
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        match conn.machine.handle_timeout(now.mono).filter(|_| !waiting) {
            Some(reason) => self.close_for(id, &reason, now),
            None => self.arm_connection(id, now),
        }
    }

    /// Writes an acknowledgement.
    pub(super) fn acknowledge(
        &mut self,
        via: Via,
        kind: AckKind,
        packet_id: PacketId,
        reason: ReasonCode,
    ) {
        if !via.stream.is_control() {
            return self.acknowledge_on_stream(via, kind, packet_id, reason);
        }
        let Some(conn) = self.conns.get_mut(&via.conn) else { return };
        self.spare.lend(&mut conn.out);
        let mut ack = Ack::new(kind, packet_id, reason);
        if reason.is_error() {
            ack.properties.reason_string = conn.words(words::of_publish(reason));
        }
        conn.write(&ack);
        match kind {
            AckKind::Puback => conn.machine.on_puback_sent(packet_id),
            AckKind::Pubrec => conn.machine.on_pubrec_sent(packet_id, reason),
            AckKind::Pubcomp => conn.machine.on_pubcomp_sent(packet_id),
            AckKind::Pubrel => {}
        }
        self.turn.mark_dirty(conn);
    }

    pub(super) fn write_raw(&mut self, via: Via, bytes: &[u8]) {
        if !via.stream.is_control() {
            return self.write_raw_on_stream(via, bytes);
        }
        if let Some(conn) = self.conns.get_mut(&via.conn) {
            self.spare.lend(&mut conn.out);
            conn.out.extend_from_slice(bytes);
            self.mark_dirty(via.conn);
        }
    }

    pub(super) fn mark_dirty(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            self.turn.mark_dirty(conn);
        }
    }
}
