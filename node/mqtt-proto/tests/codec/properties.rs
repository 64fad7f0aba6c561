//! The table of properties against the packets that carry them.

use verge_mqtt_proto::codec::property::{PropertyId, PropertyOwner};
use verge_mqtt_proto::{DecodeLimits, Packet, PacketType, ProtocolVersion, UserProperties, decode};

#[test]
fn every_number_names_its_property_and_no_other_does() {
    assert_eq!(PropertyId::ALL.len(), 27);
    for number in 0..=300 {
        let listed = PropertyId::ALL.iter().find(|id| **id as u32 == number);
        assert_eq!(PropertyId::from_number(number), listed.copied());
    }
}

#[test]
fn user_property_is_allowed_where_properties_are() {
    let without = [PacketType::Pingreq, PacketType::Pingresp];
    for packet_type in PacketType::ALL {
        let owner = PropertyOwner::of(packet_type);
        let allowed = PropertyId::UserProperty.allowed_in(owner);
        assert_eq!(allowed, !without.contains(&packet_type), "{packet_type:?}");
        let any = PropertyId::ALL.iter().any(|id| id.allowed_in(owner));
        assert_eq!(any, allowed, "{packet_type:?}");
    }
    assert!(PropertyId::UserProperty.allowed_in(PropertyOwner::WILL));
}

#[test]
fn user_properties_keep_their_order_between_others_mqtt_3_3_2_18() {
    let bytes = b"\x30\x1f\0\x01a\x1b\x26\0\x01k\0\x01v\x01\x01\x26\0\x01a\0\0\
                  \x0b\x80\x01\x26\0\x01k\0\x01w\x0b\x01";
    let limits = DecodeLimits::default();
    let Ok(Some((Packet::Publish(publish), _))) = decode(bytes, ProtocolVersion::V5, &limits)
    else {
        panic!("a PUBLISH")
    };
    let seen = publish.properties.user_properties;
    assert_eq!(seen, UserProperties::from_pairs(&[("k", "v"), ("a", ""), ("k", "w")]));
    assert_eq!((seen.get("k"), seen.get("b")), (Some("v"), None));
    assert_eq!(publish.properties.subscription_ids[..], [128, 1]);
    assert!(!seen.is_empty() && UserProperties::NONE.is_empty());
}
