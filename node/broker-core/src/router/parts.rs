//! What the prefixes of a filter say.

use verge_mqtt_proto::topic::share::Share;

/// Before a filter for what is published at this node only.
pub const LOCAL_PREFIX: &str = "$local/";

/// A valid filter, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterParts<'a> {
    /// The whole text; it names a shared group, since equal ShareNames with different filters are
    /// different groups (MQTT 5.0, 4.8.2).
    pub text: &'a str,
    /// Whether it is a shared subscription.
    pub shared: bool,
    /// Whether it is for publications at this node only.
    pub local: bool,
    /// What is compared with topics.
    pub filter: &'a str,
}

impl<'a> FilterParts<'a> {
    /// Takes `text` apart. What is no valid prefix belongs to the filter.
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        let share = Share::parse(text).ok().flatten();
        let rest = share.map_or(text, |share| share.filter);
        let here = rest.strip_prefix(LOCAL_PREFIX).filter(|filter| !filter.is_empty());
        Self { text, shared: share.is_some(), local: here.is_some(), filter: here.unwrap_or(rest) }
    }
}

/// Whether a valid filter has a wildcard: `+` and `#` stand nowhere else in it [MQTT-4.7.1-1].
#[must_use]
pub fn has_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_taken_off_in_their_order() {
        for (text, shared, local, filter) in [
            ("a/b", false, false, "a/b"),
            ("$local/a/+", false, true, "a/+"),
            ("$share/g/a/#", true, false, "a/#"),
            ("$share/g//a", true, false, "/a"),
            ("$share/g/$local/a", true, true, "a"),
            ("$local/$share/g/a", false, true, "$share/g/a"),
            ("$SYS/#", false, false, "$SYS/#"),
            ("$local/", false, false, "$local/"),
            ("$share/g", false, false, "$share/g"),
            ("$share//a", false, false, "$share//a"),
        ] {
            assert_eq!(
                FilterParts::of(text),
                FilterParts { text, shared, local, filter },
                "{text}"
            );
        }
    }

    #[test]
    fn only_plus_and_hash_are_wildcards() {
        assert!(has_wildcard("a/+/b") && has_wildcard("#"));
        assert!(!has_wildcard("a/b") && !has_wildcard("$SYS/*"));
    }
}
