//! How a configuration comes together: role profile, file, environment, command line; the later
//! wins. Each value is checked by itself, so that an error names the place it was written at.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};
use verge_model::{NodeId, Role};

use super::error::{ConfigError, Source};
use super::profile;
use super::sections::{
    AutoSubscribeSection, CertificateSection, Config, ListenerSection, RewriteSection,
    SessionRuleSection, ShareGroupSection, TopicSection, list_items,
};

/// Largest configuration file that is read.
const CONFIG_FILE_BYTES_MAX: u64 = 4 << 20;

/// Environment variables with this prefix are settings.
const ENV_PREFIX: &str = "VERGE__";

/// A setting as it was written.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Where.
    pub place: Source,
    /// `section.key`.
    pub key: String,
    /// Its value.
    pub value: Value,
}

/// A configuration, and where each value that is not a default came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// By key.
    pub sources: BTreeMap<String, Source>,
}

/// Collects settings, in order of precedence.
#[derive(Debug, Default)]
pub struct Loader {
    settings: Vec<Setting>,
}

impl Loader {
    /// A loader of defaults only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the settings of a file.
    ///
    /// # Errors
    /// The file cannot be read or is not TOML.
    pub fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        if fs::metadata(path).map_err(failed)?.len() > CONFIG_FILE_BYTES_MAX {
            return Err(failed(std::io::Error::other("the file is too large")));
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        let table: toml::Table = toml::from_str(&text).map_err(|error: toml::de::Error| {
            let before = error.span().map_or(0, |span| span.start).min(text.len());
            ConfigError::Syntax {
                path: path.to_owned(),
                line: 1 + text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count(),
                detail: error.message().replace('\n', " "),
            }
        })?;
        for (section, value) in table {
            let place = || Source::File(path.to_owned());
            if let toml::Value::Table(keys) = value {
                for (key, value) in keys {
                    let key = format!("{section}.{key}");
                    self.settings.push(Setting { place: place(), key, value: json(value) });
                }
            } else {
                self.settings.push(Setting { place: place(), key: section, value: json(value) });
            }
        }
        Ok(())
    }

    /// Adds settings from environment variables `VERGE__SECTION__KEY`.
    pub fn env(&mut self, variables: impl Iterator<Item = (String, String)>) {
        let mut found: Vec<_> = variables
            .filter_map(|(name, value)| {
                let key = name.strip_prefix(ENV_PREFIX)?.to_lowercase().replace("__", ".");
                Some(Setting { place: Source::Env(name), key, value: Value::String(value) })
            })
            .collect();
        // The environment has no order; errors and precedence should.
        found.sort_by(|a, b| a.key.cmp(&b.key));
        self.settings.extend(found);
    }

    /// Adds a `--set section.key=VALUE`.
    ///
    /// # Errors
    /// There is no `=`.
    pub fn set(&mut self, text: &str) -> Result<(), ConfigError> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(ConfigError::Set { text: text.to_owned() });
        };
        let value = Value::String(value.to_owned());
        self.settings.push(Setting { place: Source::Set, key: key.trim().to_owned(), value });
        Ok(())
    }

    /// Adds what a command-line option says.
    pub fn flag(&mut self, option: &'static str, key: &str, value: impl Into<Value>) {
        let place = Source::Flag(option);
        self.settings.push(Setting { place, key: key.to_owned(), value: value.into() });
    }

    /// The configuration.
    ///
    /// # Errors
    /// The first setting that names no key, or whose value does not fit, or sections that do not
    /// go together.
    pub fn finish(self, default_role: Role) -> Result<Loaded, ConfigError> {
        let probe = tree(&profile::defaults(default_role, profile::default_node_id()));
        let mut settings = Vec::with_capacity(self.settings.len());
        for setting in self.settings {
            settings.push(checked(setting, &probe)?);
        }
        // Values are merged over the profile of the role that was settled on.
        let role = last(&settings, "node.role").unwrap_or(default_role);
        let id: Option<NodeId> = last(&settings, "node.id");
        let mut merged =
            tree(&profile::defaults(role, id.unwrap_or_else(profile::default_node_id)));
        let mut sources = BTreeMap::new();
        for Setting { place, key, value } in settings {
            *at_mut(&mut merged, &key) = value;
            sources.insert(key, place);
        }
        let config: Config = serde_json::from_value(merged)
            .map_err(|error| ConfigError::Conflict(format!("configuration: {error}")))?;
        Ok(Loaded { config, sources })
    }
}

/// The last value given to `key`.
fn last<T: serde::de::DeserializeOwned>(settings: &[Setting], key: &str) -> Option<T> {
    let setting = settings.iter().rev().find(|setting| setting.key == key)?;
    serde_json::from_value(setting.value.clone()).ok()
}

/// The setting in the shape its key wants, if it is a key and the value fits.
fn checked(setting: Setting, defaults: &Value) -> Result<Setting, ConfigError> {
    let Setting { place, key, value } = setting;
    let Some(default) = at(defaults, &key) else {
        let known = keys(defaults);
        return Err(unknown(place, key, known));
    };
    let written = display(&value);
    let value = match value.as_str() {
        // Texts come from the environment and `--set`, whatever the key wants.
        Some(text) if place_is_text(&place) => shaped(text, default),
        Some(_) | None => value,
    };
    let value = match list_items().get(key.as_str()) {
        Some(item) => checked_list(&place, &key, value, item)?,
        None => value,
    };
    let mut alone = defaults.clone();
    *at_mut(&mut alone, &key) = value.clone();
    match serde_json::from_value::<Config>(alone) {
        Ok(_) => Ok(Setting { place, key, value }),
        Err(error) => Err(ConfigError::Value { place, key, value: written, detail: plain(&error) }),
    }
}

/// The items of a list of tables; an item that is a text stands for its first key.
fn checked_list(
    place: &Source,
    key: &str,
    value: Value,
    known: &Value,
) -> Result<Value, ConfigError> {
    let Value::Array(items) = value else {
        let detail = format!("wants a list: write [[{key}]] before each entry");
        let value = display(&value);
        return Err(ConfigError::Value {
            place: place.clone(),
            key: key.to_owned(),
            value,
            detail,
        });
    };
    let mut out = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let item = match item.as_str() {
            Some(url) if key == "listeners" => serde_json::json!({ "url": url }),
            Some(_) | None => item,
        };
        if let Value::Object(fields) = &item {
            let missing = fields.keys().find(|field| known.get(field.as_str()).is_none());
            if let Some(field) = missing {
                let known = keys(known).into_iter().map(|name| format!("{key}.{name}")).collect();
                return Err(unknown(place.clone(), format!("{key}.{field}"), known));
            }
        }
        let fits = match key {
            "listeners" => serde_json::from_value::<ListenerSection>(item.clone()).map(drop),
            "share_groups" => serde_json::from_value::<ShareGroupSection>(item.clone()).map(drop),
            "tls.certificates" => {
                serde_json::from_value::<CertificateSection>(item.clone()).map(drop)
            }
            "sessions" => serde_json::from_value::<SessionRuleSection>(item.clone()).map(drop),
            "rewrite" => serde_json::from_value::<RewriteSection>(item.clone()).map(drop),
            "auto_subscribe" => {
                serde_json::from_value::<AutoSubscribeSection>(item.clone()).map(drop)
            }
            _ => serde_json::from_value::<TopicSection>(item.clone()).map(drop),
        };
        fits.map_err(|error| ConfigError::Value {
            place: place.clone(),
            key: format!("{key}[{index}]"),
            value: display(&item),
            detail: plain(&error),
        })?;
        out.push(item);
    }
    Ok(Value::Array(out))
}

fn place_is_text(place: &Source) -> bool {
    match place {
        Source::Env(_) | Source::Set => true,
        Source::File(_) | Source::Flag(_) => false,
    }
}

/// A text as the kind of value its key's default is. What does not fit stays a text, so that the
/// error quotes it.
fn shaped(text: &str, default: &Value) -> Value {
    let as_text = || Value::String(text.to_owned());
    match default {
        Value::Bool(_) => text.parse().map_or_else(|_| as_text(), Value::Bool),
        Value::Number(_) => text.parse::<u64>().map_or_else(|_| as_text(), Value::from),
        Value::Array(_) => {
            let table = text.trim_start().starts_with('[').then(|| format!("list = {text}"));
            let parsed = table.and_then(|table| toml::from_str::<toml::Table>(&table).ok());
            match parsed.and_then(|mut table| table.remove("list")) {
                Some(list) => json(list),
                None if text.is_empty() => Value::Array(Vec::new()),
                None => text.split(',').map(|item| Value::from(item.trim())).collect(),
            }
        }
        Value::Null | Value::String(_) | Value::Object(_) => as_text(),
    }
}

fn unknown(place: Source, key: String, known: Vec<String>) -> ConfigError {
    let nearest = known.into_iter().min_by_key(|candidate| unlikeness(&key, candidate));
    ConfigError::UnknownKey { place, key, nearest: nearest.unwrap_or_default() }
}

/// How unlike two keys are. Sections count double: the right section with a strange key says more
/// than a short key of a strange section.
fn unlikeness(a: &str, b: &str) -> usize {
    match (a.split_once('.'), b.split_once('.')) {
        (Some((a_section, a)), Some((b_section, b))) => {
            2 * distance(a_section, b_section) + distance(a, b)
        }
        (Some(_) | None, _) => 2 * distance(a, b),
    }
}

/// Every key, as it is written after `--set`.
pub(super) fn keys(tree: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for (name, value) in tree.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(fields) => out.extend(fields.keys().map(|key| format!("{name}.{key}"))),
            None => out.push(name.clone()),
        }
    }
    out
}

/// A configuration as a tree, with `null` for what is not set.
pub(super) fn tree(config: &Config) -> Value {
    serde_json::to_value(config).expect("a configuration has text keys only")
}

pub(super) fn at<'a>(tree: &'a Value, key: &str) -> Option<&'a Value> {
    let found = match key.split_once('.') {
        Some((section, field)) => tree.get(section)?.as_object()?.get(field),
        None => tree.get(key),
    };
    found.filter(|value| !value.is_object())
}

pub(super) fn at_mut<'a>(tree: &'a mut Value, key: &str) -> &'a mut Value {
    match key.split_once('.') {
        Some((section, field)) => &mut tree[section][field],
        None => &mut tree[key],
    }
}

/// How a value is quoted in errors and explanations.
pub(super) fn display(value: &Value) -> String {
    if value.is_null() { "not set".to_owned() } else { value.to_string() }
}

/// Serde's words without its position, which is one in a tree nobody wrote.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    text[..end].replace('\n', " ")
}

fn json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => Value::from(number),
        toml::Value::Boolean(flag) => Value::Bool(flag),
        toml::Value::Datetime(stamp) => Value::String(stamp.to_string()),
        toml::Value::Array(items) => items.into_iter().map(json).collect(),
        toml::Value::Table(fields) => Value::Object(
            fields.into_iter().map(|(key, value)| (key, json(value))).collect::<Map<_, _>>(),
        ),
    }
}

/// Levenshtein's distance of two keys.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
