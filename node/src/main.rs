//! `verge`: arguments, then what they ask for.

use std::process::ExitCode;

use clap::Parser;
use verge::app::{self, Node, Reason};
use verge::cli::run::RunArgs;
use verge::cli::{self, Cli, Command, Failure};
use verge::{bench, client, demo, telemetry};

/// The C library's allocator costs a tenth more time a message and a seventh more memory a connection.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Check { file } => cli::check(&file),
        Command::Pki(command) => cli::pki::run(&command),
        Command::Passwd(args) => cli::passwd::run(&args),
        Command::Ctl(args) => cli::ctl::run(&args),
        Command::Backup(args) => cli::ctl::run_backup(args),
        Command::Restore(args) => cli::storage::run_restore(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Demo(args) => return cli::wait_for(demo::run(args)),
        Command::Pub(args) => return cli::wait_for(client::command::run_pub(args)),
        Command::Sub(args) => return cli::wait_for(client::command::run_sub(args)),
    };
    outcome.map_or_else(|failure| failure.report("verge"), |()| ExitCode::SUCCESS)
}

/// The life of a node.
fn run(args: &RunArgs) -> Result<(), Failure> {
    let config = args.load(app::environment()).map_err(Failure::setup)?.config;
    telemetry::init(&config.log).map_err(Failure::setup)?;
    let again = args.clone();
    let source = move || Ok(again.load(app::environment())?.config);
    let mut node = Node::start(config, Box::new(source)).map_err(Failure::setup)?;
    node.announce();
    let reason = node.wait();
    tracing::info!(?reason, "going down");
    node.drain();
    match reason {
        Reason::Asked(_) => Ok(()),
        Reason::Broken(what) => Err(Failure::failed(format!("{what}; see the log"))),
    }
}
