//! Which shard a connection belongs to, from the first bytes of its client.

use std::sync::Arc;

use verge_broker_core::authn::claimed_principal;
use verge_broker_core::shard::api::ShardIndex;
use verge_model::ClientKey;
use verge_mqtt_proto::{DecodeLimits, Packet, ProtocolVersion, decode};

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The CONNECT is not complete.
    Incomplete,
    /// The client's shard.
    Shard(ShardIndex),
    /// No shard has a claim: the bytes are no CONNECT, or the client wants a name given to it.
    Anyone,
}

/// Looks at what has arrived from a client with this certificate, if any, at a node that may have
/// users.
pub(super) fn judge(
    bytes: &[u8],
    certificate_subject: Option<&Arc<str>>,
    has_users: bool,
    limits: &DecodeLimits,
    shards: u16,
) -> Verdict {
    match decode(bytes, ProtocolVersion::V5, limits) {
        Ok(None) => Verdict::Incomplete,
        Ok(Some((Packet::Connect(connect), _))) if !connect.client_id.is_empty() => {
            let principal = claimed_principal(&connect, certificate_subject, has_users);
            let client = ClientKey { principal, ..ClientKey::anonymous(connect.client_id) };
            Verdict::Shard(ShardIndex::of(&client, shards))
        }
        Ok(Some(_)) | Err(_) => Verdict::Anyone,
    }
}

/// The name the client gives itself, for logs.
#[must_use]
pub fn client_id(bytes: &[u8]) -> Option<&str> {
    match decode(bytes, ProtocolVersion::V5, &DecodeLimits::default()) {
        Ok(Some((Packet::Connect(connect), _))) => Some(connect.client_id),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 3.1.1 CONNECT with Clean Session 1.
    fn connect(client_id: &str) -> Vec<u8> {
        let rest = 12 + client_id.len();
        let mut out = vec![0x10, u8::try_from(rest).unwrap(), 0, 4];
        out.extend_from_slice(b"MQTT\x04\x02\x00\x3c\x00");
        out.push(u8::try_from(client_id.len()).unwrap());
        out.extend_from_slice(client_id.as_bytes());
        out
    }

    #[test]
    fn a_client_is_sent_to_its_shard_once_its_connect_is_whole() {
        let bytes = connect("vehicle-7");
        let limits = DecodeLimits::default();
        let shard = ShardIndex::of(&ClientKey::anonymous("vehicle-7"), 8);
        assert_eq!(judge(&bytes, None, false, &limits, 8), Verdict::Shard(shard));
        let principal = Arc::from("car-7");
        let known = ClientKey { principal, ..ClientKey::anonymous("vehicle-7") };
        let shard = ShardIndex::of(&known, 8);
        let verdict = judge(&bytes, Some(&known.principal), false, &limits, 8);
        assert_eq!(verdict, Verdict::Shard(shard), "another session has another shard");
        for len in 0..bytes.len() {
            assert_eq!(
                judge(&bytes[..len], None, false, &limits, 8),
                Verdict::Incomplete,
                "{len} bytes"
            );
        }
    }

    #[test]
    fn a_users_sessions_have_shards_of_their_own() {
        let mut bytes = b"\x10\x14\0\x04MQTT\x04\x82\0\x3c\0\x01c\0\x05car-7".to_vec();
        bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
        let limits = DecodeLimits::default();
        let known = ClientKey { principal: "car-7".into(), ..ClientKey::anonymous("c") };
        for (has_users, client) in [(true, known), (false, ClientKey::anonymous("c"))] {
            let shard = ShardIndex::of(&client, 8);
            assert_eq!(judge(&bytes, None, has_users, &limits, 8), Verdict::Shard(shard));
        }
    }

    #[test]
    fn what_is_no_connect_is_for_anyone_to_answer() {
        let limits = DecodeLimits { packet_bytes_max: 64, ..DecodeLimits::default() };
        assert_eq!(judge(&connect(""), None, false, &limits, 8), Verdict::Anyone);
        assert_eq!(judge(b"\xc0\x00", None, false, &limits, 8), Verdict::Anyone, "PINGREQ");
        assert_eq!(judge(b"GET / HTTP/1.1\r\n", None, false, &limits, 8), Verdict::Anyone);
        assert_eq!(
            judge(b"\x10\xff\xff\x03", None, false, &limits, 8),
            Verdict::Anyone,
            "too large"
        );
    }
}
