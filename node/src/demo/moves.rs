//! Counting the ways vehicles go between nodes, against the ways the trace says they should.
//!
//! The trace says when a vehicle is to change its roadside unit. A vehicle makes a change when it
//! connects to the unit it is to be at; several changes fall into one while it parks, or while the
//! unit it wants is down and it goes elsewhere meanwhile.

use serde::Serialize;

/// Changes of roadside unit, of one vehicle or many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Moves {
    /// Changes of the trace that a reconnection made.
    pub made: u64,
    /// Changes of the trace that fell into another one, or undid one, while the vehicle was away.
    pub merged: u64,
    /// Connections to another unit than the trace's, because that one was down.
    pub detours: u64,
    /// Connections after the first that found no session: each is a loss of state.
    pub sessions_lost: u64,
}

impl Moves {
    /// Adds another vehicle's.
    pub fn add(&mut self, other: Self) {
        self.made += other.made;
        self.merged += other.merged;
        self.detours += other.detours;
        self.sessions_lost += other.sessions_lost;
    }
}

/// Follows one vehicle.
#[derive(Debug, Clone)]
pub struct Way {
    /// The last unit it was at that was the trace's.
    home: Option<usize>,
    /// The unit of the trace's present row.
    wanted: usize,
    /// Changes of the trace since it was last where it should be.
    pending: u64,
    moves: Moves,
}

impl Way {
    /// A vehicle that the trace begins at this unit.
    #[must_use]
    pub fn new(first: usize) -> Self {
        Self { home: None, wanted: first, pending: 0, moves: Moves::default() }
    }

    /// The trace's next row; true if it changes the unit.
    pub fn row(&mut self, wanted: usize) -> bool {
        let changes = wanted != self.wanted;
        self.pending += u64::from(changes);
        self.wanted = wanted;
        changes
    }

    /// The vehicle is connected to a unit.
    pub fn connected(&mut self, site: usize, session_present: bool) {
        let is_first = self.home.is_none() && self.moves == Moves::default();
        self.moves.sessions_lost += u64::from(!is_first && !session_present);
        if site != self.wanted {
            self.moves.detours += 1;
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let made = u64::from(pending > 0 && self.home != Some(site));
        self.moves.made += made;
        self.moves.merged += pending - made;
        self.home = Some(site);
    }

    /// The trace has come to the unit at which the vehicle is already.
    pub fn stays(&mut self) {
        self.moves.merged += std::mem::take(&mut self.pending);
        self.home = Some(self.wanted);
    }

    /// The unit of the trace's present row.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// What was counted.
    #[must_use]
    pub fn moves(&self) -> Moves {
        self.moves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_the_trace_is_made_or_merged() {
        enum Step {
            Row(usize),
            At(usize),
            Stays,
        }
        use Step::{At, Row, Stays};
        let cases: [(&[Step], [u64; 3]); 7] = [
            (&[At(0), Row(1), At(1), Row(2), At(2)], [2, 0, 0]),
            // Parked over two changes.
            (&[At(0), Row(1), Row(2), At(2)], [1, 1, 0]),
            // Parked there and back again.
            (&[At(0), Row(1), Row(0), At(0)], [0, 2, 0]),
            // The wanted unit is down: elsewhere first, then there.
            (&[At(0), Row(1), At(2), At(1)], [1, 0, 1]),
            // The present unit dies and comes back.
            (&[At(0), At(2), At(0)], [0, 0, 1]),
            // Dies, and the trace goes on to the refuge.
            (&[At(0), At(2), Row(2), At(2)], [1, 0, 1]),
            (&[At(0), At(2), Row(2), Stays, Row(0), At(0)], [1, 1, 1]),
        ];
        for (number, (steps, [made, merged, detours])) in cases.into_iter().enumerate() {
            let mut way = Way::new(0);
            for (index, step) in steps.iter().enumerate() {
                match step {
                    Row(wanted) => assert!(way.row(*wanted)),
                    At(site) => way.connected(*site, index > 0),
                    Stays => way.stays(),
                }
            }
            let wanted = Moves { made, merged, detours, sessions_lost: 0 };
            assert_eq!(way.moves(), wanted, "case {number}");
        }
    }

    #[test]
    fn a_session_that_is_not_there_after_the_first_time_is_lost() {
        let mut way = Way::new(0);
        way.connected(0, false);
        way.connected(0, true);
        way.connected(0, false);
        assert_eq!(way.moves().sessions_lost, 1);
    }
}
