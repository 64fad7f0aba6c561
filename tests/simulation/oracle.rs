//! What clients saw: the only judge of what nodes did.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use verge_mqtt_proto::{Publish, QoS};

/// Lines of the log that are kept to be shown of one seed among many.
const TAIL: usize = 400;

/// A message, by its number: its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MessageNo(pub(crate) usize);

/// A message that a client was given to publish.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// By whom.
    pub(crate) publisher: String,
    /// Where.
    pub(crate) topic: String,
    /// How.
    pub(crate) qos: QoS,
    /// Whether it left its client at least once.
    pub(crate) sent: bool,
    /// When it first left its client.
    pub(crate) sent_at: u64,
    /// When the client was first told that a node took it.
    pub(crate) acked_at: Option<u64>,
    /// Whether it was sent to another node than at first, or to a session that had forgotten it:
    /// then nodes that cannot talk to each other may take it for two.
    pub(crate) resent_elsewhere: bool,
    /// As above, with CONNACK having said that the session is new.
    pub(crate) resent_to_new_session: bool,
}

/// A client, as far as judgement needs it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Receiver {
    /// Topic filters it asked for.
    pub(crate) wants: Vec<(String, QoS)>,
    /// Since when a SUBACK, and the routes of all nodes, stand for it.
    pub(crate) since: Option<u64>,
    /// Messages in the order they were first delivered, and how often each was.
    pub(crate) deliveries: Vec<MessageNo>,
    /// How often each message was delivered.
    pub(crate) counts: BTreeMap<MessageNo, u32>,
    /// When it began or ended a connection, or was accepted.
    pub(crate) moves: Vec<u64>,
    /// How often CONNACK said that its session was gone.
    pub(crate) lost_sessions: u32,
}

/// The judge's notes.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// Every message there is.
    pub(crate) messages: Vec<Message>,
    /// Every client.
    pub(crate) receivers: BTreeMap<String, Receiver>,
    /// What is known to be wrong already.
    pub(crate) failures: Vec<String>,
    log: VecDeque<String>,
    /// Lines that are kept: all of them if only one seed is looked at.
    tail: Option<usize>,
    hash: u64,
    /// How many lines the log has.
    pub(crate) lines: u64,
}

impl Oracle {
    /// Notes a client.
    pub(crate) fn add(&mut self, name: &str, wants: &[(String, QoS)]) {
        let receiver = Receiver { wants: wants.to_vec(), ..Receiver::default() };
        self.receivers.insert(name.into(), receiver);
    }

    /// Makes a message.
    pub(crate) fn make(&mut self, publisher: &str, topic: &str, qos: QoS) -> MessageNo {
        self.messages.push(Message {
            publisher: publisher.into(),
            topic: topic.into(),
            qos,
            sent: false,
            sent_at: 0,
            acked_at: None,
            resent_elsewhere: false,
            resent_to_new_session: false,
        });
        MessageNo(self.messages.len() - 1)
    }

    /// Topic and QoS of a message.
    pub(crate) fn what(&self, message: MessageNo) -> (String, QoS) {
        let message = &self.messages[message.0];
        (message.topic.clone(), message.qos)
    }

    /// A client sent it.
    pub(crate) fn sent(&mut self, message: MessageNo, now: u64) {
        let message = &mut self.messages[message.0];
        if !std::mem::replace(&mut message.sent, true) {
            message.sent_at = now;
        }
    }

    /// A client began or ended a connection, or was accepted.
    pub(crate) fn moves(&mut self, client: &str, now: u64) {
        if let Some(receiver) = self.receivers.get_mut(client) {
            receiver.moves.push(now);
        }
    }

    /// A client sent it to another node than at first.
    pub(crate) fn resent_elsewhere(&mut self, message: MessageNo) {
        self.messages[message.0].resent_elsewhere = true;
    }

    /// A client sent it again, to a session that did not know it.
    pub(crate) fn resent_to_new_session(&mut self, message: MessageNo) {
        self.messages[message.0].resent_to_new_session = true;
    }

    /// A client has its PUBACK or PUBREC.
    pub(crate) fn acknowledged(&mut self, message: MessageNo, now: u64, good: bool) {
        self.note(now, format_args!("message {} acknowledged {good}", message.0));
        if good {
            self.messages[message.0].acked_at.get_or_insert(now);
        }
    }

    /// A client has its SUBACK.
    pub(crate) fn subscribed(&mut self, client: &str, now: u64) {
        self.note(now, format_args!("{client} subscribed"));
    }

    /// Every node knows where to send what the client wants.
    pub(crate) fn counts_from(&mut self, client: &str, now: u64) {
        if let Some(receiver) = self.receivers.get_mut(client) {
            receiver.since.get_or_insert(now);
        }
    }

    /// A client was told that its session is gone.
    pub(crate) fn session_lost(&mut self, client: &str) {
        if let Some(receiver) = self.receivers.get_mut(client) {
            receiver.lost_sessions += 1;
        }
    }

    /// A client's application got a message.
    pub(crate) fn delivered(
        &mut self,
        client: &str,
        message: MessageNo,
        publish: &Publish<'_>,
        now: u64,
    ) {
        let (topic, dup) = (publish.topic, publish.dup);
        let id = publish.packet_id.map_or(0, |id| id.get());
        self.note(now, format_args!("{client} got {} id={id} dup={dup}", message.0));
        let known = self.messages.get(message.0).filter(|known| known.topic == topic && known.sent);
        if known.is_none() {
            self.fail("nothing invented", format!("{client} got {} on {topic}", message.0));
            return;
        }
        let Some(receiver) = self.receivers.get_mut(client) else { return };
        if !receiver.wants.iter().any(|(filter, _)| verge_mqtt_proto::matches(filter, topic)) {
            let text = format!("{client} got {} on {topic}, unasked", message.0);
            return self.fail("nothing invented", text);
        }
        let count = receiver.counts.entry(message).or_default();
        *count += 1;
        if *count == 1 {
            receiver.deliveries.push(message);
        }
    }

    /// Something is wrong.
    pub(crate) fn fail(&mut self, invariant: &str, what: String) {
        self.failures.push(format!("{invariant}: {what}"));
    }

    /// A line of the log.
    pub(crate) fn note(&mut self, now: u64, what: std::fmt::Arguments<'_>) {
        let tail = *self.tail.get_or_insert_with(|| {
            if std::env::var_os("VERGE_SIM_SEED").is_some() { usize::MAX } else { TAIL }
        });
        let mut line = if self.log.len() >= tail {
            self.log.pop_front().unwrap_or_default()
        } else {
            String::new()
        };
        line.clear();
        let _ = write!(line, "{:>9}.{:03} {what}", now / 1000, now % 1000);
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.lines += 1;
        self.log.push_back(line);
    }

    /// A hash of the whole log.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// The end of the log.
    pub(crate) fn tail(&self) -> String {
        let lines: Vec<&str> = self.log.iter().map(String::as_str).collect();
        lines.join("\n")
    }
}
