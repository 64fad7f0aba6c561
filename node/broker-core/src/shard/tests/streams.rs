//! Streams of the bed's clients beside their control streams.

use bytes::{Bytes, BytesMut};

use super::bed::Bed;
use super::client::{Client, read};
use crate::shard::api::{ConnId, StreamCode, StreamEnd, StreamKind, StreamNo};

/// The client's side of a stream.
#[derive(Debug, Default)]
pub(super) struct StreamWire {
    unread: Vec<u8>,
    received: Vec<u8>,
    /// Whether the client does not read the stream.
    stalled: bool,
    /// FIN of the client that the shard was not told of yet.
    fin: bool,
    /// How the node ended it: "fin", or "reset" with the code.
    ended: Option<String>,
}

/// A stream of a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct OnStream {
    pub(super) client: Client,
    no: StreamNo,
}

impl OnStream {
    /// Its QUIC stream id.
    pub(super) fn number(self) -> u64 {
        self.no.0
    }
}

impl Bed {
    /// The client opens a stream in both directions.
    pub(super) fn open_data(&mut self, client: Client, no: u64) -> OnStream {
        self.open(client, no, StreamKind::Data)
    }

    /// The client opens a stream towards the node only.
    pub(super) fn open_publish(&mut self, client: Client, no: u64) -> OnStream {
        self.open(client, no, StreamKind::Publish)
    }

    fn open(&mut self, client: Client, no: u64, kind: StreamKind) -> OnStream {
        let (now, shard) = (self.clock(), self.wires[&client.conn].shard);
        let no = StreamNo(no);
        self.streams.insert((client.conn, no), StreamWire::default());
        self.shards[shard].handle_stream_open(client.conn, no, kind, now);
        self.settle();
        OnStream { client, no }
    }

    /// Sends bytes on a stream, and runs to quiet.
    pub(super) fn send_on(&mut self, on: OnStream, bytes: BytesMut) {
        let wire = self.streams.get_mut(&(on.client.conn, on.no)).unwrap();
        wire.unread.extend_from_slice(&bytes);
        self.feed_stream(on.client.conn, on.no);
        self.settle();
    }

    /// The client says FIN.
    pub(super) fn finish(&mut self, on: OnStream) {
        self.streams.get_mut(&(on.client.conn, on.no)).unwrap().fin = true;
        self.feed_stream(on.client.conn, on.no);
        self.settle();
    }

    /// The client resets the stream.
    pub(super) fn reset(&mut self, on: OnStream) {
        let (now, shard) = (self.clock(), self.wires[&on.client.conn].shard);
        self.shards[shard].handle_stream_end(on.client.conn, on.no, StreamEnd::Reset, now);
        self.settle();
    }

    /// The client stops reading the stream, or reads all of it and goes on.
    pub(super) fn stall(&mut self, on: OnStream, stalled: bool) {
        let (now, shard) = (self.clock(), self.wires[&on.client.conn].shard);
        let wire = self.streams.get_mut(&(on.client.conn, on.no)).unwrap();
        wire.stalled = stalled;
        if !stalled && let Some(out) = self.shards[shard].stream_output_mut(on.client.conn, on.no) {
            let out = out.split();
            wire.received.extend_from_slice(&out);
            self.shards[shard].handle_stream_writable(on.client.conn, on.no, now);
        }
        self.settle();
    }

    /// What came on the stream since it was last asked, then how the node ended it.
    pub(super) fn got_on(&mut self, on: OnStream) -> Vec<String> {
        let wire = self.streams.get_mut(&(on.client.conn, on.no)).unwrap();
        let mut lines = read(on.client.version, &mut wire.received);
        lines.extend(wire.ended.take());
        lines
    }

    pub(super) fn expect_on(&mut self, on: OnStream, lines: &[&str]) {
        assert_eq!(self.got_on(on), lines, "on stream {}", on.no.0);
    }

    /// Offers what a stream has, as a driver does.
    pub(super) fn feed_stream(&mut self, conn: ConnId, no: StreamNo) {
        let (now, shard) = (self.clock(), self.wires[&conn].shard);
        let Some(wire) = self.streams.get_mut(&(conn, no)) else { return };
        let shard = &mut self.shards[shard];
        if !shard.wants_stream_bytes(conn, no) {
            return;
        }
        let used = shard.handle_stream_bytes(conn, no, &wire.unread, now);
        wire.unread.drain(..used);
        if std::mem::take(&mut wire.fin) {
            shard.handle_stream_end(conn, no, StreamEnd::Finished, now);
        }
    }

    pub(super) fn read_streams(&mut self, shard: usize) {
        while let Some((conn, no)) = self.shards[shard].poll_dirty_stream() {
            let wire = self.streams.get_mut(&(conn, no)).unwrap();
            if !self.reading || wire.stalled {
                continue;
            }
            let out = self.shards[shard].stream_output_mut(conn, no).unwrap().split();
            wire.received.extend_from_slice(&out);
        }
    }

    pub(super) fn end_stream(
        &mut self,
        conn: ConnId,
        no: StreamNo,
        last: &Bytes,
        code: Option<StreamCode>,
    ) {
        let wire = self.streams.get_mut(&(conn, no)).unwrap();
        wire.received.extend_from_slice(last);
        wire.ended = Some(code.map_or("fin".into(), |code| format!("reset {:#04x}", code.0)));
    }
}
