//! When a filter and a topic meet (4.7.1, 4.7.2).

use super::level::{FilterLevel, Levels};
use super::share::Share;

/// Whether a subscription to `filter`, a valid Topic Filter, wants what is published to `topic`, a
/// valid Topic Name. Of a shared subscription the filter behind the ShareName counts.
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    let pattern = match Share::parse(filter) {
        Ok(Some(share)) => share.filter,
        Ok(None) | Err(_) => filter,
    };
    matches_pattern(pattern, topic)
}

/// [`matches`] for a filter without `$share/<ShareName>/`.
pub(crate) fn matches_pattern(pattern: &str, topic: &str) -> bool {
    // "The Server MUST NOT match Topic Filters starting with a wildcard character (# or +) with
    // Topic Names beginning with a $ character." [MQTT-4.7.2-1]
    if topic.starts_with('$') && pattern.starts_with(['#', '+']) {
        return false;
    }
    let mut wanted = Levels::of(pattern);
    let mut given = Levels::of(topic);
    loop {
        match (wanted.next().map(FilterLevel::parse), given.next()) {
            // "Represents the parent and any number of child levels": so also none. (4.7.1.2)
            (Some(FilterLevel::Multi), _) | (None, None) => return true,
            (Some(FilterLevel::Single), Some(_)) => {}
            (Some(FilterLevel::Exact(exact)), Some(level)) if exact == level => {}
            (Some(FilterLevel::Exact(_) | FilterLevel::Single) | None, _) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard() {
        let rows: &[(&str, &[&str], &[&str])] = &[
            (
                "sport/tennis/player1/#",
                &[
                    "sport/tennis/player1",
                    "sport/tennis/player1/ranking",
                    "sport/tennis/player1/score/wimbledon",
                ],
                &["sport/tennis", "sport/tennis/player10"],
            ),
            ("sport/#", &["sport", "sport/", "sport/a/b"], &["sports", "/sport"]),
            ("#", &["a", "/", "a/b", "/a"], &["$SYS", "$SYS/x"]),
            ("sport/tennis/+", &["sport/tennis/player1"], &["sport/tennis/player1/ranking"]),
            ("sport/+", &["sport/"], &["sport"]),
            ("+/+", &["/finance", "a/b"], &["finance", "a/b/c"]),
            ("/+", &["/finance"], &["a/finance"]),
            ("+", &["finance"], &["/finance", "$SYS"]),
            ("a/b", &["a/b"], &["A/b", "a/B", "a/b/", "a"]),
        ];
        for (filter, wanted, unwanted) in rows {
            for topic in *wanted {
                assert!(matches(filter, topic), "{filter} wants {topic}");
            }
            for topic in *unwanted {
                assert!(!matches(filter, topic), "{filter} does not want {topic}");
            }
        }
    }

    #[test]
    fn a_leading_wildcard_does_not_see_dollar_topics_mqtt_4_7_2_1() {
        assert!(!matches("#", "$SYS/monitor/Clients"));
        assert!(!matches("+/monitor/Clients", "$SYS/monitor/Clients"));
        assert!(matches("$SYS/#", "$SYS/monitor/Clients"));
        assert!(matches("$SYS/monitor/+", "$SYS/monitor/Clients"));
        assert!(matches("+/$x", "a/$x"));
        assert!(!matches("$share/g/#", "$SYS/uptime"));
    }

    #[test]
    fn a_shared_subscription_wants_what_its_filter_wants() {
        assert!(matches("$share/g/a/+", "a/b"));
        assert!(!matches("$share/g/a/+", "$share/g/a/b"));
    }
}
