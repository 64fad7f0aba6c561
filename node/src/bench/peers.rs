//! The brokers that are compared: found or installed, started, stopped and started again.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use verge_storage::Promise;

use super::poll::{MS, SEC, now};
use super::settings::{Wanted, arguments, verge_url};
use crate::client::address::Scheme;
use crate::demo::ports::Ports;

/// How long a broker may take to listen.
const START_SECS: u64 = 20;
/// How long one with much to read may take to listen again, or with much to write to end.
const RESTART_SECS: u64 = 300;
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

    /// Whether it can keep sessions over a restart.
    pub(super) const fn is_durable(self) -> bool {
        matches!(self, Self::Verge | Self::Mosquitto | Self::Rmqttd)
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

/// How a broker is to be, beyond what all are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manner {
    /// A listener of Verge beside those that every workload has.
    pub(super) scheme: Option<Scheme>,
    /// What it promises for what it keeps; none for its usual way.
    pub(super) promise: Option<Promise>,
    /// As many messages under way to a client as it allows by default, instead of 1,000.
    pub(super) modest: bool,
    /// What it writes is to spare a roadside unit's disk.
    pub(super) flash: bool,
}

/// A broker that serves.
pub(super) struct Broker {
    pub(super) peer: Peer,
    pub(super) addr: SocketAddr,
    /// Where it speaks TLS, if it does.
    pub(super) tls: Option<SocketAddr>,
    /// Where it speaks what else was asked for.
    pub(super) held: Option<SocketAddr>,
    program: PathBuf,
    args: Vec<String>,
    child: Child,
    _ports: Ports,
    /// Its files; they go with it.
    dir: tempfile::TempDir,
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
        manner: Manner,
    ) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{}: {error}", peer.name());
        let program = peer.program().ok_or_else(|| format!("{} is not installed", peer.name()))?;
        let dir = tempfile::tempdir().map_err(failed)?;
        let mut ports = Ports::new();
        let addr = ports.take().map_err(failed)?;
        let secure = ports.take().map_err(failed)?;
        let tls = files.filter(|_| peer != Peer::Null);
        let Manner { promise, modest, flash, .. } = manner;
        let wanted = Wanted { dir: dir.path(), addr, secure, tls, promise, modest, flash };
        let mut args = arguments(peer, &wanted).map_err(failed)?;
        let held = manner.scheme.map(|scheme| Ok((scheme, ports.take()?)));
        let held = held.transpose().map_err(failed)?;
        if let Some((scheme, addr)) = held {
            args.extend(["--listen".to_owned(), verge_url(scheme, addr)]);
        }
        let held = held.map(|(_, addr)| addr);
        let child = spawn(&program, &args, dir.path()).map_err(failed)?;
        let tls = tls.map(|_| secure);
        let mut broker = Self { peer, addr, tls, held, program, args, child, _ports: ports, dir };
        broker.await_listener(START_SECS)?;
        Ok(broker)
    }

    /// Ends it, asked to or as a crash would.
    ///
    /// # Errors
    /// It does not end.
    pub(super) fn stop(&mut self, asked: bool) -> Result<(), String> {
        let pid = rustix::process::Pid::from_child(&self.child);
        let signal = match asked {
            true => rustix::process::Signal::Term,
            false => rustix::process::Signal::Kill,
        };
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", self.peer.name());
        rustix::process::kill_process(pid, signal).map_err(|error| failed(&error))?;
        let end = now() + RESTART_SECS * SEC;
        while now() < end {
            if self.child.try_wait().map_err(|error| failed(&error))?.is_some() {
                return Ok(());
            }
            pause(MS);
        }
        Err(failed(&format!("does not end within {RESTART_SECS} s")))
    }

    /// Starts it again on what it has kept. The nanoseconds until it accepts connections; Verge's
    /// until it says that it is ready.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn resume(&mut self) -> Result<u64, String> {
        let start = now();
        let spawned = spawn(&self.program, &self.args, self.dir.path());
        self.child = spawned.map_err(|error| format!("{}: {error}", self.peer.name()))?;
        self.await_listener(RESTART_SECS)?;
        let log = self.dir.path().join("log");
        while self.peer == Peer::Verge && now() < start + RESTART_SECS * SEC {
            if fs::read_to_string(&log).unwrap_or_default().contains("ready ") {
                break;
            }
            pause(MS / 2);
        }
        Ok(now() - start)
    }

    /// Its processes.
    pub(super) fn pids(&self) -> [u32; 1] {
        [self.child.id()]
    }

    /// Bytes of its files.
    pub(super) fn disk_bytes(&self) -> u64 {
        let mut folders = vec![self.dir.path().to_owned()];
        let mut sum = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(about) if about.is_dir() => folders.push(entry.path()),
                    // Space that is taken ahead and not used is not counted.
                    Ok(about) => sum += about.len().min(about.blocks() * 512),
                    Err(_) => {}
                }
            }
        }
        sum
    }

    fn await_listener(&mut self, secs: u64) -> Result<(), String> {
        let end = now() + secs * SEC;
        let wanted: Vec<_> = std::iter::once(self.addr).chain(self.tls).collect();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(3).collect();
                return Err(format!("{} ended at start ({status}): {tail:?}", self.peer.name()));
            }
            let one = Duration::from_millis(200);
            if wanted.iter().all(|addr| TcpStream::connect_timeout(addr, one).is_ok()) {
                return Ok(());
            }
            if now() > end {
                return Err(format!("{} does not listen after {secs} s", self.peer.name()));
            }
            pause(MS);
        }
    }
}

/// Starts a program in its folder; its log begins anew.
fn spawn(program: &Path, args: &[String], dir: &Path) -> io::Result<Child> {
    let log = fs::File::create(dir.join("log"))?;
    let mut command = Command::new(program);
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("VERGE") {
            command.env_remove(key);
        }
    }
    let command = command.args(args).current_dir(dir).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log).spawn()
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
