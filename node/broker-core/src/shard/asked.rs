//! From the filter a client names to the one it gets.

use std::borrow::Cow;

use verge_mqtt_proto::TopicFilter;
use verge_mqtt_proto::topic::TopicError;

/// Before the filter of the group without a name.
const QUEUE_PREFIX: &str = "$queue/";

/// The filter of a SUBSCRIBE or UNSUBSCRIBE. `$queue/<filter>` is the shared subscription
/// `$share/$queue/<filter>`, so that both names are the same group.
pub(super) fn asked(text: &str) -> Result<TopicFilter, TopicError> {
    let text = match text.strip_prefix(QUEUE_PREFIX) {
        Some(filter) => Cow::Owned(format!("$share/$queue/{filter}")),
        None => Cow::Borrowed(text),
    };
    TopicFilter::parse(&text)
}
