//! How a [`ClientKey`] is written in a key; the key of `registry`.
//!
//! ```text
//! principal, each byte 00 as 00 FF │ 00 │ client id
//! ```
//!
//! A client id is UTF-8 and so holds no FF: the first 00 that FF does not follow ends the principal,
//! and the byte order is that of (principal, client id).

use std::sync::Arc;

use verge_model::ClientKey;

use super::{KeyBuf, KeyError, text};

const END: u8 = 0x00;
const ESCAPED: u8 = 0xff;

/// Appends `client` to `out`.
pub(super) fn encode(client: &ClientKey, out: &mut KeyBuf) {
    for byte in client.principal.bytes() {
        out.push(byte);
        if byte == END {
            out.push(ESCAPED);
        }
    }
    out.push(END);
    out.extend_from_slice(client.client_id.as_bytes());
}

/// Reads a key that ends with a client.
pub(super) fn decode(bytes: &[u8]) -> Result<ClientKey, KeyError> {
    let mut principal = Vec::new();
    let mut rest = bytes;
    loop {
        let end = rest.iter().position(|byte| *byte == END).ok_or(KeyError::Short)?;
        principal.extend_from_slice(&rest[..end]);
        rest = &rest[end + 1..];
        let Some((&ESCAPED, after)) = rest.split_first() else { break };
        principal.push(END);
        rest = after;
    }
    Ok(ClientKey { principal: Arc::from(text(&principal)?), client_id: Arc::from(text(rest)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(principal: &str, client_id: &str) -> ClientKey {
        ClientKey { principal: principal.into(), client_id: client_id.into() }
    }

    #[test]
    fn byte_order_is_the_order_of_clients_whatever_their_names_hold() {
        let names = ["", "\0", "\0\0", "\0a", "a", "a\0", "a\0b", "ab", "b", "ÿ"];
        let mut clients: Vec<_> = names
            .iter()
            .flat_map(|principal| names.iter().map(|id| client(principal, id)))
            .collect();
        clients.sort();
        let keys: Vec<KeyBuf> = clients
            .iter()
            .map(|client| {
                let mut key = KeyBuf::new();
                encode(client, &mut key);
                assert_eq!(decode(&key).as_ref(), Ok(client));
                key
            })
            .collect();
        assert!(keys.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn bytes_that_are_no_client_are_refused() {
        assert_eq!(decode(b""), Err(KeyError::Short));
        assert_eq!(decode(b"abc"), Err(KeyError::Short));
        assert!(matches!(decode(b"\x80\0a"), Err(KeyError::NotText(_))));
        assert!(matches!(decode(b"a\0\x80"), Err(KeyError::NotText(_))));
    }
}
