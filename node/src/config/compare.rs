//! Two configurations side by side, for a node that is told to read its files again.

use super::load::{at, at_mut, keys, tree};
use super::sections::Config;

/// The keys at which they differ.
#[must_use]
pub fn differences(one: &Config, other: &Config) -> Vec<String> {
    let (one, other) = (tree(one), tree(other));
    let mut all = keys(&one);
    all.retain(|key| at(&one, key) != at(&other, key));
    all
}

/// Gives `config` the value that `from` has at `key`.
pub fn take_over(config: &mut Config, from: &Config, key: &str) {
    let (mut merged, from) = (tree(config), tree(from));
    let Some(value) = at(&from, key) else { return };
    *at_mut(&mut merged, key) = value.clone();
    if let Ok(merged) = serde_json::from_value(merged) {
        *config = merged;
    }
}

#[cfg(test)]
mod tests {
    use verge_model::Role;

    use super::*;
    use crate::config::Loader;

    fn with(settings: &[&str]) -> Config {
        let mut loader = Loader::new();
        for setting in settings {
            loader.set(setting).unwrap();
        }
        loader.finish(Role::Rsu).unwrap().config
    }

    #[test]
    fn differences_are_named_and_taken_over_one_by_one() {
        let mut one = with(&["node.id=a"]);
        let other = with(&["node.id=a", "listeners=tcp://127.0.0.1:7", "tls.cert=a.pem"]);
        assert_eq!(differences(&one, &one), Vec::<String>::new());
        assert_eq!(differences(&one, &other), ["listeners", "tls.cert"]);
        take_over(&mut one, &other, "listeners");
        assert_eq!(differences(&one, &other), ["tls.cert"]);
        take_over(&mut one, &other, "tls.cert");
        assert_eq!(one, other);
    }
}
