//! Topic Filter: "an expression contained in a Subscription to indicate an interest in one or more
//! topics. A Topic Filter can include wildcard characters." (1.2)

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use memchr::{memchr, memchr2};
use serde::{Deserialize, Serialize};
use verge_model::limits::MQTT_STRING_BYTES_MAX;

use super::level::{self, FilterLevel, Levels};
use super::share::Share;
use super::{TOPIC_LEVELS_MAX, TopicError};

/// A valid Topic Filter, shared or not; cheap to clone.
///
/// Two filters are the same if their text is, character by character. [MQTT-3.10.4-1]
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Arc<str>", into = "Arc<str>")]
pub struct TopicFilter(Arc<str>);

impl TopicFilter {
    /// The filter `text` is, with at most [`TOPIC_LEVELS_MAX`] levels.
    ///
    /// # Errors
    ///
    /// `text` is no Topic Filter; SUBACK answers Topic Filter invalid.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        Self::parse_within(text, TOPIC_LEVELS_MAX)
    }

    /// The filter `text` is, with at most `levels_max` levels, `$share/<ShareName>/` aside.
    ///
    /// # Errors
    ///
    /// `text` is no Topic Filter; SUBACK answers Topic Filter invalid.
    pub fn parse_within(text: &str, levels_max: usize) -> Result<Self, TopicError> {
        check(text, levels_max)?;
        Ok(Self(text.into()))
    }

    /// The whole text, as it was subscribed to.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole text, to keep.
    #[must_use]
    pub fn shared_text(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The parts of a shared subscription.
    #[must_use]
    pub fn share(&self) -> Option<Share<'_>> {
        Share::parse(&self.0).ok().flatten()
    }

    /// What topics are matched against: the text, without `$share/<ShareName>/`.
    #[must_use]
    pub fn pattern(&self) -> &str {
        self.share().map_or(&self.0, |share| share.filter)
    }

    /// Whether the pattern has `+` or `#`, so that more than one topic can match.
    #[must_use]
    pub fn has_wildcards(&self) -> bool {
        memchr2(b'+', b'#', self.pattern().as_bytes()).is_some()
    }

    /// The levels of the pattern, in order.
    pub fn levels(&self) -> impl Iterator<Item = FilterLevel<'_>> + Clone {
        Levels::of(self.pattern()).map(FilterLevel::parse)
    }

    /// Whether a message published to `topic` is wanted.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        super::matching::matches_pattern(self.pattern(), topic)
    }
}

fn check(text: &str, levels_max: usize) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > MQTT_STRING_BYTES_MAX {
        return Err(TopicError::TooLong);
    }
    if memchr(0, text.as_bytes()).is_some() {
        return Err(TopicError::Null);
    }
    let pattern = Share::parse(text)?.map_or(text, |share| share.filter);
    if level::count(pattern) > levels_max {
        return Err(TopicError::TooManyLevels { limit: levels_max });
    }
    if memchr2(b'+', b'#', pattern.as_bytes()).is_some() {
        check_wildcards(pattern)
    } else {
        Ok(())
    }
}

fn check_wildcards(pattern: &str) -> Result<(), TopicError> {
    let mut levels = Levels::of(pattern);
    while let Some(level) = levels.next() {
        // "The multi-level wildcard character MUST be specified either on its own or following a
        // topic level separator. In either case it MUST be the last character." [MQTT-4.7.1-1]
        if level.contains('#') && (level != "#" || levels.rest().is_some()) {
            return Err(TopicError::MultiLevelWildcard);
        }
        // "Where it is used, it MUST occupy an entire level of the filter." [MQTT-4.7.1-2]
        if level.contains('+') && level != "+" {
            return Err(TopicError::SingleLevelWildcard);
        }
    }
    Ok(())
}

/// Stored filters were checked against the bounds of their time, so any number of levels is read.
impl TryFrom<Arc<str>> for TopicFilter {
    type Error = TopicError;

    fn try_from(text: Arc<str>) -> Result<Self, TopicError> {
        check(&text, usize::MAX)?;
        Ok(Self(text))
    }
}

impl From<TopicFilter> for Arc<str> {
    fn from(filter: TopicFilter) -> Self {
        filter.0
    }
}

/// Every Topic Name is the filter of itself.
impl From<&super::name::TopicName> for TopicFilter {
    fn from(name: &super::name::TopicName) -> Self {
        Self(name.as_str().into())
    }
}

impl AsRef<str> for TopicFilter {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicFilter {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_and_is_not_a_topic_filter() {
        let rows = [
            ("sport/tennis/player1/#", None),
            ("#", None),
            ("+", None),
            ("+/tennis/#", None),
            ("sport/+/player1", None),
            ("/+", None),
            ("$SYS/#", None),
            ("$share/group/sport/+", None),
            ("", Some(TopicError::Empty)),
            ("a\0", Some(TopicError::Null)),
            ("sport/tennis#", Some(TopicError::MultiLevelWildcard)),
            ("sport/tennis/#/ranking", Some(TopicError::MultiLevelWildcard)),
            ("##", Some(TopicError::MultiLevelWildcard)),
            ("sport+", Some(TopicError::SingleLevelWildcard)),
            ("a/++/b", Some(TopicError::SingleLevelWildcard)),
            ("$share/g/a#", Some(TopicError::MultiLevelWildcard)),
            ("$share/g", Some(TopicError::ShareFilter)),
            ("$share/+/a", Some(TopicError::ShareName)),
        ];
        for (text, error) in rows {
            assert_eq!(TopicFilter::parse(text).err(), error, "{text}");
        }
    }

    #[test]
    fn levels_are_bounded_without_the_share_prefix() {
        assert!(TopicFilter::parse_within("$share/g/a/b", 2).is_ok());
        let error = TopicError::TooManyLevels { limit: 2 };
        assert_eq!(TopicFilter::parse_within("$share/g/a/b/c", 2), Err(error));
    }

    #[test]
    fn a_shared_filter_keeps_its_text_and_matches_by_its_pattern() {
        let filter = TopicFilter::parse("$share/g/sport/+").unwrap();
        assert_eq!(filter.as_str(), "$share/g/sport/+");
        assert_eq!(filter.share(), Some(Share { name: "g", filter: "sport/+" }));
        assert_eq!(filter.pattern(), "sport/+");
        assert!(filter.has_wildcards());
        let levels: Vec<_> = filter.levels().collect();
        assert_eq!(levels, [FilterLevel::Exact("sport"), FilterLevel::Single]);
        assert!(filter.matches("sport/tennis") && !filter.matches("$share/g/sport/tennis"));
        assert!(!TopicFilter::parse("sport/tennis").unwrap().has_wildcards());
    }
}
