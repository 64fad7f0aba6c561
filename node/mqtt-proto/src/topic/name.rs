//! Topic Name: "the label attached to an Application Message which is matched against the
//! Subscriptions known to the Server". (1.2)

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use memchr::{memchr, memchr2};
use serde::{Deserialize, Serialize};
use verge_model::limits::MQTT_STRING_BYTES_MAX;

use super::level::{self, Levels};
use super::{TOPIC_LEVELS_MAX, TopicError};
use crate::codec::error::DecodeError;

/// A valid Topic Name: at least one character, no wildcard, no U+0000, at most 65,535 bytes.
///
/// "Topic Names are case sensitive"; nothing is normalised. [MQTT-4.7.3-4]
/// Copies share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Box<str>", into = "Box<str>")]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// The name `text` is, with at most [`TOPIC_LEVELS_MAX`] levels.
    ///
    /// # Errors
    ///
    /// `text` is no Topic Name.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        Self::parse_within(text, TOPIC_LEVELS_MAX)
    }

    /// The name `text` is, with at most `levels_max` levels.
    ///
    /// # Errors
    ///
    /// `text` is no Topic Name.
    pub fn parse_within(text: &str, levels_max: usize) -> Result<Self, TopicError> {
        check(text, levels_max)?;
        Ok(Self(text.into()))
    }

    /// The name `text` is, which the decoder has checked.
    pub(crate) fn from_checked(text: &str) -> Self {
        debug_assert_eq!(check(text, usize::MAX), Ok(()), "the decoder yields valid names only");
        Self(text.into())
    }

    /// The text.
    #[must_use]
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, in order.
    #[must_use]
    pub fn levels(&self) -> Levels<'_> {
        Levels::of(&self.0)
    }
}

fn check(text: &str, levels_max: usize) -> Result<(), TopicError> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return Err(TopicError::Empty);
    }
    if bytes.len() > MQTT_STRING_BYTES_MAX {
        return Err(TopicError::TooLong);
    }
    if memchr(0, bytes).is_some() {
        return Err(TopicError::Null);
    }
    if memchr2(b'+', b'#', bytes).is_some() {
        return Err(TopicError::WildcardInName);
    }
    if level::count(text) > levels_max {
        return Err(TopicError::TooManyLevels { limit: levels_max });
    }
    Ok(())
}

/// [`check`] for the decoder, which has looked for U+0000 and cannot meet a longer string.
pub(crate) fn check_topic_name(text: &str, levels_max: usize) -> Result<(), DecodeError> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return Err(DecodeError::TopicNameEmpty);
    }
    if memchr2(b'+', b'#', bytes).is_some() {
        return Err(DecodeError::TopicNameWildcard);
    }
    // A short name cannot have too many.
    if bytes.len() >= levels_max && level::count(text) > levels_max {
        return Err(DecodeError::TopicNameLevels);
    }
    Ok(())
}

/// Stored names were checked against the bounds of their time, so any number of levels is read.
impl TryFrom<Box<str>> for TopicName {
    type Error = TopicError;

    fn try_from(text: Box<str>) -> Result<Self, TopicError> {
        check(&text, usize::MAX)?;
        Ok(Self(text.into()))
    }
}

impl From<TopicName> for Box<str> {
    fn from(name: TopicName) -> Self {
        (*name.0).into()
    }
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_and_is_not_a_topic_name() {
        let long = "a".repeat(65_536);
        let rows: &[(&str, Option<TopicError>)] = &[
            ("sport/tennis/player1", None),
            ("/", None),
            ("$SYS/uptime", None),
            ("Accounts payable", None),
            ("", Some(TopicError::Empty)),
            ("a\0b", Some(TopicError::Null)),
            ("sport/#", Some(TopicError::WildcardInName)),
            ("sport/+/x", Some(TopicError::WildcardInName)),
            ("a+b", Some(TopicError::WildcardInName)),
            (&long, Some(TopicError::TooLong)),
            (&long[1..], None),
        ];
        for (text, error) in rows {
            assert_eq!(TopicName::parse(text).err(), *error, "{}", &text[..text.len().min(40)]);
        }
    }

    #[test]
    fn levels_are_bounded() {
        let deepest = "/".repeat(127);
        assert!(TopicName::parse(&deepest).is_ok());
        let deeper = "/".repeat(128);
        let error = TopicError::TooManyLevels { limit: 128 };
        assert_eq!(TopicName::parse(&deeper), Err(error));
        assert!(TopicName::parse_within(&deeper, 129).is_ok());
    }

    #[test]
    fn a_quadkey_topic_of_27_levels_is_a_name() {
        let digits = "/0/3/1/2/0/3/1/2/0/3/1/2/0/3/1/2/0/3/1/2/0/3";
        let name = TopicName::parse(&format!("region/v2x/cam/vehicle-7/x{digits}")).unwrap();
        assert_eq!(name.levels().count(), 27);
    }
}
