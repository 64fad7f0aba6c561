//! `verge pub` and `verge sub`: an MQTT client for the command line.
//!
//! Options are named as those of the clients people know. A failure is one line on standard error;
//! the exit status is 0 when all was done, 1 when the server or the network failed, 2 when the
//! command line asks for what cannot be.

use std::fmt::Display;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use verge_broker_core::authn::users::prepare as prepare_name;
use verge_mqtt_proto::{ProtocolVersion, QoS, ReasonCode, TopicFilter, TopicName};

use super::address::{Address, Scheme};
use super::event::{Event, Incoming, Nonce, SessionOptions};
use super::net::{ConnectOptions, Connection, NetError};
use super::outgoing::Publication;
use super::session::ClientSession;
use super::streams::{self, STREAMS_MAX, Streams};
use super::tls::TlsOptions;

/// Lines of standard input read ahead of the server.
const LINES_AHEAD_MAX: usize = 256;

/// How long a server may take to accept the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Session Expiry Interval of `-c` unless another is given: a day.
const SESSION_EXPIRY_SECS: u32 = 86_400;

/// Which server, and as whom.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Server: tcp://HOST[:PORT], tls://, quic://, ws://HOST[:PORT][/PATH] or wss://
    #[arg(long, value_name = "URL", default_value = "tcp://127.0.0.1:1883")]
    pub url: Address,
    /// Client id; the server gives one if there is none
    #[arg(short = 'i', long = "id", value_name = "ID", default_value = "")]
    pub id: String,
    /// Speak MQTT 5.0 (the default)
    #[arg(long, conflicts_with = "v311")]
    pub v5: bool,
    /// Speak MQTT 3.1.1
    #[arg(long)]
    pub v311: bool,
    /// Keep the session at the server when this client ends; needs -i
    #[arg(short = 'c', long = "persistent", requires = "id")]
    pub persistent: bool,
    /// Seconds a session kept by -c lives on
    #[arg(long, value_name = "SECONDS", default_value_t = SESSION_EXPIRY_SECS)]
    pub session_expiry: u32,
    /// Keep alive in seconds; 0 for none
    #[arg(short = 'k', long, value_name = "SECONDS", default_value_t = 60)]
    pub keep_alive: u16,
    /// User name
    #[arg(short = 'u', long, value_name = "NAME")]
    pub user: Option<String>,
    /// Password
    #[arg(
        short = 'P',
        long,
        value_name = "PASSWORD",
        env = "VERGE_PASSWORD",
        hide_env_values = true
    )]
    pub password: Option<String>,
    /// Prove the password by SCRAM-SHA-256, without saying it; needs -u and -P
    #[arg(long, requires = "user", requires = "password", conflicts_with = "v311")]
    pub scram: bool,
    /// Use this many further streams of a quic:// connection: for publications in turn, or each for
    /// a part of the filters. Order holds within a stream only
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u16).range(0..=i64::from(STREAMS_MAX)))]
    pub streams: u16,
    /// Authorities to trust for tls://, quic:// and wss:// (PEM); the system's if not given
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// This client's certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// This client's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Trust any server; for trials on one's own machine
    #[arg(long, conflicts_with = "ca")]
    pub insecure: bool,
}

/// Options of `verge pub`.
#[derive(Debug, Clone, Args)]
pub struct PubArgs {
    /// Which server, and as whom.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Topic to publish on
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    /// What is published.
    #[command(flatten)]
    pub payload: PayloadArgs,
    /// Quality of service: 0, 1 or 2
    #[arg(short = 'q', long, value_name = "QOS", default_value = "0", value_parser = parse_qos)]
    pub qos: QoS,
    /// Ask the server to keep the message for later subscribers
    #[arg(short = 'r', long)]
    pub retain: bool,
}

/// What `verge pub` publishes: exactly one of these.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct PayloadArgs {
    /// This text
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub message: Option<String>,
    /// The content of a file
    #[arg(short = 'f', long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Every line of standard input, as a message each
    #[arg(short = 'l', long)]
    pub lines: bool,
    /// An empty message
    #[arg(short = 'n', long)]
    pub null: bool,
}

/// Options of `verge sub`.
#[derive(Debug, Clone, Args)]
pub struct SubArgs {
    /// Which server, and as whom.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Topic filter to subscribe to; may be given several times
    #[arg(short = 't', long = "topic", value_name = "FILTER", required = true)]
    pub topics: Vec<String>,
    /// Highest quality of service to receive at: 0, 1 or 2
    #[arg(short = 'q', long, value_name = "QOS", default_value = "0", value_parser = parse_qos)]
    pub qos: QoS,
    /// End after this many messages
    #[arg(short = 'C', long, value_name = "N")]
    pub count: Option<u64>,
    /// End after this many seconds; a failure if -C messages have not come by then
    #[arg(short = 'W', long, value_name = "SECONDS")]
    pub wait: Option<u64>,
    /// Print the topic before each message
    #[arg(short = 'v', long)]
    pub verbose: bool,
    /// How to print: %t topic, %p payload, %q QoS, %r retained, %d repeated, %l length, %% percent
    #[arg(short = 'F', long, value_name = "FORMAT", conflicts_with = "verbose")]
    pub format: Option<String>,
}

/// Runs `verge pub`.
pub async fn run_pub(args: PubArgs) -> ExitCode {
    status("pub", publish(args).await)
}

/// Runs `verge sub`.
pub async fn run_sub(args: SubArgs) -> ExitCode {
    status("sub", subscribe(args).await)
}

/// Why a command ended early.
enum Failure {
    /// The command line asks for what cannot be: exit status 2.
    Usage(String),
    /// The server or the network failed: exit status 1.
    Failed(String),
}

impl Failure {
    fn usage(detail: impl Display) -> Self {
        Self::Usage(detail.to_string())
    }

    fn failed(detail: impl Display) -> Self {
        Self::Failed(detail.to_string())
    }
}

fn status(command: &str, outcome: Result<(), Failure>) -> ExitCode {
    let (detail, code) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(detail)) => (detail, 2),
        Err(Failure::Failed(detail)) => (detail, 1),
    };
    // Standard error may be closed, and then there is nobody to tell.
    let _ = writeln!(io::stderr(), "verge {command}: {detail}");
    ExitCode::from(code)
}

async fn publish(args: PubArgs) -> Result<(), Failure> {
    TopicName::parse(&args.topic).map_err(|error| Failure::usage(format!("-t: {error}")))?;
    let mut source = source(&args.payload)?;
    let (mut session, options) = prepare(&args.server)?;
    let url = &args.server.url;
    let unreachable = |error: NetError| Failure::failed(format!("{url}: {error}"));
    let mut further = streams::sessions(session.options(), args.server.streams);
    let control = Connection::connect(url, &options, &mut session).await.map_err(unreachable)?;
    let mut connection = Streams::open(control, &mut further).await.map_err(unreachable)?;
    let mut at_end = false;
    while !at_end || connection.publications() > 0 {
        let has_room = connection.publications() < LINES_AHEAD_MAX;
        tokio::select! {
            line = source.recv(), if !at_end && has_room => match line {
                Some(payload) => {
                    let payload = payload.map_err(Failure::failed)?;
                    let (topic, qos, retain) = (args.topic.clone(), args.qos, args.retain);
                    let publication = Publication { topic, payload, qos, retain };
                    connection.publish(publication).map_err(unreachable)?;
                }
                None => at_end = true,
            },
            event = connection.next() => match event.map_err(unreachable)? {
                Event::Published(_, reason) if reason.is_error() => {
                    return Err(Failure::failed(format!("{url}: not accepted: {}", reason.name())));
                }
                Event::Disconnected { reason, server_reference } => {
                    return Err(disconnected(url, reason, server_reference.as_deref()));
                }
                Event::Published(..)
                | Event::Connected { .. }
                | Event::Refused { .. }
                | Event::Message(_)
                | Event::Subscribed(..)
                | Event::Unsubscribed(..) => {}
            },
        }
    }
    connection.finish().await.map_err(unreachable)
}

/// The messages to publish, read ahead by a thread where they come from standard input.
fn source(payload: &PayloadArgs) -> Result<mpsc::Receiver<Result<Bytes, String>>, Failure> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD_MAX);
    let single = if let Some(text) = &payload.message {
        Bytes::from(text.clone().into_bytes())
    } else if let Some(path) = &payload.file {
        let content = std::fs::read(path);
        content.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?.into()
    } else if payload.null {
        Bytes::new()
    } else {
        // A blocking read cannot be cancelled, so the thread is left behind when the command ends.
        std::thread::spawn(move || {
            for line in io::stdin().lock().split(b'\n') {
                let line =
                    line.map(Bytes::from).map_err(|error| format!("standard input: {error}"));
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        return Ok(receiver);
    };
    sender.try_send(Ok(single)).map_err(Failure::failed)?;
    Ok(receiver)
}

async fn subscribe(args: SubArgs) -> Result<(), Failure> {
    for filter in &args.topics {
        TopicFilter::parse(filter)
            .map_err(|error| Failure::usage(format!("-t '{filter}': {error}")))?;
    }
    let form = match (&args.format, args.verbose) {
        (Some(format), _) => parse_format(format).map_err(Failure::usage)?,
        (None, true) => parse_format("%t %p").map_err(Failure::usage)?,
        (None, false) => parse_format("%p").map_err(Failure::usage)?,
    };
    let (mut session, options) = prepare(&args.server)?;
    let url = &args.server.url;
    let unreachable = |error: NetError| Failure::failed(format!("{url}: {error}"));
    let deadline = args.wait.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut further = streams::sessions(session.options(), args.server.streams);
    let control = Connection::connect(url, &options, &mut session).await.map_err(unreachable)?;
    let mut connection = Streams::open(control, &mut further).await.map_err(unreachable)?;
    let filters: Vec<(&str, QoS)> =
        args.topics.iter().map(|filter| (filter.as_str(), args.qos)).collect();
    let granted = connection.subscribe(&filters).await.map_err(unreachable)?;
    for (filter, reason) in args.topics.iter().zip(granted) {
        if reason.is_error() {
            let detail = format!("{url}: '{filter}' not granted: {}", reason.name());
            return Err(Failure::failed(detail));
        }
    }
    let mut count = 0;
    while args.count.is_none_or(|wanted| count < wanted) {
        let event = tokio::select! {
            event = connection.next() => event.map_err(unreachable)?,
            () = until(deadline) => match args.count {
                None => break,
                Some(wanted) => {
                    let seconds = args.wait.unwrap_or(0);
                    let detail = format!("{count} of {wanted} messages came in {seconds} s");
                    return Err(Failure::failed(detail));
                }
            },
            _ = tokio::signal::ctrl_c() => break,
        };
        match event {
            Event::Message(message) => {
                count += 1;
                if print(&form, &message).is_err() {
                    // Nobody reads any more, as in `verge sub … | head`.
                    break;
                }
            }
            Event::Disconnected { reason, server_reference } => {
                return Err(disconnected(url, reason, server_reference.as_deref()));
            }
            Event::Connected { .. }
            | Event::Refused { .. }
            | Event::Published(..)
            | Event::Subscribed(..)
            | Event::Unsubscribed(..) => {}
        }
    }
    connection.disconnect().await.map_err(unreachable)
}

fn prepare(args: &ServerArgs) -> Result<(ClientSession, ConnectOptions), Failure> {
    let version = if args.v311 { ProtocolVersion::V4 } else { ProtocolVersion::V5 };
    if args.streams > 0 && args.url.scheme != Scheme::Quic {
        return Err(Failure::usage(format!("--streams: {} has one stream", args.url)));
    }
    let user = args.user.as_deref().unwrap_or_default();
    if args.scram && prepare_name(user).is_none() {
        return Err(Failure::usage(format!("-u '{user}': no user has such a name")));
    }
    let session = ClientSession::new(SessionOptions {
        scram: args.scram.then(|| Nonce(format!("{:032x}", rand::random::<u128>()))),
        clean_start: !args.persistent,
        session_expiry_secs: if args.persistent { args.session_expiry } else { 0 },
        keep_alive_secs: args.keep_alive,
        username: args.user.clone(),
        password: args.password.clone().map(String::into_bytes),
        ..SessionOptions::new(&args.id, version)
    });
    let tls = match args.url.scheme {
        Scheme::Tcp | Scheme::Ws => None,
        Scheme::Tls | Scheme::Quic | Scheme::Wss => {
            let identity = args.cert.clone().zip(args.key.clone());
            let options = TlsOptions { ca: args.ca.clone(), identity, insecure: args.insecure };
            Some(options.client_config().map_err(Failure::usage)?)
        }
    };
    Ok((session, ConnectOptions { timeout: CONNECT_TIMEOUT, tls }))
}

fn disconnected(url: &Address, reason: ReasonCode, reference: Option<&str>) -> Failure {
    let instead = reference.map(|server| format!("; use {server}")).unwrap_or_default();
    Failure::failed(format!("{url}: disconnected: {}{instead}", reason.name()))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn parse_qos(text: &str) -> Result<QoS, String> {
    text.parse().ok().and_then(QoS::from_bits).ok_or_else(|| "QoS is 0, 1 or 2".to_owned())
}

/// A piece of an output line.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Topic,
    Payload,
    Qos,
    Retain,
    Dup,
    Length,
}

fn parse_format(format: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        let piece = match (c, if c == '%' { chars.next() } else { None }) {
            ('%', Some('t')) => Piece::Topic,
            ('%', Some('p')) => Piece::Payload,
            ('%', Some('q')) => Piece::Qos,
            ('%', Some('r')) => Piece::Retain,
            ('%', Some('d')) => Piece::Dup,
            ('%', Some('l')) => Piece::Length,
            ('%', Some('%')) => {
                text.push('%');
                continue;
            }
            ('%', other) => {
                let found = other.map(String::from).unwrap_or_default();
                return Err(format!("--format knows %t %p %q %r %d %l and %%, not '%{found}'"));
            }
            (other, _) => {
                text.push(other);
                continue;
            }
        };
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(piece);
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

fn print(form: &[Piece], message: &Incoming) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write_message(&mut out, form, message)?;
    out.flush()
}

fn write_message(out: &mut impl Write, form: &[Piece], message: &Incoming) -> io::Result<()> {
    for piece in form {
        match piece {
            Piece::Text(text) => out.write_all(text.as_bytes())?,
            Piece::Topic => out.write_all(message.topic.as_bytes())?,
            Piece::Payload => out.write_all(&message.payload)?,
            Piece::Qos => write!(out, "{}", message.qos.bits())?,
            Piece::Retain => write!(out, "{}", u8::from(message.retain))?,
            Piece::Dup => write!(out, "{}", u8::from(message.dup))?,
            Piece::Length => write!(out, "{}", message.payload.len())?,
        }
    }
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    enum Command {
        Pub(PubArgs),
        Sub(SubArgs),
    }

    fn parse(line: &str) -> Result<Command, String> {
        let words = std::iter::once("verge").chain(line.split_whitespace());
        Command::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn command_lines_of_the_clients_people_know_are_understood() {
        let Ok(Command::Pub(args)) = parse("pub -t a/b -m hello -q 2 -r -i me --v311") else {
            panic!("not understood");
        };
        assert_eq!((args.topic.as_str(), args.qos, args.retain), ("a/b", QoS::ExactlyOnce, true));
        assert!(args.server.v311 && !args.server.persistent);
        let line = "sub --url tls://h:1 -t a/# -t b -q 1 -c -i me -C 3 -W 5 -F %t --ca ca.pem";
        let Ok(Command::Sub(args)) = parse(line) else { panic!("not understood") };
        assert_eq!(args.server.url.to_string(), "tls://h:1");
        assert_eq!((args.topics.len(), args.count, args.wait), (2, Some(3), Some(5)));
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_sent() {
        for line in [
            "pub -t a",
            "pub -t a -m x -n",
            "pub -m x",
            "pub -t a -m x -q 3",
            "sub",
            "sub -t a -c",
            "sub -t a --url ftp://x",
            "sub -t a --cert c.pem",
            "sub -t a --v5 --v311",
            "sub -t a -v -F %t",
            "sub -t a --streams 10",
            "sub -t a --scram",
            "sub -t a --scram -u ann",
            "sub -t a --scram -u ann -P secret --v311",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_format_prints_what_it_names() {
        let message = Incoming {
            topic: "a/b".into(),
            payload: Bytes::from_static(b"x\xff"),
            qos: QoS::AtLeastOnce,
            retain: true,
            dup: false,
        };
        let printed = |format: &str| {
            let mut out = Vec::new();
            write_message(&mut out, &parse_format(format).unwrap(), &message).unwrap();
            out
        };
        assert_eq!(printed("%t %p"), b"a/b x\xff\n");
        assert_eq!(printed("%q%r%d %l 100%%"), b"110 2 100%\n");
        assert!(parse_format("%x").is_err());
        assert!(parse_format("50%").is_err());
    }
}
