//! `verge demo`: vehicles of a traffic trace drive past real nodes, and nothing is lost.
//!
//! The command starts a mesh on loopback, one process for each node, replays a trace with a real
//! client for each vehicle, breaks things in the middle, and compares at the end what was sent with
//! what came, what nodes promised with what they did, and all of it with what positions alone say.
//!
//! ```text
//!  fleet operator ──QoS 2 commands──► regional ═══ edge-sw ◄──positions, QoS 1── vehicles
//!                                        ║    ═══ edge-se ──► V2X application     │ drive from
//!                                        ║    ═══ edge-nw ──warnings, QoS 1──►    │ unit to unit
//!                                        ║    ═══ edge-ne ◄───────────────────────┘
//!                                   (relay, cut)
//!                                        ║
//!                                      cloud ──► Delta table ──► SQL at the end
//! ```
//!
//! | what | module |
//! |---|---|
//! | options, traces, and what the run is going to do | [`args`], [`trace`], [`attach`], [`scenario`], [`dice`] |
//! | processes and links | [`cluster`], [`process`], [`ports`], [`relay`], [`http`] |
//! | clients | [`fleet`], [`operator`], [`application`], [`courier`], [`nearest`], [`message`] |
//! | books | [`world`], [`book`], [`moves`], [`tally`], [`histogram`] |
//! | the end | [`check`], [`report`], [`progress`] |

pub mod application;
pub mod args;
pub mod attach;
pub mod book;
pub mod check;
pub mod cluster;
pub mod courier;
pub mod dice;
pub mod fleet;
pub mod histogram;
pub mod http;
pub mod message;
pub mod moves;
pub mod nearest;
pub mod operator;
pub mod ports;
pub mod process;
pub mod progress;
pub mod relay;
pub mod report;
pub mod scenario;
pub mod tally;
pub mod trace;
pub mod traffic;
pub mod world;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

pub use self::args::DemoArgs;
use self::cluster::{Cluster, Programs};
use self::progress::Progress;
use self::report::{Faults, Handovers, NamedFlow, NamedTimes, Report, Run, number};
use self::scenario::Scenario;
use self::trace::Trace;
use self::world::{Phase, World};
use crate::client::net::ConnectOptions;
use crate::client::tls::TlsOptions;

/// How long a node may take to accept a client.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long clients may take for their goodbyes.
const GOODBYES_WITHIN: Duration = Duration::from_secs(10);

/// Why there is no report.
enum Failure {
    /// The command line, or what it names, does not allow a run: exit status 2.
    Setup(String),
    /// The run broke off: exit status 1.
    BrokeOff(String),
}

/// Runs `verge demo`: exit status 0 if the run kept every promise, 1 if not, 2 if it cannot be
/// run as asked.
pub async fn run(args: DemoArgs) -> ExitCode {
    let outcome = tokio::select! {
        outcome = demo(&args) => outcome,
        // What was started is dropped with the run, and so ended.
        _ = tokio::signal::ctrl_c() => Err(Failure::BrokeOff("interrupted".to_owned())),
    };
    let (line, status) = match outcome {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => return ExitCode::from(1),
        Err(Failure::Setup(line)) => (line, 2),
        Err(Failure::BrokeOff(line)) => (line, 1),
    };
    // Standard error may be closed, and then there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "\nverge demo: {line}");
    ExitCode::from(status)
}

/// The run from its files to its report; whether it passed.
async fn demo(args: &DemoArgs) -> Result<bool, Failure> {
    let setup = |error: &dyn std::fmt::Display| Failure::Setup(error.to_string());
    let programs = Programs::find().map_err(Failure::Setup)?;
    let trace_path = args.trace_path().map_err(Failure::Setup)?;
    let rsus_path = args.rsus_path().map_err(Failure::Setup)?;
    let vehicles = args.vehicles.unwrap_or(usize::MAX);
    let trace =
        Trace::load(&trace_path, vehicles, args.until_ms()).map_err(|error| setup(&error))?;
    let sites = trace::load_sites(&rsus_path).map_err(|error| setup(&error))?;
    let scenario = Scenario::plan(trace, sites, args.speed, args.seed, args.calm);
    let mut run = describe(args, &scenario, &trace_path.display().to_string());

    let dir = TempDir::with_prefix("verge-demo-").map_err(|error| setup(&error))?;
    let mut cluster = Cluster::prepare(dir.path(), &scenario.sites, programs, &args.log)
        .await
        .map_err(Failure::Setup)?;
    let outcome = play(args, scenario, &mut cluster, &mut run).await;
    let failed = !matches!(&outcome, Ok(report) if report.passed);
    if args.keep || failed {
        let _ = writeln!(std::io::stderr(), "data and logs are in {}", dir.keep().display());
    }
    let report = outcome.map_err(Failure::BrokeOff)?;
    let text = if args.json {
        serde_json::to_string_pretty(&report).map_err(|error| setup(&error))? + "\n"
    } else {
        report.to_string()
    };
    // A reader that has gone has seen what it wanted.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(report.passed)
}

fn describe(args: &DemoArgs, scenario: &Scenario, trace: &str) -> Run {
    let vehicles = scenario.trace.tracks.len();
    Run {
        trace: trace.to_owned(),
        rsus: scenario.sites.len(),
        vehicles,
        vehicles_tls: (0..vehicles).filter(|track| scenario.character(*track).tls).count(),
        trace_secs: f64::from(scenario.trace.end_ms()) / 1000.0,
        speed: args.speed,
        seed: args.seed,
        ..Run::default()
    }
}

/// Everything that happens while nodes run.
/// Most missing messages that a report names.
const MISSING_NAMED_MAX: usize = 12;

async fn play(
    args: &DemoArgs,
    scenario: Scenario,
    cluster: &mut Cluster,
    run: &mut Run,
) -> Result<Report, String> {
    let mut progress = Progress::new();
    let began = Instant::now();
    progress.tell(&format!(
        "starting {} roadside units, a regional node and the cloud tier",
        scenario.sites.len()
    ));
    cluster.start().await?;
    let tls = TlsOptions { ca: Some(cluster.ca.clone()), ..TlsOptions::default() };
    let connect = ConnectOptions { timeout: CONNECT_WITHIN, tls: Some(tls.client_config()?) };
    let (sites, edge) = (cluster.sites.clone(), cluster.edge.clone());
    let world = Arc::new(World::new(scenario, sites, edge, connect));
    let mut clients = spawn_clients(&world);
    traffic::greet(&world, &mut progress).await?;
    run.greeting_secs = began.elapsed().as_secs_f64();

    let began = Instant::now();
    let faults = traffic::run(&world, cluster, &mut progress).await?;
    run.traffic_secs = began.elapsed().as_secs_f64();

    let began = Instant::now();
    world.enter(Phase::Draining);
    let owed = check::drain(&world, args.drain(), |owed| {
        progress
            .show(&format!("traffic is over; {} messages are still owed", number(owed.total())));
    })
    .await;
    run.drain_secs = began.elapsed().as_secs_f64();
    progress.tell("asking nodes and tables what they have");
    world.enter(Phase::Over);
    let goodbyes = async { while clients.join_next().await.is_some() {} };
    let _ = timeout(GOODBYES_WITHIN, goodbyes).await;
    clients.abort_all();

    if let Some(casualty) = cluster.casualty() {
        return Err(casualty);
    }
    let nodes = check::facts(&world, cluster).await?;
    let cloud = cluster.cloud_usage();
    let mut complaints = cluster.stop().await;
    if owed.total() > 0 {
        complaints.push(format!(
            "after {} s still owed: {} commands, {} positions, {} warnings",
            args.drain, owed.commands, owed.cams, owed.denms
        ));
        complaints.extend(world.missing(MISSING_NAMED_MAX));
    }
    Ok(report(&world, run.clone(), faults, nodes, cloud, complaints).judged())
}

fn spawn_clients(world: &Arc<World>) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for site in 0..world.sites.len() {
        clients.spawn(application::run(Arc::clone(world), site));
    }
    clients.spawn(operator::operate(Arc::clone(world)));
    for track in 0..world.vehicles() {
        clients.spawn(fleet::drive(Arc::clone(world), track));
    }
    clients
}

fn report(
    world: &World,
    run: Run,
    faults: Faults,
    nodes: Vec<check::NodeFacts>,
    cloud: process::Usage,
    complaints: Vec<String>,
) -> Report {
    let (flows, times, counts) = (world.flows(), world.latencies(), &world.counts);
    let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    Report {
        passed: false,
        complaints,
        run,
        faults,
        flows: vec![
            NamedFlow { name: "commands, operator to vehicle", qos: 2, flow: flows.commands },
            NamedFlow { name: "positions, vehicle to application", qos: 1, flow: flows.cams },
            NamedFlow { name: "warnings, application to vehicle", qos: 1, flow: flows.denms },
        ],
        handovers: Handovers {
            planned: world.scenario.attachments.handovers() as u64,
            moves: world.moves(),
            connects_failed: get(&counts.connects_failed),
            other_sessions_lost: get(&counts.sessions_lost),
            nearest_asked: get(&counts.nearest_asked),
            nearest_agreed: get(&counts.nearest_agreed),
            nearest_failed: get(&counts.nearest_failed),
            refused: get(&counts.refused),
        },
        latencies: vec![
            NamedTimes::new("handover, CONNECT to CONNACK", &times.handover),
            NamedTimes::new("handover from a dead node", &times.handover_from_dead),
            NamedTimes::new("position, vehicle to application", &times.cam),
            NamedTimes::new("command, to a connected vehicle", &times.command),
            NamedTimes::new("warning, to a connected vehicle", &times.denm),
        ],
        nodes,
        cloud,
    }
}
