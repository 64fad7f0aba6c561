//! Topics that are rewritten: what a client names is not where it goes.
//!
//! The first rule whose filter matches decides; it rewrites if its regular expression matches too.
//! A result that is no topic, or no filter, is not used: what the client named stays, and is
//! counted.

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use verge_mqtt_proto::TopicFilter;

use super::template::{Facts, Template, TemplateError};

/// Most rules. Each is compared with every topic, so they are few.
pub const REWRITE_RULES_MAX: usize = 256;

/// Most bytes of one compiled regular expression: thousands of states, far beyond a topic's shape.
const REGEX_BYTES_MAX: usize = 256 * 1024;

/// What a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RewriteAction {
    /// Topics of PUBLISH.
    Publish,
    /// Filters of SUBSCRIBE and UNSUBSCRIBE.
    Subscribe,
    /// Both.
    All,
}

/// A rule as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewriteRule {
    /// What it is for.
    pub action: RewriteAction,
    /// Which topics.
    pub filter: TopicFilter,
    /// What of them is kept, in groups.
    pub regex: String,
    /// What they become.
    pub destination: String,
}

/// A rule that cannot be used. The operator has to change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// More than [`REWRITE_RULES_MAX`].
    #[error("{count} rules are given, at most {REWRITE_RULES_MAX} are used")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// The regular expression is none, or too large.
    #[error("regex '{regex}': {detail}")]
    Regex {
        /// It.
        regex: String,
        /// What is wrong, in one line.
        detail: String,
    },
    /// The destination names what is not there.
    #[error("destination '{destination}': {error}")]
    Destination {
        /// It.
        destination: String,
        /// What is wrong.
        error: TemplateError,
    },
}

/// Rules, ready to be asked.
#[derive(Debug, Default)]
pub struct Rewrites {
    publish: Vec<Compiled>,
    subscribe: Vec<Compiled>,
}

#[derive(Debug, Clone)]
struct Compiled {
    filter: TopicFilter,
    regex: Regex,
    destination: Template,
}

/// What became of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewritten {
    /// No rule is for it.
    Kept,
    /// It is this one now.
    To(String),
    /// A rule is for it, but something is not known of the client.
    Failed,
}

impl Rewrites {
    /// Makes rules ready.
    ///
    /// # Errors
    /// The first rule that cannot be used.
    pub fn compile(rules: &[RewriteRule]) -> Result<Self, RewriteError> {
        if rules.len() > REWRITE_RULES_MAX {
            return Err(RewriteError::TooMany { count: rules.len() });
        }
        let mut this = Self::default();
        for rule in rules {
            let regex = RegexBuilder::new(&rule.regex).size_limit(REGEX_BYTES_MAX).build();
            let regex = regex.map_err(|error| {
                let text = error.to_string();
                let line = text.lines().rev().find(|line| !line.trim().is_empty());
                let detail = line.unwrap_or_default().trim().to_owned();
                RewriteError::Regex { regex: rule.regex.clone(), detail }
            })?;
            let groups = regex.captures_len() - 1;
            let destination =
                Template::parse(&rule.destination, Some(groups)).map_err(|error| {
                    let destination = rule.destination.clone();
                    RewriteError::Destination { destination, error }
                })?;
            let compiled = Compiled { filter: rule.filter.clone(), regex, destination };
            match rule.action {
                RewriteAction::Publish => this.publish.push(compiled),
                RewriteAction::Subscribe => this.subscribe.push(compiled),
                RewriteAction::All => {
                    this.publish.push(compiled.clone());
                    this.subscribe.push(compiled);
                }
            }
        }
        Ok(this)
    }

    /// Whether topics of PUBLISH are to be shown to [`Rewrites::publish`].
    #[must_use]
    pub fn of_publish(&self) -> bool {
        !self.publish.is_empty()
    }

    /// Whether filters are to be shown to [`Rewrites::subscribe`].
    #[must_use]
    pub fn of_subscribe(&self) -> bool {
        !self.subscribe.is_empty()
    }

    /// What the topic of a PUBLISH becomes.
    #[must_use]
    pub fn publish(&self, topic: &str, facts: &Facts<'_>) -> Rewritten {
        rewrite(&self.publish, topic, facts)
    }

    /// What a filter becomes; one without the prefix of a shared subscription.
    #[must_use]
    pub fn subscribe(&self, filter: &str, facts: &Facts<'_>) -> Rewritten {
        rewrite(&self.subscribe, filter, facts)
    }
}

fn rewrite(rules: &[Compiled], text: &str, facts: &Facts<'_>) -> Rewritten {
    let Some(rule) = rules.iter().find(|rule| rule.filter.matches(text)) else {
        return Rewritten::Kept;
    };
    let Some(found) = rule.regex.captures(text) else { return Rewritten::Kept };
    let group = |number| found.get(number).map(|found| found.as_str().to_owned());
    match rule.destination.fill(facts, group) {
        Some(text) => Rewritten::To(text),
        None => Rewritten::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(action: RewriteAction, filter: &str, regex: &str, destination: &str) -> RewriteRule {
        let filter = TopicFilter::parse(filter).unwrap();
        RewriteRule { action, filter, regex: regex.into(), destination: destination.into() }
    }

    fn facts() -> Facts<'static> {
        Facts { client_id: "car", username: None, peer: None }
    }

    #[test]
    fn the_first_rule_whose_filter_matches_decides() {
        let rules = [
            rule(RewriteAction::All, "y/+/z/#", r"^y/(.+)/z/(.+)$", "y/z/$2"),
            rule(RewriteAction::All, "x/y/+", r"^x/y/(\d+)$", "z/$1"),
            rule(RewriteAction::Publish, "x/#", r"^x/(.+)$", "%c/$1"),
            rule(RewriteAction::Subscribe, "u/#", r"^u/(.+)$", "${username}/$1"),
        ];
        let rewrites = Rewrites::compile(&rules).unwrap();
        for (topic, published, subscribed) in [
            ("y/a/z/b", Some("y/z/b"), Some("y/z/b")),
            ("y/a/z", None, None),
            ("x/y/2", Some("z/2"), Some("z/2")),
            // Its filter matches and its expression does not: later rules are not asked.
            ("x/y/two", None, None),
            ("x/a", Some("car/a"), None),
            ("other", None, None),
        ] {
            let to =
                |text: Option<&str>| text.map_or(Rewritten::Kept, |to| Rewritten::To(to.into()));
            assert_eq!(rewrites.publish(topic, &facts()), to(published), "{topic}");
            assert_eq!(rewrites.subscribe(topic, &facts()), to(subscribed), "{topic}");
        }
        assert_eq!(rewrites.subscribe("u/a", &facts()), Rewritten::Failed);
    }

    #[test]
    fn rules_that_cannot_be_used_are_named_in_one_line() {
        let complaint = |regex: &str, destination: &str| {
            let rules = [rule(RewriteAction::All, "a", regex, destination)];
            Rewrites::compile(&rules).unwrap_err().to_string()
        };
        assert!(complaint("(", "b").starts_with("regex '(': "));
        assert!(complaint("(a)", "$2").contains("$2 is beyond the 1 groups"));
        assert!(complaint("(a{1000}){1000}", "b").contains("size limit"));
        assert!(!complaint("(", "b").contains('\n'));
        let many = vec![rule(RewriteAction::All, "a", "a", "b"); REWRITE_RULES_MAX + 1];
        assert!(Rewrites::compile(&many).is_err());
    }
}
