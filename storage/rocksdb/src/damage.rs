//! Past rows that cannot be read.
//!
//! A damaged block hides the rows in it, and nothing says where it ends. Where reading can go on is
//! found by trying: keys further and further away until one can be read, then between that one and
//! the last that cannot, so that no row outside the block is left out.

use std::cmp::Ordering;

use bytes::Bytes;
use rocksdb::{DB, ReadOptions};
use verge_storage::{Family, KeyRange, StoreError};

use crate::open::family;

/// Most places looked at: 16 bytes of a key are told apart. Each costs a block that fails.
const LOOKS_MAX: usize = 128;

/// Beyond the longer of two keys, bytes in which places between them are told apart.
const FINER_BYTES: usize = 16;

/// What is left of `range` beyond `from`, where reading failed; `None` if nothing is.
pub(crate) fn beyond(
    db: &DB,
    in_family: Family,
    from: &[u8],
    range: &KeyRange,
) -> Option<KeyRange> {
    let end = range.end.as_deref();
    let within = |key: &[u8]| end.is_none_or(|end| key < end);
    let mut low = from.to_vec();
    let mut high = end.map(<[u8]>::to_vec);
    let mut next = None;
    let mut looks = 0;
    for place in further(from).into_iter().take_while(|place| within(place)) {
        looks += 1;
        match look(db, in_family, &place) {
            Look::Fails => low = place,
            Look::Finds(key) => {
                (high, next) = (Some(place), key);
                break;
            }
        }
    }
    let mut high = high?;
    while looks < LOOKS_MAX
        && let Some(place) = between(&low, &high)
    {
        looks += 1;
        match look(db, in_family, &place) {
            Look::Fails => low = place,
            Look::Finds(key) => (high, next) = (place, key),
        }
    }
    let start = next.filter(|key| within(key))?;
    Some(KeyRange { start, end: range.end.clone() })
}

/// Rows of other files between `from`, where reading failed, and where it goes on. Keys are read past
/// the checksum of the damaged block, as far as it can be unpacked; each row is then asked for by
/// its key, under all checksums, so that none of the block comes back.
pub(crate) fn within(
    db: &DB,
    in_family: Family,
    from: &[u8],
    to: Option<&[u8]>,
    mut found: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(false);
    options.fill_cache(false);
    let mut rows = db.raw_iterator_cf_opt(family(db, in_family), options);
    rows.seek(from);
    while let Some(key) = rows.key().filter(|key| to.is_none_or(|to| *key < to)) {
        let is_next = key > from || from.is_empty();
        if is_next && let Ok(Some(value)) = db.get_pinned_cf(family(db, in_family), key) {
            found(key, &value)?;
        }
        rows.next();
    }
    Ok(())
}

enum Look {
    Fails,
    /// The first row from there, if there is one.
    Finds(Option<Bytes>),
}

fn look(db: &DB, in_family: Family, place: &[u8]) -> Look {
    let mut rows = db.raw_iterator_cf(family(db, in_family));
    rows.seek(place);
    match rows.status() {
        Ok(()) => Look::Finds(rows.key().map(Bytes::copy_from_slice)),
        Err(_) => Look::Fails,
    }
}

/// Keys after `from`, each much further away than the one before.
fn further(from: &[u8]) -> Vec<Vec<u8>> {
    let mut places = Vec::new();
    for last in (0..from.len()).rev().filter(|last| from[*last] < u8::MAX) {
        let mut place = from[..=last].to_vec();
        place[last] += 1;
        places.push(place);
    }
    if from.is_empty() {
        places.extend((0..u8::BITS).map(|bit| vec![1 << bit]));
    }
    places
}

/// A key in the middle, if there is one.
fn between(low: &[u8], high: &[u8]) -> Option<Vec<u8>> {
    let len = low.len().max(high.len()) + FINER_BYTES;
    let at = |key: &[u8], place: usize| u16::from(key.get(place).copied().unwrap_or(0));
    let mut sum = vec![0_u16; len];
    let mut carry = 0;
    for place in (0..len).rev() {
        let digit = at(low, place) + at(high, place) + carry;
        (sum[place], carry) = (digit & 0xff, digit >> 8);
    }
    let mut middle = Vec::with_capacity(len);
    for digit in sum {
        let whole = carry << 8 | digit;
        middle.push(u8::try_from(whole >> 1).unwrap_or(u8::MAX));
        carry = whole & 1;
    }
    while middle.last() == Some(&0) {
        middle.pop();
    }
    let is_between = low.cmp(&middle) == Ordering::Less && middle[..].cmp(high) == Ordering::Less;
    is_between.then_some(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_between_two_others_lies_between_them() {
        let mut low = vec![0, 0, 1];
        let high = vec![0, 9];
        for _ in 0..LOOKS_MAX {
            let Some(middle) = between(&low, &high) else { break };
            assert!(low < middle && middle < high, "{low:?} {middle:?}");
            low = middle;
        }
        assert_eq!(between(&[1], &[1]), None);
        assert_eq!(between(&[0xff, 0xff], &[0xff, 0xff, 2]), Some(vec![0xff, 0xff, 1]));
    }

    #[test]
    fn places_further_away_are_in_order() {
        assert_eq!(further(&[1, 0xff, 3]), [vec![1, 0xff, 4], vec![2]]);
        assert!(further(&[]).is_sorted());
    }
}
