//! Hash tables for a million things, of which each knows its own key.
//!
//! A table that doubles moves all it holds, and then is half empty. [`Spread`] is many small ones:
//! each doubles by itself, which takes a fraction of a millisecond, and not all of them are half
//! empty at once. A slot holds the value alone; a key that the value knows is not kept twice.
//!
//! [`Numbers`] are boxed values that know their number, found by it.

use std::fmt;
use std::hash::BuildHasher;
use std::ops::Index;

use hashbrown::HashTable;
use hashbrown::hash_table::{Entry, OccupiedEntry};
use rustc_hash::FxBuildHasher;

/// Tables: with a million values, each that doubles moves some four thousand of them. Without any,
/// they are 8 KiB.
const TABLES: usize = 256;

/// Where a hash says which table; tables use the lowest and the highest bits for themselves.
const TABLE_SHIFT: u32 = 40;

/// Values by hash.
pub(crate) struct Spread<T> {
    tables: Box<[HashTable<T>]>,
    len: usize,
}

impl<T> Default for Spread<T> {
    fn default() -> Self {
        Self { tables: (0..TABLES).map(|_| HashTable::new()).collect(), len: 0 }
    }
}

impl<T> Spread<T> {
    /// The value with this hash for which `is` holds.
    pub(crate) fn get(&self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<&T> {
        self.tables[table_of(hash)].find(hash, is)
    }

    /// As [`get`](Self::get), to change it; its hash stays.
    pub(crate) fn get_mut(&mut self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.tables[table_of(hash)].find_mut(hash, is)
    }

    /// Adds a value that is not there; `hash_of` gives its hash and those of all others.
    pub(crate) fn insert(&mut self, value: T, hash_of: impl Fn(&T) -> u64) -> &mut T {
        let hash = hash_of(&value);
        self.len += 1;
        self.tables[table_of(hash)].insert_unique(hash, value, hash_of).into_mut()
    }

    /// The value with this hash for which `is` holds, made if there is none; `hash_of` gives the
    /// hashes of all others.
    pub(crate) fn get_or_insert_with(
        &mut self,
        hash: u64,
        is: impl FnMut(&T) -> bool,
        hash_of: impl Fn(&T) -> u64,
        make: impl FnOnce() -> T,
    ) -> &mut T {
        match self.tables[table_of(hash)].entry(hash, is, hash_of) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => {
                self.len += 1;
                place.insert(make()).into_mut()
            }
        }
    }

    /// Changes the value with this hash for which `is` holds, and removes it if `change` says that
    /// it is worth nothing then.
    pub(crate) fn update<R>(
        &mut self,
        hash: u64,
        is: impl FnMut(&T) -> bool,
        change: impl FnOnce(&mut T) -> (R, bool),
    ) -> Option<R> {
        let mut found = self.tables[table_of(hash)].find_entry(hash, is).ok()?;
        let (result, over) = change(found.get_mut());
        if over {
            found.remove();
            self.len -= 1;
        }
        Some(result)
    }

    /// Takes the value with this hash for which `is` holds.
    pub(crate) fn remove(&mut self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<T> {
        let found = self.tables[table_of(hash)].find_entry(hash, is).ok();
        let (value, _) = found.map(OccupiedEntry::remove)?;
        self.len -= 1;
        Some(value)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.tables.iter().flat_map(HashTable::iter)
    }
}

fn table_of(hash: u64) -> usize {
    (hash >> TABLE_SHIFT) as usize % TABLES
}

/// What has a number.
pub(crate) trait Numbered {
    /// Its kind.
    type Number: Copy + Eq + Into<u64>;

    /// Its number, which never changes.
    fn number(&self) -> Self::Number;

    /// It is about to be changed.
    fn touched(&mut self) {}
}

/// Values by their number.
pub(crate) struct Numbers<T>(Spread<Box<T>>);

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self(Spread::default())
    }
}

impl<T: Numbered> Numbers<T> {
    /// The value with this number.
    pub(crate) fn get(&self, number: &T::Number) -> Option<&T> {
        self.0.get(hash(*number), |value| value.number() == *number).map(Box::as_ref)
    }

    /// As [`get`](Self::get), to change it.
    pub(crate) fn get_mut(&mut self, number: &T::Number) -> Option<&mut T> {
        let found = self.0.get_mut(hash(*number), |value| value.number() == *number)?;
        found.touched();
        Some(found)
    }

    /// Whether there is one.
    pub(crate) fn contains_key(&self, number: &T::Number) -> bool {
        self.get(number).is_some()
    }

    /// Adds a value whose number no other has.
    pub(crate) fn insert(&mut self, value: Box<T>) {
        debug_assert!(!self.contains_key(&value.number()), "a number is given once");
        self.0.insert(value, |value| hash(value.number()));
    }

    /// Takes the value with this number.
    pub(crate) fn remove(&mut self, number: &T::Number) -> Option<Box<T>> {
        self.0.remove(hash(*number), |value| value.number() == *number)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, in no order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(Box::as_ref)
    }
}

impl<T: Numbered> Index<&T::Number> for Numbers<T> {
    type Output = T;

    fn index(&self, number: &T::Number) -> &T {
        self.get(number).expect("it is indexed by a number that is there")
    }
}

impl<T> fmt::Debug for Numbers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Numbers").field("len", &self.0.len).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Spread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spread").field("len", &self.len).finish_non_exhaustive()
    }
}

fn hash(number: impl Into<u64>) -> u64 {
    FxBuildHasher.hash_one(number.into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[derive(Debug)]
    struct Thing(u64);

    impl Numbered for Thing {
        type Number = u64;

        fn number(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn values_are_found_by_their_number_until_they_are_taken() {
        let mut things = Numbers::default();
        (0..10_000).for_each(|number| things.insert(Box::new(Thing(number << 3))));
        assert_eq!(things.len(), 10_000);
        for number in (0..10_000).filter(|number| number % 3 == 0) {
            assert_eq!(things.remove(&(number << 3)).map(|thing| thing.0), Some(number << 3));
            assert!(things.remove(&(number << 3)).is_none());
        }
        for number in 0..10_000 {
            assert_eq!(things.contains_key(&(number << 3)), number % 3 != 0);
            assert_eq!(things.get_mut(&(number << 3)).is_some(), number % 3 != 0);
        }
        let numbers: BTreeSet<u64> = things.values().map(|thing| thing.0).collect();
        assert_eq!((numbers.len(), things.len()), (6_666, 6_666));
    }

    #[test]
    fn values_are_spread_over_all_tables() {
        let mut things = Numbers::default();
        (0..64 * TABLES as u64).for_each(|number| things.insert(Box::new(Thing(number))));
        let most = things.0.tables.iter().map(HashTable::len).max();
        let least = things.0.tables.iter().map(HashTable::len).min();
        assert!(least >= Some(32) && most <= Some(128), "{least:?} to {most:?}, 64 on average");
    }
}
