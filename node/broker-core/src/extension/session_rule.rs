//! `[[sessions]]`: what an acknowledgement promises, by whose session it is.
//!
//! Patterns are of whole names: `*` stands for any text, also none, and `?` for one character. The
//! first rule that matches decides.

use std::sync::Arc;

use verge_storage::Promise;

/// Most rules: each is tried at every CONNECT.
pub const SESSION_RULES_MAX: usize = 64;

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRule {
    /// Pattern of ClientIds; `None` is any.
    pub clients: Option<Arc<str>>,
    /// Pattern of User Names, or of the principals that certificates prove; `None` is any, and none.
    pub users: Option<Arc<str>>,
    /// What is promised.
    pub promise: Promise,
}

/// The rules, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionRules(pub Vec<SessionRule>);

impl SessionRules {
    /// Whether User Names are needed.
    #[must_use]
    pub fn of_users(&self) -> bool {
        self.0.iter().any(|rule| rule.users.is_some())
    }

    /// What is promised to a client, if a rule says so.
    #[must_use]
    pub fn promise(&self, client_id: &str, username: Option<&str>) -> Option<Promise> {
        let fits = |rule: &&SessionRule| {
            let client = rule.clients.as_deref().is_none_or(|of| matches(of, client_id));
            let user = rule
                .users
                .as_deref()
                .is_none_or(|of| username.is_some_and(|username| matches(of, username)));
            client && user
        };
        self.0.iter().find(fits).map(|rule| rule.promise)
    }
}

/// Whether a name fits a pattern, in time of at most their lengths multiplied.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // The last `*`, and what it stands for up to now.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            Some(_) | None => {
                let Some((at, upto)) = star else { return false };
                star = Some((at, upto + 1));
                (p, n) = (at + 1, upto + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_of_whole_names() {
        for (pattern, name, wanted) in [
            ("*", "", true),
            ("*", "any", true),
            ("car-?", "car-7", true),
            ("car-?", "car-77", false),
            ("car-*", "car-", true),
            ("car-*", "a car-1", false),
            ("*-light", "a-b-light", true),
            ("*-light", "a-light-b", false),
            ("a*b*c", "a__b__b__c", true),
            ("a*b*c", "a__c__b", false),
            ("", "", true),
            ("", "x", false),
            ("?", "ü", true),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
    }

    #[test]
    fn security_a_pattern_of_many_stars_ends_soon() {
        let pattern = "*a".repeat(100) + "b";
        assert!(!matches(&pattern, &"a".repeat(10_000)));
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rule = |clients: Option<&str>, users: Option<&str>, promise| SessionRule {
            clients: clients.map(Into::into),
            users: users.map(Into::into),
            promise,
        };
        let rules = SessionRules(vec![
            rule(Some("light-*"), Some("city"), Promise::Synced),
            rule(None, Some("city"), Promise::Buffered),
            rule(Some("probe-*"), None, Promise::Memory),
        ]);
        assert!(rules.of_users());
        for (client, user, wanted) in [
            ("light-1", Some("city"), Some(Promise::Synced)),
            ("other", Some("city"), Some(Promise::Buffered)),
            ("light-1", None, None),
            ("probe-1", None, Some(Promise::Memory)),
            ("probe-1", Some("city"), Some(Promise::Buffered)),
        ] {
            assert_eq!(rules.promise(client, user), wanted, "{client} {user:?}");
        }
    }
}
