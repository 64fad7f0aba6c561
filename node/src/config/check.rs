//! What a configuration must fulfil as a whole, beyond each value by itself.

use std::net::SocketAddr;
use std::time::Duration;

use verge_model::Role;
use verge_mqtt_proto::TopicName;
use verge_mqtt_proto::topic::filter::TopicFilter;

use super::error::ConfigError;
use super::extensions;
use super::sections::{ClientCertificate, Config, MeshSection};
use super::text::{Scheme, Span};

/// Most shards; far beyond any machine this runs on.
const SHARDS_MAX: u16 = 256;

/// Smallest largest packet: a CONNECT with everything a plain client sends.
const PACKET_BYTES_MAX_LEAST: usize = 1_024;

/// Longest hold of publishers: below what their clients take for the loss of a connection.
const PUBLISHER_HOLD_MOST: Duration = Duration::from_secs(10);

/// Longest wait of a write for the next group: every acknowledgement of a stored message waits so.
const GATHER_MOST: Duration = Duration::from_millis(100);

/// Smallest memory for writing: a page for each of the families.
const WRITE_BUFFER_BYTES_LEAST: usize = 64 * 1_024;

/// Checks what no single value shows.
///
/// # Errors
/// The first thing that does not go together, with the key to change.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    numbers(config)?;
    listeners(config)?;
    filters(config)?;
    extensions::check(config)?;
    mesh(&config.mesh)
}

pub(super) fn wrong(text: impl Into<String>) -> Result<(), ConfigError> {
    Err(ConfigError::Conflict(text.into()))
}

fn numbers(config: &Config) -> Result<(), ConfigError> {
    let session = &config.session;
    if config.node.shards > SHARDS_MAX {
        return wrong(format!("node.shards = {}: at most {SHARDS_MAX}", config.node.shards));
    }
    if session.qos_max > 2 {
        return wrong(format!("session.qos_max = {}: QoS is 0, 1 or 2", session.qos_max));
    }
    for (key, value) in [
        ("session.receive_maximum", usize::from(session.receive_maximum)),
        ("session.inflight_max", usize::from(session.inflight_max)),
        ("session.subscriptions_max", session.subscriptions_max),
        ("queue.messages_max", config.queue.messages_max),
        ("queue.bytes_max", config.queue.bytes_max),
        ("queue.output_bytes_high", config.queue.output_bytes_high),
        ("queue.output_bytes_total", config.queue.output_bytes_total),
        ("retained.messages_max", config.retained.messages_max),
        ("retained.bytes_max", config.retained.bytes_max),
        ("handover.imports_max", config.handover.imports_max),
        ("uplink.batch_rows_max", config.uplink.batch_rows_max),
        ("uplink.batch_bytes_max", config.uplink.batch_bytes_max),
    ] {
        if value == 0 {
            return wrong(format!("{key} = 0: at least 1"));
        }
    }
    let hold = config.queue.publisher_hold_max.0.0;
    if hold > PUBLISHER_HOLD_MOST {
        return wrong(format!(
            "queue.publisher_hold_max = \"{}\": at most {} s",
            config.queue.publisher_hold_max.0,
            PUBLISHER_HOLD_MOST.as_secs()
        ));
    }
    let gather = config.storage.gather();
    if gather > GATHER_MOST {
        return wrong(format!(
            "storage.gather = \"{}\": at most {} ms",
            Span(gather),
            GATHER_MOST.as_millis()
        ));
    }
    if config.storage.write_buffer_bytes < WRITE_BUFFER_BYTES_LEAST {
        return wrong(format!(
            "storage.write_buffer_bytes = {}: at least {WRITE_BUFFER_BYTES_LEAST}",
            config.storage.write_buffer_bytes
        ));
    }
    if let Some(text) = &session.response_information
        && TopicName::parse(text).is_err()
    {
        return wrong(format!(
            "session.response_information = {text:?}: not the beginning of a topic name"
        ));
    }
    let packet = session.packet_bytes_max;
    let most = verge_mesh::FRAME_BYTES_MAX / 2;
    if !(PACKET_BYTES_MAX_LEAST..=most).contains(&packet) {
        return wrong(format!(
            "session.packet_bytes_max = {packet}: between {PACKET_BYTES_MAX_LEAST} and {most}"
        ));
    }
    Ok(())
}

fn listeners(config: &Config) -> Result<(), ConfigError> {
    match config.node.role {
        Role::Cloud => return Ok(()),
        Role::Rsu | Role::Regional => {}
    }
    let tls = &config.tls;
    for listener in &config.listeners {
        let url = &listener.url.0;
        if listener.proxy_protocol && url.scheme == Scheme::Quic {
            return wrong(format!("listener {url}: proxy_protocol is for listeners on TCP"));
        }
        if listener.connecting_max == 0 || listener.connections_max == 0 {
            return wrong(format!(
                "listener {url}: connections_max and connecting_max: at least 1"
            ));
        }
    }
    let asks_tls = config.listeners.iter().find(|listener| listener.url.0.scheme.has_tls());
    if let Some(listener) = asks_tls
        && (tls.cert.is_none() || tls.key.is_none())
    {
        return wrong(format!(
            "listener {}: set tls.cert and tls.key (`verge pki issue server` makes them for trials)",
            listener.url.0
        ));
    }
    for entry in &tls.certificates {
        let good = |name: &&String| {
            let name = name.strip_prefix("*.").unwrap_or(name);
            name.contains(|c: char| !c.is_ascii_digit() && c != '.')
                && rustls::pki_types::DnsName::try_from(name).is_ok()
        };
        if let Some(name) = entry.names.iter().find(|name| !good(name)) {
            return wrong(format!(
                "tls.certificates.names = \"{name}\": not a server name: write edge.example or \
                 *.edge.example"
            ));
        }
        if entry.names.is_empty() {
            let cert = entry.cert.display();
            return wrong(format!("tls.certificates.names of {cert}: name at least one server"));
        }
    }
    if tls.client_certificate != ClientCertificate::None && tls.client_ca.is_none() {
        return wrong("tls.client_certificate: set tls.client_ca to the authorities of clients");
    }
    Ok(())
}

fn filters(config: &Config) -> Result<(), ConfigError> {
    let topics = config.topics.iter().map(|rule| ("topics.filter", &rule.filter));
    let selected = config.uplink.select.iter().map(|filter| ("uplink.select", filter));
    for (key, filter) in topics.chain(selected) {
        if let Err(error) = TopicFilter::parse(filter) {
            return wrong(format!("{key} = \"{filter}\": not a topic filter: {error}"));
        }
    }
    Ok(())
}

fn mesh(mesh: &MeshSection) -> Result<(), ConfigError> {
    if !mesh.is_on() {
        return Ok(());
    }
    let loopback = |addr: &SocketAddr| addr.ip().is_loopback();
    if mesh.dev {
        let addresses = mesh.listen.iter().chain(&mesh.advertise).chain(&mesh.join);
        if let Some(addr) = addresses.into_iter().find(|addr| !loopback(addr)) {
            return wrong(format!(
                "mesh.dev = true is for loopback only, and {addr} is not: use a certificate of \
                 your mesh (`verge pki init`, `verge pki issue node`)"
            ));
        }
        return Ok(());
    }
    for (key, path) in [("mesh.cert", &mesh.cert), ("mesh.key", &mesh.key), ("mesh.ca", &mesh.ca)] {
        if path.is_none() {
            return wrong(format!(
                "the mesh needs {key}: make certificates with `verge pki init` and `verge pki \
                 issue node NAME`, or try nodes on loopback with --set mesh.dev=true"
            ));
        }
    }
    match mesh.listen {
        Some(listen)
            if listen.ip().is_unspecified() && mesh.advertise.is_none() && !mesh.dials_only =>
        {
            wrong(format!(
                "mesh.listen = {listen} does not tell peers where to reach this node: set \
                 mesh.advertise, or mesh.dials_only = true behind a NAT"
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Loader;

    fn complaint(settings: &[&str]) -> String {
        let mut loader = Loader::new();
        for setting in settings {
            loader.set(setting).unwrap();
        }
        let loaded = loader.finish(Role::Rsu).unwrap();
        check(&loaded.config).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn complaints_about_lists_name_the_entry() {
        let said = |key: &str, item: serde_json::Value| {
            let mut loader = Loader::new();
            loader.flag("test", key, vec![item]);
            let loaded = loader.finish(Role::Rsu);
            let checked = loaded.and_then(|loaded| check(&loaded.config));
            checked.map_or_else(|error| error.to_string(), |()| String::new())
        };
        let cert = |names: &[&str]| json!({"names": names, "cert": "a.pem", "key": "a.key"});
        let listener =
            |url: &str, key: &str, value: serde_json::Value| json!({"url": url, key: value});
        let (tcp, quic) = ("tcp://127.0.0.1:1", "quic://127.0.0.1:1");
        for (key, item, wanted) in [
            ("tls.certificates", cert(&["edge.example", "*.edge.example"]), ""),
            ("tls.certificates", cert(&[]), "tls.certificates.names of a.pem: name at least one"),
            ("tls.certificates", cert(&["192.0.2.1"]), "\"192.0.2.1\": not a server name"),
            ("tls.certificates", json!({"names": []}), "tls.certificates[0]"),
            (
                "tls.certificates",
                json!({"name": "a"}),
                "nearest known key is 'tls.certificates.names'",
            ),
            ("listeners", listener(tcp, "proxy_trusted", json!(["10.0.0.0/8"])), ""),
            ("listeners", listener(tcp, "proxy_trusted", json!(["ten"])), "'ten' is not a network"),
            ("listeners", listener(tcp, "connecting_max", json!(0)), "connecting_max: at least 1"),
            ("listeners", listener(tcp, "connect_rate_max", json!(100)), ""),
            ("listeners", listener(tcp, "connect_rate_max", json!(-1)), "listeners[0]"),
            ("listeners", listener(tcp, "connect_rate_max", json!("fast")), "listeners[0]"),
            ("listeners", listener(tcp, "connecting_per_address_max", json!(0)), ""),
            ("listeners", listener(tcp, "connecting_per_address_max", json!(-1)), "listeners[0]"),
            ("listeners", listener(tcp, "proxy_protocol", json!("yes")), "listeners[0]"),
            (
                "listeners",
                listener(quic, "proxy_protocol", json!(true)),
                "proxy_protocol is for listeners on TCP",
            ),
        ] {
            let said = said(key, item);
            assert!(said.contains(wanted) && said.is_empty() == wanted.is_empty(), "{said}");
            assert!(!said.contains('\n'), "{said}");
        }
    }

    #[test]
    fn each_complaint_names_the_key_to_change() {
        let transcript: &[(&[&str], &str)] = &[
            (&[], ""),
            (&["listeners=tls://127.0.0.1:8883"], "set tls.cert and tls.key"),
            (
                &["listeners=quic://127.0.0.1:14567"],
                "listener quic://127.0.0.1:14567: set tls.cert",
            ),
            (&["tls.client_certificate=required"], "set tls.client_ca"),
            (&["uplink.select=a/#/b"], "uplink.select = \"a/#/b\": not a topic filter"),
            (&["session.qos_max=3"], "session.qos_max = 3"),
            (&["session.response_information=a/#"], "session.response_information = \"a/#\": not"),
            (&["queue.messages_max=0"], "queue.messages_max = 0: at least 1"),
            (&["queue.publisher_hold_max=0s"], ""),
            (&["queue.publisher_hold_max=11s"], "queue.publisher_hold_max = \"11s\": at most 10 s"),
            (&["storage.gather=100ms"], ""),
            (&["storage.gather=2s"], "storage.gather = \"2s\": at most 100 ms"),
            (&["storage.write_buffer_bytes=1"], "storage.write_buffer_bytes = 1: at least"),
            (&["session.subscriptions_max=0"], "session.subscriptions_max = 0: at least 1"),
            (&["retained.messages_max=0"], "retained.messages_max = 0: at least 1"),
            (&["retained.bytes_max=0"], "retained.bytes_max = 0: at least 1"),
            (&["session.packet_bytes_max=10"], "session.packet_bytes_max = 10: between"),
            (&["mesh.listen=127.0.0.1:0"], "mesh.dev=true"),
            (&["mesh.listen=127.0.0.1:0", "mesh.dev=true"], ""),
            (&["mesh.listen=192.0.2.1:7883", "mesh.dev=true"], "192.0.2.1:7883 is not"),
            (&["mesh.join=192.0.2.1:7883", "mesh.dev=true"], "192.0.2.1:7883 is not"),
            (
                &["mesh.listen=0.0.0.0:7883", "mesh.cert=a", "mesh.key=b", "mesh.ca=c"],
                "set mesh.advertise",
            ),
        ];
        for (settings, wanted) in transcript {
            let said = complaint(settings);
            assert!(
                said.contains(wanted) && said.is_empty() == wanted.is_empty(),
                "{settings:?}: {said}"
            );
            assert!(!said.contains('\n'));
        }
    }
}
