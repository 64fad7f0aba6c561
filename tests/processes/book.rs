//! The record kept outside the nodes: what was published, what arrived, and the difference.
//!
//! A message's payload is its number in its topic, from 1; each topic has one publisher.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::client::Message;

/// The last number published in each topic.
pub(crate) type Sent = BTreeMap<String, u64>;

/// What a subscriber got, in order.
#[derive(Debug, Default)]
pub(crate) struct Received {
    numbers: BTreeMap<String, Vec<u64>>,
    distinct: BTreeMap<String, BTreeSet<u64>>,
}

impl Received {
    pub(crate) fn add(&mut self, message: &Message) {
        let number = message.text().parse().expect("payloads are numbers");
        self.numbers.entry(message.topic.clone()).or_default().push(number);
        self.distinct.entry(message.topic.clone()).or_default().insert(number);
    }

    /// Where it stands, for a test's own log.
    pub(crate) fn last(&self) -> String {
        let of = |(topic, numbers): (&String, &Vec<u64>)| {
            format!("{} of {topic}, the last {:?}", numbers.len(), numbers.last())
        };
        self.numbers.iter().map(of).collect::<Vec<_>>().join("; ")
    }

    /// What came in one topic.
    pub(crate) fn of(&self, topic: &str) -> Self {
        let mut of = Self::default();
        if let Some(numbers) = self.numbers.get(topic) {
            of.numbers.insert(topic.to_owned(), numbers.clone());
            of.distinct.insert(topic.to_owned(), numbers.iter().copied().collect());
        }
        of
    }

    /// How many messages there are, repetitions included.
    pub(crate) fn len(&self) -> u64 {
        self.numbers.values().map(Vec::len).sum::<usize>() as u64
    }

    /// Whether nothing of `sent` is missing.
    pub(crate) fn has_all(&self, sent: &Sent) -> bool {
        sent.iter()
            .all(|(topic, last)| self.distinct.get(topic).map_or(0, BTreeSet::len) as u64 >= *last)
    }

    /// The difference between what was published and what arrived.
    pub(crate) fn against(&self, sent: &Sent) -> Difference {
        let mut difference = Difference::default();
        let none = Vec::new();
        for (topic, last) in sent {
            let arrived = self.numbers.get(topic).unwrap_or(&none);
            let mut seen = BTreeSet::new();
            for number in arrived {
                let place = || format!("{topic}:{number}");
                if !(1..=*last).contains(number) {
                    difference.invented.push(place());
                } else if !seen.insert(*number) {
                    difference.doubled.push(place());
                } else if seen.last() != Some(number) {
                    difference.reordered.push(place());
                }
            }
            let missing = (1..=*last).filter(|number| !seen.contains(number));
            difference.lost.extend(missing.map(|number| format!("{topic}:{number}")));
        }
        let unknown = self.numbers.keys().filter(|topic| !sent.contains_key(*topic));
        difference.invented.extend(unknown.cloned());
        difference
    }
}

/// What should not be. An order is broken by a message that first arrives after a later one.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Difference {
    pub(crate) lost: Vec<String>,
    pub(crate) doubled: Vec<String>,
    pub(crate) reordered: Vec<String>,
    pub(crate) invented: Vec<String>,
}

impl Difference {
    /// For QoS 1: repetitions are the standard's.
    pub(crate) fn without_doubled(self) -> Self {
        Self { doubled: Vec::new(), ..self }
    }

    /// For what arrives from two logs at once.
    pub(crate) fn without_order(self) -> Self {
        Self { reordered: Vec::new(), ..self }
    }

    /// Nothing that should not be.
    pub(crate) fn is_none(&self, whose: &str) {
        assert!(*self == Self::default(), "{whose}: {self}");
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("reordered", &self.reordered),
            ("invented", &self.invented),
        ];
        for (what, list) in lists {
            let first: Vec<&str> = list.iter().take(8).map(String::as_str).collect();
            write!(f, "{} {what} ({}) ", list.len(), first.join(" "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_told_by_kind() {
        let sent = Sent::from([("t".to_owned(), 5)]);
        let mut received = Received::default();
        for number in [1, 3, 2, 3, 9] {
            received.add(&Message::of("t", &number.to_string()));
        }
        let at = |numbers: &[u64]| numbers.iter().map(|n| format!("t:{n}")).collect::<Vec<_>>();
        assert!(!received.has_all(&sent));
        assert_eq!(
            received.against(&sent),
            Difference {
                lost: at(&[4, 5]),
                doubled: at(&[3]),
                reordered: at(&[2]),
                invented: at(&[9]),
            }
        );
    }
}
