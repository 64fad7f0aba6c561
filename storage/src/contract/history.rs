//! A long history of everything at once, against the reference store.

use bytes::Bytes;
use verge_model::{Class, NodeKey};

use super::{Place, node, open};
use crate::batch::{Batch, Op};
use crate::family::Family;
use crate::key::{KeyBuf, KeyRange, MetaKey};
use crate::log::LogKey;
use crate::memory::MemoryStore;
use crate::references::COUNTED;
use crate::store::Store;

const GROUPS: u64 = 400;
const GROUPS_PER_RESTART: u64 = 100;

/// Plain families, two with few and two with many rows.
const FAMILIES: [Family; 4] = [Family::Session, Family::Queue, Family::Seen, Family::Message];

const LOGS: [LogKey; 4] = [
    LogKey::Forward { peer: NodeKey(1), class: Class::Safety },
    LogKey::Forward { peer: NodeKey(1), class: Class::Control },
    LogKey::Forward { peer: NodeKey(2), class: Class::Safety },
    LogKey::Outbox { stream: 0 },
];

/// SplitMix64 (Steele et al., 2014): enough to choose what a history does.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Few different keys, so that they are met again; bytes at both ends of their range.
    fn key(&mut self, len: u64) -> KeyBuf {
        (0..len).map(|_| self.one_of(&[0, 1, 0x7f, 0xfe, 0xff])).collect()
    }

    fn value(&mut self) -> Bytes {
        let len = self.below(40) as usize;
        vec![self.below(256) as u8; len].into()
    }

    /// The value of a row of `message`.
    fn counted(&mut self) -> Bytes {
        let references = 1 + self.below(4) as u8;
        [&[COUNTED, 0, 0, 0, references], &self.value()[..]].concat().into()
    }

    fn op(&mut self) -> Op {
        let family = self.one_of(&FAMILIES);
        let log = self.one_of(&LOGS);
        match self.below(20) {
            0..7 if family == Family::Message => {
                Op::Put { family, key: self.key(3), value: self.counted() }
            }
            0..7 => Op::Put { family, key: self.key(3), value: self.value() },
            7 => Op::Release { key: self.key(3), count: 1 + self.below(2) as u32 },
            8..12 => Op::Delete { family, key: self.key(3) },
            12 => {
                let len = self.below(3);
                Op::DeletePrefix { family, prefix: self.key(len) }
            }
            13..19 => Op::Append { log, value: self.value() },
            _ => Op::Trim { log, upto: self.below(4 * GROUPS) },
        }
    }

    fn group(&mut self) -> Vec<Batch> {
        (0..self.below(4))
            .map(|_| {
                let mut batch = Batch::new();
                for _ in 0..self.below(12) {
                    batch.push(self.op());
                }
                batch
            })
            .collect()
    }
}

pub(super) fn agrees_with_reference(place: &mut dyn Place) {
    let reference = MemoryStore::new(&node(), 7);
    let mut chance = Chance(15);
    let mut store = open(place);
    for number in 1..=GROUPS {
        let group = chance.group();
        let expected = reference.commit(&group, true);
        assert_eq!(store.commit(&group, number % 10 == 0), expected, "group {number}");
        if number % GROUPS_PER_RESTART == 0 {
            drop(store);
            store = open(place);
        }
        if number % 20 == 0 {
            compare(&*store, &reference, number);
        }
    }
}

fn compare(store: &dyn Store, reference: &dyn Store, number: u64) {
    for family in FAMILIES.into_iter().chain(LogKey::FAMILIES) {
        assert!(
            rows(store, family, KeyRange::all()) == rows(reference, family, KeyRange::all()),
            "{family} after group {number}"
        );
    }
    let marks = || KeyRange::prefix(MetaKey::trimmed_prefix());
    assert_eq!(rows(store, Family::Meta, marks()), rows(reference, Family::Meta, marks()));
    assert_eq!(store.logs(), reference.logs());
    for log in LOGS {
        assert_eq!(store.log_bounds(log), reference.log_bounds(log), "{log:?}");
        assert_eq!(store.read_log(log, 1, 50, 999), reference.read_log(log, 1, 50, 999));
    }
}

fn rows(store: &dyn Store, family: Family, range: KeyRange) -> Vec<(Bytes, Bytes)> {
    let (mut rows, mut rest) = (Vec::new(), Some(range));
    while let Some(range) = rest {
        let page = store.scan(family, &range, 37).expect("the family scans");
        rows.extend(page.rows);
        rest = page.rest;
    }
    rows
}
