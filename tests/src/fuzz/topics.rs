//! Topic Names and Topic Filters: parsing, and matching against the definition in words.

use verge_mqtt_proto::{TopicFilter, TopicName, matches};

/// Lines: the first is a Topic Name, the others are Topic Filters.
pub(super) fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n');
    let topic = lines.next().unwrap_or_default();
    let Ok(name) = TopicName::parse(topic) else { return };
    assert_eq!(name.as_str(), topic);
    for line in lines.take(16) {
        let Ok(filter) = TopicFilter::parse(line) else { continue };
        assert_eq!(filter.as_str(), line);
        if filter.pattern() == line {
            assert_eq!(matches(line, topic), in_words(line, topic), "{line} and {topic}");
        }
    }
}

/// Section 4.7, level by level.
fn in_words(filter: &str, topic: &str) -> bool {
    // "The Server MUST NOT match Topic Filters starting with a wildcard character (# or +) with
    // Topic Names beginning with a $ character." [MQTT-4.7.2-1]
    if topic.starts_with('$') && filter.starts_with(['#', '+']) {
        return false;
    }
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    let (head, rest) = match filter.split_last() {
        Some((&"#", head)) => (head, true),
        _ => (&filter[..], false),
    };
    let long_enough = if rest { topic.len() >= head.len() } else { topic.len() == head.len() };
    long_enough && head.iter().zip(&topic).all(|(filter, topic)| *filter == "+" || filter == topic)
}
