//! Topics whose class is known without configuration.
//!
//! Orange's its-client and the brokers around it publish ETSI messages to
//! `<anything>/v2x/<message type>/<station>/<quadkey by levels>`.

use verge_model::Class;
use verge_mqtt_proto::topic::level::Levels;

/// Before the message type.
const V2X: &str = "v2x";

/// Message types with a class other than the default: DENM warns of a hazard, now.
const CLASSES: [(&str, Class); 1] = [("denm", Class::Safety)];

/// The class of a topic no rule speaks of.
pub(super) fn class_of(topic: &str) -> Class {
    let message_type = Levels::of(topic).skip_while(|level| *level != V2X).nth(1);
    let known = CLASSES.into_iter().find(|(name, _)| message_type == Some(name));
    known.map_or_else(Class::default, |(_, class)| class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_found_behind_any_prefix() {
        for (topic, class) in [
            ("v2x/denm/rsu-1", Class::Safety),
            ("5gcroco/inQueue/v2x/denm/car/0/3/1/2", Class::Safety),
            ("a/v2x/denm", Class::Safety),
            ("a/v2x/cam/car/0/3/1/2", Class::Telemetry),
            ("a/v2x/cam/denm", Class::Telemetry),
            ("a/v2x", Class::Telemetry),
            ("a/denm", Class::Telemetry),
            ("a/xv2x/denm", Class::Telemetry),
            ("", Class::Telemetry),
        ] {
            assert_eq!(class_of(topic), class, "{topic}");
        }
    }
}
