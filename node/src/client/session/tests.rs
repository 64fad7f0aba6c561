//! Transcripts of a client's session: what the server sends, and all that the client does then.

use verge_mqtt_proto::packet::suback::{ReasonCodes, Suback};
use verge_mqtt_proto::{ConnackProperties, DecodeLimits, PacketType, decode};

use super::*;

const NOW: Millis = Millis(1_000);

#[test]
fn a_connect_says_what_the_options_say() {
    let mut options = persistent(ProtocolVersion::V5);
    options.session_expiry_secs = 3600;
    options.receive_maximum = 20;
    options.username = Some("u".into());
    let mut session = ClientSession::new(options);
    session.handle_connected(NOW);
    let bytes = session.poll_transmit(NOW).unwrap();
    let limits = DecodeLimits::default();
    let (packet, _) = decode(&bytes, ProtocolVersion::V5, &limits).unwrap().unwrap();
    let Packet::Connect(connect) = packet else { panic!("{packet:?}") };
    assert_eq!((connect.client_id, connect.clean_start), ("v1", false));
    assert_eq!(connect.properties.session_expiry_interval, Some(3600));
    assert_eq!(connect.properties.receive_maximum, Some(20));
    assert_eq!(connect.username, Some("u"));
}

#[test]
fn qos_2_towards_the_server_is_complete_after_pubcomp() {
    for version in [ProtocolVersion::V4, ProtocolVersion::V5] {
        let mut talk = Talk::open(version, false);
        let ticket = talk.publish("a", QoS::ExactlyOnce);
        talk.writes(&["PUBLISH a 1 QoS 2"]);
        talk.receives(ack(AckKind::Pubrec, 1));
        talk.writes(&["Pubrel 1 Success"]);
        talk.tells(&[]);
        talk.receives(ack(AckKind::Pubcomp, 1));
        talk.tells(&[Event::Published(ticket, ReasonCode::Success)]);
        assert_eq!(talk.session.publications(), 0);
    }
}

#[test]
fn a_refused_qos_2_publication_is_done_without_pubrel() {
    let mut talk = Talk::open(ProtocolVersion::V5, false);
    let ticket = talk.publish("a", QoS::ExactlyOnce);
    talk.writes(&["PUBLISH a 1 QoS 2"]);
    let id = PacketId::new(1).unwrap();
    talk.receives(Packet::Ack(Ack::new(AckKind::Pubrec, id, ReasonCode::QuotaExceeded)));
    talk.writes(&[]);
    talk.tells(&[Event::Published(ticket, ReasonCode::QuotaExceeded)]);
}

#[test]
fn a_qos_2_message_is_given_to_the_application_once_whatever_is_repeated() {
    let mut talk = Talk::open(ProtocolVersion::V5, false);
    talk.receives(message("m", 7, false));
    talk.writes(&["Pubrec 7 Success"]);
    talk.tells(&[told("m", false)]);
    talk.reconnect(true);
    talk.receives(message("m", 7, true));
    talk.writes(&["Pubrec 7 Success"]);
    talk.tells(&[]);
    talk.receives(ack(AckKind::Pubrel, 7));
    talk.writes(&["Pubcomp 7 Success"]);
    talk.receives(ack(AckKind::Pubrel, 7));
    talk.writes(&["Pubcomp 7 PacketIdentifierNotFound"]);
    talk.receives(message("next", 7, false));
    talk.writes(&["Pubrec 7 Success"]);
    talk.tells(&[told("next", false)]);
}

#[test]
fn at_the_next_server_what_is_in_flight_is_sent_again_under_its_identifiers() {
    // [MQTT-4.4.0-1]
    let mut talk = Talk::open(ProtocolVersion::V4, false);
    talk.publish("a", QoS::AtLeastOnce);
    talk.publish("b", QoS::ExactlyOnce);
    talk.publish("c", QoS::ExactlyOnce);
    talk.writes(&["PUBLISH a 1 QoS 1", "PUBLISH b 2 QoS 2", "PUBLISH c 3 QoS 2"]);
    talk.receives(ack(AckKind::Pubrec, 2));
    talk.writes(&["Pubrel 2 Success"]);
    talk.reconnect(true);
    talk.publish("d", QoS::AtLeastOnce);
    talk.writes(&[
        "PUBLISH a 1 QoS 1 DUP",
        "Pubrel 2 Success",
        "PUBLISH c 3 QoS 2 DUP",
        "PUBLISH d 4 QoS 1",
    ]);
}

#[test]
fn a_server_without_the_session_ends_it_here_too_and_the_application_is_told() {
    // [MQTT-3.2.2-5]
    let mut talk = Talk::open(ProtocolVersion::V5, false);
    let lost = talk.publish("a", QoS::AtLeastOnce);
    talk.receives(message("m", 7, false));
    talk.writes(&["Pubrec 7 Success", "PUBLISH a 1 QoS 1"]);
    talk.tells(&[told("m", false)]);
    talk.session.handle_closed();
    talk.session.handle_connected(NOW);
    talk.writes(&["Connect"]);
    talk.receives(Packet::Connack(Connack::accepted(false, ConnackProperties::default())));
    talk.tells(&[Event::Connected { session_present: false, discarded: vec![lost] }]);
    talk.writes(&[]);
    talk.receives(message("m", 7, true));
    talk.tells(&[told("m", true)]);
}

#[test]
fn the_server_s_receive_maximum_and_packet_size_are_kept() {
    // [MQTT-3.3.4-9] [MQTT-3.2.2-15]
    let mut session = ClientSession::new(persistent(ProtocolVersion::V5));
    session.handle_connected(NOW);
    let mut talk = Talk { session };
    talk.writes(&["Connect"]);
    let properties = ConnackProperties {
        receive_maximum: Some(1),
        maximum_packet_size: Some(40),
        ..ConnackProperties::default()
    };
    talk.receives(Packet::Connack(Connack::accepted(false, properties)));
    talk.tells(&[Event::Connected { session_present: false, discarded: vec![] }]);
    let long = talk.publish(&"x".repeat(40), QoS::AtLeastOnce);
    let first = talk.publish("a", QoS::AtLeastOnce);
    let fired = talk.publish("c", QoS::AtMostOnce);
    talk.publish("b", QoS::AtLeastOnce);
    talk.writes(&["PUBLISH a 2 QoS 1", "PUBLISH c"]);
    talk.tells(&[
        Event::Published(long, ReasonCode::PacketTooLarge),
        Event::Published(fired, ReasonCode::Success),
    ]);
    talk.receives(ack(AckKind::Puback, 2));
    talk.writes(&["PUBLISH b 3 QoS 1"]);
    talk.tells(&[Event::Published(first, ReasonCode::Success)]);
}

#[test]
fn subscriptions_are_answered_by_ticket() {
    let mut talk = Talk::open(ProtocolVersion::V5, false);
    let ticket =
        talk.session.subscribe(&[("a/#", QoS::ExactlyOnce), ("b", QoS::AtMostOnce)]).unwrap();
    talk.writes(&["SUBSCRIBE 65535 a/# b"]);
    let codes = [ReasonCode::GrantedQos2, ReasonCode::NotAuthorized];
    talk.receives(Packet::Suback(Suback {
        packet_id: PacketId::new(65_535).unwrap(),
        reasons: ReasonCodes::from_slice(&codes),
        properties: Default::default(),
    }));
    talk.tells(&[Event::Subscribed(ticket, codes.to_vec())]);
    talk.session.handle_closed();
    assert_eq!(talk.session.subscribe(&[("a", QoS::AtMostOnce)]), Err(Refused::NotOpen));
}

#[test]
fn a_silent_client_pings_and_a_silent_server_is_given_up() {
    let mut talk = Talk::open(ProtocolVersion::V4, false);
    assert_eq!(talk.session.poll_timeout(), Some(NOW + Duration::from_secs(45)));
    let due = NOW + Duration::from_secs(45);
    talk.session.handle_timeout(NOW + Duration::from_secs(44)).unwrap();
    talk.writes(&[]);
    talk.session.handle_timeout(due).unwrap();
    assert!(talk.session.poll_transmit(due).is_some());
    assert_eq!(talk.session.poll_timeout(), Some(due + Duration::from_secs(60)));
    talk.receives(Packet::Pingresp);
    assert_eq!(talk.session.handle_timeout(due + Duration::from_secs(44)), Ok(()));
    talk.session.handle_timeout(due + Duration::from_secs(45)).unwrap();
    let overdue = due + Duration::from_secs(45 + 60);
    assert_eq!(talk.session.handle_timeout(overdue), Err(Fault::Silent));
}

#[test]
fn refusals_and_goodbyes_of_the_server_are_told() {
    let mut session = ClientSession::new(persistent(ProtocolVersion::V5));
    session.handle_connected(NOW);
    session.handle_packet(Packet::Connack(Connack::refused(ReasonCode::ServerBusy))).unwrap();
    let refused = Event::Refused { reason: ReasonCode::ServerBusy, server_reference: None };
    assert_eq!(session.poll_event(), Some(refused));

    let mut talk = Talk::open(ProtocolVersion::V5, true);
    let mut goodbye = Disconnect::new(ReasonCode::UseAnotherServer);
    goodbye.server_reference = Some("b:1883");
    talk.receives(Packet::Disconnect(goodbye));
    talk.tells(&[Event::Disconnected {
        reason: ReasonCode::UseAnotherServer,
        server_reference: Some("b:1883".into()),
    }]);
    assert!(!talk.session.is_open());
}

#[test]
fn packets_that_have_no_place_are_faults() {
    let mut session = ClientSession::new(persistent(ProtocolVersion::V5));
    session.handle_connected(NOW);
    let early = session.handle_packet(message("m", 1, false));
    assert_eq!(early, Err(Fault::Unexpected(PacketType::Publish)));

    let mut talk = Talk::open(ProtocolVersion::V5, false);
    let again = Packet::Connack(Connack::refused(ReasonCode::Success));
    assert_eq!(talk.session.handle_packet(again), Err(Fault::Unexpected(PacketType::Connack)));
    let Packet::Publish(mut aliased) = message("m", 1, false) else { unreachable!() };
    aliased.properties.topic_alias = Some(1);
    assert_eq!(talk.session.handle_packet(Packet::Publish(aliased)), Err(Fault::TopicAlias));
}

#[test]
fn an_acknowledgement_nobody_waits_for_changes_nothing() {
    let mut talk = Talk::open(ProtocolVersion::V5, false);
    talk.publish("a", QoS::AtLeastOnce);
    talk.writes(&["PUBLISH a 1 QoS 1"]);
    talk.receives(ack(AckKind::Puback, 9));
    talk.receives(ack(AckKind::Pubcomp, 1));
    talk.tells(&[]);
    assert_eq!(talk.session.inflight(), 1);
    talk.receives(ack(AckKind::Pubrec, 9));
    talk.writes(&["Pubrel 9 PacketIdentifierNotFound"]);
}

/// A session and what is said to it.
struct Talk {
    session: ClientSession,
}

impl Talk {
    fn open(version: ProtocolVersion, session_present: bool) -> Self {
        let mut session = ClientSession::new(persistent(version));
        session.handle_connected(NOW);
        let mut talk = Self { session };
        talk.writes(&["Connect"]);
        talk.accept(session_present);
        talk
    }

    fn reconnect(&mut self, session_present: bool) {
        self.session.handle_closed();
        self.session.handle_connected(NOW);
        self.writes(&["Connect"]);
        self.accept(session_present);
    }

    fn accept(&mut self, session_present: bool) {
        let connack = Connack::accepted(session_present, ConnackProperties::default());
        self.receives(Packet::Connack(connack));
        self.tells(&[Event::Connected { session_present, discarded: vec![] }]);
    }

    fn publish(&mut self, topic: &str, qos: QoS) -> Ticket {
        let payload = Bytes::from_static(b"x");
        let publication = Publication { topic: topic.into(), payload, qos, retain: false };
        self.session.publish(publication).unwrap()
    }

    fn receives(&mut self, packet: Packet<'_>) {
        self.session.handle_packet(packet).unwrap();
    }

    #[track_caller]
    fn tells(&mut self, wanted: &[Event]) {
        let told: Vec<Event> = std::iter::from_fn(|| self.session.poll_event()).collect();
        assert_eq!(told, wanted);
    }

    #[track_caller]
    fn writes(&mut self, wanted: &[&str]) {
        let bytes = self.session.poll_transmit(NOW).unwrap_or_default();
        let (version, limits) = (self.session.options().version, DecodeLimits::default());
        let (mut rest, mut written) = (&bytes[..], Vec::new());
        while let Some((packet, size)) = decode(rest, version, &limits).unwrap() {
            rest = &rest[size..];
            written.push(text(&packet));
        }
        assert_eq!(written, wanted);
    }
}

fn text(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Publish(publish) => {
            let id = publish.packet_id.map(|id| format!(" {id} QoS {}", publish.qos.bits()));
            let dup = if publish.dup { " DUP" } else { "" };
            format!("PUBLISH {}{}{dup}", publish.topic, id.unwrap_or_default())
        }
        Packet::Ack(ack) => format!("{:?} {} {:?}", ack.kind, ack.packet_id, ack.reason),
        Packet::Subscribe(subscribe) => {
            let filters: Vec<&str> =
                subscribe.filters.iter().map(|request| request.filter).collect();
            format!("SUBSCRIBE {} {}", subscribe.packet_id, filters.join(" "))
        }
        Packet::Connect(_)
        | Packet::Connack(_)
        | Packet::Suback(_)
        | Packet::Unsubscribe(_)
        | Packet::Unsuback(_)
        | Packet::Pingreq
        | Packet::Pingresp
        | Packet::Disconnect(_)
        | Packet::Auth(_) => format!("{:?}", packet.packet_type()),
    }
}

fn persistent(version: ProtocolVersion) -> SessionOptions {
    SessionOptions { clean_start: false, ..SessionOptions::new("v1", version) }
}

fn ack(kind: AckKind, id: u16) -> Packet<'static> {
    Packet::Ack(Ack::new(kind, PacketId::new(id).unwrap(), ReasonCode::Success))
}

fn message(topic: &'static str, id: u16, dup: bool) -> Packet<'static> {
    Packet::Publish(Publish {
        dup,
        qos: QoS::ExactlyOnce,
        retain: false,
        topic,
        packet_id: PacketId::new(id),
        properties: PublishProperties::default(),
        payload: b"x",
    })
}

fn told(topic: &str, dup: bool) -> Event {
    let payload = Bytes::from_static(b"x");
    let (topic, qos) = (topic.to_owned(), QoS::ExactlyOnce);
    Event::Message(Incoming { topic, payload, qos, retain: false, dup })
}
