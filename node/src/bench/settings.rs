//! How each broker is told what the work needs: limits out of the way, logs off, and what it keeps
//! in memory or on disk.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use verge_storage::Promise;

use super::held::PATH;
use super::peers::{Peer, ServerFiles};
use crate::client::address::Scheme;

/// Most connections of any workload, with room.
const CONNECTIONS_MAX: usize = 100_000;

/// Where a broker is to listen, and how it is to keep what it keeps.
pub(super) struct Wanted<'a> {
    /// Its files.
    pub(super) dir: &'a Path,
    /// MQTT over TCP.
    pub(super) addr: SocketAddr,
    /// MQTT over TLS, with these files.
    pub(super) secure: SocketAddr,
    pub(super) tls: Option<&'a ServerFiles>,
    /// What it promises; none for its usual way in this benchmark.
    pub(super) promise: Option<Promise>,
    /// As many messages under way to a client as it allows by default, instead of 1,000.
    pub(super) modest: bool,
    /// What it writes is to spare a roadside unit's disk.
    pub(super) flash: bool,
}

/// The command line of a broker, whose configuration file is written.
pub(super) fn arguments(peer: Peer, wanted: &Wanted<'_>) -> io::Result<Vec<String>> {
    let Wanted { dir, addr, secure, tls, promise, modest, flash } = *wanted;
    // What is not Verge keeps what it has in memory, or on disk in the one way that it knows.
    let kept = promise.is_some_and(|promise| promise > Promise::Memory);
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
            let windows = VERGE_WINDOWS.into_iter().filter(|_| !modest);
            for setting in VERGE_SETTINGS.into_iter().chain(windows) {
                args.extend(owned(&["--set", setting]));
            }
            // The disk of the machine that measures is no eMMC.
            let profile = if flash { "flash" } else { "server" };
            args.extend(owned(&["--set", &format!("storage.profile={profile}")]));
            if let Some(promise) = promise {
                args.extend(owned(&["--set", &format!("storage.promise={promise}")]));
            }
            args
        }
        Peer::Mosquitto => {
            let mut text = format!(
                "allow_anonymous true\npersistence {kept}\npersistence_location {}/\n\
                 log_type error\nmax_queued_messages 0\n{}set_tcp_nodelay true\n\
                 listener {} 127.0.0.1\n",
                dir.display(),
                if modest { "" } else { "max_inflight_messages 1000\n" },
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
            fs::write(&file, rmqttd_config(wanted, kept))?;
            if kept {
                let path = dir.join("sessions");
                let text = format!(
                    "storage.type = \"sled\"\nstorage.sled.path = \"{}\"\n\
                     storage.sled.cache_capacity = \"1G\"\n",
                    path.display()
                );
                fs::write(dir.join("rmqtt-session-storage.toml"), text)?;
            }
            owned(&["-f", &path])
        }
    })
}

/// One more listener of Verge.
pub(super) fn verge_url(scheme: Scheme, addr: SocketAddr) -> String {
    match scheme {
        Scheme::Tcp => format!("tcp://{addr}"),
        Scheme::Tls => format!("tls://{addr}"),
        Scheme::Quic => format!("quic://{addr}"),
        Scheme::Ws => format!("ws://{addr}{PATH}"),
        Scheme::Wss => format!("wss://{addr}{PATH}"),
    }
}

/// What the work needs, beyond Verge's defaults.
const VERGE_SETTINGS: [&str; 2] = ["queue.messages_max=1000000", "queue.bytes_max=1073741824"];

/// As other brokers are told too.
const VERGE_WINDOWS: [&str; 2] = ["session.inflight_max=1000", "session.receive_maximum=1000"];

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

fn rmqttd_config(wanted: &Wanted<'_>, kept: bool) -> String {
    let Wanted { dir, addr, secure, tls, modest, .. } = *wanted;
    let inflight = if modest { "" } else { "max_inflight = 1000\n" };
    let plugins = if kept { "\"rmqtt-session-storage\"" } else { "" };
    let limits = format!(
        "max_connections = {CONNECTIONS_MAX}\nmax_handshaking_limit = 10000\nallow_anonymous = true\n\
         {inflight}max_mqueue_len = 1000000\nmqueue_rate_limit = \"10000000,1s\"\n\
         max_packet_size = \"2m\"\nmax_subscriptions = 0\nnodelay = true\n\
         session_expiry_interval = \"2h\"\n"
    );
    let mut text = format!(
        "[node]\nid = 1\n[node.busy]\ncheck_enable = false\n[plugins]\ndir = \"{0}\"\ndefault_startups = [{plugins}]\n\
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
