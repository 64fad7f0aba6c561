//! The new owner's side of one fragment.
//!
//! ```text
//!            Sealed           all of the header's entries      closed           Drained sent
//!  asking ──────────▶ pulling ─────────────────▶ following ─────────▶ finished
//!    ▲ │                 │ (entries durable)        │ (late ones)
//!    └─┘ no answer       └──── Pull again ──────────┘
//! ```
//!
//! | state | event | then |
//! |---|---|---|
//! | asking | timer | Takeover again, at growing intervals |
//! | asking | Sealed | the caller makes the header durable, then `header_durable` → pulling |
//! | asking | Refused Unknown | finished: the fragment has ended |
//! | asking | Refused Superseded | the caller claims anew or steps down |
//! | pulling, following | Entries after our cursor | the caller makes them durable, then `entries_durable` |
//! | pulling, following | Entries after another cursor | ignored: an answer to an older question |
//! | following | timer, Nudge | Pull |
//! | following | Entries closed, none left | finished, Drained |

use std::time::Duration;

use verge_model::{Claim, Millis};

use crate::wire::RouteHead;

use super::frame::{Body, Cursor, Refusal, SealedHeader, TransferEntry};

/// Intervals of an import.
#[derive(Debug, Clone, Copy)]
pub struct ImportConfig {
    /// First wait for an answer; it doubles up to `retry_max`.
    pub retry_min: Duration,
    /// Longest wait for an answer.
    pub retry_max: Duration,
    /// First wait before a quiet fragment is asked for late messages; it doubles up to `follow_max`
    /// until one comes: whoever has something says so.
    pub follow_interval: Duration,
    /// Longest wait.
    pub follow_max: Duration,
}

impl Default for ImportConfig {
    fn default() -> Self {
        Self {
            retry_min: Duration::from_millis(200),
            retry_max: Duration::from_secs(10),
            follow_interval: Duration::from_secs(5),
            follow_max: Duration::from_secs(40),
        }
    }
}

/// What the caller is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send this to the fragment's node.
    Send(Body),
    /// Make the header durable, then call [`Import::header_durable`].
    Header(Box<SealedHeader>),
    /// Make these entries durable, in order, then call [`Import::entries_durable`].
    Entries(Vec<TransferEntry>),
    /// The log as it was sealed is complete here: newer messages may be delivered.
    CaughtUp,
    /// The giver knows of a greater claim.
    Superseded(Claim),
    /// The fragment is over; `held` says whether the giver had it.
    Finished {
        /// False if the giver did not know the fragment.
        held: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asking,
    /// The header is being made durable.
    Header,
    Pulling,
    /// Entries up to the cursor are being made durable.
    Storing {
        upto: Cursor,
        closed: bool,
    },
    Following,
    Finished,
}

/// The pull of one fragment.
#[derive(Debug)]
pub struct Import {
    config: ImportConfig,
    state: State,
    /// The end of the log as it was sealed, once the header came.
    end: Option<Cursor>,
    caught_up: bool,
    after: Cursor,
    retry: Duration,
    deadline: Option<Millis>,
    /// What was last said of the new owner's routes.
    routed: Option<(RouteHead, bool)>,
    follow: Duration,
    /// Whether the giver has said that its log is closed.
    closed: bool,
}

impl Import {
    /// A new import; the first [`Import::handle_timeout`] at `now` sends the Takeover.
    #[must_use]
    pub fn new(config: ImportConfig, now: Millis) -> Self {
        Self {
            config,
            state: State::Asking,
            end: None,
            caught_up: false,
            after: Cursor::default(),
            retry: config.retry_min,
            deadline: Some(now),
            routed: None,
            follow: config.follow_interval,
            closed: false,
        }
    }

    /// Whether the giver has not yet answered at all.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.state == State::Asking
    }

    /// Whether the log, as it was sealed, is complete here.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// Whether an entry came to the giver after its log was sealed: it is no older than what the
    /// new owner gets itself.
    #[must_use]
    pub fn is_late(&self, cursor: Cursor) -> bool {
        self.end.is_some_and(|end| cursor > end)
    }

    /// Everything up to here is durable at the new owner.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.after
    }

    /// When [`Import::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        self.deadline
    }

    /// Asks, or asks again, what is still open.
    pub fn handle_timeout(&mut self, now: Millis) -> Vec<Action> {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        match self.state {
            State::Asking => self.ask(now, Body::Takeover),
            State::Pulling | State::Following => self.pull(now),
            State::Header | State::Storing { .. } | State::Finished => {
                self.deadline = None;
                Vec::new()
            }
        }
    }

    /// The giver's node is in reach (again): ask at once.
    pub fn handle_peer_up(&mut self, now: Millis) -> Vec<Action> {
        self.retry = self.config.retry_min;
        match self.state {
            State::Asking | State::Pulling | State::Following => {
                self.deadline = Some(now);
                self.handle_timeout(now)
            }
            State::Header | State::Storing { .. } | State::Finished => Vec::new(),
        }
    }

    /// Sealed arrived.
    pub fn handle_sealed(&mut self, header: Box<SealedHeader>) -> Vec<Action> {
        if self.state != State::Asking {
            return Vec::new();
        }
        self.state = State::Header;
        self.deadline = None;
        self.end = Some(header.end);
        vec![Action::Header(header)]
    }

    /// Refused arrived.
    pub fn handle_refused(&mut self, refusal: Refusal, now: Millis) -> Vec<Action> {
        match (self.state, refusal) {
            (State::Finished | State::Header | State::Storing { .. }, _) => Vec::new(),
            (State::Asking | State::Pulling | State::Following, Refusal::Busy) => {
                self.deadline = Some(now + self.config.retry_min);
                Vec::new()
            }
            (State::Asking | State::Pulling | State::Following, Refusal::Unknown) => {
                let held = self.state != State::Asking;
                let mut actions = Vec::new();
                if !std::mem::replace(&mut self.caught_up, true) {
                    actions.push(Action::CaughtUp);
                }
                self.finish();
                actions.push(Action::Finished { held });
                actions
            }
            (State::Asking | State::Pulling | State::Following, Refusal::Superseded { by }) => {
                self.deadline = Some(now + self.config.retry_max);
                vec![Action::Superseded(by)]
            }
        }
    }

    /// The header is durable: start, or go on, pulling.
    pub fn header_durable(&mut self, now: Millis) -> Vec<Action> {
        if self.state != State::Header {
            return Vec::new();
        }
        self.state = State::Pulling;
        self.retry = self.config.retry_min;
        let mut actions = self.note_caught_up();
        actions.extend(self.pull(now));
        actions
    }

    /// Entries arrived.
    pub fn handle_entries(
        &mut self,
        after: Cursor,
        entries: Vec<TransferEntry>,
        more: bool,
        closed: bool,
        now: Millis,
    ) -> Vec<Action> {
        let pulling = matches!(self.state, State::Pulling | State::Following);
        if !pulling || after != self.after {
            return Vec::new();
        }
        self.retry = self.config.retry_min;
        let closed = closed && !more;
        match entries.last() {
            Some(last) => {
                self.follow = self.config.follow_interval;
                self.state = State::Storing { upto: last.cursor, closed };
                self.deadline = None;
                vec![Action::Entries(entries)]
            }
            None => self.proceed(more, closed, now),
        }
    }

    /// The entries last given are durable.
    pub fn entries_durable(&mut self, now: Millis) -> Vec<Action> {
        let State::Storing { upto, closed } = self.state else { return Vec::new() };
        self.after = upto;
        self.state = State::Pulling;
        // The pull that follows also tells the giver what it may delete, even if nothing more
        // was announced.
        self.proceed(true, closed, now)
    }

    /// Something new is there to pull.
    pub fn handle_nudge(&mut self, now: Millis) -> Vec<Action> {
        if self.state == State::Following { self.pull(now) } else { Vec::new() }
    }

    /// The session's filters are among the new owner's routes from `head` on: where these are
    /// known the giver's are not needed. `patient`: the giver may wait for nodes that are away.
    pub fn routed(&mut self, head: RouteHead, patient: bool) -> Vec<Action> {
        match self.state {
            State::Pulling | State::Following | State::Storing { .. } => {
                self.routed = Some((head, patient));
                vec![Action::Send(Body::Routed { head, patient })]
            }
            // A header may name more filters: the caller asks for its routes again with it.
            State::Asking | State::Header | State::Finished => Vec::new(),
        }
    }

    fn proceed(&mut self, more: bool, closed: bool, now: Millis) -> Vec<Action> {
        self.closed |= closed;
        let mut actions = self.note_caught_up();
        if more {
            actions.extend(self.pull(now));
        } else if self.closed {
            self.caught_up = true;
            self.finish();
            actions.push(Action::Send(Body::Drained));
            actions.push(Action::Finished { held: true });
        } else {
            self.state = State::Following;
            if !std::mem::replace(&mut self.caught_up, true) {
                actions.push(Action::CaughtUp);
            }
            self.deadline = Some(now + self.follow);
            self.follow = (self.follow * 2).min(self.config.follow_max);
            if let Some((head, patient)) = self.routed {
                // Said again on every round, in case it was lost.
                actions.push(Action::Send(Body::Routed { head, patient }));
            }
        }
        actions
    }

    fn note_caught_up(&mut self) -> Vec<Action> {
        let complete = self.end.is_some_and(|end| self.after >= end);
        if complete && !std::mem::replace(&mut self.caught_up, true) {
            return vec![Action::CaughtUp];
        }
        Vec::new()
    }

    fn pull(&mut self, now: Millis) -> Vec<Action> {
        self.ask(now, Body::Pull { after: self.after })
    }

    fn ask(&mut self, now: Millis, question: Body) -> Vec<Action> {
        self.deadline = Some(now + self.retry);
        self.retry = (self.retry * 2).min(self.config.retry_max);
        vec![Action::Send(question)]
    }

    fn finish(&mut self) {
        self.state = State::Finished;
        self.deadline = None;
    }
}

#[cfg(test)]
mod tests {
    use verge_model::{Class, Hlc, MessageId, NodeKey, UnixMillis};
    use verge_storage::record::MessageRecord;

    use super::super::frame::EntryState;
    use super::*;

    #[test]
    fn an_answered_import_goes_from_takeover_to_drained() {
        let mut import = Import::new(ImportConfig::default(), Millis(0));
        assert_eq!(import.handle_timeout(Millis(0)), [Action::Send(Body::Takeover)]);
        assert_eq!(import.handle_sealed(header(2)), [Action::Header(header(2))]);
        assert_eq!(import.header_durable(Millis(5)), [pull(0)]);
        let actions = import.handle_entries(cursor(0), entries(1..=2), true, false, Millis(6));
        assert_eq!(actions, [Action::Entries(entries(1..=2))]);
        assert_eq!(import.entries_durable(Millis(7)), [Action::CaughtUp, pull(2)]);
        assert_eq!(import.handle_entries(cursor(2), vec![], false, false, Millis(8)), []);
        assert_eq!(import.routed(HEAD, true), [routed()]);
        assert_eq!(import.handle_nudge(Millis(9)), [pull(2)]);
        import.handle_entries(cursor(2), entries(3..=3), false, true, Millis(10));
        assert_eq!(import.entries_durable(Millis(11)), [pull(3)], "the giver is told first");
        let actions = import.handle_entries(cursor(3), vec![], false, true, Millis(12));
        let drained = Action::Send(Body::Drained);
        assert_eq!(actions, [drained, Action::Finished { held: true }]);
        assert_eq!(import.poll_timeout(), None);
    }

    #[test]
    fn an_unanswered_takeover_is_repeated_at_growing_intervals_for_ever() {
        let mut import = Import::new(ImportConfig::default(), Millis(0));
        let mut sent_at = Vec::new();
        for _ in 0..9 {
            let now = import.poll_timeout().unwrap();
            assert_eq!(import.handle_timeout(now), [Action::Send(Body::Takeover)]);
            sent_at.push(now.0);
        }
        assert_eq!(sent_at, [0, 200, 600, 1_400, 3_000, 6_200, 12_600, 22_600, 32_600]);
        assert_eq!(import.handle_peer_up(Millis(33_000)), [Action::Send(Body::Takeover)]);
    }

    #[test]
    fn a_quiet_log_is_asked_for_less_and_less_until_something_comes() {
        let mut import = Import::new(ImportConfig::default(), Millis(0));
        import.handle_timeout(Millis(0));
        import.handle_sealed(header(0));
        assert_eq!(import.routed(HEAD, true), [], "more may have to be routed");
        import.header_durable(Millis(0));
        import.routed(HEAD, true);
        let mut asked_at = Vec::new();
        for _ in 0..6 {
            let now = Millis(asked_at.last().copied().unwrap_or_default());
            let said = import.handle_entries(cursor(0), vec![], false, false, now);
            assert_eq!(said, [routed()]);
            let due = import.poll_timeout().unwrap();
            assert_eq!(import.handle_timeout(due), [pull(0)]);
            asked_at.push(due.0);
        }
        assert_eq!(asked_at, [5_000, 15_000, 35_000, 75_000, 115_000, 155_000]);
        import.handle_entries(cursor(0), entries(1..=1), false, false, Millis(155_000));
        import.entries_durable(Millis(155_000));
        import.handle_entries(cursor(1), vec![], false, false, Millis(155_000));
        assert_eq!(import.poll_timeout(), Some(Millis(160_000)));
    }

    #[test]
    fn late_and_doubled_answers_change_nothing() {
        let mut import = Import::new(ImportConfig::default(), Millis(0));
        import.handle_timeout(Millis(0));
        import.handle_sealed(header(1));
        assert_eq!(import.handle_sealed(header(1)), []);
        import.header_durable(Millis(1));
        assert!(!import.is_late(cursor(1)) && import.is_late(cursor(2)));
        import.handle_entries(cursor(0), entries(1..=1), false, false, Millis(2));
        assert_eq!(import.handle_entries(cursor(0), entries(1..=1), false, false, Millis(2)), []);
        import.entries_durable(Millis(3));
        assert_eq!(import.handle_entries(cursor(0), entries(1..=1), false, false, Millis(4)), []);
        assert_eq!(import.cursor(), cursor(1));
    }

    #[test]
    fn a_fragment_the_giver_does_not_know_is_over() {
        let mut import = Import::new(ImportConfig::default(), Millis(0));
        import.handle_timeout(Millis(0));
        let actions = import.handle_refused(Refusal::Unknown, Millis(1));
        assert_eq!(actions, [Action::CaughtUp, Action::Finished { held: false }]);
    }

    #[test]
    fn an_empty_log_is_caught_up_with_its_header() {
        let mut import = Import::new(ImportConfig::default(), Millis(0));
        import.handle_timeout(Millis(0));
        import.handle_sealed(header(0));
        assert_eq!(import.header_durable(Millis(1)), [Action::CaughtUp, pull(0)]);
    }

    const HEAD: RouteHead = RouteHead { incarnation: 1, seq: 4 };

    fn cursor(seq: u64) -> Cursor {
        Cursor { lane: u8::from(seq > 0), seq }
    }

    fn routed() -> Action {
        Action::Send(Body::Routed { head: HEAD, patient: true })
    }

    fn pull(seq: u64) -> Action {
        Action::Send(Body::Pull { after: cursor(seq) })
    }

    fn header(end: u64) -> Box<SealedHeader> {
        Box::new(SealedHeader {
            fragment: Claim { epoch: 1, node: NodeKey(1) },
            end: cursor(end),
            entries: end,
            received: vec![],
            settled: vec![],
            will: None,
            session_expiry_secs: None,
            subscriptions: bytes::Bytes::new(),
            open_fragments: vec![],
        })
    }

    fn entries(seqs: std::ops::RangeInclusive<u64>) -> Vec<TransferEntry> {
        let entry = |seq| TransferEntry {
            cursor: cursor(seq),
            id: MessageId { node: NodeKey(1), incarnation: 1, seq },
            message: record(seq),
            qos: 1,
            retain: false,
            subscription_ids: vec![],
            enqueued_at: UnixMillis(0),
            state: EntryState::Queued,
            share: None,
        };
        seqs.map(entry).collect()
    }

    fn record(seq: u64) -> MessageRecord {
        MessageRecord {
            id: MessageId { node: NodeKey(1), incarnation: 1, seq },
            publisher: "p".into(),
            stamp: Hlc(seq),
            expires_at: None,
            topic: "t".into(),
            qos: 1,
            retain: false,
            class: Class::Telemetry,
            properties: bytes::Bytes::new(),
            payload: bytes::Bytes::new(),
        }
    }
}
