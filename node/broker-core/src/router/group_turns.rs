//! A group whose members take turns among themselves, as a plan keeps it: whose turn it is changes
//! with every message, who they are does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::matches::Match;
use super::strategy::mixed;
use crate::pressure::Pressure;

/// The connected members of a group of this node, and its count of turns.
#[derive(Debug, Clone)]
pub struct GroupTurns {
    /// They are shared by all plans until one comes, goes or changes.
    pub(super) members: Arc<[Match]>,
    /// The group's own.
    pub(super) turn: Arc<AtomicU32>,
    /// There if chance decides: what makes it unpredictable.
    pub(super) seed: Option<u64>,
}

impl GroupTurns {
    /// Who gets the next message: whose turn it is, or the next one after that who keeps up.
    pub(super) fn next(&self, pressure: &Pressure) -> Option<&Match> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let first = self.seed.map_or(turn, |seed| chance(seed, turn)) as usize;
        let count = self.members.len();
        let chosen = self.members.get(first.checked_rem(count)?)?;
        if !pressure.is_any() || pressure.get(chosen.session).is_none() {
            return Some(chosen);
        }
        let others = (1..count).map(|step| &self.members[(first + step) % count]);
        others.into_iter().find(|other| pressure.get(other.session).is_none()).or(Some(chosen))
    }
}

/// The number of a turn that chance decides.
pub(super) fn chance(seed: u64, turn: u32) -> u32 {
    (mixed(seed ^ u64::from(turn)) >> 32) as u32
}

impl PartialEq for GroupTurns {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.turn, &other.turn) && Arc::ptr_eq(&self.members, &other.members)
    }
}

impl Eq for GroupTurns {}
