//! One event after the other, and the turns of threads.

use bytes::Bytes;
use rand::RngExt as _;
use verge_broker_core::hub::HubOutput;
use verge_broker_core::shard::api::{ConnId, ConnectionInfo, HubMail, Output, Ticket};
use verge_mesh_proto::handover::{Body, HandoverFrame};
use verge_model::{NodeKey, Now};
use verge_storage::{LogKey, Promise, Store as _};

use super::node::{HubIn, ShardIn, Thread, addr};
use super::{Event, MS, World};

/// Rows of a forward log read at once.
const FORWARD_ROWS: usize = 64;

impl World {
    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Wake { node, life, thread } => {
                let current = self.nodes[node].life == life;
                let Some(process) = self.nodes[node].process.as_mut().filter(|_| current) else {
                    return;
                };
                if process.wake_at.get(&thread) != Some(&self.now) {
                    return;
                }
                process.wake_at.remove(&thread);
                match thread {
                    Thread::Shard(shard) => self.turn_shard(node, shard),
                    Thread::Hub => self.turn_hub(node),
                }
            }
            Event::Write { node, life } => {
                if self.nodes[node].life == life {
                    self.write(node);
                }
            }
            Event::Dial { from, to, kind } => self.dial(from, to, kind),
            Event::Hello { from, to, kind, link, frame } => {
                if self.network.link(from, to, kind) == Some(link) {
                    let peer = self.nodes[from].id.clone();
                    self.tell_hub(to, HubIn::Hello(peer, kind, frame));
                }
            }
            Event::Frame { from, to, lane, link, frame } => {
                if self.network.link(from, to, lane.link()) == Some(link) {
                    let peer = self.nodes[from].id.key();
                    self.tell_hub(to, HubIn::Frame(peer, lane, frame));
                }
            }
            Event::Datagram { from, to, bytes } => {
                let peer = self.nodes[from].id.key();
                if self.network.link(from, to, verge_mesh_proto::LinkKind::Fast).is_some() {
                    self.tell_hub(to, HubIn::Datagram(peer, bytes));
                }
            }
            Event::Accept { conn } => self.accept(conn, ShardIn::Open),
            Event::Up { conn, bytes } => self.accept(conn, |conn| ShardIn::Bytes(conn, bytes)),
            Event::UpClosed { conn } => self.accept(conn, ShardIn::Closed),
            Event::Down { conn, bytes } => self.down(conn, &bytes),
            Event::DownClosed { conn } => self.down_closed(conn),
            Event::Try { client } => self.try_connect(client),
            Event::Boot { node } => self.boot(node),
            Event::Act(act) => self.act(act),
        }
    }

    /// Something of a client reaches the node it is for, if that is still the same process.
    fn accept(&mut self, conn: u64, what: impl FnOnce(ConnId) -> ShardIn) {
        let Some(wire) = self.wires.get(&conn) else { return };
        let (node, shard) = (wire.node, wire.shard);
        if wire.node_open && self.nodes[node].life == wire.life {
            self.tell_shard(node, shard, what(ConnId(conn)));
        }
    }

    fn down(&mut self, conn: u64, bytes: &[u8]) {
        let Some(wire) = self.wires.get(&conn) else { return };
        let client = wire.client;
        if !wire.client_open || self.clients[client].conn != Some(conn) {
            return;
        }
        let mut out = bytes::BytesMut::new();
        self.clients[client].take(bytes, self.now, &mut self.oracle, &mut out);
        self.send_up(client, out.freeze());
    }

    fn down_closed(&mut self, conn: u64) {
        let Some(wire) = self.wires.remove(&conn) else { return };
        let client = wire.client;
        if wire.client_open && self.clients[client].conn == Some(conn) {
            self.clients[client].closed();
            let delay = self.chance(50 * MS..500 * MS);
            self.at(delay, Event::Try { client });
        }
    }

    fn turn_shard(&mut self, node: usize, shard: usize) {
        let now = self.clock();
        let life = self.nodes[node].life;
        let id = self.nodes[node].id.clone();
        let Some(process) = &mut self.nodes[node].process else { return };
        let core = &mut process.shards[shard];
        if core.poll_timeout().is_some_and(|due| due <= now.mono) {
            core.handle_timeout(now);
        }
        for input in std::mem::take(&mut process.shard_in[shard]) {
            let core = &mut process.shards[shard];
            match input {
                ShardIn::Open(conn) => core.handle_open(conn, info(), now),
                ShardIn::Bytes(conn, bytes) => {
                    process.unread.entry(conn).or_default().extend_from_slice(&bytes);
                    process.feed(shard, conn, now);
                }
                ShardIn::Closed(conn) => {
                    process.unread.remove(&conn);
                    core.handle_closed(conn, now);
                }
                ShardIn::Mail(mail) => core.handle_mail(mail, now),
                ShardIn::Committed(ticket) => {
                    process.honesty.committed(shard, ticket);
                    core.handle_commit(ticket, Ok(()), now);
                }
            }
        }
        let mut closed = Vec::new();
        let mut written = Vec::new();
        let mut notes = Vec::new();
        let mut again = true;
        while std::mem::take(&mut again) {
            let core = &mut process.shards[shard];
            core.end_turn(now);
            let mut ticket_of_turn = None;
            let mut fed = Vec::new();
            while let Some(output) = process.shards[shard].poll_output() {
                match output {
                    Output::Commit { ticket, batch, .. } => {
                        ticket_of_turn = Some(ticket);
                        process.writer.push_back((Thread::Shard(shard), ticket, batch));
                    }
                    Output::Mail { to, mail } => {
                        process.shard_in[usize::from(to.0)].push_back(ShardIn::Mail(mail));
                    }
                    Output::Hub(mail) => {
                        notes.extend(said(&mail));
                        process.hub_in.push_back(HubIn::Mail(mail));
                    }
                    Output::Feed(conn) => fed.push(conn),
                    // Clients here have one stream.
                    Output::FeedStream { .. } | Output::CloseStream { .. } => {}
                    Output::CheckPassword { .. } => unreachable!("no client has a password"),
                    Output::Close { conn, last } => {
                        written.push((conn, last));
                        closed.push(conn);
                    }
                }
            }
            process.honesty.turn_ended(shard, ticket_of_turn);
            for conn in fed {
                process.feed(shard, conn, now);
                again = true;
            }
            while let Some(conn) = process.shards[shard].poll_dirty() {
                let core = &mut process.shards[shard];
                let Some(out) = core.output_mut(conn) else { continue };
                let (len, low) = (out.len(), core.output_bytes_high() / 2);
                if let Some(out) = core.output_mut(conn) {
                    written.push((conn, out.split().freeze()));
                }
                if len >= low {
                    core.handle_writable(conn, now);
                    again = true;
                }
            }
        }
        process.shards[shard].check_invariants();
        let held = process.held(now);
        let books = process.shared.ledger.by_class();
        let (mut lies, mut promised) = (Vec::new(), Vec::new());
        for (conn, bytes) in &written {
            let (more, stored) = process.honesty.written(*conn, bytes);
            lies.extend(more);
            promised.extend(stored);
        }
        // What is being imported is still stored where it comes from.
        let stores = self.nodes.iter().filter_map(|node| Some(&node.process.as_ref()?.store));
        promised.retain(|stored| stores.clone().all(|store| !stored.is_in(store)));
        lies.extend(promised.into_iter().map(|stored| format!("{stored:?} is not")));
        for note in notes {
            self.note(format_args!("{id} {note}"));
        }
        for (books, held) in books.iter().zip(held.messages) {
            let off = books.balance(held);
            if off != 0 {
                self.oracle.fail("ledger", format!("{id} is off by {off}: {held} held, {books:?}"));
            }
        }
        for lie in lies {
            self.oracle.fail("honest acks", format!("{id}: {lie}"));
        }
        for (conn, bytes) in written {
            self.send_down(conn, bytes);
        }
        for conn in closed {
            self.close_from_node(conn, life);
        }
        self.after_turn(node);
    }

    fn close_from_node(&mut self, conn: ConnId, life: u64) {
        let Some(wire) = self.wires.get_mut(&conn.0) else { return };
        if wire.life != life || !wire.node_open {
            return;
        }
        wire.node_open = false;
        let delay = wire.down_until.max(self.now) - self.now + 1;
        self.at(delay, Event::DownClosed { conn: conn.0 });
    }

    /// Wakes whoever got something, and plans what is due later.
    fn after_turn(&mut self, node: usize) {
        let now = self.now;
        let Some(process) = &self.nodes[node].process else { return };
        let mut wakes = Vec::new();
        for (shard, inbox) in process.shard_in.iter().enumerate() {
            let due = process.shards[shard].poll_timeout().map(|due| due.0 * MS);
            wakes.push((Thread::Shard(shard), !inbox.is_empty(), due));
        }
        let due = Some(process.hub.poll_timeout().0 * MS);
        wakes.push((Thread::Hub, !process.hub_in.is_empty(), due));
        let writes = !process.writer.is_empty() && !process.writing;
        for (thread, mail, due) in wakes {
            if mail {
                self.wake_soon(node, thread);
            }
            if let Some(due) = due {
                self.wake(node, thread, due.saturating_sub(now).max(1));
            }
        }
        if writes {
            let life = self.nodes[node].life;
            let delay = self.chance(50..4 * MS);
            if let Some(process) = &mut self.nodes[node].process {
                process.writing = true;
            }
            self.at(delay, Event::Write { node, life });
        }
    }

    /// The writer commits a group: some or all of what waits, in order.
    fn write(&mut self, node: usize) {
        let share = self.rng.random_range(1..=8);
        let Some(process) = &mut self.nodes[node].process else { return };
        process.writing = false;
        let count = process.writer.len().min(share);
        let group: Vec<_> = process.writer.drain(..count).collect();
        let batches: Vec<_> = group.iter().map(|(.., batch)| batch.clone()).collect();
        let outcome = process.store.commit(&batches, true).expect("memory can be written");
        for ((thread, ticket, _), committed) in group.into_iter().zip(outcome) {
            match thread {
                Thread::Shard(shard) => {
                    if !committed.appended.is_empty() {
                        process.hub_in.push_back(HubIn::Appended(committed.appended));
                    }
                    process.shard_in[shard].push_back(ShardIn::Committed(ticket));
                }
                Thread::Hub => process.committed_hub(ticket, committed.appended),
            }
        }
        self.after_turn(node);
    }

    fn turn_hub(&mut self, node: usize) {
        let now = self.clock();
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.hub.poll_timeout() <= now.mono {
            process.hub.handle_timeout(now);
        }
        for input in std::mem::take(&mut process.hub_in) {
            let hub = &mut process.hub;
            match input {
                HubIn::Mail(mail) => hub.handle_mail(mail, now),
                HubIn::LinkUp(peer, kind, addr) => hub.handle_link_up(&peer, kind, addr, now),
                HubIn::Hello(peer, kind, frame) => hub.handle_hello(&peer, kind, frame, now),
                HubIn::DialAnswered(peer, addr) => hub.handle_dial_answered(&peer, addr, now),
                HubIn::LinkDown(peer, kind) => hub.handle_link_down(peer, kind, now),
                HubIn::Frame(peer, lane, frame) => hub.handle_frame(peer, lane, frame, now),
                HubIn::Datagram(peer, bytes) => hub.handle_datagram(peer, &bytes, now),
                HubIn::Committed(ticket) => hub.handle_commit(ticket, Ok(()), now),
                HubIn::Appended(rows) => hub.handle_appended(rows, now),
            }
        }
        let mut outputs = Vec::new();
        let mut again = true;
        while std::mem::take(&mut again) {
            process.hub.end_turn();
            while let Some(output) = process.hub.poll_output() {
                match output {
                    HubOutput::Commit { ticket, batch, .. } => {
                        process.writer.push_back((Thread::Hub, ticket, batch));
                    }
                    HubOutput::Mail { to, mail } => {
                        process.shard_in[usize::from(to.0)].push_back(ShardIn::Mail(mail));
                    }
                    HubOutput::ReadForward { peer, class, from_seq, bytes_max } => {
                        let log = LogKey::Forward { peer, class };
                        let store = &process.store;
                        let rows = store.read_log(log, from_seq, FORWARD_ROWS, bytes_max);
                        let rows = rows.expect("memory can be read");
                        let next = rows.last().map_or(from_seq, |(seq, _)| seq + 1);
                        let end = store.log_bounds(log).expect("memory can be read").next;
                        let hub = &mut process.hub;
                        hub.handle_forward_rows(peer, class, from_seq, rows, next >= end, now);
                        again = true;
                    }
                    output @ (HubOutput::Hello { .. }
                    | HubOutput::Send { .. }
                    | HubOutput::Datagram { .. }
                    | HubOutput::Dial { .. }
                    | HubOutput::Close { .. }
                    | HubOutput::Refused { .. }
                    | HubOutput::JoinUnanswered { .. }
                    | HubOutput::DiskBehind { .. }
                    | HubOutput::OutboxAppended { .. }
                    | HubOutput::Uplink { .. }
                    | HubOutput::MemberUp(_)
                    | HubOutput::MemberDown(_)) => outputs.push(output),
                }
            }
        }
        for output in outputs {
            self.hub_output(node, output);
        }
        self.after_turn(node);
    }

    fn hub_output(&mut self, node: usize, output: HubOutput) {
        let at = self.now + self.chance(MS..15 * MS);
        match output {
            HubOutput::Hello { peer, kind, frame } => {
                let to = self.index(peer);
                if let Some(link) = self.network.link(node, to, kind) {
                    self.network.greeting(node, to, kind, at);
                    let event = Event::Hello { from: node, to, kind, link, frame };
                    self.at(at - self.now, event);
                }
            }
            HubOutput::Send { peer, lane, frame } => {
                let to = self.index(peer);
                if let Some(link) = self.network.link(node, to, lane.link()) {
                    let at = self.network.arrival(node, to, lane, at);
                    self.at(at - self.now, Event::Frame { from: node, to, lane, link, frame });
                }
            }
            HubOutput::Datagram { peer, bytes } => {
                let to = self.index(peer);
                if !self.rng.random_bool(self.network.datagram_loss) {
                    self.at(at - self.now, Event::Datagram { from: node, to, bytes });
                }
            }
            HubOutput::Dial { addr: target, kind, .. } => {
                if let Some(to) = (0..self.nodes.len()).find(|to| addr(*to) == target) {
                    self.at(at - self.now, Event::Dial { from: node, to, kind });
                }
            }
            HubOutput::Close { peer, reason } => {
                let text = format!("{} closed {peer}: {reason}", self.nodes[node].id);
                self.oracle.fail("no node breaks the protocol", text);
            }
            HubOutput::Refused { peer, kind, reason } => {
                let to = self.index(peer.key());
                self.note(format_args!("{peer} refused: {reason}"));
                self.part(node, to, kind);
            }
            HubOutput::DiskBehind { peer, .. } => {
                let text = format!("{} is said to be behind by {peer}", self.nodes[node].id);
                self.oracle.fail("no disk is behind", text);
            }
            HubOutput::MemberUp(info) => {
                let id = self.nodes[node].id.clone();
                self.note(format_args!("{id} sees {} up", info.node_id));
            }
            HubOutput::MemberDown(other) => {
                let id = self.nodes[node].id.clone();
                self.note(format_args!("{id} sees {other} down"));
            }
            HubOutput::JoinUnanswered { .. } | HubOutput::Uplink { .. } => {}
            HubOutput::OutboxAppended { .. }
            | HubOutput::Commit { .. }
            | HubOutput::Mail { .. }
            | HubOutput::ReadForward { .. } => unreachable!("done in the turn, or never asked for"),
        }
    }

    fn dial(&mut self, from: usize, to: usize, kind: verge_mesh_proto::LinkKind) {
        let alive = [from, to].iter().all(|node| self.nodes[*node].process.is_some());
        if !alive || self.network.is_cut(from, to, kind) {
            return;
        }
        let peer = self.nodes[to].id.clone();
        if self.network.link(from, to, kind).is_some() {
            return self.tell_hub(from, HubIn::DialAnswered(peer, addr(to)));
        }
        self.network.join(from, to, kind);
        for (node, other) in [(from, to), (to, from)] {
            let peer = self.nodes[other].id.clone();
            self.tell_hub(node, HubIn::LinkUp(peer, kind, addr(other)));
        }
    }

    fn index(&self, key: NodeKey) -> usize {
        let found = self.nodes.iter().position(|node| node.id.key() == key);
        found.expect("nodes know no others")
    }
}

impl super::node::Process {
    /// Offers a shard the bytes it has not consumed.
    fn feed(&mut self, shard: usize, conn: ConnId, now: Now) {
        let Some(unread) = self.unread.get_mut(&conn) else { return };
        let used = self.shards[shard].handle_bytes(conn, unread, now);
        self.honesty.consumed(shard, conn, &unread[..used]);
        unread.drain(..used);
    }

    fn committed_hub(&mut self, ticket: Ticket, appended: Vec<(LogKey, u64, Bytes)>) {
        if !appended.is_empty() {
            self.hub_in.push_back(HubIn::Appended(appended));
        }
        self.hub_in.push_back(HubIn::Committed(ticket));
    }
}

/// What a shard says to other nodes, for the log.
fn said(mail: &HubMail) -> Option<String> {
    match mail {
        HubMail::Handover { to, frame } => {
            let frame = HandoverFrame::decode(frame).ok()?;
            let HandoverFrame { client, fragment, claim, body } = frame;
            let said = match body {
                Body::Sealed(header) => format!(
                    "Sealed end {:?} settled {} open {:?}",
                    header.end,
                    header.settled.len(),
                    header.open_fragments
                ),
                Body::Entries { after, entries, more, closed } => {
                    let texts = entries.iter().map(|entry| {
                        let text = String::from_utf8_lossy(&entry.message.payload);
                        format!("{text} {:?}", entry.state)
                    });
                    let texts: Vec<_> = texts.collect();
                    format!("Entries {after:?} {texts:?} more {more} closed {closed}")
                }
                body @ (Body::Takeover
                | Body::Refused(_)
                | Body::Pull { .. }
                | Body::Nudge
                | Body::Routed { .. }
                | Body::Drained) => format!("{body:?}"),
            };
            Some(format!("→ {to} {client} log {fragment} claim {claim}: {said}"))
        }
        HubMail::PutRegistry { client, entry } => {
            Some(format!("puts {client} {} {:?}", entry.owner_claim(), entry.fragments))
        }
        HubMail::Lookup { client, .. } => Some(format!("seeks {client}")),
        HubMail::AddRoute(filter) => Some(format!("routes {}", filter.as_str())),
        HubMail::RemoveRoute(filter) => Some(format!("unroutes {}", filter.as_str())),
        HubMail::RouteHead { .. }
        | HubMail::Flush { .. }
        | HubMail::Barrier
        | HubMail::Transient { .. } => None,
    }
}

fn info() -> ConnectionInfo {
    ConnectionInfo {
        peer: ([127, 0, 0, 1], 40_000).into(),
        listener: "tcp://127.0.0.1:1883".into(),
        certificate_subject: None,
        promise: Promise::Buffered,
        keep_alive_secs_max: 0,
        allow_anonymous: true,
    }
}
