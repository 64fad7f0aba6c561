//! The task between the mesh and the sink: uplink frames to the receiver, its decisions to both.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use verge::clock::Clock;
use verge_mesh_proto::Output;
use verge_mesh_proto::uplink::{Receiver, ReceiverConfig, ReceiverOutput};
use verge_model::Incarnation;

use crate::member::{Member, MemberError, MemberEvent};
use crate::receive::{Answer, Request, SinkHandle};
use crate::status::{NodeView, Status};

/// How often the snapshot for the admin API is renewed.
const STATUS_PERIOD: Duration = Duration::from_millis(250);

/// Why the task ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum UplinksError {
    /// The mesh.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The sink's task is gone, by a panic.
    #[error("the sink's task ended")]
    SinkEnded,
    /// The data directory is older than what peers know of this node.
    #[error(
        "peers know life {0} of this node and its data directory does not: give it another node.id, \
         or bring the directory back"
    )]
    DiskBehind(Incarnation),
}

/// What the task owns.
pub struct Uplinks {
    member: Member,
    receiver: Receiver,
    sink: SinkHandle,
    clock: Clock,
    node: NodeView,
    status: watch::Sender<Status>,
    /// Whether frames are taken.
    open: bool,
}

impl Uplinks {
    /// The task's parts; `status` is renewed while it runs.
    #[must_use]
    pub fn new(
        member: Member,
        config: ReceiverConfig,
        sink: SinkHandle,
        clock: Clock,
        node: NodeView,
        status: watch::Sender<Status>,
    ) -> Self {
        let receiver = Receiver::new(config);
        let this = Self { member, receiver, sink, clock, node, status, open: true };
        this.publish();
        this
    }

    /// The snapshots.
    #[must_use]
    pub fn status_reader(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Runs until `stop` is true; then takes no more batches, commits and acknowledges what is held,
    /// within `drain`, and leaves the mesh.
    ///
    /// # Errors
    /// Something failed that only a restart mends.
    pub async fn run(
        mut self,
        mut stop: watch::Receiver<bool>,
        drain: Duration,
    ) -> Result<(), UplinksError> {
        let mut ticks = interval(STATUS_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // The sender is gone only when the process ends.
                _ = stop.wait_for(|stop| *stop) => break,
                _ = ticks.tick() => self.publish(),
                turn = self.turn() => turn?,
            }
        }
        self.open = false;
        self.receiver.flush(self.clock.now());
        self.perform();
        let drained = timeout(drain, async {
            while !self.receiver.is_idle() {
                self.turn().await?;
            }
            Ok::<(), UplinksError>(())
        });
        match drained.await {
            Ok(drained) => drained?,
            Err(_) => tracing::warn!("held batches were not committed in time; nodes keep them"),
        }
        self.member.leave().await;
        Ok(())
    }

    /// One event and all it causes. Cancelling it between events loses nothing.
    async fn turn(&mut self) -> Result<(), UplinksError> {
        let deadline = self.receiver.poll_timeout().map(|due| self.clock.instant_of(due));
        let timer = async {
            match deadline {
                Some(deadline) => sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = self.member.recv() => self.on_event(event?)?,
            answer = self.sink.answers.recv() => {
                self.on_answer(answer.ok_or(UplinksError::SinkEnded)?);
            }
            () = timer => self.receiver.handle_timeout(self.clock.now()),
        }
        self.perform();
        Ok(())
    }

    fn on_event(&mut self, event: MemberEvent) -> Result<(), UplinksError> {
        match event {
            MemberEvent::Core(output) => self.on_output(*output),
            // A node that has a new link offers its logs.
            MemberEvent::Linked { .. } | MemberEvent::Unlinked { .. } => Ok(()),
        }
    }

    fn on_output(&mut self, output: Output) -> Result<(), UplinksError> {
        match output {
            Output::Uplink { from, bytes } => {
                if self.open {
                    self.receiver.handle_frame(from, &bytes, self.clock.now());
                }
            }
            Output::MemberUp(info) => {
                tracing::info!(node = %info.node_id, role = %info.role, "member up");
            }
            Output::MemberDown(node) => tracing::info!(%node, "member down"),
            Output::DiskBehind { incarnation, .. } => {
                return Err(UplinksError::DiskBehind(incarnation));
            }
            // A node of the cloud tier has no routes, sessions or logs, and is sent none.
            Output::RemoteRoutes { .. }
            | Output::Barrier
            | Output::Flushed { .. }
            | Output::Forwarded { .. }
            | Output::ReadForward { .. }
            | Output::Transient { .. }
            | Output::Handover { .. }
            | Output::Lookup(_)
            | Output::Superseded { .. } => {
                tracing::debug!("output that is no concern of the cloud")
            }
            // Done by the member itself.
            Output::Hello { .. }
            | Output::Send { .. }
            | Output::Datagram { .. }
            | Output::Dial { .. }
            | Output::Close { .. }
            | Output::Refused { .. }
            | Output::JoinUnanswered { .. }
            | Output::Persist { .. } => {}
        }
        Ok(())
    }

    fn on_answer(&mut self, answer: Answer) {
        let now = self.clock.now();
        match answer {
            Answer::Loaded { stream, last: Some(last) } => {
                self.receiver.handle_loaded(stream, last);
            }
            Answer::Loaded { stream, last: None } => self.receiver.handle_load_failed(stream),
            Answer::Committed { id, marks: Some(marks) } => {
                self.receiver.handle_committed(id, &marks, now);
            }
            Answer::Committed { id, marks: None } => self.receiver.handle_commit_failed(id, now),
        }
    }

    /// Does what the receiver decided.
    fn perform(&mut self) {
        while let Some(output) = self.receiver.poll_output() {
            match output {
                ReceiverOutput::Send { peer, frame } => {
                    // Without a link the node offers its log again when there is one.
                    let _ = self.member.core_mut().send_uplink(peer, frame);
                }
                ReceiverOutput::Load { stream, origin_id, name } => {
                    let request = Request::Load { stream, origin_id, table: name };
                    if self.sink.requests.try_send(request).is_err() {
                        self.receiver.handle_load_failed(stream);
                    }
                }
                ReceiverOutput::Commit(commit) => {
                    let id = commit.id;
                    if self.sink.requests.try_send(Request::Commit(commit)).is_err() {
                        self.receiver.handle_commit_failed(id, self.clock.now());
                    }
                }
                ReceiverOutput::Refused { from, reason } => {
                    tracing::warn!(node = %from, reason, "uplink frame refused");
                }
            }
        }
    }

    fn publish(&self) {
        let mut members: Vec<_> =
            self.member.core().members().into_iter().map(Into::into).collect();
        members.sort_by(|a: &crate::status::MemberView, b| a.node_id.cmp(&b.node_id));
        self.status.send_replace(Status {
            node: self.node.clone(),
            members,
            uplinks: self.receiver.streams().map(Into::into).collect(),
            held_bytes: self.receiver.held_bytes(),
            counters: self.sink.counters.clone(),
        });
    }
}
