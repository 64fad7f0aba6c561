//! Further streams of a connection: MQTT over QUIC.
//!
//! A connection has one control stream, which is all that TCP, TLS and WebSocket have; over QUIC
//! its client may open more. What comes on a stream is answered on it, what a subscription of a
//! stream matches is delivered on it, and each stream has its own packet identifiers towards us.
//! All streams serve one session.
//!
//! ```text
//!  open ──▶ read (from CONNACK on) ──▶ FIN of the client: what is owed is written ──▶ FIN
//!               │
//!               └── RESET of the client, or its fault: gone at once
//! ```
//!
//! | ends | its subscriptions | what is owed on it | QoS 2 identifiers received on it |
//! |---|---|---|---|
//! | the stream | dropped | dropped | kept, for a repetition of the PUBLISH |
//! | the connection; the session stays | detached: the control stream's until taken over | sent on the control stream | kept |
//! | the session | dropped | dropped | dropped |
//!
//! | file | holds |
//! |---|---|
//! | [`api`] | stream numbers, ends, codes |
//! | `session` | what a session keeps of streams |
//! | `subscribe` | SUBSCRIBE and UNSUBSCRIBE on streams, and detached subscriptions |
//! | `deliver` | what is owed on several streams |
//! | `received` | QoS 2 identifiers by stream |

pub mod api;
mod deliver;
mod received;
pub(in crate::shard) mod session;
mod shares;
mod subscribe;

pub(in crate::shard) use self::deliver::acknowledges;
pub(in crate::shard) use self::subscribe::unsubscribed;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use verge_model::{Class, Now};
use verge_mqtt_proto::session::StreamTag;
use verge_mqtt_proto::{Ack, AckKind, CloseCause, Encode, PacketId, ReasonCode, Stream as Machine};

use self::api::{StreamCode, StreamEnd, StreamKind, StreamNo, Via};
use super::api::{ConnId, Output};
use super::connection::Conn;
use super::turn::Effect;
use super::{Shard, words};

/// Most streams of one connection at once, beside the control stream. A driver grants far fewer at
/// first, and more to clients that use a stream for each PUBLISH; beyond this bound a stream is
/// reset with "Quota exceeded" (0x97).
pub const STREAMS_MAX: usize = 256;

/// The send priority of the control stream: above that of any message.
const CONTROL_PRIORITY: i32 = Class::ALL.len() as i32;

/// The streams of a connection beside its control stream.
#[derive(Debug, Default)]
pub(in crate::shard) struct Streams {
    /// At most [`STREAMS_MAX`].
    table: BTreeMap<StreamNo, Stream>,
    /// Those on which the client has subscribed.
    tags: BTreeMap<StreamTag, StreamNo>,
}

/// A stream of a connection.
#[derive(Debug)]
struct Stream {
    kind: StreamKind,
    /// There from the first byte that is read.
    machine: Option<Machine>,
    out: BytesMut,
    dirty: bool,
    /// Whether bytes were offered and left that are not a whole packet.
    partial: bool,
    /// Whether the client will send no more.
    finished: bool,
    /// Given with the first SUBSCRIBE.
    tag: StreamTag,
    /// The most urgent class in `out`.
    class: Option<Class>,
}

impl Shard {
    /// The client opened a stream beside the control stream. Before its CONNECT was accepted it is
    /// not read.
    pub fn handle_stream_open(
        &mut self,
        conn: ConnId,
        stream: StreamNo,
        kind: StreamKind,
        _now: Now,
    ) {
        let Some(state) = self.conns.get_mut(&conn).filter(|_| !stream.is_control()) else {
            return;
        };
        let streams = state.streams.get_or_insert_default();
        if streams.table.contains_key(&stream) {
            return;
        }
        if streams.table.len() >= STREAMS_MAX {
            self.shared.counters.stream_reset("streams_max");
            let code = Some(ReasonCode::QuotaExceeded.into());
            let last = Bytes::new();
            return self.turn.outputs.push_back(Output::CloseStream { conn, stream, last, code });
        }
        streams.table.insert(stream, Stream::new(kind));
    }

    /// Bytes of a stream arrived that were not consumed before. Returns how many are consumed now,
    /// as [`Shard::handle_bytes`] does.
    pub fn handle_stream_bytes(
        &mut self,
        conn: ConnId,
        stream: StreamNo,
        input: &[u8],
        now: Now,
    ) -> usize {
        let via = Via { conn, stream };
        let mut used = 0;
        while let Some(step) = self.next_stream_event(via, &input[used..], now) {
            used += step;
        }
        if let Some(state) = self.stream_mut(via) {
            state.partial = used < input.len();
        }
        used
    }

    /// Whether bytes of this stream would be consumed now. If not, leave them in the transport,
    /// whose flow control bounds them; [`Output::FeedStream`] says when.
    #[must_use]
    pub fn wants_stream_bytes(&self, conn: ConnId, stream: StreamNo) -> bool {
        let Some(state) = self.conns.get(&conn).filter(|state| state.wants_stream_bytes()) else {
            return false;
        };
        state.stream(stream).is_some_and(|stream| !stream.finished)
    }

    /// The client ended a stream, and all its bytes were offered while they were
    /// [wanted](Self::wants_stream_bytes).
    pub fn handle_stream_end(&mut self, conn: ConnId, stream: StreamNo, end: StreamEnd, now: Now) {
        let via = Via { conn, stream };
        let Some(state) = self.stream_mut(via) else { return };
        match end {
            StreamEnd::Finished if state.partial => {
                self.reset_stream(via, StreamCode::INCOMPLETE_PACKET, "incomplete_packet", now);
            }
            StreamEnd::Finished => {
                if std::mem::replace(&mut state.finished, true) {
                    return;
                }
                self.end_stream_state(via, now);
                // Acknowledgements that wait for the disk come before the FIN.
                if self.turn.is_waiting() {
                    self.turn.when_durable(Effect::FinishStream(via));
                } else {
                    self.finish_stream(via);
                }
            }
            StreamEnd::Reset => {
                self.end_stream_state(via, now);
                self.forget_stream(via);
            }
        }
    }

    /// A stream's output has fallen below half of the high mark.
    pub fn handle_stream_writable(&mut self, conn: ConnId, _stream: StreamNo, now: Now) {
        self.handle_writable(conn, now);
    }

    /// Resets a stream by the driver's own decision, as one that is not read while others are. Its
    /// subscriptions end with it.
    /// `label` is why, for metrics.
    pub fn close_stream(
        &mut self,
        conn: ConnId,
        stream: StreamNo,
        code: StreamCode,
        label: &'static str,
        now: Now,
    ) {
        self.reset_stream(Via { conn, stream }, code, label, now);
    }

    /// Counts a stream that the driver resets after the shard has forgotten it.
    pub fn count_stream_reset(&self, label: &'static str) {
        self.shared.counters.stream_reset(label);
    }

    /// The next stream beside control streams whose output has grown.
    pub fn poll_dirty_stream(&mut self) -> Option<(ConnId, StreamNo)> {
        loop {
            let (conn, stream) = self.turn.dirty_streams.pop_front()?;
            if let Some(state) = self.stream_mut(Via { conn, stream }) {
                state.dirty = false;
                return Some((conn, stream));
            }
        }
    }

    /// Bytes to write to a stream; the driver removes what it wrote. The control stream's are the
    /// connection's.
    pub fn stream_output_mut(&mut self, conn: ConnId, stream: StreamNo) -> Option<&mut BytesMut> {
        if stream.is_control() {
            return self.output_mut(conn);
        }
        self.stream_mut(Via { conn, stream }).map(|state| &mut state.out)
    }

    /// How urgent a stream's output is, the greater the sooner: the control stream before all, then
    /// by the most urgent message in it. One with answers only goes with commands.
    #[must_use]
    pub fn stream_priority(&self, conn: ConnId, stream: StreamNo) -> i32 {
        if stream.is_control() {
            return CONTROL_PRIORITY;
        }
        let state = self.conns.get(&conn).and_then(|state| state.stream(stream));
        let class = state.and_then(|state| state.class).unwrap_or(Class::Control);
        CONTROL_PRIORITY - 1 - class as i32
    }

    /// Takes one packet off a stream's `input`, as `next_event` does for the control stream.
    fn next_stream_event(&mut self, via: Via, input: &[u8], now: Now) -> Option<usize> {
        let conn = self.conns.get_mut(&via.conn).filter(|conn| conn.wants_stream_bytes())?;
        let Conn { machine, streams, .. } = conn;
        let stream = streams.as_mut()?.table.get_mut(&via.stream)?;
        if stream.finished || input.is_empty() {
            return None;
        }
        let kind = stream.kind;
        let reader = stream.machine.get_or_insert_with(|| machine.open_stream(kind));
        match machine.handle_stream_bytes(reader, input, now.mono) {
            Ok(None) => None,
            Ok(Some((event, used))) => {
                let scope = match kind {
                    StreamKind::Data => via,
                    StreamKind::Publish => Via::control(via.conn),
                };
                if !self.handle_event(scope, event, now) {
                    return None;
                }
                Some(used)
            }
            Err(cause) => {
                self.fail_stream(via, cause, now);
                None
            }
        }
    }

    /// Resets a stream for what its client did on it.
    fn fail_stream(&mut self, via: Via, cause: CloseCause, now: Now) {
        tracing::debug!(conn = via.conn.0, stream = via.stream.0, %cause, "stream reset");
        self.reset_stream(via, cause.reason_code().into(), cause.label(), now);
    }

    fn reset_stream(&mut self, via: Via, code: StreamCode, label: &'static str, now: Now) {
        if self.stream_mut(via).is_none() {
            return;
        }
        self.shared.counters.stream_reset(label);
        self.end_stream_state(via, now);
        self.forget_stream(via);
        let Via { conn, stream } = via;
        let (last, code) = (Bytes::new(), Some(code));
        self.turn.outputs.push_back(Output::CloseStream { conn, stream, last, code });
    }

    /// Says FIN on a stream that the client has finished, after all that was owed on it.
    pub(super) fn finish_stream(&mut self, via: Via) {
        let Some(mut state) = self.forget_stream(via) else { return };
        let last = state.out.split().freeze();
        let Via { conn, stream } = via;
        self.turn.outputs.push_back(Output::CloseStream { conn, stream, last, code: None });
    }

    fn forget_stream(&mut self, via: Via) -> Option<Stream> {
        let conn = self.conns.get_mut(&via.conn)?;
        let state = conn.streams.as_mut()?.table.remove(&via.stream)?;
        if let Some(machine) = &state.machine {
            conn.machine.on_stream_closed(machine);
        }
        Some(state)
    }

    fn stream_mut(&mut self, via: Via) -> Option<&mut Stream> {
        self.conns.get_mut(&via.conn)?.streams.as_mut()?.table.get_mut(&via.stream)
    }

    /// Writes an acknowledgement to a stream, unless the stream is over.
    pub(super) fn acknowledge_on_stream(
        &mut self,
        via: Via,
        kind: AckKind,
        packet_id: PacketId,
        reason: ReasonCode,
    ) {
        let Some(conn) = self.conns.get_mut(&via.conn) else { return };
        let (version, limit) = (conn.version(), conn.machine.client_packet_bytes_max());
        let mut ack = Ack::new(kind, packet_id, reason);
        if reason.is_error() {
            ack.properties.reason_string = conn.words(words::of_publish(reason));
        }
        let Conn { machine, streams, .. } = conn;
        let streams = streams.as_mut();
        let Some(stream) = streams.and_then(|streams| streams.table.get_mut(&via.stream)) else {
            return;
        };
        if let Some(reader) = &mut stream.machine {
            machine.on_answer_sent(reader, kind, packet_id, reason);
        }
        // What is larger than the client takes is left out [MQTT-3.1.2-24].
        if ack.encode_within(version, limit, &mut stream.out).is_ok() {
            self.mark_stream_dirty(via);
        }
    }

    pub(super) fn write_raw_on_stream(&mut self, via: Via, bytes: &[u8]) {
        if let Some(stream) = self.stream_mut(via) {
            stream.out.extend_from_slice(bytes);
            self.mark_stream_dirty(via);
        }
    }

    fn mark_stream_dirty(&mut self, via: Via) {
        if let Some(stream) = self.stream_mut(via)
            && !std::mem::replace(&mut stream.dirty, true)
        {
            self.turn.dirty_streams.push_back((via.conn, via.stream));
        }
    }

    /// Panics if a documented relation between a session, its connection and their streams does not
    /// hold.
    pub(super) fn check_streams(&self, session: &super::Session) {
        let conn = session.conn.and_then(|id| self.conns.get(&id));
        let streams = conn.and_then(|conn| conn.streams.as_deref());
        if let Some(kept) = &session.streams {
            kept.check_invariants(session, streams);
        }
        let (Some(conn), Some(streams)) = (conn, streams) else { return };
        assert!(streams.table.len() <= STREAMS_MAX);
        for (tag, no) in &streams.tags {
            assert_eq!(streams.table[no].tag, *tag);
        }
        let machines = streams.table.values().filter_map(|stream| stream.machine.as_ref());
        let open: usize = machines.map(Machine::open_publishes).sum();
        assert_eq!(open, conn.machine.open_publishes_on_streams());
        conn.machine.check_invariants();
    }

    /// The connection is accepted: its streams may be read.
    pub(super) fn feed_streams(&mut self, conn: ConnId) {
        let Some(streams) = self.conns.get(&conn).and_then(|conn| conn.streams.as_ref()) else {
            return;
        };
        for stream in streams.table.keys() {
            self.turn.outputs.push_back(Output::FeedStream { conn, stream: *stream });
        }
    }
}

impl Stream {
    fn new(kind: StreamKind) -> Self {
        Self {
            kind,
            machine: None,
            out: BytesMut::new(),
            dirty: false,
            partial: false,
            finished: false,
            tag: StreamTag::CONTROL,
            class: None,
        }
    }
}

impl Conn {
    fn stream(&self, no: StreamNo) -> Option<&Stream> {
        self.streams.as_ref()?.table.get(&no)
    }
}
