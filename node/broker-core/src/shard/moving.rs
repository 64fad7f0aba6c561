//! What a session keeps while it moves between nodes, in a box: most sessions stay where they are.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use rustc_hash::{FxBuildHasher, FxHashSet};
use verge_mesh_proto::handover::Import;
use verge_model::{Claim, MessageId, Millis};

/// Most messages a session remembers as seen while fragments of it are being merged. Beyond it a
/// message that comes by two ways is delivered twice, and counted.
const SEEN_MAX: usize = 65_536;

/// What a session keeps while logs of it are on their way. To be read as [`Moves`], which says that
/// there is nothing if nothing is kept.
#[derive(Debug, Default)]
pub(crate) struct Moving(Option<Box<Moves>>);

/// What is on its way.
#[derive(Debug)]
pub(crate) struct Moves {
    /// The log whose header says what the session is. Until it came, or is given up, no connection
    /// is served.
    pub(crate) claiming: Option<Claim>,
    /// A greater claim than ours, whose owner has not come for our log yet.
    pub(crate) superseded: Option<Claim>,
    /// Whether the node was away since it last served the session: its client may have been served
    /// elsewhere meanwhile, which the session's homes know.
    pub(crate) unconfirmed: bool,
    /// When whoever is to come for our log is reminded, and the wait before the next time.
    pub(crate) reminder: Option<(Millis, Duration)>,
    /// Older logs being pulled, by the claim they were written under.
    pub(crate) fragments: BTreeMap<Claim, Fragment>,
    /// When messages stop waiting for imports that come before them.
    pub(crate) hold_until: Option<Millis>,
    pub(crate) seen: Seen,
    /// The question to the hub how far the session's routes are.
    pub(crate) routes_token: Option<u64>,
}

/// What a session that stays has.
static NOTHING: Moves = Moves::nothing();

impl Moving {
    /// To change what is kept, which makes the box.
    pub(crate) fn change(&mut self) -> &mut Moves {
        self.0.get_or_insert_with(|| Box::new(Moves::nothing()))
    }

    /// To change what is kept, if there is any.
    pub(crate) fn kept(&mut self) -> Option<&mut Moves> {
        self.0.as_deref_mut()
    }

    /// The pull of an older log.
    pub(crate) fn fragment_mut(&mut self, claim: Claim) -> Option<&mut Fragment> {
        self.kept()?.fragments.get_mut(&claim)
    }

    /// Whether the message was taken before.
    pub(crate) fn has_seen(&self, id: MessageId) -> bool {
        self.0.as_deref().is_some_and(|moves| moves.seen.ids.contains(&id))
    }

    /// Remembers a message, if there is reason to; true if a row should stand for it.
    pub(crate) fn note_seen(&mut self, id: MessageId) -> bool {
        self.kept().is_some_and(|moves| moves.seen.note(id))
    }

    /// Forgets a message that was handed over; true if a row stood for it.
    pub(crate) fn forget_seen(&mut self, id: MessageId) -> bool {
        self.kept().is_some_and(|moves| moves.seen.ids.remove(&id))
    }

    /// Messages that were taken.
    pub(crate) fn all_seen(&self) -> impl Iterator<Item = MessageId> {
        self.seen.ids.iter().copied()
    }

    /// Whether nothing is on its way: the session's header says all there is.
    pub(crate) fn is_at_rest(&self) -> bool {
        let Some(moves) = self.0.as_deref() else { return true };
        moves.is_nothing_but_doubt()
    }

    /// Gives the box back, if nothing is kept any more.
    pub(crate) fn tidy(&mut self) {
        if self.0.as_deref().is_some_and(Moves::is_nothing) {
            self.0 = None;
        }
    }
}

impl Deref for Moving {
    type Target = Moves;

    fn deref(&self) -> &Moves {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl Moves {
    const fn nothing() -> Self {
        Self {
            claiming: None,
            superseded: None,
            unconfirmed: false,
            reminder: None,
            fragments: BTreeMap::new(),
            hold_until: None,
            seen: Seen { ids: FxHashSet::with_hasher(FxBuildHasher), until: None },
            routes_token: None,
        }
    }

    fn is_nothing(&self) -> bool {
        !self.unconfirmed && self.is_nothing_but_doubt()
    }

    fn is_nothing_but_doubt(&self) -> bool {
        let Self {
            claiming,
            superseded,
            unconfirmed: _,
            reminder,
            fragments,
            hold_until,
            seen,
            routes_token,
        } = self;
        let decided = claiming.is_none() && superseded.is_none();
        let arrived = fragments.is_empty() && seen.ids.is_empty() && seen.until.is_none();
        let due = reminder.is_some() || hold_until.is_some() || routes_token.is_some();
        decided && arrived && !due
    }
}

/// An older log of the session.
#[derive(Debug)]
pub(crate) struct Fragment {
    /// The pull.
    pub(crate) import: Import,
    /// Whether it is decided what its header is to the client: it was taken in, or the client was
    /// served without it.
    pub(crate) headed: bool,
}

/// Messages that must not be taken twice while fragments of a session are merged.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Those that are not owed any more are over: the client has had them, or never will. What is
    /// handed over is forgotten.
    ids: FxHashSet<MessageId>,
    /// Until when ids are remembered; `None`: nothing is.
    pub(crate) until: Option<Millis>,
}

impl Seen {
    fn note(&mut self, id: MessageId) -> bool {
        self.until.is_some() && self.ids.len() < SEEN_MAX && self.ids.insert(id)
    }

    /// From now on messages are remembered, these first.
    pub(crate) fn remember(&mut self, ids: impl IntoIterator<Item = MessageId>, until: Millis) {
        self.ids.extend(ids);
        self.until = Some(until);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.ids = FxHashSet::default();
        self.until = None;
    }
}
