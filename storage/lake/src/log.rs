//! What the log says of the libraries below the tables.

use tracing_subscriber::filter::LevelFilter;

/// They tell every read of a table's log at INFO, several lines a commit.
const TALKATIVE: [&str; 4] =
    ["buoyant_kernel", "buoyant_kernel_engine", "deltalake_core", "datafusion"];

/// The level of the configuration, with those libraries at WARN unless it asks for more of
/// everything or names them itself. A level that is none stays as it is.
#[must_use]
pub fn with_quiet_libraries(level: &str) -> String {
    let detailed = match level.parse::<LevelFilter>() {
        Ok(level) => level > LevelFilter::INFO,
        Err(_) if level.contains([',', '=']) => false,
        Err(_) => true,
    };
    if detailed {
        return level.to_owned();
    }
    let quiet = TALKATIVE.iter().filter(|name| !level.contains(*name));
    quiet.fold(level.to_owned(), |level, name| format!("{level},{name}=warn"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_unless_asked_for() {
        let quiet = with_quiet_libraries("info");
        assert!(quiet.starts_with("info,buoyant_kernel=warn,"), "{quiet}");
        assert_eq!(with_quiet_libraries("debug"), "debug");
        assert_eq!(with_quiet_libraries("loud"), "loud");
        let named = with_quiet_libraries("info,deltalake_core=debug");
        assert!(!named.contains("deltalake_core=warn") && named.contains("datafusion=warn"));
    }
}
