//! Looks at the books now and then, and says when they do not balance.
//!
//! Counters are read while messages flow, so a single look proves nothing. A *quiet* look is one
//! before and after which the books say the same; an imbalance that several quiet looks in a row
//! find, each the same, is one.
//!
//! | the look | the watch then |
//! |---|---|
//! | not quiet | as before |
//! | quiet, balanced | balanced |
//! | quiet, off by `n` for the [`LOOKS`]th time | off by `n` |

use super::LedgerSnapshot;

/// Quiet looks in a row that must find the same imbalance. At one in 5 seconds it is known within
/// a quarter of a minute, and whatever a batch on its way to a slow disk holds back is over.
pub const LOOKS: u32 = 3;

/// What was found so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LedgerWatch {
    /// What the last quiet look found.
    found: i64,
    /// How many in a row found it.
    looks: u32,
    /// The imbalance that lasts; 0: none.
    off_by: i64,
}

/// What a look changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The books do not balance: so many debts are missing, or counted too often if negative.
    OffBy(i64),
    /// They balance again.
    Balanced,
}

impl LedgerWatch {
    /// A look: the books, what the sessions held then, and the books again. Says what is new.
    pub fn look(
        &mut self,
        before: &LedgerSnapshot,
        held: u64,
        after: &LedgerSnapshot,
    ) -> Option<Change> {
        if before != after {
            return None;
        }
        let balance = after.balance(held);
        let again = balance == self.found;
        self.looks = if again { self.looks.saturating_add(1) } else { 1 };
        self.found = balance;
        let off_by = if balance == 0 {
            0
        } else if self.looks >= LOOKS {
            balance
        } else {
            return None;
        };
        if off_by == self.off_by {
            return None;
        }
        self.off_by = off_by;
        Some(if off_by == 0 { Change::Balanced } else { Change::OffBy(off_by) })
    }

    /// The imbalance that lasts; 0: none.
    #[must_use]
    pub fn off_by(&self) -> i64 {
        self.off_by
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(accepted: u64) -> LedgerSnapshot {
        LedgerSnapshot { accepted, ..LedgerSnapshot::default() }
    }

    #[test]
    fn an_imbalance_is_told_once_when_it_lasts_and_when_it_ends() {
        let mut watch = LedgerWatch::default();
        let mut look = |before, held, after| watch.look(&books(before), held, &books(after));
        let transcript = [
            ((5, 5, 5), None),
            ((5, 4, 5), None),
            ((5, 4, 5), None),
            // Balanced in between: the count begins again.
            ((5, 5, 5), None),
            ((7, 5, 7), None),
            ((7, 5, 7), None),
            // Messages flow: nothing is to be concluded.
            ((7, 5, 8), None),
            ((7, 5, 7), Some(Change::OffBy(2))),
            ((7, 5, 7), None),
            // Another imbalance, as soon as that one lasts.
            ((9, 12, 9), None),
            ((9, 12, 9), None),
            ((9, 12, 9), Some(Change::OffBy(-3))),
            ((9, 9, 9), Some(Change::Balanced)),
            ((9, 9, 9), None),
        ];
        for (at, ((before, held, after), says)) in transcript.into_iter().enumerate() {
            assert_eq!(look(before, held, after), says, "look {at}");
        }
        assert_eq!(watch.off_by(), 0);
    }
}
