//! Counting what came of what was sent: lost, twice, out of order.

use serde::Serialize;

/// Largest number of a sequence that is followed; beyond it arrivals count as foreign.
const NUMBER_MAX: u64 = 1 << 24;

/// What a receiver saw of one numbered sequence that starts at 0.
#[derive(Debug, Clone, Default)]
pub struct Sequence {
    /// One bit for each number that came.
    seen: Vec<u64>,
    highest: Option<u64>,
    distinct: u64,
    duplicates: u64,
    out_of_order: u64,
    foreign: u64,
}

impl Sequence {
    /// Notes an arrival; true if it is the first of its number.
    pub fn note(&mut self, number: u64) -> bool {
        if number >= NUMBER_MAX {
            self.foreign += 1;
            return false;
        }
        let (word, bit) = ((number / 64) as usize, 1u64 << (number % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.duplicates += 1;
            return false;
        }
        self.seen[word] |= bit;
        self.distinct += 1;
        if self.highest.is_some_and(|highest| number < highest) {
            self.out_of_order += 1;
        }
        self.highest = self.highest.max(Some(number));
        true
    }

    /// Different numbers that came.
    #[must_use]
    pub fn distinct(&self) -> u64 {
        self.distinct
    }

    /// Numbers below `sent` that did not come, ascending.
    pub fn missing(&self, sent: u64) -> impl Iterator<Item = u64> {
        let came = |number: u64| {
            let word = self.seen.get((number / 64) as usize).copied().unwrap_or(0);
            word & (1u64 << (number % 64)) != 0
        };
        (0..sent).filter(move |number| !came(*number))
    }

    /// How a sender that numbered up to, not including, `sent` fared here.
    #[must_use]
    pub fn flow(&self, sent: u64) -> Flow {
        let beyond = self.highest.map_or(0, |highest| (highest + 1).saturating_sub(sent));
        Flow {
            sent,
            delivered: self.distinct,
            lost: sent.saturating_sub(self.distinct),
            duplicated: self.duplicates,
            out_of_order: self.out_of_order,
            // What nobody sent is as wrong as what is missing.
            invented: self.foreign + beyond,
        }
    }
}

/// What became of what was sent on one kind of way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Flow {
    /// Messages owed to receivers.
    pub sent: u64,
    /// Messages that came.
    pub delivered: u64,
    /// Messages that did not.
    pub lost: u64,
    /// Arrivals after the first of a message.
    pub duplicated: u64,
    /// First arrivals behind a later message of the same sender.
    pub out_of_order: u64,
    /// Arrivals of what was never sent.
    pub invented: u64,
}

impl Flow {
    /// Adds another receiver's flow.
    pub fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.invented += other.invented;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_tells_lost_twice_and_late_apart() {
        let cases: [(&[u64], u64, [u64; 5]); 6] = [
            // arrivals, sent: delivered, lost, duplicated, out of order, invented
            (&[0, 1, 2], 3, [3, 0, 0, 0, 0]),
            (&[0, 2], 3, [2, 1, 0, 0, 0]),
            (&[0, 1, 1, 2, 0], 3, [3, 0, 2, 0, 0]),
            (&[1, 0, 2], 3, [3, 0, 0, 1, 0]),
            (&[], 2, [0, 2, 0, 0, 0]),
            (&[0, 1, 2], 2, [3, 0, 0, 0, 1]),
        ];
        for (arrivals, sent, [delivered, lost, duplicated, out_of_order, invented]) in cases {
            let mut sequence = Sequence::default();
            for number in arrivals {
                sequence.note(*number);
            }
            let wanted = Flow { sent, delivered, lost, duplicated, out_of_order, invented };
            assert_eq!(sequence.flow(sent), wanted, "{arrivals:?}");
        }
    }

    #[test]
    fn a_number_beyond_all_measure_takes_no_memory() {
        let mut sequence = Sequence::default();
        assert!(!sequence.note(u64::MAX));
        assert_eq!((sequence.seen.len(), sequence.flow(0).invented), (0, 1));
    }
}
