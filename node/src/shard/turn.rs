//! One turn of a shard's thread.
//!
//! ```text
//! sockets ready ─▶ each is read into the scratch buffer ─▶ core
//!                                        │ then
//!                                        ▼
//! the turn: mail, completions, arrivals, timers ─▶ core
//!     end_turn ─▶ commit to the writer, mail to shards and hub, closes
//!              ─▶ one write per dirty connection
//! ```
//!
//! What all sockets that are ready brought is one batch. QUIC connections have tasks of their own,
//! which read and wake the turn; the runtime runs ready tasks in the order they became ready, so
//! the turn has theirs as well.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tokio::io::ReadBuf;
use tokio::sync::mpsc;
use tokio::time::Sleep;
use verge_broker_core::authn::{PasswordCheck, PasswordVerdict};
use verge_broker_core::shard::Shard;
use verge_broker_core::shard::api::{ConnId, Mail, Output, ShardIndex, Ticket};
use verge_model::Now;
use verge_storage::{Batch, Promise, StoreError};
use verge_storage_rocksdb::{RefusedReason, WriterHandle};

use super::connection::{CLOSE_LINGER, Connections};
use super::ready::Sockets;
use super::streams::Stalls;
use super::{Completion, Mailboxes, Outputs, ShardMail};
use crate::authn::PasswordThreads;
use crate::clock::Clock;
use crate::listener::transport::Transport;
use crate::listener::{self, Arrival};
use crate::mesh::HubItem;

/// What is read from one socket at once.
const SCRATCH_BYTES: usize = 64 * 1024;

/// How often one connection may read before the others have their turn.
const READS_MAX: usize = 4;

/// Turns before the runtime looks after what else the thread does: while sockets become ready as
/// fast as they are read, asking it each time costs more than a turn.
const PASSES_MAX: usize = 16;

/// Rounds of one turn: what outputs cause is done in the same turn, within reason.
const ROUNDS_MAX: usize = 16;

/// Arrivals taken in one turn.
const ARRIVALS_MAX: usize = 64;

/// Commits of one shard under way. Beyond it the disk is slower than the clients, and sockets are
/// not read until it has caught up.
const COMMITS_MAX: usize = 256;

/// How soon what was refused (a full mailbox, a full writer) is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// A shard and all that its thread owns.
pub(super) struct Driver {
    pub(super) core: Shard,
    pub(super) connections: Connections,
    sockets: Sockets,
    pub(super) scratch: Box<[u8]>,
    /// The core has more to say, or to be told, in this turn.
    pub(super) again: bool,
    pub(super) stalls: Stalls,
    pub(super) clock: Clock,
    index: ShardIndex,
    writer: WriterHandle,
    mailboxes: Mailboxes,
    arrivals: mpsc::Receiver<Arrival>,
    pub(super) outputs: Outputs,
    pub(super) passwords: Option<PasswordThreads>,
    /// The turn's task.
    turn: Option<Waker>,
    /// Sockets may have become ready that [`Sockets::poll`] does not wait for any more, since they were
    /// asked for without it.
    has_unasked: bool,
    /// A turn follows what is done now, so that nobody needs to ask for one.
    turn_is_next: bool,
    mail: VecDeque<ShardMail>,
    completions: VecDeque<Completion>,
    own_mail: VecDeque<Mail>,
    /// Mail of this turn, and what found no room, by shard.
    mail_out: Vec<VecDeque<ShardMail>>,
    hub_out: VecDeque<HubItem>,
    /// A commit the writer refused. Outputs after it wait, since mail must not overtake it.
    refused: Option<(Ticket, Batch, Promise)>,
    commits: usize,
    /// Connections that would read if the shard were not congested.
    paused: Vec<ConnId>,
    /// Those whose bytes would be taken.
    unfed: VecDeque<ConnId>,
    stopping: bool,
}

impl Driver {
    pub(super) fn new(
        core: Shard,
        index: ShardIndex,
        clock: Clock,
        writer: WriterHandle,
        mailboxes: Mailboxes,
        arrivals: mpsc::Receiver<Arrival>,
        outputs: Outputs,
    ) -> Self {
        Self {
            core,
            connections: Connections::default(),
            sockets: Sockets::new().expect("a thread that has a reactor can have one more"),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            again: false,
            stalls: Stalls::default(),
            clock,
            index,
            writer,
            mail_out: mailboxes.shards.iter().map(|_| VecDeque::new()).collect(),
            mailboxes,
            arrivals,
            outputs,
            passwords: None,
            turn: None,
            has_unasked: false,
            turn_is_next: false,
            mail: VecDeque::new(),
            completions: VecDeque::new(),
            own_mail: VecDeque::new(),
            hub_out: VecDeque::new(),
            refused: None,
            commits: 0,
            paused: Vec::new(),
            unfed: VecDeque::new(),
            stopping: false,
        }
    }

    pub(super) fn wake_turn(&self) {
        if self.turn_is_next {
            return;
        }
        if let Some(turn) = &self.turn {
            turn.wake_by_ref();
        }
    }

    /// Lets a connection go on reading.
    pub(super) fn wake_reader(&mut self, id: ConnId) {
        self.connections.wake(id);
    }

    /// Whether other parts of the node cannot keep up with what this shard gives them.
    fn is_congested(&self) -> bool {
        self.core.is_turn_full()
            || self.refused.is_some()
            || self.commits >= COMMITS_MAX
            || !self.hub_out.is_empty()
            || self.mail_out.iter().any(|mail| !mail.is_empty())
    }

    /// Queues the connections whose sockets became ready.
    fn take_ready(&mut self, cx: &mut Context<'_>) {
        let connections = &mut self.connections;
        let told = self.sockets.poll(cx, |id, ready| {
            if let Some(connection) = connections.get_mut(id) {
                connection.transport.set_ready(ready);
                connections.wake(id);
            }
        });
        if let Err(error) = told {
            // It does not happen to descriptors that are open; connections end by their Keep Alive.
            tracing::error!(%error, "sockets cannot be watched");
        }
        if std::mem::take(&mut self.has_unasked) {
            self.take_more();
        }
    }

    /// Whether sockets became ready meanwhile, which are in the queue then.
    fn take_more(&mut self) -> bool {
        let connections = &mut self.connections;
        let more = self.sockets.take(|id, ready| {
            if let Some(connection) = connections.get_mut(id) {
                connection.transport.set_ready(ready);
                connections.wake(id);
            }
        });
        // An error is told by whoever waits for sockets.
        more.is_ok_and(|count| count > 0)
    }

    /// Looks after the connections in the queue, once each.
    fn run_queue(&mut self, once_more: &OnceMore) {
        let waker = &once_more.waker;
        self.turn_is_next = true;
        for _ in 0..self.connections.queued() {
            let Some(id) = self.connections.next_queued() else { break };
            let _span = self.connections.span(id).entered();
            // It is over when the connection is.
            let _ = self.poll_connection(id, &mut Context::from_waker(waker));
            if once_more.flag.0.swap(false, Ordering::Relaxed) {
                self.connections.wake(id);
            }
        }
        self.turn_is_next = false;
    }

    /// Looks after a connection: reads while there is something and it is wanted.
    fn poll_connection(&mut self, id: ConnId, cx: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = self.connections.get_mut(id) else { return Poll::Ready(()) };
        if let Transport::Quic(transport) = &mut connection.transport {
            transport.set_waker(cx.waker());
        }
        if connection.closing.is_some() {
            return self.poll_closing(id, cx);
        }
        if connection.write_blocked {
            let now = self.clock.now();
            self.write(id, now);
            self.wake_turn();
        }
        if !self.is_congested() {
            self.poll_streams(id, cx);
        }
        for _ in 0..READS_MAX {
            let congested = self.is_congested();
            let high = self.core.output_bytes_high();
            let Some(connection) = self.connections.get_mut(id) else { return Poll::Ready(()) };
            if congested {
                self.paused.push(id);
                return Poll::Pending;
            }
            // A peer that does not read its answers is not read from either.
            let owed = self.core.output_mut(id).map_or(0, |out| out.len());
            if owed >= high || !self.core.wants_bytes(id) {
                return Poll::Pending;
            }
            let mut buf = ReadBuf::new(&mut self.scratch);
            let read = std::task::ready!(connection.transport.poll_read(cx, &mut buf));
            let count = buf.filled().len();
            let now = self.clock.now();
            let moved = connection.transport.moved(now.mono);
            self.wake_turn();
            if let Some(moved) = moved {
                self.moved(id, moved, now);
            }
            match read {
                Ok(()) if count > 0 => self.take(id, count, now),
                Ok(()) => self.broken(id, &io::ErrorKind::UnexpectedEof.into(), now),
                Err(error) => self.broken(id, &error, now),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Gives the core what was read, and keeps what it leaves.
    fn take(&mut self, id: ConnId, count: usize, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let read = &self.scratch[..count];
        if connection.has_partial() {
            let mut partial = connection.take_partial();
            partial.extend_from_slice(read);
            connection.keep_partial(partial);
            self.feed(id, now);
            return;
        }
        let used = self.core.handle_bytes(id, read, now);
        if used < count
            && let Some(connection) = self.connections.get_mut(id)
        {
            connection.keep_partial(read[used..].to_vec());
        }
    }

    /// Gives the core what it left.
    fn feed(&mut self, id: ConnId, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let mut partial = connection.take_partial();
        let used = self.core.handle_bytes(id, &partial, now);
        partial.drain(..used);
        connection.keep_partial(partial);
    }

    /// The turn. True when the shard was told to stop and has nothing left to do.
    fn turn(&mut self, cx: &mut Context<'_>, own: &Rc<RefCell<Self>>) -> bool {
        match &mut self.turn {
            Some(turn) => turn.clone_from(cx.waker()),
            None => self.turn = Some(cx.waker().clone()),
        }
        let now = self.clock.now();
        for round in 0.. {
            if round == ROUNDS_MAX {
                cx.waker().wake_by_ref();
                break;
            }
            self.again = false;
            self.take_mail(cx, now);
            self.take_arrivals(cx, own, now);
            if self.core.poll_timeout().is_some_and(|due| due <= now.mono) {
                self.core.handle_timeout(now);
            }
            self.connections.end_lingering(now.mono);
            self.end_stalls(now);
            self.core.end_turn(now);
            self.run_outputs(now);
            self.send_mail();
            self.feed_waiting(now);
            self.flush(now);
            if !self.again && self.own_mail.is_empty() {
                break;
            }
        }
        if !self.is_congested() {
            for id in std::mem::take(&mut self.paused) {
                self.wake_reader(id);
            }
        }
        if self.connections.queued() > 0 {
            cx.waker().wake_by_ref();
        }
        self.stopping && self.connections.is_empty() && self.core.is_idle() && self.commits == 0
    }

    fn take_mail(&mut self, cx: &mut Context<'_>, now: Now) {
        let mailbox = self.mailboxes.shards[usize::from(self.index.0)].clone();
        mailbox.take(cx, &mut self.mail, &mut self.completions);
        for mail in self.own_mail.drain(..) {
            self.core.handle_mail(mail, now);
        }
        for ShardMail(mail) in self.mail.drain(..) {
            self.stopping |= matches!(mail, Mail::Shutdown);
            let span = if let Mail::Handover { from, .. } = &mail {
                tracing::debug_span!("handover", %from)
            } else {
                tracing::Span::none()
            };
            let _span = span.entered();
            self.core.handle_mail(mail, now);
        }
        for (ticket, result) in self.completions.drain(..) {
            self.commits -= 1;
            self.core.handle_commit(ticket, result, now);
        }
    }

    fn take_arrivals(&mut self, cx: &mut Context<'_>, own: &Rc<RefCell<Self>>, now: Now) {
        for _ in 0..ARRIVALS_MAX {
            let Poll::Ready(Some(arrival)) = self.arrivals.poll_recv(cx) else { return };
            let Arrival { transport, info, bytes, seat } = arrival;
            let span = tracing::debug_span!(
                "client",
                client_id = listener::client_id(&bytes),
                peer = %info.peer,
                listener = %info.listener,
            );
            let is_quic = matches!(transport, Transport::Quic(_));
            let id = self.connections.insert(transport, bytes, seat);
            if !is_quic && let Err(error) = self.watch(id) {
                tracing::warn!(peer = %info.peer, %error, "connection lost on its way to its shard");
                self.connections.remove(id);
                continue;
            }
            self.core.handle_open(id, info, now);
            self.feed(id, now);
            if !is_quic {
                if !span.is_disabled() {
                    self.connections.set_span(id, span);
                }
                self.connections.wake(id);
                continue;
            }
            let own = Rc::clone(own);
            let task = std::future::poll_fn(move |cx| own.borrow_mut().poll_connection(id, cx));
            if span.is_disabled() {
                tokio::task::spawn_local(task);
            } else {
                tokio::task::spawn_local(tracing::Instrument::instrument(task, span));
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Watches the socket of a connection.
    fn watch(&mut self, id: ConnId) -> io::Result<()> {
        let connection = self.connections.get_mut(id);
        let socket = connection.and_then(|connection| connection.transport.socket());
        let socket = socket.and_then(|socket| socket.of_shard());
        self.sockets.add(socket.ok_or(io::ErrorKind::NotConnected)?, id)
    }

    fn run_outputs(&mut self, now: Now) {
        if let Some((ticket, batch, promise)) = self.refused.take() {
            self.submit(ticket, batch, promise);
        }
        while self.refused.is_none()
            && let Some(output) = self.core.poll_output()
        {
            match output {
                Output::Commit { ticket, batch, promise } => {
                    self.commits += 1;
                    self.submit(ticket, batch, promise);
                }
                Output::Mail { to, mail } if to == self.index => self.own_mail.push_back(mail),
                Output::Mail { to, mail } => {
                    self.mail_out[usize::from(to.0)].push_back(ShardMail(mail));
                }
                Output::Hub(mail) => self.hub_out.push_back(HubItem::Mail(mail)),
                Output::Feed(conn) => self.unfed.push_back(conn),
                Output::FeedStream { conn, .. } => self.wake_reader(conn),
                Output::CloseStream { conn, stream, last, code } => {
                    self.close_stream(conn, stream, last, code, now);
                }
                Output::CheckPassword { conn, check } => self.check_password(conn, check),
                Output::Close { conn, last } => {
                    self.connections.begin_close(conn, last, now.mono + CLOSE_LINGER);
                }
            }
        }
    }

    /// Gives the core what it would not take before, while others can take what comes of it.
    fn feed_waiting(&mut self, now: Now) {
        while !self.is_congested()
            && let Some(conn) = self.unfed.pop_front()
        {
            self.feed(conn, now);
            self.wake_reader(conn);
            self.again = true;
        }
        self.again |= !self.unfed.is_empty() && self.core.is_turn_full();
    }

    fn check_password(&self, conn: ConnId, check: PasswordCheck) {
        let mailbox = self.mailboxes.shards[usize::from(self.index.0)].clone();
        let answer = move |verdict| {
            mailbox.put(ShardMail(Mail::PasswordChecked { conn, verdict }));
        };
        match &self.passwords {
            Some(threads) => threads.check(check, answer),
            None => answer(PasswordVerdict::Busy),
        }
    }

    fn submit(&mut self, ticket: Ticket, batch: Batch, promise: Promise) {
        let mailbox = self.mailboxes.shards[usize::from(self.index.0)].clone();
        let hub = self.mailboxes.hub.clone();
        let done = Box::new(move |outcome: Result<verge_storage::Committed, StoreError>| {
            let result = outcome.map(|committed| {
                if !committed.appended.is_empty() {
                    hub.appended(committed.appended);
                }
            });
            mailbox.complete((ticket, result));
        });
        let Err(refused) = self.writer.submit(batch, promise, done) else { return };
        match refused.reason {
            RefusedReason::Full => self.refused = Some((ticket, refused.batch, promise)),
            RefusedReason::Ended => {
                let detail = refused.reason.to_string();
                (refused.completion)(Err(StoreError::Io { detail }));
            }
        }
    }

    fn send_mail(&mut self) {
        for (mailbox, mail) in self.mailboxes.shards.iter().zip(&mut self.mail_out) {
            mailbox.put_all(mail);
        }
        self.mailboxes.hub.put_all(&mut self.hub_out);
    }

    /// When the turn is due if nothing happens before.
    fn next_turn(&self) -> Option<Instant> {
        let blocked = self.refused.is_some()
            || !self.hub_out.is_empty()
            || self.mail_out.iter().any(|mail| !mail.is_empty());
        let retry = blocked.then(|| self.clock.now().mono + RETRY);
        let (lingering, stall) = (self.connections.next_deadline(), self.stalls.next_deadline());
        let due = [self.core.poll_timeout(), lingering, stall, retry];
        due.into_iter().flatten().min().map(|due| self.clock.instant_of(due))
    }
}

/// Turns for as long as the shard runs.
pub(super) async fn run(driver: Driver) {
    let own = Rc::new(RefCell::new(driver));
    let mut timer: Option<(Instant, Pin<Box<Sleep>>)> = None;
    let once_more = OnceMore::new();
    std::future::poll_fn(|cx| {
        loop {
            let mut driver = own.borrow_mut();
            driver.take_ready(cx);
            for pass in 1.. {
                driver.run_queue(&once_more);
                if driver.turn(cx, &own) {
                    return Poll::Ready(());
                }
                if pass == PASSES_MAX {
                    driver.has_unasked = true;
                    cx.waker().wake_by_ref();
                    break;
                }
                if !driver.take_more() {
                    break;
                }
            }
            let due = driver.next_turn();
            drop(driver);
            match (due, &mut timer) {
                (None, _) => timer = None,
                (Some(due), Some((armed, _))) if *armed == due => {}
                (Some(due), Some((armed, sleep))) => {
                    *armed = due;
                    sleep.as_mut().reset(due.into());
                }
                (Some(due), None) => {
                    timer = Some((due, Box::pin(tokio::time::sleep_until(due.into()))));
                }
            }
            let Some((_, sleep)) = &mut timer else { return Poll::Pending };
            std::task::ready!(sleep.as_mut().poll(cx));
            timer = None;
        }
    })
    .await;
}

/// The waker of connections without a task. What it wakes is the one that is looked after: it goes
/// back into the queue.
struct OnceMore {
    flag: Arc<Flag>,
    waker: Waker,
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl OnceMore {
    fn new() -> Self {
        let flag = Arc::<Flag>::default();
        let waker = Waker::from(Arc::clone(&flag));
        Self { flag, waker }
    }
}
