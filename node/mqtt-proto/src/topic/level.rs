//! The levels between the slashes.

use memchr::memchr;

/// The levels of a topic, in order; empty ones count. "Adjacent Topic level separators indicate a
/// zero-length topic level." (4.7.1.1)
#[derive(Debug, Clone)]
pub struct Levels<'a> {
    rest: Option<&'a str>,
}

impl<'a> Levels<'a> {
    /// The levels of `text`; empty text is one empty level.
    #[must_use]
    pub const fn of(text: &'a str) -> Self {
        Self { rest: Some(text) }
    }

    /// What is left, separators and all.
    #[must_use]
    pub const fn rest(&self) -> Option<&'a str> {
        self.rest
    }
}

impl<'a> Iterator for Levels<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest?;
        let Some(slash) = memchr(b'/', rest.as_bytes()) else {
            self.rest = None;
            return Some(rest);
        };
        self.rest = Some(&rest[slash + 1..]);
        Some(&rest[..slash])
    }
}

/// A level of a Topic Filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FilterLevel<'a> {
    /// This level and no other.
    Exact(&'a str),
    /// `+`: any one level.
    Single,
    /// `#`: any number of levels, none included; always last.
    Multi,
}

impl<'a> FilterLevel<'a> {
    /// What this level of a valid filter means.
    #[must_use]
    pub fn parse(level: &'a str) -> Self {
        match level {
            "+" => Self::Single,
            "#" => Self::Multi,
            exact => Self::Exact(exact),
        }
    }
}

/// How many levels `text` has.
pub(crate) fn count(text: &str) -> usize {
    1 + memchr::memchr_iter(b'/', text.as_bytes()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_levels_count() {
        for (text, levels) in [
            ("a", vec!["a"]),
            ("/finance", vec!["", "finance"]),
            ("a//b", vec!["a", "", "b"]),
            ("/", vec!["", ""]),
            ("", vec![""]),
        ] {
            assert_eq!(Levels::of(text).collect::<Vec<_>>(), levels);
            assert_eq!(count(text), levels.len());
        }
    }
}
