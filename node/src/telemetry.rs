//! The log: lines for people or for collectors, on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::sections::{LogFormat, LogSection};

/// Overrides the level of the configuration.
pub const LOG_VARIABLE: &str = "VERGE_LOG";

/// Starts the log. Standard output is left to answers and the `ready` line.
///
/// # Errors
/// The level is not one, in one line.
pub fn init(section: &LogSection) -> Result<(), String> {
    let (place, level) = match std::env::var(LOG_VARIABLE) {
        Ok(level) if !level.is_empty() => (LOG_VARIABLE, level),
        Ok(_) | Err(_) => ("log.level", section.level.clone()),
    };
    let filter = filter(&level).map_err(|error| {
        format!(
            "{place} = \"{level}\": {error}: write error, warn, info, debug or trace, or \
             directives such as info,verge=debug"
        )
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process keeps the first log.
    let _ = match section.format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    // A misspelt level alone would be taken for the name of a module.
    let alone = !level.contains([',', '=']);
    if level.is_empty() || (alone && level.parse::<LevelFilter>().is_err()) {
        return Err("not a level".to_owned());
    }
    EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(level)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_told_from_nonsense() {
        for level in ["info", "TRACE", "off", "info,verge=debug", "verge_mesh=trace"] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in ["loud", "", "verge=loud"] {
            assert!(filter(level).is_err(), "{level}");
        }
    }
}
