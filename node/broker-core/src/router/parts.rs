//! What the prefixes of a filter say.

use std::sync::Arc;

use verge_mqtt_proto::TopicFilter;
use verge_mqtt_proto::topic::share::Share;

/// Before a filter for what is published at this node only.
pub const LOCAL_PREFIX: &str = "$local/";

/// Before a filter with one subscriber at a time.
pub const EXCLUSIVE_PREFIX: &str = "$exclusive/";

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
    /// Whether it has one subscriber at a time; for the router, a filter as any other.
    pub exclusive: bool,
    /// What is compared with topics.
    pub filter: &'a str,
}

impl<'a> FilterParts<'a> {
    /// Takes `text` apart. What is no valid prefix belongs to the filter.
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        let share = Share::parse(text).ok().flatten();
        let rest = share.map_or(text, |share| share.filter);
        let sole = text.strip_prefix(EXCLUSIVE_PREFIX).filter(|filter| !filter.is_empty());
        let rest = sole.unwrap_or(rest);
        let here = rest.strip_prefix(LOCAL_PREFIX).filter(|filter| !filter.is_empty());
        let (shared, local, exclusive) = (share.is_some(), here.is_some(), sole.is_some());
        Self { text, shared, local, exclusive, filter: here.unwrap_or(rest) }
    }

    /// What other nodes are told of it, if it is not for this node only.
    #[must_use]
    pub fn route(&self) -> Option<TopicFilter> {
        let text = if self.exclusive { self.filter } else { self.text };
        let route = || TopicFilter::try_from(Arc::from(text)).ok();
        if self.local { None } else { route() }
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
                FilterParts { text, shared, local, exclusive: false, filter },
                "{text}"
            );
        }
    }

    #[test]
    fn an_exclusive_filter_is_the_one_behind_its_prefix() {
        for (text, local, filter, route) in [
            ("$exclusive/a/+", false, "a/+", Some("a/+")),
            ("$exclusive/$local/a", true, "a", None),
        ] {
            let parts = FilterParts::of(text);
            let wanted = FilterParts { text, shared: false, local, exclusive: true, filter };
            assert_eq!(parts, wanted);
            let given = parts.route();
            assert_eq!(given.as_ref().map(|route| route.as_str()), route);
        }
        assert!(!FilterParts::of("$share/g/$exclusive/a").exclusive);
        assert!(!FilterParts::of("$exclusive/").exclusive);
        assert_eq!(FilterParts::of("$share/g/a").route().unwrap().as_str(), "$share/g/a");
    }

    #[test]
    fn only_plus_and_hash_are_wildcards() {
        assert!(has_wildcard("a/+/b") && has_wildcard("#"));
        assert!(!has_wildcard("a/b") && !has_wildcard("$SYS/*"));
    }
}
