//! MQTT packets: decoding never panics, agrees with the size announced, and what was decoded is
//! written and decoded to the same packet.

use bytes::BytesMut;
use verge_mqtt_proto::{DecodeLimits, Packet, ProtocolVersion, decode, packet_size};

/// The first byte names the version, the rest is the stream.
pub(super) fn run(input: &[u8]) {
    let Some((&first, mut rest)) = input.split_first() else { return };
    let version = match first % 3 {
        0 => ProtocolVersion::V3,
        1 => ProtocolVersion::V4,
        _ => ProtocolVersion::V5,
    };
    let limits = DecodeLimits { packet_bytes_max: 4_096, ..DecodeLimits::default() };
    while let Ok(Some((packet, size))) = decode(rest, version, &limits) {
        assert_eq!(
            packet_size(rest, &limits),
            Ok(Some(size)),
            "the size announced is the size read"
        );
        assert!(size <= rest.len());
        again(&packet, version, &limits);
        rest = &rest[size..];
    }
}

fn again(packet: &Packet<'_>, version: ProtocolVersion, limits: &DecodeLimits) {
    let version = if let Packet::Connect(connect) = packet { connect.version } else { version };
    let mut out = BytesMut::new();
    let written = packet.encode(version, &mut out).expect("what was decoded can be written");
    assert_eq!(written, out.len());
    // A packet may grow by what the standard lets a sender leave out.
    let limits = DecodeLimits { packet_bytes_max: 2 * limits.packet_bytes_max, ..*limits };
    let (seen, size) = decode(&out, version, &limits)
        .expect("what was written is well formed")
        .expect("what was written is whole");
    assert_eq!((&seen, size), (packet, out.len()));
}
