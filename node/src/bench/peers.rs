//! The brokers that are compared: found or installed, configured so that limits, logs and disks do
//! not decide, started and stopped.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::held::PATH;
use super::poll::{MS, SEC, now};
use crate::client::address::Scheme;
use crate::demo::ports::Ports;

/// How long a broker may take to listen.
const START_SECS: u64 = 20;
/// rumqttd's version.
const RUMQTTD: &str = "0.20.0";
/// rmqttd's version.
const RMQTTD: &str = "0.24.0";

/// A broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Peer {
    /// This broker.
    Verge,
    /// Nothing but reading, acknowledging and forwarding.
    Null,
    /// Eclipse Mosquitto, from the distribution.
    Mosquitto,
    /// rumqttd, from crates.io.
    Rumqttd,
    /// rmqttd, from crates.io; compiles for long.
    Rmqttd,
}

impl Peer {
    /// As tables name it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Verge => "Verge",
            Self::Null => "null",
            Self::Mosquitto => "Mosquitto",
            Self::Rumqttd => "rumqttd",
            Self::Rmqttd => "rmqttd",
        }
    }

    /// Whether it is another project's broker.
    pub(super) const fn is_other(self) -> bool {
        matches!(self, Self::Mosquitto | Self::Rumqttd | Self::Rmqttd)
    }

    /// Its program, if it is there.
    pub(super) fn program(self) -> Option<PathBuf> {
        let found = match self {
            Self::Verge | Self::Null => return std::env::current_exe().ok(),
            Self::Mosquitto => {
                ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].map(PathBuf::from).to_vec()
            }
            Self::Rumqttd => vec![cache().join(format!("rumqttd-{RUMQTTD}/bin/rumqttd"))],
            Self::Rmqttd => vec![cache().join(format!("rmqttd-{RMQTTD}/bin/rmqttd"))],
        };
        found.into_iter().find(|path| path.exists())
    }

    /// Its version, as it or its installer says.
    pub(super) fn version(self) -> String {
        match self {
            Self::Verge | Self::Null => env!("CARGO_PKG_VERSION").to_owned(),
            Self::Rumqttd => RUMQTTD.to_owned(),
            Self::Rmqttd => RMQTTD.to_owned(),
            Self::Mosquitto => {
                let Some(program) = self.program() else { return "absent".to_owned() };
                let said = Command::new(program).arg("-h").output();
                let text = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
                let text = text.unwrap_or_default();
                let first = text.lines().next().unwrap_or_default();
                first.rsplit(' ').next().unwrap_or_default().to_owned()
            }
        }
    }

    /// Installs it where it is missing.
    ///
    /// # Errors
    /// It cannot be; the message says what was tried.
    pub(super) fn install(self) -> Result<(), String> {
        if self.program().is_some() {
            return Ok(());
        }
        let (what, mut command) = match self {
            Self::Verge | Self::Null => return Ok(()),
            Self::Mosquitto => {
                let mut command = Command::new("/bin/sh");
                let script = "if [ $(id -u) = 0 ]; then s=; else s=sudo; fi; \
                     $s apt-get update -qq && $s apt-get install -y -qq --no-install-recommends mosquitto";
                command.args(["-c", script]);
                ("apt-get install mosquitto", command)
            }
            // rumqttd's own lock file holds crates that today's compilers refuse.
            Self::Rumqttd => {
                ("cargo install rumqttd (some minutes)", cargo("rumqttd", RUMQTTD, false))
            }
            Self::Rmqttd => {
                ("cargo install rmqttd (half an hour on two cores)", cargo("rmqttd", RMQTTD, true))
            }
        };
        eprintln!("installing {}: {what}", self.name());
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
        match status {
            Ok(status) if status.success() && self.program().is_some() => Ok(()),
            Ok(status) => Err(format!("{what}: {status}")),
            Err(error) => Err(format!("{what}: {error}")),
        }
    }
}

/// Where peers are built: outside the checkout, so that they are built once.
fn cache() -> PathBuf {
    let named = std::env::var_os("VERGE_BENCH_CACHE").map(PathBuf::from);
    named.unwrap_or_else(|| {
        let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
        home.join(".cache/verge/peers")
    })
}

fn cargo(name: &str, version: &str, locked: bool) -> Command {
    let mut command = Command::new("cargo");
    command.args(["install", "--quiet", "--version", version, "--root"]);
    command.arg(cache().join(format!("{name}-{version}"))).arg(name);
    if locked {
        command.arg("--locked");
    }
    command.env("CARGO_TARGET_DIR", cache().join("build"));
    command
}

/// A broker that serves.
pub(super) struct Broker {
    pub(super) peer: Peer,
    pub(super) addr: SocketAddr,
    /// Where it speaks TLS, if it does.
    pub(super) tls: Option<SocketAddr>,
    /// Where it speaks what else was asked for.
    pub(super) held: Option<SocketAddr>,
    child: Child,
    _ports: Ports,
    /// Its files; they go with it.
    _dir: tempfile::TempDir,
}

/// Certificate and key of a server on loopback, PEM.
#[derive(Debug, Clone)]
pub(super) struct ServerFiles {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

impl Broker {
    /// Starts it, and waits until it accepts connections.
    ///
    /// # Errors
    /// It is not there, or does not listen in time.
    pub(super) fn start(
        peer: Peer,
        files: Option<&ServerFiles>,
        more: Option<Scheme>,
    ) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{}: {error}", peer.name());
        let program = peer.program().ok_or_else(|| format!("{} is not installed", peer.name()))?;
        let dir = tempfile::tempdir().map_err(failed)?;
        let mut ports = Ports::new();
        let addr = ports.take().map_err(failed)?;
        let secure = ports.take().map_err(failed)?;
        let tls = files.filter(|_| peer != Peer::Null);
        let mut args = arguments(peer, dir.path(), addr, secure, tls).map_err(failed)?;
        let held = more.map(|scheme| Ok((scheme, ports.take()?))).transpose().map_err(failed)?;
        if let Some((scheme, addr)) = held {
            args.extend(["--listen".to_owned(), verge_url(scheme, addr)]);
        }
        let held = held.map(|(_, addr)| addr);
        let log = fs::File::create(dir.path().join("log")).map_err(failed)?;
        let mut command = Command::new(program);
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("VERGE") {
                command.env_remove(key);
            }
        }
        let child = command
            .args(args)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let tls = tls.map(|_| secure);
        let mut broker = Self { peer, addr, tls, held, child, _ports: ports, _dir: dir };
        broker.await_listener()?;
        Ok(broker)
    }

    /// Its processes.
    pub(super) fn pids(&self) -> [u32; 1] {
        [self.child.id()]
    }

    fn await_listener(&mut self) -> Result<(), String> {
        let end = now() + START_SECS * SEC;
        let wanted: Vec<_> = std::iter::once(self.addr).chain(self.tls).collect();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                let log = fs::read_to_string(self._dir.path().join("log")).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(3).collect();
                return Err(format!("{} ended at start ({status}): {tail:?}", self.peer.name()));
            }
            let one = Duration::from_millis(200);
            if wanted.iter().all(|addr| TcpStream::connect_timeout(addr, one).is_ok()) {
                return Ok(());
            }
            if now() > end {
                return Err(format!("{} does not listen after {START_SECS} s", self.peer.name()));
            }
            pause(50 * MS);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It has nothing to keep.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does nothing for some nanoseconds.
#[expect(clippy::disallowed_methods, reason = "the benchmark's own thread, which serves nobody")]
pub(super) fn pause(nanos: u64) {
    std::thread::sleep(Duration::from_nanos(nanos));
}

/// Most connections of any workload, with room.
const CONNECTIONS_MAX: usize = 100_000;

fn arguments(
    peer: Peer,
    dir: &Path,
    addr: SocketAddr,
    secure: SocketAddr,
    tls: Option<&ServerFiles>,
) -> io::Result<Vec<String>> {
    let file = dir.join("config.toml");
    let path = file.to_string_lossy().into_owned();
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    Ok(match peer {
        Peer::Null => owned(&["bench", "null", "--listen", &addr.to_string()]),
        Peer::Verge => {
            let (tcp, tls_url) = (format!("tcp://{addr}"), format!("tls://{secure}"));
            let mut args = owned(&["run", "--listen", &tcp, "--admin", "127.0.0.1:0"]);
            if let Some(files) = tls {
                let cert = format!("tls.cert={}", files.cert.display());
                let key = format!("tls.key={}", files.key.display());
                args.extend(owned(&["--listen", &tls_url, "--set", &cert, "--set", &key]));
            }
            for setting in VERGE_SETTINGS {
                args.extend(owned(&["--set", setting]));
            }
            args
        }
        Peer::Mosquitto => {
            let mut text = format!(
                "allow_anonymous true\npersistence false\nlog_type error\n\
                 max_queued_messages 0\nmax_inflight_messages 1000\nset_tcp_nodelay true\n\
                 listener {} 127.0.0.1\n",
                addr.port()
            );
            if let Some(files) = tls {
                text += &format!(
                    "listener {} 127.0.0.1\ncertfile {}\nkeyfile {}\n",
                    secure.port(),
                    files.cert.display(),
                    files.key.display()
                );
            }
            fs::write(&file, text)?;
            let mut args = owned(&["-c", &path]);
            if rustix::process::geteuid().is_root() {
                // It would give up root, and with it the files of this run.
                fs::write(&file, format!("user root\n{}", fs::read_to_string(&file)?))?;
            }
            args.shrink_to_fit();
            args
        }
        Peer::Rumqttd => {
            fs::write(&file, rumqttd_config(addr, secure, tls))?;
            owned(&["-c", &path, "-q"])
        }
        Peer::Rmqttd => {
            fs::write(&file, rmqttd_config(dir, addr, secure, tls))?;
            owned(&["-f", &path])
        }
    })
}

/// One more listener of Verge.
fn verge_url(scheme: Scheme, addr: SocketAddr) -> String {
    match scheme {
        Scheme::Tcp => format!("tcp://{addr}"),
        Scheme::Tls => format!("tls://{addr}"),
        Scheme::Quic => format!("quic://{addr}"),
        Scheme::Ws => format!("ws://{addr}{PATH}"),
        Scheme::Wss => format!("wss://{addr}{PATH}"),
    }
}

/// What the work needs, beyond Verge's defaults.
const VERGE_SETTINGS: [&str; 4] = [
    "session.inflight_max=1000",
    "session.receive_maximum=1000",
    "queue.messages_max=1000000",
    "queue.bytes_max=1073741824",
];

fn rumqttd_config(addr: SocketAddr, secure: SocketAddr, tls: Option<&ServerFiles>) -> String {
    let server = |kind: &str, name: &str, addr: SocketAddr, more: &str| {
        format!(
            "[{kind}.{name}]\nname = \"{name}\"\nlisten = \"{addr}\"\nnext_connection_delay_ms = 0\n\
             [{kind}.{name}.connections]\nconnection_timeout_ms = 60000\n\
             max_payload_size = 1048576\nmax_inflight_count = 1000\ndynamic_filters = true\n{more}"
        )
    };
    let mut text = format!(
        "id = 0\n[router]\nid = 0\nmax_connections = {CONNECTIONS_MAX}\n\
         max_outgoing_packet_count = 1000\nmax_segment_size = 104857600\nmax_segment_count = 10\n"
    );
    text += &server("v4", "tcp", addr, "");
    if let Some(files) = tls {
        let (cert, key) = (files.cert.display(), files.key.display());
        let more = format!("[v4.tls.tls]\ncertpath = \"{cert}\"\nkeypath = \"{key}\"\n");
        text += &server("v4", "tls", secure, &more);
    }
    text
}

fn rmqttd_config(
    dir: &Path,
    addr: SocketAddr,
    secure: SocketAddr,
    tls: Option<&ServerFiles>,
) -> String {
    let limits = format!(
        "max_connections = {CONNECTIONS_MAX}\nmax_handshaking_limit = 10000\nallow_anonymous = true\n\
         max_inflight = 1000\nmax_mqueue_len = 1000000\nmqueue_rate_limit = \"10000000,1s\"\n\
         max_packet_size = \"2m\"\nmax_subscriptions = 0\nnodelay = true\n\
         session_expiry_interval = \"2h\"\n"
    );
    let mut text = format!(
        "[node]\nid = 1\n[node.busy]\ncheck_enable = false\n[plugins]\ndir = \"{0}\"\ndefault_startups = []\n\
         [log]\nto = \"off\"\nlevel = \"error\"\ndir = \"{0}\"\nfile = \"rmqtt.log\"\n\
         [rpc]\nserver_addr = \"127.0.0.1:0\"\n\
         [listener.tcp.external]\naddr = \"{addr}\"\n{limits}",
        dir.display()
    );
    if let Some(files) = tls {
        text += &format!(
            "[listener.tls.external]\naddr = \"{secure}\"\ncert = \"{}\"\nkey = \"{}\"\n{limits}",
            files.cert.display(),
            files.key.display()
        );
    }
    text
}
