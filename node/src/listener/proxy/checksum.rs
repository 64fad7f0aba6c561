//! The checksum of a PROXY header of version 2 (`PP2_TYPE_CRC32C`, section 2.2.3).

/// Castagnoli's polynomial, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What each checksum has: its type, its length and four bytes.
const VALUE_BYTES: usize = 4;

/// CRC-32C of `parts`, one after the other. A header has some hundred bytes: bit by bit is enough.
fn crc32c(parts: [&[u8]; 3]) -> u32 {
    let mut crc = u32::MAX;
    for byte in parts.into_iter().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// Whether the value of `len` bytes at `at` is the checksum of the header, in which it counts as
/// zero.
pub(super) fn holds(header: &[u8], at: usize, len: usize) -> bool {
    let Some((before, rest)) = header.split_at_checked(at) else { return false };
    let Some((value, after)) = rest.split_first_chunk::<VALUE_BYTES>() else { return false };
    len == VALUE_BYTES && crc32c([before, &[0; VALUE_BYTES], after]) == u32::from_be_bytes(*value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_3720_hold() {
        let ascending: Vec<u8> = (0..32).collect();
        for (bytes, crc) in [
            (&[0; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (b"123456789", 0xe306_9283),
        ] {
            assert_eq!(crc32c([bytes, &[], &[]]), crc, "{bytes:x?}");
            assert_eq!(crc32c([&bytes[..3], &bytes[3..5], &bytes[5..]]), crc);
        }
    }
}
