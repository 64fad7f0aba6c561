//! What an idle client costs a node: connects many clients, lets them be, and divides what the
//! node's resident memory grew by.
//!
//! ```text
//! cargo run --release --workspace --example idle -- URL COUNT PID [CA]
//! cargo run --release --workspace --example idle -- quic://localhost:14567 5000 4711 certs/ca.pem
//! ```
//!
//! PID is the node's process, of which `/proc/PID/status` is read before and after. The clients run
//! here, so that none of their memory is counted. The first hundred connect before the first look:
//! what a node makes for its first clients is no cost of one client.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;
use verge::client::net::ConnectOptions;
use verge::client::tls::TlsOptions;
use verge::client::{Address, ClientSession, Connection, SessionOptions};
use verge_mqtt_proto::ProtocolVersion;

/// Handshakes under way at once: fewer than make a node ask for address validation.
const AT_ONCE: usize = 64;

/// Clients before the first look.
const WARM: usize = 100;

/// How long the node is left alone before it is looked at.
const SETTLE: Duration = Duration::from_secs(5);

/// Longest wait for one client.
const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("idle: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &[String]) -> Result<(), String> {
    let [url, count, pid, ca @ ..] = args else {
        return Err("say URL COUNT PID [CA]".to_owned());
    };
    let url: Address = url.parse()?;
    let count: usize = count.parse().map_err(|_| "COUNT is a number")?;
    let options = TlsOptions { ca: ca.first().map(Into::into), ..TlsOptions::default() };
    let options = ConnectOptions { timeout: TIMEOUT, tls: Some(options.client_config()?) };
    let mut clients = Clients::new(url, options);
    clients.connect(WARM).await?;
    sleep(SETTLE).await;
    let before = resident_kib(pid)?;
    clients.connect(count).await?;
    sleep(SETTLE).await;
    let after = resident_kib(pid)?;
    let each = (after - before) * 1024.0 / count as f64;
    println!("{count} clients: {before:.0} KiB before, {after:.0} KiB after, {each:.0} bytes each");
    Ok(())
}

/// Clients that stay.
struct Clients {
    url: Address,
    options: ConnectOptions,
    gate: Arc<Semaphore>,
    number: usize,
}

impl Clients {
    fn new(url: Address, options: ConnectOptions) -> Self {
        Self { url, options, gate: Arc::new(Semaphore::new(AT_ONCE)), number: 0 }
    }

    /// Connects so many more.
    async fn connect(&mut self, count: usize) -> Result<(), String> {
        let (told, mut outcomes) = mpsc::channel(count);
        for _ in 0..count {
            self.number += 1;
            let permit = Arc::clone(&self.gate).acquire_owned().await;
            let (url, options, told) = (self.url.clone(), self.options.clone(), told.clone());
            let name = format!("idle-{}", self.number);
            tokio::spawn(async move {
                let mut session = ClientSession::new(SessionOptions {
                    keep_alive_secs: 1_200,
                    ..SessionOptions::new(&name, ProtocolVersion::V5)
                });
                let connected = Connection::connect(&url, &options, &mut session).await;
                drop(permit);
                match connected {
                    Ok(mut connection) => {
                        let _ = told.send(Ok(())).await;
                        drop(told);
                        while connection.next().await.is_ok() {}
                    }
                    Err(error) => {
                        let _ = told.send(Err(format!("{name}: {error}"))).await;
                    }
                }
            });
        }
        drop(told);
        while let Some(outcome) = outcomes.recv().await {
            outcome?;
        }
        Ok(())
    }
}

/// VmRSS of a process, in KiB.
fn resident_kib(pid: &str) -> Result<f64, String> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| format!("{path}: no VmRSS"))
}
