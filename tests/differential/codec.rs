//! The codec beside another crate's, `mqtt5-protocol`: same bytes, same meaning.
//!
//! Meaning is compared without naming a field: what the other codec read from some bytes it writes
//! again, and what is read from that must be the packet we read from the first bytes.

use mqtt5_protocol::packet::{FixedHeader, MqttPacket, Packet as Theirs};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use verge_mqtt_proto::ProtocolVersion::{V4, V5};
use verge_mqtt_proto::codec::error::DecodeError;
use verge_mqtt_proto::{DecodeLimits, Packet, ProtocolVersion, ReasonCode, decode};

/// Packets of every type, with every property that belongs to it: the first byte, then what follows
/// Remaining Length. What is in brackets has its length written before it, in one byte.
const PACKETS: &[(ProtocolVersion, &str)] = &[
    (V4, "10 0004 4d515454 04 02 003c 0006 6361722d3037"),
    (V4, "10 0004 4d515454 04 ee 000a 0001 61 0003 612f62 0004 676f6e65 0002 7573 0002 7077"),
    (V5, "10 0004 4d515454 05 02 003c [ ] 0003 636172"),
    (
        V5,
        "10 0004 4d515454 05 c2 003c [ 11 0000000a 21 000a 27 00001000 22 0005 19 01 17 00 \
         26 0001 61 0001 62 26 0001 61 0000 ] 0003 636172 0002 7573 0002 7077",
    ),
    (
        V5,
        "10 0004 4d515454 05 0e 003c [ 15 0003 534352 16 0002 0102 ] 0001 61 \
         [ 18 00000005 01 01 02 0000003c 03 0001 74 08 0001 72 09 0001 63 26 0001 6b 0001 76 ] \
         0003 612f62 0004 676f6e65",
    ),
    (V4, "20 01 00"),
    (
        V5,
        "20 01 00 [ 11 0000000a 21 000a 24 01 25 01 27 00001000 12 0001 61 22 0005 1f 0001 72 \
         26 0001 6b 0001 76 28 01 29 01 2a 01 13 003c 1a 0001 69 1c 0001 73 15 0001 6d 16 0001 64 ]",
    ),
    (V5, "20 00 87 [ ]"),
    (V4, "30 0001 61 010203"),
    (V4, "3d 0001 61 000a 010203"),
    (V5, "30 0001 61 [ ] 01"),
    (
        V5,
        "3b 0003 612f62 000a [ 01 01 02 0000003c 23 0005 08 0001 72 09 0001 63 26 0001 6b 0001 76 \
         0b 07 0b 8001 03 0001 74 ] 0102",
    ),
    (V5, "32 0000 000a [ 23 0005 ] 0102"),
    (V4, "40 000a"),
    (V5, "40 000a 10"),
    (V5, "40 000a 87 [ 1f 0001 72 26 0003 6b6579 0002 7676 ]"),
    (V5, "50 000a 10 [ ]"),
    (V5, "62 000a 92 [ 1f 0001 72 ]"),
    (V5, "70 000a"),
    (V4, "82 000a 0003 612f2b 01 0001 23 02"),
    (V5, "82 000a [ 0b 05 26 0001 6b 0001 76 ] 0003 612f2b 2d 000a 2473686172652f672f2b 00"),
    (V4, "90 000a 01 80"),
    (V5, "90 000a [ 1f 0001 72 ] 02 91"),
    (V4, "a2 000a 0003 612f2b"),
    (V5, "a2 000a [ 26 0001 6b 0001 76 ] 0003 612f2b 0001 23"),
    (V4, "b0 000a"),
    (V5, "b0 000a [ ] 00 11"),
    (V4, "c0"),
    (V4, "d0"),
    (V4, "e0"),
    (V5, "e0"),
    (V5, "e0 8e [ 11 0000000a 1f 0001 72 1c 0001 73 26 0000 0000 ]"),
    (V5, "f0"),
    (V5, "f0 18 [ 15 0003 534352 16 0002 0102 1f 0001 72 26 0001 6b 0001 76 ]"),
];

/// A packet of the table.
fn bytes_of(text: &str) -> Vec<u8> {
    let mut body = Vec::new();
    let mut open = None;
    for token in text.split_whitespace() {
        match (token, open) {
            ("[", _) => {
                open = Some(body.len());
                body.push(0);
            }
            ("]", Some(at)) => body[at] = u8::try_from(body.len() - at - 1).expect("short"),
            _ => {
                let pairs = token
                    .as_bytes()
                    .chunks(2)
                    .map(|pair| std::str::from_utf8(pair).expect("ASCII"));
                body.extend(pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")));
            }
        }
    }
    body.insert(1, u8::try_from(body.len() - 1).expect("short"));
    body
}

/// What the other crate reads.
fn theirs(bytes: &[u8], version: ProtocolVersion) -> Option<Theirs> {
    let mut rest = bytes;
    let header = FixedHeader::decode(&mut rest).ok()?;
    let mut body = rest.get(..header.remaining_length as usize)?;
    let read = Theirs::decode_from_body_with_version(
        header.packet_type,
        &header,
        &mut body,
        version.level(),
    );
    read.ok().filter(|_| body.is_empty())
}

/// What the other crate writes.
fn rewrite(packet: &Theirs) -> Vec<u8> {
    let mut out = Vec::new();
    let written = match packet {
        Theirs::Connect(packet) => packet.encode(&mut out),
        Theirs::ConnAck(packet) => packet.encode(&mut out),
        Theirs::Publish(packet) => packet.encode(&mut out),
        Theirs::PubAck(packet) => packet.encode(&mut out),
        Theirs::PubRec(packet) => packet.encode(&mut out),
        Theirs::PubRel(packet) => packet.encode(&mut out),
        Theirs::PubComp(packet) => packet.encode(&mut out),
        Theirs::Subscribe(packet) => packet.encode(&mut out),
        Theirs::SubAck(packet) => packet.encode(&mut out),
        Theirs::Unsubscribe(packet) => packet.encode(&mut out),
        Theirs::UnsubAck(packet) => packet.encode(&mut out),
        Theirs::Disconnect(packet) => packet.encode(&mut out),
        Theirs::Auth(packet) => packet.encode(&mut out),
        Theirs::PingReq => {
            out.extend([0xc0, 0]);
            Ok(())
        }
        Theirs::PingResp => {
            out.extend([0xd0, 0]);
            Ok(())
        }
    };
    written.expect("what was read can be written");
    out
}

fn ours(bytes: &[u8], version: ProtocolVersion) -> Option<Packet<'_>> {
    decode(bytes, version, &DecodeLimits::default()).ok().flatten().map(|(packet, _)| packet)
}

/// Whether both read the same; says how they differ.
fn compare(bytes: &[u8], version: ProtocolVersion) -> Result<(), String> {
    let decoded = decode(bytes, version, &DecodeLimits::default());
    match (decoded, theirs(bytes, version)) {
        (Ok(Some((packet, size))), Some(other)) => {
            let again = rewrite(&other);
            let same = size == bytes.len() && ours(&again, version).as_ref() == Some(&packet);
            if same { Ok(()) } else { Err(format!("{packet:?} was read as {other:?}")) }
        }
        (Ok(Some((packet, _))), None) if !is_lenient(&packet) => {
            Err(format!("only we accept {packet:?}"))
        }
        (Err(error), Some(other)) if !is_strict(&error) => {
            Err(format!("{other:?} was refused: {error}"))
        }
        _ => Ok(()),
    }
}

/// What we read and the other refuses: the Protocol Level of a bridge, an UNSUBACK without reason codes, which no client sees from
/// us, a reason code of DISCONNECT that the table of section 2.4 allows, and an AUTH without a
/// method, which the connection's machine refuses.
fn is_lenient(packet: &Packet<'_>) -> bool {
    let disconnect_method = matches!(
        packet,
        Packet::Disconnect(it) if it.reason == ReasonCode::BadAuthenticationMethod
    );
    disconnect_method
        || matches!(packet, Packet::Connect(it) if it.is_bridge)
        || matches!(packet, Packet::Unsuback(it) if it.reasons.is_empty())
        || matches!(packet, Packet::Auth(it) if it.authentication_method.is_none())
}

/// Rules of the standard that the other does not check where it decodes.
fn is_strict(error: &DecodeError) -> bool {
    matches!(
        error,
        DecodeError::AuthDataWithoutMethod
            | DecodeError::ConnackFlags
            | DecodeError::NoLocalOnShared
            | DecodeError::PacketIdZero
            | DecodeError::PropertyNotAllowed(_)
            | DecodeError::PropertyValue(_)
            | DecodeError::ProtocolLevel(_)
            | DecodeError::ReasonCodeNotAllowed(..)
            | DecodeError::ReasonCodeUnknown(_)
            | DecodeError::ReservedPacketType(_)
            | DecodeError::SubscriptionOptionsReserved
            | DecodeError::SubscriptionQos
            | DecodeError::TopicAliasZero
            | DecodeError::TopicNameEmpty
            | DecodeError::TopicNameWildcard
            | DecodeError::TrailingBytes(_)
            | DecodeError::Truncated("property length")
            | DecodeError::VarintNotMinimal
    )
}

#[test]
fn good_packets_mean_the_same_to_another_codec() {
    for (version, text) in PACKETS {
        let bytes = bytes_of(text);
        assert!(ours(&bytes, *version).is_some() && theirs(&bytes, *version).is_some(), "{text}");
        compare(&bytes, *version).expect(text);
    }
}

/// One change to a packet's bytes.
#[derive(Debug, Clone)]
enum Change {
    Set(usize, u8),
    Remove(usize),
    Insert(usize, u8),
}

fn changes() -> impl Strategy<Value = Change> {
    let byte =
        || prop_oneof![select(&[0, 1, 2, 3, 0x7f, 0x80, 0xff, b'+', b'/', b'#'][..]), any::<u8>()];
    prop_oneof![
        2 => (any::<usize>(), byte()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => any::<usize>().prop_map(Change::Remove),
        1 => (any::<usize>(), 0_u8..50).prop_map(|(at, byte)| Change::Insert(at, byte)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None,
        // The same cases every time: what another crate does is no reason for a red build.
        rng_seed: RngSeed::Fixed(5), ..ProptestConfig::default() })]

    #[test]
    fn changed_packets_mean_the_same_to_another_codec(
        (version, text) in select(PACKETS),
        changes in vec(changes(), 1..4),
    ) {
        let mut bytes = bytes_of(text);
        for change in changes {
            // The first byte may change, Remaining Length stays right.
            let inner = bytes.len() - 2;
            match change {
                Change::Set(at, byte) if at % (inner + 1) == inner => bytes[0] = byte,
                Change::Set(at, byte) => bytes[2 + at % (inner + 1)] = byte,
                Change::Remove(at) if inner > 0 => drop(bytes.remove(2 + at % inner)),
                Change::Remove(_) => {}
                Change::Insert(at, byte) => bytes.insert(2 + at % (inner + 1), byte),
            }
        }
        bytes[1] = u8::try_from(bytes.len() - 2).expect("short");
        if let Err(difference) = compare(&bytes, version) {
            prop_assert!(false, "{:?} {:02x?}: {}", version, bytes, difference);
        }
    }
}
