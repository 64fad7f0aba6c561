//! Variable Byte Integer (1.5.5): seven bits a byte, the eighth says that more follow.

use verge_model::limits::MQTT_REMAINING_LENGTH_MAX;

use super::error::DecodeError;
use super::string::Sink;

/// Most bytes of one integer.
pub const VARINT_BYTES_MAX: usize = 4;

/// An integer read from the front of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Varint {
    /// Its value, at most 268,435,455.
    pub value: u32,
    /// How many bytes it took.
    pub size: usize,
}

impl Varint {
    /// "The encoded value MUST use the minimum number of bytes necessary to represent the value."
    /// [MQTT-1.5.5-1]
    #[must_use]
    pub const fn is_minimal(self) -> bool {
        self.size == encoded_len(self.value as usize)
    }
}

/// The integer at the front of `input`; none if its last byte is not there yet.
///
/// # Errors
///
/// A fifth byte would be needed.
pub fn decode(input: &[u8]) -> Result<Option<Varint>, DecodeError> {
    let mut value = 0;
    for (index, &byte) in input.iter().take(VARINT_BYTES_MAX).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some(Varint { value, size: index + 1 }));
        }
    }
    if input.len() >= VARINT_BYTES_MAX { Err(DecodeError::VarintTooLong) } else { Ok(None) }
}

/// How many bytes `value` takes.
#[must_use]
pub const fn encoded_len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Writes `value` in its shortest form.
///
/// The caller keeps `value` within 268,435,455.
pub fn write<S: Sink>(out: &mut S, value: usize) {
    debug_assert!(value <= MQTT_REMAINING_LENGTH_MAX, "measured before it is written");
    let mut rest = value;
    while rest > 0x7f {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn table_1_1_of_the_standard() {
        let rows: &[(u32, &[u8])] = &[
            (0, &[0x00]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xff, 0xff, 0x7f]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (268_435_455, &[0xff, 0xff, 0xff, 0x7f]),
        ];
        for &(value, bytes) in rows {
            let read = decode(bytes).unwrap().unwrap();
            assert_eq!((read.value, read.size), (value, bytes.len()));
            assert!(read.is_minimal());
            let mut out = BytesMut::new();
            write(&mut out, value as usize);
            assert_eq!(&out[..], bytes);
            for end in 0..bytes.len() {
                assert_eq!(decode(&bytes[..end]), Ok(None));
            }
        }
    }

    #[test]
    fn a_fifth_byte_is_too_many() {
        assert_eq!(decode(&[0x80, 0x80, 0x80, 0x80, 0x01]), Err(DecodeError::VarintTooLong));
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff]), Err(DecodeError::VarintTooLong));
    }

    #[test]
    fn a_longer_form_than_needed_is_seen() {
        assert!(!decode(&[0x80, 0x00]).unwrap().unwrap().is_minimal());
        assert!(!decode(&[0xff, 0x80, 0x00]).unwrap().unwrap().is_minimal());
    }
}
