//! `verge-cloud`: the cloud tier of a mesh of Verge nodes.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use verge::telemetry;
use verge_cloud::app::App;
use verge_cloud::backup::{self, BackupCommand};
use verge_cloud::cli::{Cli, Command, QueryArgs, RunArgs, default_lake};
use verge_cloud::lake::Lake;
use verge_cloud::log;
use verge_cloud::query::{QueryError, query};

/// A failure as the shell sees it: status and line.
type Failure = (u8, String);

/// Something is not set up as it must be, or is no SQL.
fn setup(error: impl ToString) -> Failure {
    (2, error.to_string())
}

/// Something was tried and failed.
fn failed(error: impl ToString) -> Failure {
    (1, error.to_string())
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Query(args) => ask(&args),
        Command::Backup(command) => back_up(&command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err((status, line)) => {
            let line: Vec<&str> = line.split_whitespace().collect();
            eprintln!("verge-cloud: {}", line.join(" "));
            ExitCode::from(status)
        }
    }
}

fn run(args: &RunArgs) -> Result<(), Failure> {
    let mut config = args.load(std::env::vars()).map_err(setup)?;
    config.log.level = log::with_quiet_libraries(&config.log.level);
    telemetry::init(&config.log).map_err(setup)?;
    let runtime = Runtime::new().map_err(failed)?;
    runtime.block_on(async {
        let stop = stop_on_signal().map_err(failed)?;
        let app = App::start(config).await.map_err(setup)?;
        let mut stdout = io::stdout().lock();
        // A supervisor that does not read is no reason to end.
        let _ = writeln!(stdout, "{}", app.ready_line()).and_then(|()| stdout.flush());
        drop(stdout);
        app.run(stop).await.map_err(failed)
    })
}

fn ask(args: &QueryArgs) -> Result<(), Failure> {
    let lake = match &args.lake {
        Some(lake) => lake.clone(),
        None => default_lake(std::env::vars()).map_err(setup)?,
    };
    let lake: Lake = lake.parse().map_err(setup)?;
    let runtime = Runtime::new().map_err(failed)?;
    let mut out = io::BufWriter::new(io::stdout());
    match runtime.block_on(query(&lake, &args.sql, args.format, &mut out)) {
        // A reader that has gone, such as `head`, is no error.
        Err(QueryError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(setup),
    }
}

/// Backups in an object store.
fn back_up(command: &BackupCommand) -> Result<(), Failure> {
    let runtime = Runtime::new().map_err(failed)?;
    let said = runtime.block_on(backup::run(command)).map_err(setup)?;
    // A reader that has gone is no error.
    let _ = io::stdout().lock().write_all(said.as_bytes());
    Ok(())
}

/// Becomes true with the first SIGTERM or SIGINT.
fn stop_on_signal() -> io::Result<watch::Receiver<bool>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stop.send_replace(true);
        // Kept, so that receivers never see it closed without having been told.
        std::future::pending::<()>().await;
    });
    Ok(stopped)
}
