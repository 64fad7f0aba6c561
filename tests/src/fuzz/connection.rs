//! The connection's machine: however the stream is cut, the same packets come out of it, and the
//! same end.

use verge_model::Millis;
use verge_mqtt_proto::{Connection, ConnectionConfig, Event, Granted, PacketId};

/// The stream of one client; CONNECT is accepted, acknowledgements are sent at once.
pub(super) fn run(input: &[u8]) {
    let whole = drive(input, input.len().max(1));
    let bytewise = drive(input, 1);
    assert_eq!(whole, bytewise, "cutting the stream changes nothing");
}

fn drive(input: &[u8], step: usize) -> Vec<String> {
    let config = ConnectionConfig {
        packet_bytes_max: 4_096,
        connect_bytes_max: 1_024,
        receive_maximum: 4,
        topic_alias_maximum: 4,
        ..ConnectionConfig::default()
    };
    let mut machine = Connection::new(config, Millis(0));
    let mut seen = Vec::new();
    let mut unread = Vec::new();
    for (at, piece) in input.chunks(step).enumerate() {
        unread.extend_from_slice(piece);
        let now = Millis(u64::try_from(at * step).expect("inputs are short"));
        while !unread.is_empty() {
            // The time of a packet is that of its last byte, which depends on the cut.
            let Some(used) = step_of(&mut machine, &unread, now, &mut seen) else { break };
            unread.drain(..used);
        }
        machine.check_invariants();
    }
    seen
}

fn step_of(
    machine: &mut Connection,
    unread: &[u8],
    now: Millis,
    seen: &mut Vec<String>,
) -> Option<usize> {
    let (answer, used) = match machine.handle_bytes(unread, now) {
        Ok(None) => return None,
        Ok(Some((event, used))) => {
            seen.push(format!("{event:?}"));
            (answer_to(&event), used)
        }
        Err(reason) => {
            // What is said in parting depends on what has been read by then.
            seen.push(format!("{:?}", reason.cause));
            return None;
        }
    };
    match answer {
        Answer::Accept => machine.accept(Granted::default(), now),
        Answer::Puback(id) => machine.on_puback_sent(id),
        Answer::Pubcomp(id) => machine.on_pubcomp_sent(id),
        Answer::Nothing => {}
    }
    Some(used)
}

enum Answer {
    Nothing,
    Accept,
    Puback(PacketId),
    Pubcomp(PacketId),
}

fn answer_to(event: &Event<'_>) -> Answer {
    if let Event::Connect(_) = event {
        return Answer::Accept;
    }
    if let Event::Pubrel { packet_id, .. } = event {
        return Answer::Pubcomp(*packet_id);
    }
    if let Event::Publish(publish) = event
        && publish.qos.bits() == 1
        && let Some(id) = publish.packet_id
    {
        return Answer::Puback(id);
    }
    Answer::Nothing
}
