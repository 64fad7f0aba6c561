//! Reading fields from a packet's body, and writing them.
//!
//! A `Reader` never reads past the end of the body and names the field that would. A [`Sink`] is
//! written to twice: first a [`Measure`], which only counts, then the output buffer.

use bytes::{BufMut, BytesMut};
use memchr::memchr;
use verge_model::limits::MQTT_STRING_BYTES_MAX;

use super::error::DecodeError;
use super::varint;
use super::{Encode, ProtocolVersion};
use crate::packet::fields::PacketId;

/// What is left of a body, or of a part of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) const fn len(&self) -> usize {
        self.rest.len()
    }

    /// All that is left.
    pub(crate) const fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    pub(crate) fn take(
        &mut self,
        count: usize,
        field: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or(DecodeError::Truncated(field))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (&taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated(field))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// Takes the next byte if it is there and is `byte`.
    pub(crate) fn skip_if_first_is(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((&first, rest)) if first == byte => {
                self.rest = rest;
                true
            }
            Some(_) | None => false,
        }
    }

    /// A Variable Byte Integer inside a body; these exist in 5.0 only, so the shortest form is due.
    pub(crate) fn varint(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let read = varint::decode(self.rest)?.ok_or(DecodeError::Truncated(field))?;
        if !read.is_minimal() {
            return Err(DecodeError::VarintNotMinimal);
        }
        self.rest = &self.rest[read.size..];
        Ok(read.value)
    }

    /// Binary Data: a two byte length and that many bytes. (1.5.6)
    pub(crate) fn binary(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.u16(field)?;
        self.take(usize::from(length), field)
    }

    /// A UTF-8 Encoded String. U+FEFF is data like any other. [MQTT-1.5.4-3]
    pub(crate) fn string(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.binary(field)?;
        let text = str::from_utf8(bytes).map_err(|_| DecodeError::StringNotUtf8)?;
        if memchr(0, bytes).is_some() {
            return Err(DecodeError::StringHasNull);
        }
        Ok(text)
    }

    /// As [`string`](Self::string), with whether it holds no wildcard.
    pub(crate) fn topic(&mut self, field: &'static str) -> Result<(&'a str, bool), DecodeError> {
        let bytes = self.binary(field)?;
        let text = str::from_utf8(bytes).map_err(|_| DecodeError::StringNotUtf8)?;
        let is_plain = is_plain(bytes);
        if !is_plain && memchr(0, bytes).is_some() {
            return Err(DecodeError::StringHasNull);
        }
        Ok((text, is_plain))
    }

    pub(crate) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16("packet identifier")?).ok_or(DecodeError::PacketIdZero)
    }
}

/// Whether there is no U+0000, `+` or `#`, eight bytes at a time: topics are short.
fn is_plain(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    // Not 0 exactly if some byte of `word` is 0.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let special = |word: u64| {
        zero(word) | zero(word ^ (ONES * b'+' as u64)) | zero(word ^ (ONES * b'#' as u64))
    };
    let Some(last) = bytes.last_chunk() else {
        return bytes.iter().all(|byte| !matches!(byte, 0 | b'+' | b'#'));
    };
    // The last eight are looked at whole, some of them a second time.
    let (words, _) = bytes.as_chunks();
    let found = words.iter().fold(0, |found, word| found | special(u64::from_ne_bytes(*word)));
    found | special(u64::from_ne_bytes(*last)) == 0
}

/// Where a packet is written to.
pub trait Sink {
    /// Appends a byte.
    fn put_u8(&mut self, value: u8);

    /// Appends bytes.
    fn put_slice(&mut self, bytes: &[u8]);

    /// Appends a Two Byte Integer.
    fn put_u16(&mut self, value: u16) {
        self.put_slice(&value.to_be_bytes());
    }

    /// Appends a Four Byte Integer.
    fn put_u32(&mut self, value: u32) {
        self.put_slice(&value.to_be_bytes());
    }

    /// Appends Binary Data, or a string's bytes, behind its length. What is longer than 65,535
    /// bytes is noticed by [`Measure`], before anything is written.
    fn put_binary(&mut self, bytes: &[u8]) {
        self.put_u16(bytes.len() as u16);
        self.put_slice(bytes);
    }

    /// Appends a UTF-8 Encoded String.
    fn put_str(&mut self, text: &str) {
        self.put_binary(text.as_bytes());
    }
}

impl Sink for BytesMut {
    #[inline]
    fn put_u8(&mut self, value: u8) {
        BufMut::put_u8(self, value);
    }

    #[inline]
    fn put_slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts what would be written.
#[derive(Debug, Default)]
pub struct Measure {
    len: usize,
    overlong: bool,
}

impl Measure {
    /// Counts the body of a packet.
    pub(crate) fn of_body<P: Encode>(packet: &P, version: ProtocolVersion) -> Self {
        let mut measure = Self::default();
        packet.write_body(version, &mut measure);
        measure
    }

    /// Counts bytes of whatever kind.
    pub(crate) const fn skip(&mut self, bytes: usize) {
        self.len += bytes;
    }

    /// Bytes so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a string or binary field cannot be written, since its length has no encoding.
    #[must_use]
    pub const fn has_overlong_field(&self) -> bool {
        self.overlong
    }
}

impl Sink for Measure {
    fn put_u8(&mut self, _value: u8) {
        self.len += 1;
    }

    fn put_slice(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
    }

    fn put_binary(&mut self, bytes: &[u8]) {
        self.overlong |= bytes.len() > MQTT_STRING_BYTES_MAX;
        self.len += 2 + bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(bytes: &[u8]) -> Result<&str, DecodeError> {
        Reader::new(bytes).string("text")
    }

    #[test]
    fn the_example_of_1_5_4_is_an_a_and_a_cjk_ideograph() {
        let bytes = [0x00, 0x05, 0x41, 0xf0, 0xaa, 0x9b, 0x94];
        assert_eq!(string(&bytes), Ok("A\u{2A6D4}"));
        let mut out = BytesMut::new();
        out.put_str("A\u{2A6D4}");
        assert_eq!(out[..], bytes);
    }

    #[test]
    fn surrogates_and_broken_utf_8_are_malformed_mqtt_1_5_4_1() {
        assert_eq!(string(&[0, 3, 0xed, 0xa0, 0x80]), Err(DecodeError::StringNotUtf8));
        assert_eq!(string(&[0, 1, 0xff]), Err(DecodeError::StringNotUtf8));
        assert_eq!(string(&[0, 2, 0xc0, 0x80]), Err(DecodeError::StringNotUtf8));
    }

    #[test]
    fn u_0000_is_malformed_mqtt_1_5_4_2() {
        assert_eq!(string(&[0, 3, b'a', 0, b'b']), Err(DecodeError::StringHasNull));
    }

    #[test]
    fn what_no_plain_topic_holds_is_seen_wherever_it_stands() {
        for len in 0..40 {
            let plain: Vec<u8> = (0..len).map(|at| b"az\x01/\x80\xff\"$"[at % 8]).collect();
            assert!(is_plain(&plain), "{plain:?}");
            for (at, byte) in (0..len).flat_map(|at| [0, b'+', b'#'].map(|byte| (at, byte))) {
                let mut special = plain.clone();
                special[at] = byte;
                assert!(!is_plain(&special), "{special:?}");
            }
        }
        let topic = |bytes: &'static [u8]| Reader::new(bytes).topic("topic");
        assert_eq!(topic(b"\0\x03a/b"), Ok(("a/b", true)));
        assert_eq!(topic(b"\0\x03a/+"), Ok(("a/+", false)));
        assert_eq!(topic(b"\0\x03a/\0"), Err(DecodeError::StringHasNull));
        assert_eq!(topic(b"\0\x02+\xff"), Err(DecodeError::StringNotUtf8));
    }

    #[test]
    fn a_byte_order_mark_is_kept_mqtt_1_5_4_3() {
        assert_eq!(string(&[0, 3, 0xef, 0xbb, 0xbf]), Ok("\u{feff}"));
    }

    #[test]
    fn a_field_that_runs_over_the_end_is_named() {
        assert_eq!(string(&[0, 3, b'a']), Err(DecodeError::Truncated("text")));
        assert_eq!(string(&[0]), Err(DecodeError::Truncated("text")));
    }

    #[test]
    fn a_field_without_an_encodable_length_is_noticed() {
        let mut measure = Measure::default();
        measure.put_binary(&vec![0; 65_535]);
        assert!(!measure.has_overlong_field());
        measure.put_binary(&vec![0; 65_536]);
        assert!(measure.has_overlong_field());
    }
}
