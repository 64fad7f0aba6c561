//! A member of the mesh: the mesh's core between links, a clock and a disk.
//!
//! ```text
//!  LinkEvents ─▶ handle_*        ┌────────────┐   Hello, Send, Dial, Close ─▶ Links
//!  deadline   ─▶ handle_timeout ▶│  MeshCore  │─▶ Persist ─▶ Journal ─▶ storage writer
//!  Journal    ─▶ handle_committed└────────────┘   everything else ─▶ Member::recv
//! ```
//!
//! What concerns the mesh alone is done here; what concerns the node is handed to its owner, who
//! calls [`Member::recv`] in a loop and speaks to the core through [`Member::core_mut`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use verge::clock::{Clock, instant};
use verge_mesh::{LinkEvent, LinkEvents, Links, SendError};
use verge_mesh_proto::{LinkKind, MeshCore, Output, Ticket};
use verge_model::{NodeId, NodeKey, Now};
use verge_storage::{Batch, Committed, Promise, StoreError};
use verge_storage_rocksdb::{RefusedReason, WriterHandle};

/// Bytes of membership and routes that may wait for the disk. A region's whole state is far
/// smaller, so a disk that is this far behind has failed.
const JOURNAL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long a failed write waits before it is tried again.
const JOURNAL_RETRY: Duration = Duration::from_secs(1);

/// Why a member can go on no longer.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The disk takes nothing any more.
    #[error("the data directory takes no writes: {0}")]
    Disk(String),
    /// The links' tasks are gone.
    #[error("the mesh's links ended")]
    LinksEnded,
}

/// What the owner is told.
#[derive(Debug, Clone, PartialEq)]
pub enum MemberEvent {
    /// Frames can be sent to the node on this link. However quickly a link is replaced, `Unlinked`
    /// comes in between.
    Linked {
        /// The node.
        peer: NodeId,
        /// Which link.
        kind: LinkKind,
    },
    /// They cannot any more, or never could; what was sent may or may not have arrived.
    Unlinked {
        /// The node.
        peer: NodeId,
        /// Which link.
        kind: LinkKind,
    },
    /// An output of the core that is the owner's to act on.
    Core(Box<Output>),
}

/// The mesh's core and all it needs.
pub struct Member {
    core: MeshCore,
    links: Links,
    events: LinkEvents,
    journal: Journal,
    clock: Clock,
    told: VecDeque<MemberEvent>,
}

/// Something the core must be told.
enum Input {
    Link(LinkEvent),
    Written(Result<(), StoreError>),
    Timeout,
}

impl Member {
    /// A member with links that were just bound. The core's first outputs come with the first
    /// [`recv`](Self::recv).
    #[must_use]
    pub fn new(
        core: MeshCore,
        links: Links,
        events: LinkEvents,
        writer: WriterHandle,
        clock: Clock,
    ) -> Self {
        let journal = Journal::new(writer);
        Self { core, links, events, journal, clock, told: VecDeque::new() }
    }

    /// Runs the mesh until there is something for its owner. Cancelling it loses nothing.
    ///
    /// # Errors
    /// The member can go on no longer.
    pub async fn recv(&mut self) -> Result<MemberEvent, MemberError> {
        loop {
            self.settle()?;
            if let Some(event) = self.told.pop_front() {
                return Ok(event);
            }
            let input = self.wait().await?;
            self.take(input);
        }
    }

    /// The core, for commands. What they cause is done by the next [`recv`](Self::recv).
    pub fn core_mut(&mut self) -> &mut MeshCore {
        &mut self.core
    }

    /// The core, for questions.
    #[must_use]
    pub fn core(&self) -> &MeshCore {
        &self.core
    }

    /// The links, for questions.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Takes leave of the mesh and closes the links, flushing what is queued.
    pub async fn leave(&mut self) {
        self.core.leave(self.clock.now());
        if let Err(error) = self.settle() {
            tracing::warn!(%error, "leaving");
        }
        self.links.shutdown().await;
    }

    async fn wait(&mut self) -> Result<Input, MemberError> {
        let retry = self.journal.retry_at;
        let core = self.clock.instant_of(self.core.poll_timeout());
        let deadline = retry.map_or(core, |retry| retry.min(core));
        tokio::select! {
            event = self.events.recv() => event.map(Input::Link).ok_or(MemberError::LinksEnded),
            Some(written) = self.journal.outcomes.recv() => Ok(Input::Written(written)),
            () = tokio::time::sleep_until(deadline.into()) => Ok(Input::Timeout),
        }
    }

    fn take(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::Timeout => self.core.handle_timeout(now),
            Input::Written(outcome) => {
                if let Some(ticket) = self.journal.finish(outcome) {
                    self.core.handle_committed(ticket);
                }
            }
            Input::Link(event) => self.take_event(event, now),
        }
    }

    fn take_event(&mut self, event: LinkEvent, now: Now) {
        match event {
            LinkEvent::Up { peer, kind, addr, dialled } => {
                tracing::debug!(%peer, ?kind, %addr, dialled, "link up");
                self.core.handle_link_up(&peer, kind, addr, now);
            }
            LinkEvent::Hello { peer, kind, bytes } => {
                self.core.handle_hello(&peer, kind, bytes, now);
                if self.core.is_linked(peer.key(), kind) {
                    self.told.push_back(MemberEvent::Linked { peer, kind });
                }
            }
            LinkEvent::Down { peer, kind, reason } => {
                tracing::debug!(%peer, ?kind, reason, "link down");
                self.core.handle_link_down(peer.key(), kind, now);
                self.told.push_back(MemberEvent::Unlinked { peer, kind });
            }
            LinkEvent::Frame { peer, lane, bytes } => {
                self.core.handle_frame(peer, lane, bytes, now);
            }
            LinkEvent::Datagram { peer, bytes } => self.core.handle_datagram(peer, &bytes, now),
            LinkEvent::DialAnswered { peer, addr, .. } => {
                self.core.handle_dial_answered(&peer, addr);
            }
            // The core dials again by itself.
            LinkEvent::DialFailed { addr, kind, reason, .. } => {
                tracing::debug!(%addr, ?kind, reason, "dial failed");
            }
        }
    }

    /// Does what the core asks, and keeps what is for the owner.
    fn settle(&mut self) -> Result<(), MemberError> {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Hello { peer, kind, frame } => {
                    let sent = self.links.hello(peer, kind, frame);
                    self.keep_or_close(peer, kind, sent);
                }
                Output::Send { peer, lane, frame } => {
                    let sent = self.links.send(peer, lane, frame);
                    self.keep_or_close(peer, lane.link(), sent);
                }
                // Datagrams may be lost.
                Output::Datagram { peer, bytes } => drop(self.links.datagram(peer, bytes)),
                Output::Dial { addr, node, kind } => match kind {
                    LinkKind::Fast => drop(self.links.dial(addr, node)),
                    // Links dials it for as long as the fast one stands.
                    LinkKind::Bulk => {}
                },
                Output::Close { peer, reason } => {
                    tracing::warn!(%peer, reason, "peer broke the mesh's protocol; links closed");
                    self.links.close(peer, &reason);
                }
                Output::Refused { peer, kind, reason } => {
                    tracing::warn!(%peer, reason, "link refused");
                    self.links.close_link(peer.key(), kind, &reason);
                }
                Output::JoinUnanswered { addr, attempts } => {
                    tracing::warn!(%addr, attempts, "join address does not answer; still trying");
                }
                Output::Persist { batch, ticket } => self.journal.push(batch, ticket)?,
                other @ (Output::DiskBehind { .. }
                | Output::MemberUp(_)
                | Output::MemberDown(_)
                | Output::RemoteRoutes { .. }
                | Output::Barrier
                | Output::Flushed { .. }
                | Output::Forwarded { .. }
                | Output::ReadForward { .. }
                | Output::Handover { .. }
                | Output::Transient { .. }
                | Output::Uplink { .. }
                | Output::Lookup(_)
                | Output::Superseded { .. }) => {
                    self.told.push_back(MemberEvent::Core(Box::new(other)))
                }
            }
        }
        self.journal.submit()
    }

    /// A frame that a lane cannot keep ends the link: frames of a lane are never skipped.
    fn keep_or_close(&self, peer: NodeKey, kind: LinkKind, sent: Result<(), SendError>) {
        match sent {
            // The core learns of the loss by the event that is on its way.
            Ok(()) | Err(SendError::NoLink) => {}
            Err(error @ (SendError::Full | SendError::TooLarge(_))) => {
                tracing::warn!(%peer, ?kind, %error, "link closed");
                self.links.close_link(peer, kind, &error.to_string());
            }
        }
    }
}

/// Writes of the core on their way to the disk: one batch at a time, those behind it as one, so
/// that a failed write can be tried again without changing the order.
struct Journal {
    writer: WriterHandle,
    outcome: mpsc::Sender<Result<(), StoreError>>,
    outcomes: mpsc::Receiver<Result<(), StoreError>>,
    writing: Option<Writing>,
    waiting: Batch,
    /// The last ticket of `waiting`.
    waiting_ticket: Option<Ticket>,
    /// When to try again what failed.
    retry_at: Option<Instant>,
}

struct Writing {
    batch: Batch,
    ticket: Ticket,
    submitted: bool,
}

impl Journal {
    fn new(writer: WriterHandle) -> Self {
        // One batch is under way at a time.
        let (outcome, outcomes) = mpsc::channel(1);
        Self {
            writer,
            outcome,
            outcomes,
            writing: None,
            waiting: Batch::new(),
            waiting_ticket: None,
            retry_at: None,
        }
    }

    fn push(&mut self, batch: Batch, ticket: Ticket) -> Result<(), MemberError> {
        self.waiting.extend(batch);
        self.waiting_ticket = Some(ticket);
        if self.waiting.bytes() > JOURNAL_BYTES_MAX {
            let detail = format!("{JOURNAL_BYTES_MAX} bytes wait for it");
            return Err(MemberError::Disk(detail));
        }
        Ok(())
    }

    /// Gives the next batch to the writer, if it is time.
    fn submit(&mut self) -> Result<(), MemberError> {
        if self.writing.is_none()
            && let Some(ticket) = self.waiting_ticket.take()
        {
            self.writing = Some(Writing {
                batch: std::mem::take(&mut self.waiting),
                ticket,
                submitted: false,
            });
            self.retry_at = None;
        }
        let now = instant();
        let Some(writing) = self.writing.as_mut().filter(|writing| !writing.submitted) else {
            return Ok(());
        };
        if self.retry_at.is_some_and(|at| at > now) {
            return Ok(());
        }
        let outcome = self.outcome.clone();
        let completion = Box::new(move |result: Result<Committed, StoreError>| {
            // There is room: the outcome before was taken before this batch was submitted.
            let _ = outcome.try_send(result.map(drop));
        });
        match self.writer.submit(writing.batch.clone(), Promise::Buffered, completion) {
            Ok(()) => {
                writing.submitted = true;
                self.retry_at = None;
            }
            Err(refused) => match refused.reason {
                RefusedReason::Full => self.retry_at = Some(now + JOURNAL_RETRY),
                RefusedReason::Ended => return Err(MemberError::Disk(refused.reason.to_string())),
            },
        }
        Ok(())
    }

    /// The outcome of the batch under way. Returns the ticket it confirms.
    fn finish(&mut self, outcome: Result<(), StoreError>) -> Option<Ticket> {
        let mut writing = self.writing.take()?;
        match outcome {
            Ok(()) => Some(writing.ticket),
            Err(error) => {
                tracing::error!(%error, "mesh state was not written; it is tried again");
                writing.submitted = false;
                self.writing = Some(writing);
                self.retry_at = Some(instant() + JOURNAL_RETRY);
                None
            }
        }
    }
}
