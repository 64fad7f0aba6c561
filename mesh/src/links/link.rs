//! One connection of a pair of nodes, from its admission to its end.
//!
//! ```text
//!   admitted ──► (the one before is gone) ──► Up ──► Hello ──► frames ──► Down ──► gone
//!                     └── replaced before it was announced: neither Up nor Down ──► gone
//! ```
//!
//! One task walks this line, so the order of events is the order of its statements.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{Connection, ConnectionError, RecvStream};
use rand::RngExt;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use verge_model::{NodeId, NodeKey};

use super::greeting::{self, Greeting};
use super::lane_io::{read_hello, read_lane, write_hello, write_lane};
use super::{LinkInfo, Shared, Signal};
use crate::close::{self, CloseCode};
use crate::election::Claim;
use crate::event::{LinkEvent, SendError};
use crate::lanes::{LANES_PER_LINK, kind_name};
use crate::queue::LaneQueue;
use crate::{LinkKind, clock, socket};

/// Longest sleep before the wall clock is looked at again: it may be set.
const CLOCK_CHECK: Duration = Duration::from_secs(60);

/// A connection that both sides admitted.
pub(super) struct Link {
    pub(super) node: NodeId,
    pub(super) key: NodeKey,
    pub(super) kind: LinkKind,
    pub(super) claim: Claim,
    /// End of the earlier of both certificates, seconds since 1970.
    not_after: i64,
    conn: Connection,
    queues: [LaneQueue; LANES_PER_LINK],
    /// The node took `Up`.
    open: AtomicBool,
    /// Takes the hello to its writer, once.
    hello: Mutex<Option<oneshot::Sender<Bytes>>>,
    /// The other end of it, until the link's task takes it.
    to_say: Mutex<Option<oneshot::Receiver<Bytes>>>,
    /// Lanes for which the peer opened its stream.
    lanes_read: [AtomicBool; LANES_PER_LINK],
    stage: watch::Sender<Stage>,
    /// Why this side closed. A lock, because whoever closes first writes it.
    reason: Mutex<Option<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Live,
    /// Another connection has its place.
    Replaced,
    /// Its `Down` was told.
    Gone,
}

/// Why a link stopped serving.
enum End {
    Lost(String),
    Replaced,
    Stopped,
}

impl Link {
    pub(super) fn new(
        conn: Connection,
        kind: LinkKind,
        node: NodeId,
        claim: Claim,
        not_after: i64,
        lane_bytes: usize,
    ) -> Self {
        let (hello, to_say) = oneshot::channel();
        Self {
            key: node.key(),
            node,
            kind,
            claim,
            not_after,
            conn,
            queues: [LaneQueue::new(lane_bytes), LaneQueue::new(lane_bytes)],
            open: AtomicBool::new(false),
            hello: Mutex::new(Some(hello)),
            to_say: Mutex::new(Some(to_say)),
            lanes_read: [AtomicBool::new(false), AtomicBool::new(false)],
            stage: watch::Sender::new(Stage::Live),
            reason: Mutex::default(),
        }
    }

    /// The node took `Up`: it may send.
    pub(super) fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Says hello; a second one is refused.
    pub(super) fn hello(&self, bytes: Bytes) -> Result<(), SendError> {
        let Some(hello) = self.hello.lock().take() else { return Err(SendError::Full) };
        hello.send(bytes).map_err(|_| SendError::NoLink)
    }

    /// Another connection takes the place.
    pub(super) fn replace(&self) {
        self.stage.send_if_modified(|stage| {
            let live = *stage == Stage::Live;
            if live {
                *stage = Stage::Replaced;
            }
            live
        });
    }

    /// Closes the connection; the link's task sees it and ends.
    pub(super) fn close(&self, code: CloseCode, reason: &str) {
        self.reason.lock().get_or_insert_with(|| reason.to_owned());
        self.conn.close(code.varint(), reason.as_bytes());
    }

    /// The peer opens its stream of a lane; false the second time.
    pub(super) fn begin_read(&self, place: usize) -> bool {
        !self.lanes_read[place].swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire) && self.is_live()
    }

    pub(super) fn is_live(&self) -> bool {
        *self.stage.borrow() == Stage::Live && self.conn.close_reason().is_none()
    }

    pub(super) fn conn(&self) -> &Connection {
        &self.conn
    }

    pub(super) fn addr(&self) -> std::net::SocketAddr {
        socket::canonical(self.conn.remote_address())
    }

    pub(super) fn queue(&self, place: usize) -> &LaneQueue {
        &self.queues[place]
    }

    pub(super) fn info(&self) -> LinkInfo {
        LinkInfo {
            peer: self.node.clone(),
            kind: self.kind,
            addr: self.addr(),
            dialled: self.claim.dialled,
            rtt: self.conn.rtt(),
            queued_bytes: self.queues.iter().map(LaneQueue::bytes).sum(),
            lost_packets: self.conn.stats().path.lost_packets,
            certificate_not_after: self.not_after,
        }
    }

    async fn reached(&self, wanted: Stage) {
        // The sender lives as long as `self`.
        let _ = self.stage.subscribe().wait_for(|stage| *stage >= wanted).await;
    }

    /// The closing side's own words are better than "closed by this node".
    fn reason_of(&self, error: &ConnectionError) -> String {
        let own = self.reason.lock().clone();
        own.unwrap_or_else(|| close::explain(error))
    }
}

/// Spawns the task of an admitted link.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    link: Arc<Link>,
    greeting: Greeting,
    before: Option<Arc<Link>>,
) {
    shared.running.send_modify(|links| *links += 1);
    let running = OnDrop(Arc::clone(shared), |shared| {
        shared.running.send_modify(|links| *links -= 1);
    });
    let gone = OnDrop(Arc::clone(&link), |link| {
        link.stage.send_replace(Stage::Gone);
    });
    let shared = Arc::clone(shared);
    shared.runtime.clone().spawn(async move {
        let _running = running;
        run(&shared, &link, greeting, before, gone).await;
    });
}

async fn run(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    greeting: Greeting,
    before: Option<Arc<Link>>,
    gone: OnDrop<Arc<Link>>,
) {
    if let Some(before) = before {
        before.reached(Stage::Gone).await;
    }
    let announced = announce(shared, link).await;
    let mut writers = JoinSet::new();
    let end = if announced {
        let Greeting { send, receive } = greeting;
        let to_say = link.to_say.lock().take();
        writers.spawn(write_hello(to_say, send));
        for place in 0..LANES_PER_LINK {
            writers.spawn(write_lane(Arc::clone(shared), Arc::clone(link), place));
        }
        serve(shared, link, receive, &mut writers).await
    } else {
        unannounced_end(shared, link)
    };
    link.open.store(false, Ordering::Release);
    let reason = match &end {
        End::Lost(reason) => reason.clone(),
        End::Replaced => "replaced by another connection of this node".to_owned(),
        End::Stopped => "this node shuts down".to_owned(),
    };
    if announced {
        shared.counters.downs.add(1);
        tracing::info!(
            peer = %link.node, kind = kind_name(link.kind), reason, "mesh link down"
        );
        let (peer, kind) = (link.node.clone(), link.kind);
        let down = Signal::Event(LinkEvent::Down { peer, kind, reason });
        if matches!(end, End::Stopped) {
            // Nobody may be listening any more.
            let _ = shared.events.try_send(down);
        } else {
            send_unless_stopped(shared, down).await;
        }
    }
    shared.table.lock().remove(link);
    drop(gone);
    match end {
        End::Lost(_) => link.close(CloseCode::Asked, "the link was given up"),
        End::Stopped => link.close(CloseCode::Shutdown, "the node shuts down"),
        End::Replaced => {
            shared.counters.replaced.add(1);
            drain(link, &mut writers, shared.config.timing.drain).await;
            link.close(CloseCode::Duplicate, "another connection of this pair stays");
        }
    }
}

/// Tells `Up`. False if the link never came to stand: it was replaced, or the peer keeps another, or
/// the node stops.
async fn announce(shared: &Arc<Shared>, link: &Arc<Link>) -> bool {
    let up = LinkEvent::Up {
        peer: link.node.clone(),
        kind: link.kind,
        addr: link.addr(),
        dialled: link.claim.dialled,
    };
    let mut stop = shared.stop.subscribe();
    let told = tokio::select! {
        biased;
        () = link.reached(Stage::Replaced) => false,
        _ = stop.wait_for(|stop| *stop) => false,
        () = closed_as_duplicate(&link.conn) => false,
        sent = shared.events.send(Signal::Up(up, Arc::clone(link))) => sent.is_ok(),
    };
    if told {
        shared.counters.ups.add(1);
        tracing::info!(
            peer = %link.node, kind = kind_name(link.kind), addr = %link.addr(),
            dialled = link.claim.dialled, "mesh link up"
        );
    }
    told
}

async fn closed_as_duplicate(conn: &Connection) {
    if !close::is_duplicate(&conn.closed().await) {
        pending::<()>().await;
    }
}

fn unannounced_end(shared: &Shared, link: &Link) -> End {
    if *link.stage.borrow() == Stage::Replaced {
        End::Replaced
    } else if *shared.stop.borrow() {
        End::Stopped
    } else {
        End::Lost(String::new())
    }
}

/// Reads lanes and datagrams until the link ends, and sees to it that nothing follows.
async fn serve(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    hello: RecvStream,
    writers: &mut JoinSet<()>,
) -> End {
    let mut readers = JoinSet::new();
    let mut keeper = JoinSet::new();
    if link.kind == LinkKind::Fast && link.claim.dialled {
        keeper.spawn(keep_bulk(Arc::clone(shared), Arc::clone(link)));
    }
    let end = read_all(shared, link, hello, &mut readers).await;
    match end {
        End::Lost(_) => {
            link.hello.lock().take();
            for queue in &link.queues {
                queue.discard();
            }
            // What arrived before the loss still counts, unless a new connection waits for us.
            let mut stop = shared.stop.subscribe();
            tokio::select! {
                () = join(&mut readers) => {}
                () = link.reached(Stage::Replaced) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
        End::Replaced => {}
        End::Stopped => drain(link, writers, shared.config.timing.shutdown).await,
    }
    readers.shutdown().await;
    end
}

async fn read_all(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    hello: RecvStream,
    readers: &mut JoinSet<()>,
) -> End {
    let mut stop = shared.stop.subscribe();
    let (mut reading_hello, mut greeted, mut datagrams) = (true, false, true);
    let mut streams = 0;
    let hello = read_hello(shared, link, hello);
    let expired = expired(link.not_after);
    tokio::pin!(hello, expired);
    loop {
        tokio::select! {
            () = link.reached(Stage::Replaced) => return End::Replaced,
            _ = stop.wait_for(|stop| *stop) => return End::Stopped,
            () = &mut expired => {
                link.close(CloseCode::Expired, "a certificate of this link has expired");
                return End::Lost(link.reason_of(&ConnectionError::LocallyClosed));
            }
            read = &mut hello, if reading_hello => {
                reading_hello = false;
                greeted = read;
            }
            error = link.conn.closed(), if !reading_hello && !greeted => {
                return End::Lost(link.reason_of(&error));
            }
            stream = link.conn.accept_uni(), if greeted => match stream {
                Ok(stream) if streams < LANES_PER_LINK => {
                    streams += 1;
                    readers.spawn(read_lane(Arc::clone(shared), Arc::clone(link), stream));
                }
                Ok(_) => link.close(CloseCode::Protocol, "more streams than lanes"),
                Err(error) => return End::Lost(link.reason_of(&error)),
            },
            datagram = link.conn.read_datagram(), if greeted && datagrams => match datagram {
                Ok(bytes) => {
                    shared.counters.datagrams_received.add(1);
                    let event = LinkEvent::Datagram { peer: link.key, bytes };
                    if shared.events.try_send(Signal::Event(event)).is_err() {
                        shared.counters.datagrams_dropped.add(1);
                    }
                }
                // Streams that arrived before the loss are still accepted above.
                Err(_) => datagrams = false,
            },
        }
    }
}

/// Lets the writers finish what is queued, for a while.
async fn drain(link: &Link, writers: &mut JoinSet<()>, limit: Duration) {
    // A hello that was not said by now never is.
    link.hello.lock().take();
    for queue in &link.queues {
        queue.close();
    }
    if timeout(limit, join(writers)).await.is_err() {
        tracing::debug!(peer = %link.node, kind = kind_name(link.kind), "lanes were not drained");
    }
}

async fn join(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

async fn send_unless_stopped(shared: &Shared, signal: Signal) {
    let mut stop = shared.stop.subscribe();
    tokio::select! {
        biased;
        _ = shared.events.send(signal) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// Returns when a certificate's validity ends.
async fn expired(not_after: i64) {
    loop {
        let left = not_after.saturating_sub(clock::now().unix_timestamp());
        let Ok(left @ 1..) = u64::try_from(left) else { return };
        sleep(Duration::from_secs(left).min(CLOCK_CHECK)).await;
    }
}

/// Dials the bulk link that belongs to a fast link that this side dialled, whenever there is none.
async fn keep_bulk(shared: Arc<Shared>, fast: Arc<Link>) {
    let timing = shared.config.timing;
    let mut pause = timing.redial_first;
    loop {
        let bulk = shared.table.lock().get_live(fast.key, LinkKind::Bulk);
        if let Some(bulk) = bulk {
            let since = Instant::now();
            bulk.reached(Stage::Gone).await;
            // One that a peer closes again and again is not dialled faster and faster.
            if since.elapsed() > timing.redial_last {
                pause = timing.redial_first;
            }
        } else {
            let to = fast.addr();
            let dialled = greeting::connect(&shared, to, LinkKind::Bulk, Some(&fast.node)).await;
            let Err(failure) = dialled else { continue };
            shared.tell(failure.event(to)).await;
        }
        let jitter = rand::rng().random_range(0.5..1.0);
        sleep(pause.mul_f64(jitter)).await;
        pause = (pause * 2).min(timing.redial_last);
    }
}

/// Does something with a value when the task that holds it ends, however it ends.
struct OnDrop<T>(T, fn(&T));

impl<T> Drop for OnDrop<T> {
    fn drop(&mut self) {
        (self.1)(&self.0);
    }
}
