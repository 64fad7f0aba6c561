//! Topic Names and Topic Filters (4.7): text divided into levels by `/`.
//!
//! A [`TopicName`](name::TopicName) says where a message is published, a
//! [`TopicFilter`](filter::TopicFilter) which messages are wanted; either exists only if it is
//! valid. [`matching::matches`] is the standard's definition of when the two meet; a router that
//! holds many filters does the same by structure and is tested against it.

pub mod alias;
pub mod filter;
pub mod level;
pub mod matching;
pub mod name;
pub mod share;

use thiserror::Error;

/// Most levels of a Topic Name or Topic Filter unless configured otherwise. A quadkey topic of the
/// V2X applications has 27; matching costs at most one step per level.
pub const TOPIC_LEVELS_MAX: usize = 128;

/// Text that is no Topic Name or no Topic Filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TopicError {
    /// "All Topic Names and Topic Filters MUST be at least one character long."
    #[error("a topic name or filter has at least one character [MQTT-4.7.3-1]")]
    Empty,
    /// "Topic Names and Topic Filters MUST NOT include the null character."
    #[error("a topic name or filter does not include U+0000 [MQTT-4.7.3-2]")]
    Null,
    /// "They MUST NOT encode to more than 65,535 bytes."
    #[error("a topic name or filter has at most 65535 bytes [MQTT-4.7.3-3]")]
    TooLong,
    /// More levels than are accepted.
    #[error("a topic name or filter has at most {limit} levels here")]
    TooManyLevels {
        /// What is accepted.
        limit: usize,
    },
    /// "Wildcard characters MUST NOT be used within a Topic Name."
    #[error("a topic name has no wildcard [MQTT-4.7.0-1]")]
    WildcardInName,
    /// `#` that is not alone in its level, or not last.
    #[error("# stands alone in the last level [MQTT-4.7.1-1]")]
    MultiLevelWildcard,
    /// `+` that is not alone in its level.
    #[error("+ stands alone in its level [MQTT-4.7.1-2]")]
    SingleLevelWildcard,
    /// `$share/` without a usable ShareName.
    #[error("a share name has a character, and none of /, + and # [MQTT-4.8.2-1]")]
    ShareName,
    /// `$share/<ShareName>` without a Topic Filter.
    #[error("a share name is followed by / and a topic filter [MQTT-4.8.2-2]")]
    ShareFilter,
}
