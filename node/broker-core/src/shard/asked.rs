//! From what a client names to what it gets: filters and topics with prefixes, and rewritten ones.

use std::borrow::Cow;

use verge_model::Now;
use verge_mqtt_proto::topic::TopicError;
use verge_mqtt_proto::{ReasonCode, TopicFilter, TopicName};

use super::Shard;
use super::api::ConnId;
use crate::extension::counts::Counted;
use crate::extension::delayed::{DELAYED_PREFIX, DelayedTopic, is_reserved};
use crate::extension::rewrite::Rewritten;
use crate::extension::template::Facts;
use crate::router::parts::EXCLUSIVE_PREFIX;

/// Before the filter of the group without a name.
const QUEUE_PREFIX: &str = "$queue/";

/// Before a shared subscription.
const SHARE_PREFIX: &str = "$share/";

/// What a PUBLISH names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// A topic.
    Topic(TopicName),
    /// A topic, later.
    Later(DelayedTopic),
    /// Nothing that a client may publish to.
    Refused(ReasonCode),
}

impl Shard {
    /// The filter of a SUBSCRIBE or UNSUBSCRIBE. `$queue/<filter>` is the shared subscription
    /// `$share/$queue/<filter>`, so that both names are the same group.
    pub(super) fn asked(&self, id: ConnId, text: &str) -> Result<TopicFilter, TopicError> {
        let text = match text.strip_prefix(QUEUE_PREFIX) {
            Some(filter) => Cow::Owned(format!("{SHARE_PREFIX}$queue/{filter}")),
            None => Cow::Borrowed(text),
        };
        let filter = TopicFilter::parse(&text)?;
        if let Some(inner) = text.strip_prefix(EXCLUSIVE_PREFIX) {
            // One subscriber, and one of many, are not to be had at once.
            let nested = inner.starts_with(SHARE_PREFIX) || inner.starts_with(EXCLUSIVE_PREFIX);
            if nested {
                return Err(TopicError::ShareFilter);
            }
            TopicFilter::parse(inner)?;
        }
        if !self.shared.extensions.rewrites.of_subscribe() {
            return Ok(filter);
        }
        Ok(self.rewritten_filter(id, &filter).unwrap_or(filter))
    }

    fn rewritten_filter(&self, id: ConnId, filter: &TopicFilter) -> Option<TopicFilter> {
        let text = filter.as_str();
        let pattern = filter.pattern();
        let inner = pattern.strip_prefix(EXCLUSIVE_PREFIX).unwrap_or(pattern);
        let prefix = &text[..text.len() - inner.len()];
        let extensions = &self.shared.extensions;
        let new = match extensions.rewrites.subscribe(inner, &self.facts(id)?) {
            Rewritten::Kept => return None,
            Rewritten::To(new) => TopicFilter::parse(&format!("{prefix}{new}")).ok(),
            Rewritten::Failed => None,
        };
        if new.is_none() {
            extensions.counts.add(Counted::RewriteFailed);
        }
        new
    }

    /// Where a client's PUBLISH goes; for topics that begin with `$`, and if there are rules.
    pub(super) fn named(&self, id: ConnId, topic: TopicName, now: Now) -> Named {
        let topic = match self.facts(id) {
            Some(facts) => self.rewritten_topic(topic, &facts),
            None => topic,
        };
        self.allowed(topic, now)
    }

    /// What a topic becomes by the rules.
    pub(super) fn rewritten_topic(&self, topic: TopicName, facts: &Facts<'_>) -> TopicName {
        let extensions = &self.shared.extensions;
        let new = match extensions.rewrites.publish(topic.as_str(), facts) {
            Rewritten::Kept => return topic,
            Rewritten::To(new) => TopicName::parse(&new).ok(),
            Rewritten::Failed => None,
        };
        new.unwrap_or_else(|| {
            extensions.counts.add(Counted::RewriteFailed);
            topic
        })
    }

    /// Whether, and when, a client may publish to a topic.
    pub(super) fn allowed(&self, topic: TopicName, now: Now) -> Named {
        let counts = &self.shared.extensions.counts;
        if is_reserved(topic.as_str()) {
            // "Server implementations MAY use Topic Names that start with a leading $ character for
            // other purposes." (4.7.2)
            counts.add(Counted::SysRefused);
            return Named::Refused(ReasonCode::NotAuthorized);
        }
        let Some(rest) = topic.as_str().strip_prefix(DELAYED_PREFIX) else {
            return Named::Topic(topic);
        };
        match DelayedTopic::parse(rest, now.wall) {
            Some(later) => Named::Later(later),
            None => {
                counts.add(Counted::DelayedMalformed);
                Named::Refused(ReasonCode::TopicNameInvalid)
            }
        }
    }

    /// What is known of a connection's client.
    pub(super) fn facts(&self, id: ConnId) -> Option<Facts<'_>> {
        let conn = self.conns.get(&id)?;
        let client = conn.client.as_ref()?;
        let principal = Some(&*client.principal).filter(|principal| !principal.is_empty());
        Some(Facts {
            client_id: &client.client_id,
            username: conn.user.as_deref().map(AsRef::as_ref).or(principal),
            peer: Some(conn.peer),
        })
    }
}
