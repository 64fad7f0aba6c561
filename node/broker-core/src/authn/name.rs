//! User names and passwords as they are compared: prepared by SASLprep (RFC 4013).

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

/// Longest user name, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// The name of a user, prepared; never empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(Arc<str>);

impl UserName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, to share: a client's principal.
    #[must_use]
    pub fn to_principal(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl Borrow<str> for UserName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name `text` is; none if it is empty, too long, or has characters that no name has.
#[must_use]
pub fn prepare(text: &str) -> Option<UserName> {
    if text.len() > NAME_BYTES_MAX {
        return None;
    }
    let name = stringprep::saslprep(text).ok()?;
    let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
    fits.then(|| UserName(name.into()))
}

/// A password as keys are derived from it. What is no text, or has characters that SASLprep does
/// not know, stays as it is.
#[must_use]
pub fn prepare_password(password: &[u8]) -> Cow<'_, [u8]> {
    let Ok(text) = std::str::from_utf8(password) else { return Cow::Borrowed(password) };
    match stringprep::saslprep(text) {
        Ok(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
        Ok(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        Err(_) => Cow::Borrowed(password),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_4013() {
        let name = |text: &str| prepare(text).map(|name| name.to_string());
        assert_eq!(name("I\u{ad}X").as_deref(), Some("IX"));
        assert_eq!(name("user").as_deref(), Some("user"));
        assert_eq!(name("USER").as_deref(), Some("USER"));
        assert_eq!(name("\u{aa}").as_deref(), Some("a"));
        assert_eq!(name("\u{2168}").as_deref(), Some("IX"));
        assert_eq!(name("\u{7}"), None, "a control character");
        assert_eq!(name("\u{627}1"), None, "right to left must end so");
        assert_eq!(name(""), None);
        assert_eq!(name(&"a".repeat(NAME_BYTES_MAX + 1)), None);
    }

    #[test]
    fn passwords_that_cannot_be_prepared_stay_as_they_are() {
        assert_eq!(*prepare_password("I\u{ad}X".as_bytes()), *b"IX");
        assert_eq!(*prepare_password(b"\xff\x00"), *b"\xff\x00");
        assert_eq!(*prepare_password(b"a\x07"), *b"a\x07");
    }
}
