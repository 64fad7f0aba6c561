//! The command line.
//!
//! Every failure is one line on standard error. Exit status 2 says that what was asked cannot be
//! done as things are set up (a flag, a file, a port), 1 that it was tried and failed.

pub mod ctl;
mod ledger;
pub mod passwd;
pub mod pki;
pub mod run;
pub mod storage;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Loader};
use crate::{bench, client, demo};

/// The status of a command that cannot be done as things are set up.
pub const EXIT_SETUP: u8 = 2;

/// The status of a command that was tried and failed.
pub const EXIT_FAILED: u8 = 1;

/// An MQTT broker for roads: nodes that serve alone and together, sessions that follow vehicles.
#[derive(Debug, Parser)]
#[command(name = "verge", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `verge`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node
    Run(run::RunArgs),
    /// Vehicles drive past nodes on this machine, and a report says what became of every message
    Demo(demo::DemoArgs),
    /// Parse and explain a configuration
    Check {
        /// The configuration
        file: PathBuf,
    },
    /// Certificates for a mesh, its nodes, servers and clients; for trials
    #[command(subcommand)]
    Pki(pki::PkiCommand),
    /// Add a user to a file for auth.users_file, or give one another password
    Passwd(passwd::PasswdArgs),
    /// Ask a running node, or tell it something
    Ctl(ctl::CtlArgs),
    /// Copy all that a running node keeps into a new directory, while it serves
    Backup(ctl::BackupArgs),
    /// Make a data directory of a backup
    Restore(storage::RestoreArgs),
    /// The same work against this broker and others, compared
    Bench(Box<bench::BenchArgs>),
    /// Publish a message
    Pub(client::command::PubArgs),
    /// Subscribe, and print what comes
    Sub(client::command::SubArgs),
}

/// A failure as the shell sees it.
#[derive(Debug)]
pub struct Failure {
    /// The exit status.
    pub status: u8,
    /// One line.
    pub line: String,
}

impl Failure {
    /// Something is not set up as it must be.
    #[must_use]
    pub fn setup(error: impl fmt::Display) -> Self {
        Self { status: EXIT_SETUP, line: error.to_string() }
    }

    /// Something was tried and failed.
    #[must_use]
    pub fn failed(error: impl fmt::Display) -> Self {
        Self { status: EXIT_FAILED, line: error.to_string() }
    }

    /// Tells the user, and gives the exit status.
    #[must_use]
    pub fn report(&self, program: &str) -> ExitCode {
        // Whatever an error is made of, the user gets one line.
        let line: Vec<&str> = self.line.split_whitespace().collect();
        eprintln!("{program}: {}", line.join(" "));
        ExitCode::from(self.status)
    }
}

/// `verge check`.
///
/// # Errors
/// What is wrong with the file.
pub fn check(file: &std::path::Path) -> Result<(), Failure> {
    let mut loader = Loader::new();
    loader.file(file).map_err(Failure::setup)?;
    let loaded = loader.finish(verge_model::Role::Rsu).map_err(Failure::setup)?;
    config::check(&loaded.config)
        .map_err(|error| Failure::setup(format!("{}: {error}", file.display())))?;
    print_ignoring_closed_pipe(&config::explain(&loaded));
    Ok(())
}

/// Runs a command that waits for the network.
pub fn wait_for(command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => Failure::setup(format!("no reactor: {error}")).report("verge"),
    }
}

/// Prints text; a reader that has gone, such as `head`, is no error.
pub(crate) fn print_ignoring_closed_pipe(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_of_the_contract_parse() {
        for line in [
            "run",
            "run --config rsu.toml --node-id r1 --role rsu --data-dir d --listen tcp://127.0.0.1:1 \
             --listen tls://127.0.0.1:2 --mesh-listen 127.0.0.1:3 --join 127.0.0.1:4 --join \
             127.0.0.1:5 --admin 127.0.0.1:6 --position 48.1,11.5 --region south \
             --set mesh.dev=true --set uplink.select=a/#",
            "run --position -33.9,151.2",
            "check rsu.toml",
            "pki init",
            "pki init --ca ca",
            "pki issue node rsu-1 --ca ca --out certs --days 30",
            "pki issue server localhost 127.0.0.1",
            "pki issue client vehicle-7",
            "pki revoke certs/rsu-1.pem --ca ca",
            "passwd users car-7",
            "passwd users car-7 --iterations 50000",
            "ctl nodes",
            "ctl --admin 127.0.0.1:1 ledger --json",
            "ctl sessions --page 2 --limit 10",
            "ctl kick vehicle-7",
            "ctl drain",
            "ctl reload",
            "bench --quick --only pairs,idle --peers verge,null --json a.json --svg a.svg",
            "bench run --target 127.0.0.1:1883 --pid 1 --shape fan-out --qos 1 --rate 1000",
            "bench null --listen 127.0.0.1:0",
        ] {
            let words = std::iter::once("verge").chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words.clone()).is_ok(), "{line}");
        }
        for line in ["", "run --nonsense", "ctl", "ctl kick", "pki issue node"] {
            let words = std::iter::once("verge").chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
