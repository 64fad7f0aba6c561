//! A client made of bytes: it writes what it is told, right or wrong, and reads strictly.

pub(crate) mod bytes;
pub(crate) mod received;
pub(crate) mod stream;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};

use self::received::{Packet, Publish, packet_size};
use self::stream::Stream;

/// The protocol version a case is run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// 3.1.1.
    V4,
    /// 5.0.
    V5,
}

impl Version {
    pub(crate) const fn level(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V5 => 5,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "3.1.1",
            Self::V5 => "5.0",
        }
    }
}

/// A connection, and what came that nobody asked for yet.
pub(crate) struct Wire {
    pub(crate) version: Version,
    stream: Box<dyn Stream>,
    /// Whether every byte is written by itself.
    single_bytes: bool,
    input: Vec<u8>,
    waiting: VecDeque<Packet>,
    last_id: u16,
    /// Largest packet that may come.
    pub(crate) packet_bytes_max: usize,
}

impl Wire {
    pub(crate) fn new(version: Version, stream: Box<dyn Stream>, single_bytes: bool) -> Self {
        let (input, waiting) = (Vec::new(), VecDeque::new());
        let packet_bytes_max = usize::MAX;
        Self { version, stream, single_bytes, input, waiting, last_id: 0, packet_bytes_max }
    }

    pub(crate) fn is_v5(&self) -> bool {
        self.version == Version::V5
    }

    /// Writes; the server may have closed before the last byte.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if self.single_bytes {
            for byte in bytes {
                if self.stream.write_all(&[*byte]).and_then(|()| self.stream.flush()).is_err() {
                    return;
                }
            }
        } else {
            let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
        }
    }

    /// The next packet, or nothing if the server closed.
    pub(crate) fn receive_or_end(&mut self) -> Option<Packet> {
        if let Some(packet) = self.waiting.pop_front() {
            return Some(packet);
        }
        self.read_packet()
    }

    /// The next packet.
    pub(crate) fn receive(&mut self) -> Packet {
        self.receive_or_end().expect("a packet comes before the end")
    }

    /// The first packet that is wanted; others wait.
    pub(crate) fn receive_first<T>(
        &mut self,
        what: &str,
        mut want: impl FnMut(&Packet) -> Option<T>,
    ) -> T {
        for place in 0..self.waiting.len() {
            if let Some(found) = want(&self.waiting[place]) {
                self.waiting.remove(place);
                return found;
            }
        }
        loop {
            let Some(packet) = self.read_packet() else {
                panic!("{what} does not come before the end; {:?} came", self.waiting)
            };
            match want(&packet) {
                Some(found) => return found,
                None => self.waiting.push_back(packet),
            }
        }
    }

    fn read_packet(&mut self) -> Option<Packet> {
        loop {
            if let Some(size) = packet_size(&self.input)
                && self.input.len() >= size
            {
                assert!(size <= self.packet_bytes_max, "{size} bytes [MQTT-3.1.2-24]");
                let rest = self.input.split_off(size);
                let packet = std::mem::replace(&mut self.input, rest);
                return Some(Packet::read(&packet, self.version));
            }
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return self.ended(),
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                // What the server did not read before it closed makes the system reset; TLS calls
                // the end of its transport unexpected.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionReset
                            | ErrorKind::ConnectionAborted
                            | ErrorKind::BrokenPipe
                            | ErrorKind::UnexpectedEof
                    ) =>
                {
                    return self.ended();
                }
                Err(error) => panic!("nothing comes, and no end: {error}"),
            }
        }
    }

    fn ended(&self) -> Option<Packet> {
        assert!(self.input.is_empty(), "the server stops in a packet: {:x?}", self.input);
        None
    }

    /// All packets until the server closes, which it must.
    pub(crate) fn last_words(&mut self) -> Vec<Packet> {
        let mut words = Vec::new();
        while let Some(packet) = self.receive_or_end() {
            words.push(packet);
        }
        words
    }

    /// The server closes, after a DISCONNECT with this reason where the version has it.
    pub(crate) fn is_disconnected(&mut self, reason: u8) {
        let words = self.last_words();
        if !self.is_v5() {
            return assert_eq!(words, [], "3.1.1 has no DISCONNECT of a server");
        }
        let [Packet::Disconnect { reason: said, .. }] = &words[..] else {
            panic!("one DISCONNECT was to come, not {words:?}")
        };
        assert_eq!(*said, reason, "the reason of DISCONNECT");
    }

    /// The server closes, whatever it says, and without an answer to `kind`s of packets.
    pub(crate) fn is_closed(&mut self) {
        for word in self.last_words() {
            assert!(matches!(word, Packet::Disconnect { .. }), "{word:?} on the way out");
        }
    }

    /// Nothing has come; what came before the answer to a PINGREQ would have been seen.
    pub(crate) fn has_nothing(&mut self) {
        self.send(&bytes::PINGREQ);
        let next = self.receive();
        assert_eq!(next, Packet::Pingresp, "nothing but PINGRESP was to come");
    }

    /// A packet id that was not used before on this connection.
    pub(crate) fn next_id(&mut self) -> u16 {
        self.last_id += 1;
        self.last_id
    }

    /// Subscribes to one filter with these options; gives SUBACK's reason.
    pub(crate) fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_with(filter, options, &[])
    }

    /// The same, with properties.
    pub(crate) fn subscribe_with(&mut self, filter: &str, options: u8, properties: &[u8]) -> u8 {
        let id = self.next_id();
        self.send(&bytes::subscribe(self.version, id, properties, &[(filter, options)]));
        let reasons = self.suback(id);
        assert_eq!(reasons.len(), 1, "one reason for one filter");
        reasons[0]
    }

    /// The reasons of the SUBACK with this id.
    pub(crate) fn suback(&mut self, id: u16) -> Vec<u8> {
        self.receive_first("SUBACK", |packet| {
            if let Packet::Suback { id: of, reasons, .. } = packet
                && *of == id
            {
                Some(reasons.clone())
            } else {
                None
            }
        })
    }

    /// The reasons of the UNSUBACK with this id.
    pub(crate) fn unsuback(&mut self, id: u16) -> Vec<u8> {
        self.receive_first("UNSUBACK", |packet| {
            if let Packet::Unsuback { id: of, reasons, .. } = packet
                && *of == id
            {
                Some(reasons.clone())
            } else {
                None
            }
        })
    }

    /// Publishes, and waits until the server has taken it over; gives the reason of PUBACK or
    /// PUBREC.
    pub(crate) fn publish(&mut self, topic: &str, payload: &str, qos: u8) -> u8 {
        self.publish_with(topic, payload, qos << 1, &[])
    }

    /// Publishes a retained message.
    pub(crate) fn retain(&mut self, topic: &str, payload: &str, qos: u8) {
        self.publish_with(topic, payload, qos << 1 | 1, &[]);
        if qos == 0 {
            // It has been taken when what follows it is answered.
            self.receive_pong();
        }
    }

    /// PINGREQ and its answer, whatever else comes.
    pub(crate) fn receive_pong(&mut self) {
        self.send(&bytes::PINGREQ);
        self.receive_first("PINGRESP", |packet| (*packet == Packet::Pingresp).then_some(()));
    }

    /// Publishes with the flags of the first byte and properties.
    pub(crate) fn publish_with(
        &mut self,
        topic: &str,
        payload: &str,
        flags: u8,
        properties: &[u8],
    ) -> u8 {
        let id = self.next_id();
        self.send(&bytes::publish(self.version, flags, topic, id, properties, payload));
        match flags >> 1 & 0b11 {
            0 => 0,
            1 => self.acknowledged(4, id),
            _ => {
                let reason = self.acknowledged(5, id);
                if reason < 0x80 {
                    self.send(&bytes::ack(6, id, 0));
                    self.acknowledged(7, id);
                }
                reason
            }
        }
    }

    /// The reason of PUBACK (4), PUBREC (5), PUBREL (6) or PUBCOMP (7) for this id.
    pub(crate) fn acknowledged(&mut self, kind: u8, id: u16) -> u8 {
        self.receive_first(&format!("acknowledgement {kind} of {id}"), |packet| {
            if let Packet::Ack { kind: of, id: for_id, reason, .. } = packet
                && (*of, *for_id) == (kind, id)
            {
                Some(*reason)
            } else {
                None
            }
        })
    }

    /// The next PUBLISH, not acknowledged.
    pub(crate) fn delivery(&mut self) -> Publish {
        self.receive_first("PUBLISH", |packet| {
            if let Packet::Publish(publish) = packet { Some(publish.clone()) } else { None }
        })
    }

    /// The next PUBLISH, acknowledged as its QoS asks.
    pub(crate) fn message(&mut self) -> Publish {
        let publish = self.delivery();
        self.take(&publish);
        publish
    }

    /// Acknowledges a PUBLISH as its QoS asks.
    pub(crate) fn take(&mut self, publish: &Publish) {
        match (publish.qos, publish.id) {
            (1, Some(id)) => self.send(&bytes::ack(4, id, 0)),
            (2, Some(id)) => {
                self.send(&bytes::ack(5, id, 0));
                self.acknowledged(6, id);
                self.send(&bytes::ack(7, id, 0));
            }
            _ => {}
        }
    }

    /// The payloads of the next messages, each acknowledged.
    pub(crate) fn texts(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.message().text()).collect()
    }

    /// Says goodbye, and waits until the server has closed.
    pub(crate) fn disconnect(mut self) {
        self.send(&bytes::DISCONNECT);
        assert_eq!(self.last_words(), [], "nothing follows DISCONNECT");
    }

    /// Ends the connection without a word.
    pub(crate) fn vanish(self) {
        drop(self);
    }
}
