//! Packets as a client writes them, byte by byte, so that they can be written wrong.

use super::Version;

/// A packet: its first byte, and the rest behind its length.
pub(crate) fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
    [&[first][..], &varint(rest.len()), rest].concat()
}

/// A Variable Byte Integer (1.5.5).
pub(crate) fn varint(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let more = value >= 128;
        out.push((value % 128) as u8 | if more { 0x80 } else { 0 });
        value /= 128;
        if !more {
            return out;
        }
    }
}

/// Text, or other bytes, with their length before them.
pub(crate) fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = text.as_ref();
    let length = u16::try_from(bytes.len()).expect("texts of these tests are short");
    [&length.to_be_bytes(), bytes].concat()
}

/// A two byte integer.
pub(crate) fn u16be(number: u16) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// Properties behind their length, where the version has them.
pub(crate) fn properties(version: Version, properties: &[u8]) -> Vec<u8> {
    if version == Version::V5 {
        [varint(properties.len()), properties.to_vec()].concat()
    } else {
        assert!(properties.is_empty(), "properties before 5.0");
        Vec::new()
    }
}

/// A property (2.2.2.2): its identifier, and its value as the wire has it.
pub(crate) fn property(id: u8, value: &[u8]) -> Vec<u8> {
    [&[id], value].concat()
}

/// A User Property.
pub(crate) fn user_property(name: &str, value: &str) -> Vec<u8> {
    property(id::USER_PROPERTY, &[text(name), text(value)].concat())
}

/// The identifiers of properties, as the standard's table 2-4 numbers them.
pub(crate) mod id {
    pub(crate) const PAYLOAD_FORMAT: u8 = 1;
    pub(crate) const MESSAGE_EXPIRY: u8 = 2;
    pub(crate) const CONTENT_TYPE: u8 = 3;
    pub(crate) const RESPONSE_TOPIC: u8 = 8;
    pub(crate) const CORRELATION_DATA: u8 = 9;
    pub(crate) const SUBSCRIPTION_ID: u8 = 11;
    pub(crate) const SESSION_EXPIRY: u8 = 17;
    pub(crate) const ASSIGNED_CLIENT_ID: u8 = 18;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 19;
    pub(crate) const REQUEST_PROBLEM: u8 = 23;
    pub(crate) const WILL_DELAY: u8 = 24;
    pub(crate) const REQUEST_RESPONSE: u8 = 25;
    pub(crate) const RESPONSE_INFORMATION: u8 = 26;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 33;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 34;
    pub(crate) const TOPIC_ALIAS: u8 = 35;
    pub(crate) const MAXIMUM_QOS: u8 = 36;
    pub(crate) const USER_PROPERTY: u8 = 38;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 39;
}

/// A CONNECT in the making; `flags` that are set by hand are added to those of its fields.
#[derive(Clone)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: Vec<u8>,
    pub(crate) flags: u8,
    pub(crate) keep_alive: u16,
    pub(crate) properties: Vec<u8>,
    /// What follows the ClientId.
    pub(crate) rest: Vec<u8>,
}

/// "Clean Start", "Clean Session" before 5.0.
pub(crate) const CLEAN: u8 = 0b10;
/// "Will Flag".
pub(crate) const WILL: u8 = 0b100;
/// "Will Retain".
pub(crate) const WILL_RETAIN: u8 = 0b10_0000;
/// "Password Flag".
pub(crate) const PASSWORD: u8 = 0b100_0000;
/// "User Name Flag".
pub(crate) const USER_NAME: u8 = 0b1000_0000;

impl Connect {
    /// Of a client that begins a session which ends with its connection.
    pub(crate) fn new(version: Version, client_id: impl AsRef<[u8]>) -> Self {
        Self {
            version,
            client_id: client_id.as_ref().to_vec(),
            flags: CLEAN,
            keep_alive: 0,
            properties: Vec::new(),
            rest: Vec::new(),
        }
    }

    /// Of a client whose session goes on, and lasts longer than any case.
    pub(crate) fn kept(self) -> Self {
        self.unclean().expiry(3_600)
    }

    /// Without Clean Start.
    pub(crate) fn unclean(mut self) -> Self {
        self.flags &= !CLEAN;
        self
    }

    /// The Session Expiry Interval, in seconds; nothing before 5.0.
    pub(crate) fn expiry(self, secs: u32) -> Self {
        if self.version == Version::V5 {
            self.with(property(id::SESSION_EXPIRY, &secs.to_be_bytes()))
        } else {
            self
        }
    }

    /// Adds a property.
    pub(crate) fn with(mut self, property: Vec<u8>) -> Self {
        self.properties.extend(property);
        self
    }

    /// Adds a Will with the given Will Properties.
    pub(crate) fn will(self, topic: &str, payload: &str, qos: u8, will: &[u8]) -> Self {
        let fields = [properties(self.version, will), text(topic), text(payload)].concat();
        self.field(WILL | qos << 3, &fields)
    }

    /// Adds flags, and a field behind what is there.
    pub(crate) fn field(mut self, flags: u8, field: &[u8]) -> Self {
        self.flags |= flags;
        self.rest.extend(field);
        self
    }

    /// The packet.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        packet(0x10, &self.body("MQTT", self.version.level()))
    }

    /// What follows the length, with this protocol name and level.
    pub(crate) fn body(&self, name: &str, level: u8) -> Vec<u8> {
        [
            text(name),
            vec![level, self.flags],
            u16be(self.keep_alive),
            properties(self.version, &self.properties),
            text(&self.client_id),
            self.rest.clone(),
        ]
        .concat()
    }
}

/// A PUBLISH.
pub(crate) fn publish(
    version: Version,
    flags: u8,
    topic: impl AsRef<[u8]>,
    id: u16,
    props: &[u8],
    payload: impl AsRef<[u8]>,
) -> Vec<u8> {
    let id = if flags & 0b110 == 0 { Vec::new() } else { u16be(id) };
    let head = [text(topic), id, properties(version, props)].concat();
    packet(0x30 | flags, &[&head, payload.as_ref()].concat())
}

/// PUBACK (4), PUBREC (5), PUBREL (6) or PUBCOMP (7), without reason or with one.
pub(crate) fn ack(kind: u8, id: u16, reason: u8) -> Vec<u8> {
    let first = kind << 4 | if kind == 6 { 0b10 } else { 0 };
    let reason = if reason == 0 { Vec::new() } else { vec![reason] };
    packet(first, &[u16be(id), reason].concat())
}

/// A SUBSCRIBE for filters with their options.
pub(crate) fn subscribe(
    version: Version,
    id: u16,
    props: &[u8],
    filters: &[(&str, u8)],
) -> Vec<u8> {
    let mut body = [u16be(id), properties(version, props)].concat();
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

/// An UNSUBSCRIBE for filters.
pub(crate) fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let filters: Vec<u8> = filters.iter().flat_map(text).collect();
    packet(0xA2, &[u16be(id), properties(version, &[]), filters].concat())
}

/// PINGREQ.
pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];

/// DISCONNECT: "Normal disconnection".
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];
