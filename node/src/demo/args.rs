//! The options of `verge demo`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

/// Where the traces are in a checkout.
const TRACES: &str = "edge-configs/traces";
/// The trace of the main job.
const TRACE: &str = "grid-200x300.csv.gz";
/// The roadside units of the main job.
const RSUS: &str = "edges-4.csv";

/// Options of `verge demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Traffic to replay: a CSV of t,vehicle,lat,lon,speed,heading, plain or gzip
    /// [default: edge-configs/traces/grid-200x300.csv.gz]
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Roadside units to start: a CSV of id,lat,lon [default: edge-configs/traces/edges-4.csv]
    #[arg(long, value_name = "FILE")]
    pub rsus: Option<PathBuf>,
    /// Replay only the first N vehicles
    #[arg(long, value_name = "N")]
    pub vehicles: Option<usize>,
    /// Replay only the first S seconds of the trace
    #[arg(long, value_name = "S")]
    pub seconds: Option<u32>,
    /// Seconds of the trace replayed in one second
    #[arg(long, value_name = "X", default_value_t = 5.0, value_parser = parse_speed)]
    pub speed: f64,
    /// What chance begins with: which roadside unit is killed and when, who parks, who uses TLS
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Kill no roadside unit and cut no link
    #[arg(long)]
    pub calm: bool,
    /// Longest wait for what is still owed when the traffic ends, in seconds
    #[arg(long, value_name = "S", default_value_t = 120)]
    pub drain: u64,
    /// Report as JSON on standard output
    #[arg(long)]
    pub json: bool,
    /// Keep the nodes' data and logs, and say where they are
    #[arg(long)]
    pub keep: bool,
    /// What the nodes log, as their log.level
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: String,
}

impl DemoArgs {
    /// The trace file.
    ///
    /// # Errors
    /// None was named and the default one is not here.
    pub fn trace_path(&self) -> Result<PathBuf, String> {
        self.trace.clone().map_or_else(|| shipped(TRACE, "--trace"), Ok)
    }

    /// The list of roadside units.
    ///
    /// # Errors
    /// None was named and the default one is not here.
    pub fn rsus_path(&self) -> Result<PathBuf, String> {
        self.rsus.clone().map_or_else(|| shipped(RSUS, "--rsus"), Ok)
    }

    /// The last millisecond of the trace to replay.
    #[must_use]
    pub fn until_ms(&self) -> u32 {
        self.seconds.map_or(u32::MAX, |seconds| seconds.saturating_mul(1000).saturating_sub(1))
    }

    /// Longest wait for what is still owed.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain)
    }
}

/// A file of the checkout, looked for in the working directory and beside the program.
fn shipped(name: &str, option: &str) -> Result<PathBuf, String> {
    let program = std::env::current_exe().ok();
    let beside = program.iter().flat_map(|path| path.ancestors().skip(1));
    let mut folders = std::iter::once(Path::new(".")).chain(beside);
    let found = folders.find_map(|folder| {
        let path = folder.join(TRACES).join(name);
        path.is_file().then_some(path)
    });
    found.ok_or_else(|| {
        format!("{TRACES}/{name} is not here; run from the checkout, or name a file with {option}")
    })
}

fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.1..=100.0).contains(&speed) => Ok(speed),
        Ok(_) | Err(_) => Err("a speed is a number from 0.1 to 100".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        demo: DemoArgs,
    }

    #[test]
    fn defaults_are_those_of_the_main_job() {
        let args = Command::parse_from(["demo"]).demo;
        assert_eq!((args.speed, args.seed, args.until_ms()), (5.0, 1, u32::MAX));
        let args = Command::parse_from(["demo", "--seconds", "60", "--trace", "x"]).demo;
        assert_eq!(args.until_ms(), 59_999);
        assert_eq!(args.trace_path(), Ok("x".into()));
    }

    #[test]
    fn a_speed_that_is_none_is_refused() {
        for speed in ["0", "-1", "NaN", "fast", "1000"] {
            assert!(Command::try_parse_from(["demo", "--speed", speed]).is_err(), "{speed}");
        }
    }

    #[test]
    fn a_file_that_is_not_shipped_is_named_with_the_option_that_helps() {
        let error = shipped("no-such-file", "--trace").unwrap_err();
        assert!(error.contains("no-such-file") && error.contains("--trace"), "{error}");
    }
}
