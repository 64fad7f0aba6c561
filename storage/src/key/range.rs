//! Ranges of keys.

use bytes::Bytes;

/// Longest key: a subscription's number and an MQTT string of 65,535 bytes, or a principal and a
/// client id of that length with every byte of the principal escaped.
const KEY_BYTES_MAX: usize = 4 * 65_536;

/// The keys from `start` up to, not including, `end`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyRange {
    /// The first key that may be in it.
    pub start: Bytes,
    /// The first key after it; `None`: it goes on to the family's end.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Every key that begins with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let last = prefix.iter().rposition(|byte| *byte != u8::MAX);
        let end = last.map(|last| {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            Bytes::from(end)
        });
        Self { start: Bytes::copy_from_slice(prefix), end }
    }

    /// The part of the range after `key`.
    #[must_use]
    pub fn after(self, key: &[u8]) -> Self {
        let start = Bytes::from([key, &[0]].concat());
        Self { start: start.max(self.start), end: self.end }
    }

    /// The part of the range from `key` on.
    #[must_use]
    pub fn from(self, key: &[u8]) -> Self {
        let start = Bytes::copy_from_slice(key);
        Self { start: start.max(self.start), end: self.end }
    }

    /// Whether `key` is in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && self.end.as_ref().is_none_or(|end| *key < **end)
    }

    /// Whether no key is in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// The range's end for stores that need one: greater than every key there can be.
    #[must_use]
    pub fn end_or_last(&self) -> Bytes {
        self.end.clone().unwrap_or_else(|| Bytes::from(vec![u8::MAX; KEY_BYTES_MAX]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_holds_what_begins_with_it_and_nothing_else() {
        let table: [(&[u8], Option<&[u8]>); 5] = [
            (&[], None),
            (&[1, 2], Some(&[1, 3])),
            (&[1, 0xff], Some(&[2])),
            (&[0xff, 0xff], None),
            (&[0xff, 0, 0xff], Some(&[0xff, 1])),
        ];
        for (prefix, end) in table {
            let range = KeyRange::prefix(prefix);
            assert_eq!((&*range.start, range.end.as_deref()), (prefix, end));
            assert!(range.contains(prefix));
            assert!(range.contains(&[prefix, &[0xff; 9]].concat()));
            assert!(end.is_none_or(|end| !range.contains(end)));
            assert!(!range.is_empty());
        }
        assert!(!KeyRange::prefix(&[1, 2]).contains(&[1, 1, 0xff]));
    }

    #[test]
    fn after_a_key_the_next_possible_key_follows() {
        let range = KeyRange::prefix(&[1]).after(&[1, 5]);
        assert!(!range.contains(&[1, 5]));
        assert!(range.contains(&[1, 5, 0]));
        assert_eq!(KeyRange::prefix(&[1]).after(&[0]).start, KeyRange::prefix(&[1]).start);
        assert!(KeyRange::prefix(&[1]).after(&[2]).is_empty());
    }
}
