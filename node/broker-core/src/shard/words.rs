//! What clients are told in words: reason strings, for the person who looks at a log.
//!
//! They are for reading only; a client acts on reason codes. Those of CONNACK and DISCONNECT are
//! always given; those of other packets only to a client that wants problem information
//! [MQTT-3.1.2-29]. All are left out where the packet would be larger than the client accepts.

use verge_mqtt_proto::{ReasonCode, TopicFilter};

/// Characters of a client's own text that are quoted back.
const QUOTE_CHARS_MAX: usize = 128;

/// Why the node ends a connection, where no more is known than the reason code.
pub(super) fn of_close(reason: ReasonCode) -> Option<&'static str> {
    Some(match reason.byte() {
        0x87 => "this listener takes clients with credentials only",
        0x88 => "the session could not be stored; try again",
        0x8B => "the node goes down",
        0x8E => "another connection uses this ClientId",
        0x97 => "the message could not be stored",
        0x98 => "an operator ended the connection",
        0x9F => "too many clients come at once; try again",
        _ => return None,
    })
}

/// Why a PUBLISH is refused.
pub(super) fn of_publish(reason: ReasonCode) -> Option<&'static str> {
    Some(match reason.byte() {
        0x87 => "only the node itself publishes to this topic",
        0x90 => "the topic is not $delayed/SECONDS/TOPIC",
        0x97 => "the message could not be stored",
        0x99 => "the payload is not UTF-8, as its format indicator says",
        _ => return None,
    })
}

/// Why a SUBSCRIBE or UNSUBSCRIBE is refused: the first of its filters that is.
pub(super) fn of_filters<'a>(
    filters: impl Iterator<Item = &'a str>,
    codes: &[ReasonCode],
) -> Option<String> {
    let (filter, code) = filters.zip(codes).find(|(_, code)| code.is_error())?;
    let quoted: String = filter.chars().take(QUOTE_CHARS_MAX).collect();
    Some(match TopicFilter::parse(filter) {
        Err(error) => format!("{quoted}: {error}"),
        Ok(_) => format!("{quoted}: {}", code.name()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refused_filter_is_named_and_no_more_of_it_than_helps() {
        let ok = ReasonCode::Success;
        let bad = ReasonCode::TopicFilterInvalid;
        let words =
            |filters: &[&str], codes: &[ReasonCode]| of_filters(filters.iter().copied(), codes);
        assert_eq!(words(&["a", "b"], &[ok, ok]), None);
        let said = words(&["a", "b/#/c"], &[ok, bad]).unwrap();
        assert_eq!(said, "b/#/c: # stands alone in the last level [MQTT-4.7.1-1]");
        let said = words(&["a"], &[ReasonCode::NotAuthorized]).unwrap();
        assert_eq!(said, "a: Not authorized");
        let long = "+a".repeat(40_000);
        assert!(words(&[&long], &[bad]).unwrap().len() < 256);
    }
}
