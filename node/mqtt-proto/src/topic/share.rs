//! Shared subscriptions (4.8.2): `$share/<ShareName>/<filter>`.

use memchr::{memchr, memchr2};

use super::TopicError;

/// What a shared subscription's filter begins with.
pub const SHARE_PREFIX: &str = "$share/";

/// The parts of a shared subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Share<'a> {
    /// Who shares: each matching message goes to one session of this name and filter.
    pub name: &'a str,
    /// What is shared.
    pub filter: &'a str,
}

impl<'a> Share<'a> {
    /// The parts of `text`; none if it is no shared subscription.
    ///
    /// # Errors
    ///
    /// "A Shared Subscription's Topic Filter MUST start with $share/ and MUST contain a ShareName
    /// that is at least one character long." [MQTT-4.8.2-1] "The ShareName MUST NOT contain the
    /// characters "/", "+" or "#", but MUST be followed by a "/" character. This "/" character MUST
    /// be followed by a Topic Filter." [MQTT-4.8.2-2]
    pub fn parse(text: &'a str) -> Result<Option<Self>, TopicError> {
        let Some(rest) = text.strip_prefix(SHARE_PREFIX) else { return Ok(None) };
        let slash = memchr(b'/', rest.as_bytes()).ok_or(TopicError::ShareFilter)?;
        let (name, filter) = (&rest[..slash], &rest[slash + 1..]);
        if name.is_empty() || memchr2(b'+', b'#', name.as_bytes()).is_some() {
            return Err(TopicError::ShareName);
        }
        if filter.is_empty() {
            return Err(TopicError::ShareFilter);
        }
        Ok(Some(Self { name, filter }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_shared_subscriptions_mqtt_4_8_2_1_mqtt_4_8_2_2() {
        let rows = [
            ("a/b", Ok(None)),
            ("$share", Ok(None)),
            ("$shared/a/b", Ok(None)),
            ("$share/consumer1/sport/tennis/+", Ok(Some(("consumer1", "sport/tennis/+")))),
            ("$share/g//finance", Ok(Some(("g", "/finance")))),
            ("$share/g/#", Ok(Some(("g", "#")))),
            ("$share/", Err(TopicError::ShareFilter)),
            ("$share/g", Err(TopicError::ShareFilter)),
            ("$share/g/", Err(TopicError::ShareFilter)),
            ("$share//a", Err(TopicError::ShareName)),
            ("$share/g+/a", Err(TopicError::ShareName)),
            ("$share/#/a", Err(TopicError::ShareName)),
        ];
        for (text, parts) in rows {
            let parsed = Share::parse(text).map(|share| share.map(|it| (it.name, it.filter)));
            assert_eq!(parsed, parts, "{text}");
        }
    }
}
