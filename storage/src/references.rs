//! How many queue rows name a message, kept in the message's row.
//!
//! ```text
//! version u8 │ references u32, big-endian │ record
//! ```
//!
//! The count stands before the record, where a store can lower it without reading the rest: in
//! RocksDB it is a merge operand, so that settling a debt reads nothing. A row whose count is zero
//! is gone; one that never was is not made by lowering it.

use bytes::Bytes;

/// The version of rows that begin with a count.
pub const COUNTED: u8 = 2;

/// Where the record begins.
pub const HEADER_BYTES: usize = 5;

/// How many references the value of a row has; `None` if it does not begin with a count.
#[must_use]
pub fn count(value: &[u8]) -> Option<u32> {
    match value {
        [COUNTED, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

/// The value after `released` references have gone; `None` if the row goes with them. A value without
/// a count stays as it is.
#[must_use]
pub fn release(value: &[u8], released: u32) -> Option<Bytes> {
    let Some(before) = count(value) else { return Some(Bytes::copy_from_slice(value)) };
    let left = before.checked_sub(released).filter(|left| *left > 0)?;
    let mut out = Vec::with_capacity(value.len());
    out.push(COUNTED);
    out.extend_from_slice(&left.to_be_bytes());
    out.extend_from_slice(&value[HEADER_BYTES..]);
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_goes_with_its_last_reference() {
        let row = [&[COUNTED, 0, 0, 1, 2][..], b"body"].concat();
        assert_eq!(count(&row), Some(258));
        let left = release(&row, 257).unwrap();
        assert_eq!((count(&left), &left[HEADER_BYTES..]), (Some(1), &b"body"[..]));
        assert_eq!(release(&left, 1), None);
        assert_eq!(release(&left, 9), None, "below none there is none");
        assert_eq!(release(b"\x01other", 1).as_deref(), Some(&b"\x01other"[..]));
    }
}
