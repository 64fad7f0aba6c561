//! Packets as a server writes them, read strictly: what the standard does not allow a server to
//! send fails whatever case it comes in.

use super::Version;

/// The value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Number(u32),
    Text(String),
    Bytes(Vec<u8>),
    Pair(String, String),
}

/// Properties in the order they came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Properties(pub(crate) Vec<(u8, Value)>);

impl Properties {
    /// The number under this identifier, if there is one.
    pub(crate) fn number(&self, id: u8) -> Option<u32> {
        self.all(id).find_map(|value| match value {
            Value::Number(number) => Some(*number),
            Value::Text(_) | Value::Bytes(_) | Value::Pair(..) => None,
        })
    }

    /// The text under this identifier, if there is one.
    pub(crate) fn text(&self, id: u8) -> Option<&str> {
        self.all(id).find_map(|value| match value {
            Value::Text(text) => Some(&**text),
            Value::Number(_) | Value::Bytes(_) | Value::Pair(..) => None,
        })
    }

    /// All values under this identifier.
    pub(crate) fn all(&self, id: u8) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |(of, _)| *of == id).map(|(_, value)| value)
    }

    /// The numbers under this identifier, in ascending order.
    pub(crate) fn numbers(&self, id: u8) -> Vec<u32> {
        let mut numbers: Vec<u32> = self
            .all(id)
            .filter_map(
                |value| if let Value::Number(number) = value { Some(*number) } else { None },
            )
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// User Properties in order.
    pub(crate) fn pairs(&self) -> Vec<(&str, &str)> {
        self.0
            .iter()
            .filter_map(|(_, value)| {
                if let Value::Pair(name, value) = value { Some((&**name, &**value)) } else { None }
            })
            .collect()
    }
}

/// A PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) dup: bool,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) topic: String,
    pub(crate) id: Option<u16>,
    pub(crate) properties: Properties,
    pub(crate) payload: Vec<u8>,
}

impl Publish {
    /// The payload, which is text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.payload.clone()).expect("payloads of these cases are text")
    }
}

/// A packet of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    Connack { session_present: bool, reason: u8, properties: Properties },
    Publish(Publish),
    Ack { kind: u8, id: u16, reason: u8, properties: Properties },
    Suback { id: u16, reasons: Vec<u8>, properties: Properties },
    Unsuback { id: u16, reasons: Vec<u8>, properties: Properties },
    Pingresp,
    Disconnect { reason: u8, properties: Properties },
    Auth { reason: u8, properties: Properties },
}

/// The size of the packet the bytes begin with, once that can be seen.
pub(crate) fn packet_size(input: &[u8]) -> Option<usize> {
    let mut size = 0;
    for place in 0..4 {
        let byte = *input.get(1 + place)?;
        size |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            assert!(place == 0 || byte != 0, "a length is not minimal [MQTT-1.5.5-1]");
            return Some(2 + place + size);
        }
    }
    panic!("a length of more than four bytes");
}

impl Packet {
    /// Reads one whole packet.
    pub(crate) fn read(packet: &[u8], version: Version) -> Self {
        let kind = packet[0] >> 4;
        let flags = packet[0] & 0x0F;
        let length_bytes = packet[1..].iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
        let mut body = Body { rest: &packet[1 + length_bytes..], version, kind };
        let reserved = if kind == 6 { 0b10 } else { 0 };
        assert!(kind == 3 || flags == reserved, "flags {flags:04b} of {kind} [MQTT-2.1.3-1]");
        let read = match kind {
            2 => {
                let acknowledge = body.u8();
                assert!(acknowledge <= 1, "reserved bits of CONNACK [MQTT-3.2.2-1]");
                let reason = body.reason();
                let session_present = acknowledge == 1;
                assert!(reason == 0 || !session_present, "[MQTT-3.2.2-6] [3.1.1 MQTT-3.2.2-4]");
                Self::Connack { session_present, reason, properties: body.properties() }
            }
            3 => Self::Publish(body.publish(flags)),
            4..=7 => {
                let id = body.id();
                let reason = if body.rest.is_empty() { 0 } else { body.reason() };
                let properties = body.properties_if_any();
                Self::Ack { kind, id, reason, properties }
            }
            9 => {
                let (id, properties) = (body.id(), body.properties());
                Self::Suback { id, reasons: body.reasons(), properties }
            }
            11 => {
                let (id, properties) = (body.id(), body.properties());
                Self::Unsuback { id, reasons: body.reasons(), properties }
            }
            13 => Self::Pingresp,
            14 | 15 => {
                assert_eq!(version, Version::V5, "a server sends packet {kind} in 5.0 only");
                let reason = if body.rest.is_empty() { 0 } else { body.reason() };
                let properties = body.properties_if_any();
                if kind == 14 {
                    Self::Disconnect { reason, properties }
                } else {
                    Self::Auth { reason, properties }
                }
            }
            _ => panic!("a server does not send packet type {kind}"),
        };
        assert!(body.rest.is_empty(), "bytes follow {read:?}: {:x?}", body.rest);
        read
    }
}

/// What is left of a packet.
struct Body<'a> {
    rest: &'a [u8],
    version: Version,
    kind: u8,
}

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        assert!(self.rest.len() >= count, "packet {} ends inside a field", self.kind);
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        taken
    }

    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().expect("two bytes"))
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn id(&mut self) -> u16 {
        let id = self.u16();
        assert_ne!(id, 0, "packet identifier 0 [MQTT-2.2.1-4]");
        id
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = self.u16();
        self.take(usize::from(length))
    }

    fn text(&mut self) -> String {
        let text = std::str::from_utf8(self.bytes()).expect("UTF-8 [MQTT-1.5.4-1]");
        assert!(!text.contains('\0'), "U+0000 [MQTT-1.5.4-2]");
        text.to_owned()
    }

    fn varint(&mut self) -> u32 {
        let mut value = 0;
        for place in 0..4 {
            let byte = self.u8();
            value |= u32::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                assert!(place == 0 || byte != 0, "not minimal [MQTT-1.5.5-1]");
                return value;
            }
        }
        panic!("a Variable Byte Integer of more than four bytes");
    }

    /// A reason code, which must be one the standard lists for this packet.
    fn reason(&mut self) -> u8 {
        let reason = self.u8();
        if self.version == Version::V4 {
            let allowed: &[u8] = match self.kind {
                2 => &[0, 1, 2, 3, 4, 5],
                9 => &[0, 1, 2, 0x80],
                _ => panic!("3.1.1 has no reason in packet {}", self.kind),
            };
            assert!(allowed.contains(&reason), "return code {reason} [3.1.1 MQTT-3.9.3-2]");
            return reason;
        }
        let allowed: &[u8] = match self.kind {
            2 => &[
                0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90,
                0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
            ],
            4 | 5 => &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
            6 | 7 => &[0, 0x92],
            9 => &[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
            11 => &[0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91],
            14 => &[
                0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94,
                0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
                0x8C,
            ],
            15 => &[0, 0x18],
            _ => &[],
        };
        assert!(allowed.contains(&reason), "reason {reason:#04x} in packet {}", self.kind);
        reason
    }

    fn reasons(&mut self) -> Vec<u8> {
        let mut reasons = Vec::new();
        while !self.rest.is_empty() {
            reasons.push(self.reason());
        }
        reasons
    }

    fn publish(&mut self, flags: u8) -> Publish {
        let qos = flags >> 1 & 0b11;
        assert_ne!(qos, 3, "both QoS bits [MQTT-3.3.1-4]");
        let dup = flags & 0b1000 != 0;
        assert!(qos > 0 || !dup, "DUP at QoS 0 [MQTT-3.3.1-2]");
        let topic = self.text();
        assert!(!topic.contains(['+', '#']), "a wildcard in a topic [MQTT-3.3.2-2]");
        let id = (qos > 0).then(|| self.id());
        let properties = self.properties();
        let payload = std::mem::take(&mut self.rest).to_vec();
        Publish { dup, qos, retain: flags & 1 != 0, topic, id, properties, payload }
    }

    fn properties_if_any(&mut self) -> Properties {
        if self.rest.is_empty() { Properties::default() } else { self.properties() }
    }

    /// Properties, each in a packet that may have it and once unless it may be repeated (2.2.2.2).
    fn properties(&mut self) -> Properties {
        let mut found = Properties::default();
        if self.version == Version::V4 {
            return found;
        }
        let length = self.varint() as usize;
        let mut section = Body { rest: self.take(length), version: self.version, kind: self.kind };
        while !section.rest.is_empty() {
            let id = section.u8();
            let may_have: &[u8] = match self.kind {
                2 => &[17, 18, 19, 21, 22, 26, 28, 31, 33, 34, 36, 37, 38, 39, 40, 41, 42],
                3 => &[1, 2, 3, 8, 9, 11, 35, 38],
                4..=11 => &[31, 38],
                14 => &[28, 31, 38],
                15 => &[21, 22, 31, 38],
                _ => &[],
            };
            assert!(may_have.contains(&id), "property {id} in packet {} of a server", self.kind);
            let repeated = id == 38 || (id == 11 && self.kind == 3);
            assert!(repeated || found.all(id).next().is_none(), "property {id} twice");
            let value = match id {
                1 | 23 | 25 | 36 | 37 | 40 | 41 | 42 => Value::Number(u32::from(section.u8())),
                19 | 33 | 34 | 35 => Value::Number(u32::from(section.u16())),
                2 | 17 | 24 | 39 => Value::Number(section.u32()),
                11 => Value::Number(section.varint()),
                3 | 8 | 18 | 21 | 26 | 28 | 31 => Value::Text(section.text()),
                9 | 22 => Value::Bytes(section.bytes().to_vec()),
                _ => {
                    let name = section.text();
                    Value::Pair(name, section.text())
                }
            };
            found.0.push((id, value));
        }
        found
    }
}
