//! The project's own benchmark: the same work against this broker and others, in turn, every
//! delivery checked.
//!
//! ```text
//!  suite ─▶ peers: Verge, null, Mosquitto, rumqttd, rmqttd        started and stopped here
//!    │
//!    └─▶ run (exchanges) · conns · subs · store · durable · crowd ─▶ flow on net: one thread, epoll, decoded in place
//!                                                   │
//!                        table · JSON · SVG · page ◀─┘
//! ```
//!
//! | file | is |
//! |---|---|
//! | `poll`, `conn`, `net` | connections by the ten thousand on one thread |
//! | `message`, `histogram`, `procfs` | the books, the latencies, what processes used |
//! | `flow`, `run` | publishers and subscribers, closed and open loop |
//! | `conns`, `held`, `subs`, `store` | connections, subscriptions, what is kept |
//! | `durable`, `live`, `crowd` | what is kept on disk: stored and drained, beside live traffic, for very many, over a restart |
//! | `null` | the broker that does nothing else, as the limit |
//! | `peers`, `settings`, `work`, `suite` | who is compared, told what, by what, in which order |
//! | `figures`, `report`, `svg`, `page` | what came out |

mod conn;
mod conns;
mod crowd;
mod durable;
mod figures;
mod flow;
mod held;
mod histogram;
mod live;
mod message;
mod net;
mod null;
mod page;
mod peers;
mod poll;
mod procfs;
mod report;
mod run;
mod settings;
mod store;
mod subs;
mod suite;
mod svg;
mod work;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use verge_mqtt_proto::{ProtocolVersion, QoS};

use self::flow::{Exchange, Shape};
use self::net::Target;
use self::peers::{Peer, ServerFiles};
use self::run::{Outcome, Timing};
use self::suite::Suite;
use crate::cli::{Failure, print_ignoring_closed_pipe};
use crate::client::tls::TlsOptions;

/// Arguments of `verge bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    #[command(flatten)]
    suite: SuiteArgs,
}

/// Arguments of the comparison.
#[derive(Debug, Args)]
struct SuiteArgs {
    /// The brokers; those that are missing are installed
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_values_t = [Peer::Verge, Peer::Null, Peer::Mosquitto, Peer::Rumqttd]
    )]
    peers: Vec<Peer>,
    /// Only work whose name contains one of these
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// Some minutes instead of hours
    #[arg(long)]
    quick: bool,
    /// Rounds over all brokers; medians are told
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Seconds of each measurement
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Write everything to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw latency against offered rate into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write the page for readers to this file
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// List the work and do nothing
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// One exchange of messages against a broker of yours
    Run(RunArgs),
    /// The null broker: reads, acknowledges, forwards, on one thread, and nothing else
    Null {
        /// Where it listens; port 0 takes a free one
        #[arg(long, value_name = "A:P", default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
}

/// Arguments of `verge bench run`.
#[derive(Debug, Args)]
struct RunArgs {
    /// Who gets what
    #[arg(long, value_enum, default_value_t = Shape::Pairs)]
    shape: Shape,
    /// The broker
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883")]
    target: String,
    /// A process of the broker, whose CPU is counted; again for more
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// Publishers
    #[arg(long, value_name = "N", default_value_t = 50)]
    publishers: usize,
    /// Subscribers; as many as publishers for pairs
    #[arg(long, value_name = "N")]
    subscribers: Option<usize>,
    /// QoS of publications and subscriptions
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Payload bytes, 24 at least
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    payload: usize,
    /// Messages a second of all publishers together; without it, as fast as the broker can
    #[arg(long, value_name = "PER_SEC")]
    rate: Option<f64>,
    /// Messages each publisher has under way at most
    #[arg(long, value_name = "N", default_value_t = 16)]
    window: u64,
    /// Seconds before the measurement
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    warmup: f64,
    /// Seconds of the measurement
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    /// Speak MQTT 5.0
    #[arg(long)]
    v5: bool,
    /// Speak TLS; the broker's certificate is not checked
    #[arg(long)]
    tls: bool,
    /// Write the outcome as JSON
    #[arg(long)]
    json: bool,
}

/// `verge bench`.
///
/// # Errors
/// Something cannot be done as asked, or a message was lost, doubled or changed.
pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    match &args.command {
        None => suite(&args.suite),
        Some(BenchCommand::Run(args)) => one(args),
        Some(BenchCommand::Null { listen }) => {
            let listener = TcpListener::bind(listen)
                .map_err(|error| Failure::setup(format!("{listen}: {error}")))?;
            let addr = listener.local_addr().map_err(Failure::setup)?;
            print_ignoring_closed_pipe(&format!("ready null={addr}\n"));
            null::serve(listener).map_err(Failure::failed)
        }
    }
}

fn suite(args: &SuiteArgs) -> Result<(), Failure> {
    let mut works = work::list(args.quick);
    if !args.only.is_empty() {
        works.retain(|work| args.only.iter().any(|only| work.name.contains(only)));
    }
    if args.list {
        let names: String = works.iter().map(|work| format!("{}\n", work.name)).collect();
        print_ignoring_closed_pipe(&names);
        return Ok(());
    }
    let mut peers = args.peers.clone();
    peers.retain(|peer| match peer.install() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("{} is left out: {error}", peer.name());
            false
        }
    });
    let dir = tempfile::tempdir().map_err(Failure::setup)?;
    let suite = Suite {
        works,
        rounds: args.rounds.unwrap_or(if args.quick { 1 } else { 3 }).max(1),
        timing: Timing {
            warmup: if args.quick { 0.3 } else { 1.0 },
            seconds: args.seconds.unwrap_or(if args.quick { 1.0 } else { 3.0 }).max(0.1),
        },
        files: Some(server_files(dir.path())?),
        tls: any_server()?,
        sweep: args.svg.is_some(),
        peers,
    };
    let results = suite.run();
    print_ignoring_closed_pipe(&results.tables());
    let write = |file: &Option<PathBuf>, text: &dyn Fn() -> String| match file {
        None => Ok(()),
        Some(file) => std::fs::write(file, text())
            .map_err(|error| Failure::setup(format!("{}: {error}", file.display()))),
    };
    write(&args.json, &|| {
        let machine: Vec<_> = page::machine(&suite.peers);
        let all = serde_json::json!({ "machine": machine, "results": results });
        format!("{all:#}\n")
    })?;
    let title = "Latency against offered rate: 50 pairs, QoS 1, 64 bytes";
    write(&args.svg, &|| svg::draw(title, &results.curves))?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    write(&args.page, &|| {
        page::page(&results, &suite.peers, &format!("verge {}", words.join(" ")))
    })?;
    if results.verge_is_at_fault() {
        return Err(Failure::failed("Verge lost, doubled or changed something; see the faults"));
    }
    Ok(())
}

/// A certificate for loopback that lives as long as the run.
fn server_files(dir: &Path) -> Result<ServerFiles, Failure> {
    let names = vec!["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
    let made = rcgen::generate_simple_self_signed(names).map_err(Failure::setup)?;
    let files = ServerFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
    std::fs::write(&files.cert, made.cert.pem()).map_err(Failure::setup)?;
    std::fs::write(&files.key, made.signing_key.serialize_pem()).map_err(Failure::setup)?;
    Ok(files)
}

fn one(args: &RunArgs) -> Result<(), Failure> {
    let exchange = Exchange {
        shape: args.shape,
        publishers: args.publishers.max(1),
        subscribers: match args.shape {
            Shape::Pairs => args.publishers.max(1),
            Shape::FanIn | Shape::FanOut | Shape::Shared => args.subscribers.unwrap_or(1).max(1),
        },
        qos: QoS::from_bits(args.qos).unwrap_or_default(),
        payload_bytes: args.payload.max(message::HEADER_BYTES),
        rate: args.rate.filter(|rate| *rate > 0.0),
        window: args.window.max(1),
    };
    let timing = Timing { warmup: args.warmup, seconds: args.seconds.max(0.1) };
    let target = Target {
        addr: resolve(&args.target)?,
        version: if args.v5 { ProtocolVersion::V5 } else { ProtocolVersion::V4 },
        tls: if args.tls { Some(any_server()?) } else { None },
    };
    let outcome = run::exchange(&exchange, timing, &target, &args.pid)
        .map_err(|error| Failure::failed(format!("{}: {error}", args.target)))?;
    let text = if args.json {
        serde_json::to_string_pretty(&outcome).map_err(Failure::failed)?
    } else {
        outcome.text()
    };
    print_ignoring_closed_pipe(&format!("{text}\n"));
    if outcome.counts.is_clean() { Ok(()) } else { Err(Failure::failed(outcome.notes.join("; "))) }
}

fn resolve(text: &str) -> Result<SocketAddr, Failure> {
    let found = text.to_socket_addrs().map(|mut found| found.next());
    found
        .map_err(|error| Failure::setup(format!("--target {text}: {error}")))?
        .ok_or_else(|| Failure::setup(format!("--target {text}: no such host")))
}

/// TLS towards a server whose certificate nobody checks: this measures, it does not protect.
fn any_server() -> Result<std::sync::Arc<rustls::ClientConfig>, Failure> {
    let options = TlsOptions { insecure: true, ..TlsOptions::default() };
    options.client_config().map_err(Failure::setup)
}

impl Outcome {
    /// For people.
    fn text(&self) -> String {
        let number =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        let counts = &self.counts;
        let mut text = format!(
            "delivered/s {:.0}   CPU s per million delivered {}   p50 {} ms   p99 {} ms\n\
             sent {}   delivered {}   lost {}   doubled {}   reordered {}   corrupt {}\n\
             generator {:.0} % of a core, waited {:.0} %; broker waited {:.0} %; others {:.0} %",
            self.rate,
            number(self.cpu),
            number(self.p50_ms),
            number(self.p99_ms),
            counts.sent,
            counts.delivered,
            counts.lost,
            counts.doubled,
            counts.reordered,
            counts.corrupt,
            self.generator_share * 100.0,
            self.generator_wait * 100.0,
            self.broker_wait * 100.0,
            self.others_share * 100.0,
        );
        for note in &self.notes {
            text += &format!("\nnote: {note}");
        }
        text
    }
}
