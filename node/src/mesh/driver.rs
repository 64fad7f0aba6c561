//! The loop of the mesh thread: link events, mail, completions and time go into the hub; what it
//! asks for is done.

use std::collections::VecDeque;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::mpsc;
use verge_broker_core::hub::{Hub, HubOutput};
use verge_broker_core::shard::api::Ticket;
use verge_broker_core::shared::NodeShared;
use verge_mesh::{LinkEvent, LinkEvents, LinkKind, LinkStats, Links, SendError};
use verge_model::{Class, Millis, NodeId, NodeKey, Now, Role};
use verge_storage::{Batch, LogKey, Promise, Store, StoreError};
use verge_storage_rocksdb::{Refused, RefusedReason, WriterHandle};

use super::links::{core_kind, core_lane, kind_of, lane_of};
use super::view::MeshView;
use super::{HubDone, HubItem, HubMailbox};
use crate::clock::Clock;
use crate::shard::{Mailboxes, ShardMail};
use crate::uplink::{RowsRead, Uplink, UplinkOutput};

/// Link events taken in one turn: what shares one commit.
const EVENTS_MAX: usize = 256;

/// Rows of a forward log read at once.
const FORWARD_ROWS_MAX: usize = 4_096;

/// How often the view is made anew when nothing asks for it.
const VIEW_PERIOD: Duration = Duration::from_secs(1);

/// Retained messages that expire or are forgotten in one period; the rest follows in the next.
const RETAINED_TIDIED_MAX: usize = 1_024;

/// How soon what was refused (a full mailbox, a full writer) is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// Mail for shards that found no room, above which no link events are taken: peers wait.
const MAIL_WAITING_MAX: usize = 4_096;

/// What the loop is made of.
pub(super) struct Parts {
    pub(super) hub: Hub,
    pub(super) shared: Arc<NodeShared>,
    pub(super) links: Option<(Links, LinkEvents)>,
    pub(super) clock: Clock,
    pub(super) writer: WriterHandle,
    pub(super) store: Arc<dyn Store>,
    pub(super) mailboxes: Mailboxes,
    pub(super) uplink: Uplink,
    pub(super) rows: mpsc::Receiver<RowsRead>,
    pub(super) view: Arc<ArcSwap<MeshView>>,
}

/// The loop.
pub(super) struct Driver {
    hub: Hub,
    shared: Arc<NodeShared>,
    links: Option<Links>,
    events: Option<LinkEvents>,
    clock: Clock,
    writer: WriterHandle,
    store: Arc<dyn Store>,
    mailboxes: Mailboxes,
    uplink: Uplink,
    rows: mpsc::Receiver<RowsRead>,
    view: Arc<ArcSwap<MeshView>>,
    view_due: Millis,
    mail: VecDeque<HubItem>,
    done: VecDeque<HubDone>,
    mail_out: Vec<VecDeque<ShardMail>>,
    /// Commits the writer refused, and what comes after them.
    commits: VecDeque<Commit>,
    stopping: bool,
}

/// A batch on its way to the writer.
struct Commit {
    /// The hub's name for it; `None` if nobody waits for it.
    ticket: Option<Ticket>,
    batch: Batch,
    promise: Promise,
}

/// What ended a wait.
enum Woken {
    Mail,
    Link(Option<LinkEvent>),
    Rows(RowsRead),
    Time,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { hub, shared, links, clock, writer, store, mailboxes, mut uplink, rows, view } =
            parts;
        let (links, events) = links.unzip();
        for member in hub.core().members() {
            if member.info.is_some_and(|info| info.role == Role::Cloud) {
                uplink.add_peer(member.node_id.key());
            }
        }
        let mut this = Self {
            hub,
            shared,
            links,
            events,
            clock,
            writer,
            store,
            mail_out: mailboxes.shards.iter().map(|_| VecDeque::new()).collect(),
            mailboxes,
            uplink,
            rows,
            view,
            view_due: Millis(0),
            mail: VecDeque::new(),
            done: VecDeque::new(),
            commits: VecDeque::new(),
            stopping: false,
        };
        this.publish(clock.now());
        this
    }

    /// Turns until told to stop, then leaves the mesh.
    pub(super) async fn run(mut self) {
        while !self.stopping {
            self.turn();
            let woken = self.wait().await;
            let now = self.clock.now();
            self.take(woken, now);
        }
        let now = self.clock.now();
        self.hub.leave(now);
        self.turn();
        if let Some(links) = self.links.take() {
            links.shutdown().await;
        }
    }

    /// Waits for anything to do, and takes all mail that is there.
    async fn wait(&mut self) -> Woken {
        let due = self.clock.instant_of(self.next_due());
        let blocked = self.waiting_mail() > MAIL_WAITING_MAX;
        let mailbox = self.mailboxes.hub.clone();
        let (mail, done) = (&mut self.mail, &mut self.done);
        let mail = std::future::poll_fn(move |cx| {
            mailbox.take(cx, mail, done);
            if mail.is_empty() && done.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        });
        let events = &mut self.events;
        let event = async {
            match events {
                Some(events) if !blocked => events.recv().await,
                Some(_) | None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = mail => Woken::Mail,
            event = event => Woken::Link(event),
            Some(rows) = self.rows.recv() => Woken::Rows(rows),
            () = tokio::time::sleep_until(due.into()) => Woken::Time,
        }
    }

    fn take(&mut self, woken: Woken, now: Now) {
        match woken {
            Woken::Mail => {
                for done in std::mem::take(&mut self.done) {
                    self.handle_done(done, now);
                }
                for item in std::mem::take(&mut self.mail) {
                    match item {
                        HubItem::Mail(mail) => self.hub.handle_mail(mail, now),
                        HubItem::Stop => self.stopping = true,
                    }
                }
            }
            Woken::Link(None) => self.events = None,
            Woken::Link(Some(event)) => {
                self.handle_event(event, now);
                for _ in 1..EVENTS_MAX {
                    let next = self.events.as_mut().and_then(LinkEvents::try_recv);
                    let Some(event) = next else { break };
                    self.handle_event(event, now);
                }
            }
            Woken::Rows(rows) => self.uplink.handle_rows(rows, now),
            Woken::Time => {}
        }
        if self.hub.poll_timeout() <= now.mono {
            self.hub.handle_timeout(now);
        }
        self.uplink.handle_timeout(now);
        if self.view_due <= now.mono {
            self.publish(now);
            self.tidy_retained(now);
        }
    }

    /// Lets retained messages expire, and deletes the rows of those whose removal everyone knows.
    fn tidy_retained(&mut self, now: Now) {
        let retained = &self.shared.retained;
        if retained.poll_timeout().is_none_or(|due| due > now.wall) {
            return;
        }
        let mut batch = Batch::new();
        for topic in retained.handle_timeout(now, RETAINED_TIDIED_MAX) {
            // Set anew meanwhile: the row is that message's.
            if retained.get(topic.as_str()).is_none() {
                batch.delete_retained(topic.as_str());
            }
        }
        if !batch.is_empty() {
            self.commits.push_back(Commit { ticket: None, batch, promise: Promise::Buffered });
            self.submit();
        }
    }

    fn handle_done(&mut self, done: HubDone, now: Now) {
        match done {
            HubDone::Appended(rows) => self.hub.handle_appended(rows, now),
            HubDone::Committed(ticket, Ok(rows)) => {
                if !rows.is_empty() {
                    self.hub.handle_appended(rows, now);
                }
                self.hub.handle_commit(ticket, Ok(()), now);
            }
            HubDone::Committed(ticket, Err(error)) => {
                self.hub.handle_commit(ticket, Err(error), now);
            }
            // Rows that stay although nobody needs them go with the next ones.
            HubDone::Tidied => {}
        }
    }

    fn handle_event(&mut self, event: LinkEvent, now: Now) {
        match event {
            LinkEvent::Up { peer, kind, addr, dialled } => {
                tracing::debug!(%peer, ?kind, %addr, dialled, "link up");
                self.hub.handle_link_up(&peer, core_kind(kind), addr, now);
            }
            LinkEvent::Hello { peer, kind, bytes } => {
                self.hub.handle_hello(&peer, core_kind(kind), bytes, now);
                self.link_established(&peer, kind, now);
            }
            LinkEvent::Down { peer, kind, reason } => {
                tracing::info!(%peer, ?kind, reason, "link down");
                self.hub.handle_link_down(peer.key(), core_kind(kind), now);
                if kind == LinkKind::Bulk {
                    self.uplink.handle_link_down(peer.key());
                }
                self.view_due = now.mono;
            }
            LinkEvent::Frame { peer, lane, bytes } => {
                let _span = tracing::debug_span!("peer", node_key = %peer, ?lane).entered();
                self.hub.handle_frame(peer, core_lane(lane), bytes, now);
            }
            LinkEvent::Datagram { peer, bytes } => self.hub.handle_datagram(peer, &bytes, now),
            LinkEvent::DialAnswered { peer, addr } => {
                self.hub.handle_dial_answered(&peer, addr, now);
            }
            LinkEvent::DialFailed { addr, kind, node, reason } => {
                tracing::debug!(%addr, ?kind, ?node, reason, "dial failed");
            }
        }
    }

    fn link_established(&mut self, peer: &NodeId, kind: LinkKind, now: Now) {
        let key = peer.key();
        if !self.hub.core().is_linked(key, core_kind(kind)) {
            return;
        }
        tracing::info!(%peer, ?kind, "link established");
        self.view_due = now.mono;
        let role = self.hub.core().info(key).map(|info| info.role);
        if kind == LinkKind::Bulk && role == Some(Role::Cloud) {
            self.uplink.handle_link_up(key, now);
        }
    }

    /// Ends the turn: does what hub and uplink ask for, until they ask for no more.
    fn turn(&mut self) {
        let now = self.clock.now();
        loop {
            self.hub.end_turn();
            let mut again = false;
            while let Some(output) = self.hub.poll_output() {
                again |= self.act(output, now);
            }
            while let Some(output) = self.uplink.poll_output() {
                again = true;
                match output {
                    UplinkOutput::Send { peer, frame } => {
                        if !self.hub.send_uplink(peer, frame, now) {
                            self.uplink.handle_link_down(peer);
                        }
                    }
                    UplinkOutput::Trim(batch) => {
                        let promise = Promise::Buffered;
                        self.commits.push_back(Commit { ticket: None, batch, promise });
                    }
                }
            }
            if !again {
                break;
            }
        }
        self.submit();
        for (mailbox, mail) in self.mailboxes.shards.iter().zip(&mut self.mail_out) {
            mailbox.put_all(mail);
        }
    }

    /// Does one thing the hub asks for. True if the hub was told something by it.
    fn act(&mut self, output: HubOutput, now: Now) -> bool {
        match output {
            HubOutput::Commit { ticket, batch, promise } => {
                self.commits.push_back(Commit { ticket: Some(ticket), batch, promise });
            }
            HubOutput::Mail { to, mail } => {
                self.mail_out[usize::from(to.0)].push_back(ShardMail(mail));
            }
            HubOutput::Hello { peer, kind, frame } => {
                let sent = self.links.as_ref().map(|l| l.hello(peer, kind_of(kind), frame));
                self.check_sent(peer, sent);
            }
            HubOutput::Send { peer, lane, frame } => {
                let sent = self.links.as_ref().map(|l| l.send(peer, lane_of(lane), frame));
                self.check_sent(peer, sent);
            }
            HubOutput::Datagram { peer, bytes } => {
                if let Some(links) = &self.links {
                    // Membership expects loss.
                    let _ = links.datagram(peer, bytes);
                }
            }
            HubOutput::Dial { addr, node, kind } => self.dial(addr, node, kind),
            HubOutput::Close { peer, reason } => {
                let name = self.name_of(peer);
                tracing::warn!(peer = name, reason, "peer closed");
                self.close(peer, &reason);
            }
            HubOutput::Refused { peer, kind, reason } => {
                tracing::warn!(%peer, ?kind, reason, "peer refused");
                self.close(peer.key(), &reason);
            }
            HubOutput::JoinUnanswered { addr, attempts } => {
                tracing::warn!(
                    %addr, attempts,
                    "join address does not answer, still trying: is the node there running, and is \
                     --join right?"
                );
            }
            HubOutput::DiskBehind { peer, incarnation } => {
                let name = self.name_of(peer);
                tracing::error!(
                    peer = name,
                    incarnation,
                    "other nodes know a later life of this one than its disk: the data directory \
                     is an older copy; stop this node, and make the directory by `verge restore` \
                     of a backup, or move it away"
                );
            }
            HubOutput::ReadForward { peer, class, from_seq, bytes_max } => {
                self.read_forward(peer, class, from_seq, bytes_max, now);
                return true;
            }
            HubOutput::OutboxAppended { seq, .. } => {
                self.uplink.handle_appended(seq, now);
                return true;
            }
            HubOutput::Uplink { from, bytes } => {
                self.uplink.handle_frame(from, &bytes, now);
                return true;
            }
            HubOutput::MemberUp(info) => {
                tracing::info!(
                    peer = %info.node_id, role = %info.role, region = info.region,
                    addr = %info.mesh_addr, "member up"
                );
                if info.role == Role::Cloud {
                    self.uplink.add_peer(info.key());
                }
                self.view_due = now.mono;
            }
            HubOutput::MemberDown(node) => {
                tracing::warn!(peer = %node, "member down");
                self.view_due = now.mono;
            }
        }
        false
    }

    /// Links dial the bulk link of a pair themselves, for as long as its fast link stands.
    fn dial(&self, addr: SocketAddr, node: Option<NodeId>, kind: verge_mesh_proto::LinkKind) {
        match (kind, &self.links) {
            (verge_mesh_proto::LinkKind::Fast, Some(links)) => {
                links.dial(addr, node);
            }
            (verge_mesh_proto::LinkKind::Fast, None) | (verge_mesh_proto::LinkKind::Bulk, _) => {}
        }
    }

    /// Frames of a lane are never skipped: a lane that takes no more ends its links, and both sides
    /// begin again where they know they stand.
    fn check_sent(&self, peer: NodeKey, sent: Option<Result<(), SendError>>) {
        match sent {
            // Its `Down` is on the way.
            None | Some(Ok(()) | Err(SendError::NoLink)) => {}
            Some(Err(error @ (SendError::Full | SendError::TooLarge(_)))) => {
                let name = self.name_of(peer);
                tracing::warn!(peer = name, %error, "links closed to begin again");
                self.close(peer, &error.to_string());
            }
        }
    }

    fn close(&self, peer: NodeKey, reason: &str) {
        if let Some(links) = &self.links {
            links.close(peer, reason);
        }
    }

    fn name_of(&self, node: NodeKey) -> String {
        self.hub.core().info(node).map_or_else(|| node.to_string(), |info| info.node_id.to_string())
    }

    fn read_forward(&mut self, peer: NodeKey, class: Class, from: u64, bytes_max: usize, now: Now) {
        let log = LogKey::Forward { peer, class };
        let read = self.store.read_log(log, from, FORWARD_ROWS_MAX, bytes_max);
        let rows: Vec<(u64, Bytes)> = read.unwrap_or_else(|error| {
            tracing::error!(%peer, %class, from, %error, "forward log cannot be read");
            Vec::new()
        });
        let next = rows.last().map_or(from, |(seq, _)| seq + 1);
        let at_end = self.store.log_bounds(log).is_ok_and(|bounds| next >= bounds.next);
        self.hub.handle_forward_rows(peer, class, from, rows, at_end, now);
    }

    fn submit(&mut self) {
        while let Some(Commit { ticket, batch, promise }) = self.commits.pop_front() {
            let mailbox: HubMailbox = self.mailboxes.hub.clone();
            let completion = Box::new(move |outcome: Result<verge_storage::Committed, _>| {
                mailbox.complete(match ticket {
                    Some(ticket) => {
                        HubDone::Committed(ticket, outcome.map(|committed| committed.appended))
                    }
                    None => HubDone::Tidied,
                });
            });
            let Err(refused) = self.writer.submit(batch, promise, completion) else { continue };
            let Refused { reason, batch, completion } = *refused;
            match reason {
                RefusedReason::Full => {
                    self.commits.push_front(Commit { ticket, batch, promise });
                    return;
                }
                RefusedReason::Ended => {
                    completion(Err(StoreError::Io { detail: reason.to_string() }));
                }
            }
        }
    }

    fn publish(&mut self, now: Now) {
        self.view_due = now.mono + VIEW_PERIOD;
        let core = self.hub.core();
        let links = self.links.as_ref().map_or_else(LinkStats::default, Links::stats);
        let (members, peers) = (core.members(), core.peers());
        let view = MeshView::new(core.own(), &members, &peers, core.counters(), links);
        self.view.store(Arc::new(view));
    }

    fn waiting_mail(&self) -> usize {
        self.mail_out.iter().map(VecDeque::len).sum()
    }

    fn next_due(&self) -> Millis {
        let blocked = !self.commits.is_empty() || self.waiting_mail() > 0;
        let retry = blocked.then(|| self.clock.now().mono + RETRY);
        let due = [Some(self.hub.poll_timeout()), self.uplink.poll_timeout(), retry];
        due.into_iter().flatten().fold(self.view_due, Millis::min)
    }
}
