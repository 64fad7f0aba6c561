//! `verge check`: every setting with its value, where it came from, and what it means.

use std::fmt::Write;

use super::load::{self, Loaded};
use super::sections::{Config, list_items};

/// What each key means, in the order of the file.
const MEANINGS: &[(&str, &str)] = &[
    ("node.id", "name of the node in the mesh and in its certificate"),
    ("node.role", "profile of defaults: rsu, regional or cloud"),
    ("node.region", "nodes of one region know each other's routes and sessions"),
    ("node.position", "where the node stands, for steering vehicles: \"LAT,LON\""),
    ("node.data_dir", "directory of everything the node keeps"),
    ("node.shards", "threads that serve clients; 0 is one per core but one"),
    ("listeners", "where clients connect"),
    ("tls.cert", "certificate chain of the tls://, wss:// and quic:// listeners"),
    ("tls.key", "private key of that certificate"),
    ("tls.client_ca", "authorities whose client certificates are accepted"),
    ("tls.client_crl", "client certificates that are revoked"),
    ("tls.client_certificate", "none, optional or required"),
    ("tls.certificates", "certificates for clients that ask for a server by name"),
    ("auth.allow_anonymous", "who needs no credentials: loopback, always or never"),
    ("auth.users_file", "users with passwords, made by `verge passwd FILE USER`"),
    ("session.expiry_max", "longest Session Expiry Interval granted"),
    ("session.v3_expiry", "how long a 3.1.1 session outlives its connection"),
    ("session.park_after", "how long a session without a connection stays in memory"),
    ("session.receive_maximum", "unacknowledged publications a client may have here"),
    ("session.inflight_max", "unacknowledged messages sent to a client"),
    ("session.topic_alias_maximum", "topic aliases a client may use"),
    (
        "session.topic_alias_maximum_out",
        "topic aliases set towards a client that accepts them; 0 is none",
    ),
    ("session.keep_alive_max", "longest keep alive granted"),
    ("session.packet_bytes_max", "largest packet taken from a client"),
    ("session.connect_timeout", "time from a connection's start to its CONNECT"),
    ("session.subscriptions_max", "subscriptions of a session; one more is refused with 0x97"),
    ("session.qos_max", "highest QoS granted"),
    ("session.retain_available", "whether messages may be retained"),
    ("session.wildcard_subscription_available", "whether filters may have + and #"),
    ("session.subscription_identifier_available", "whether subscriptions may have identifiers"),
    ("session.shared_subscription_available", "whether there are shared subscriptions"),
    ("session.response_information", "basis of response topics, told to clients that ask"),
    ("session.payload_format_checked", "whether a payload that says it is UTF-8 must be"),
    ("session.publish_rate_max", "messages a client may publish in a second; 0 is any number"),
    ("session.publish_bytes_rate_max", "bytes a client may publish in a second; 0 is any number"),
    ("queue.messages_max", "messages kept for a session"),
    ("queue.bytes_max", "bytes kept for a session"),
    ("queue.output_bytes_high", "bytes waiting for a slow connection before its queue stops"),
    (
        "queue.publisher_hold_max",
        "time publishers wait for a subscriber whose queue is half full; 0s drops what finds it full",
    ),
    ("queue.output_bytes_total", "bytes waiting for all slow connections; near it each has little"),
    ("retained.messages_max", "topics with a retained message; for one more, 0x97 is answered"),
    ("retained.bytes_max", "bytes of retained messages; for more, 0x97 is answered"),
    (
        "shared.strategy",
        "who of a shared subscription gets a message: local-first, round-robin, random, sticky, \
         hash-client or hash-topic",
    ),
    (
        "shared.redeliver",
        "when other members get what one has not acknowledged: session-end or connection-lost",
    ),
    ("delayed.messages_max", "messages to $delayed/SECONDS/TOPIC that wait; 0 takes none"),
    ("delayed.bytes_max", "bytes of them"),
    ("sys.interval", "how often the node publishes its state to $SYS topics; 0s is never"),
    (
        "events.on",
        "events of clients that are told: connected, disconnected, subscribed, unsubscribed, dropped",
    ),
    ("events.rate_max", "most of them in a second; what is beyond is dropped"),
    ("topic_metrics.topics", "topics that are counted from the start"),
    ("rewrite", "topics and filters that become others; the first whose filter matches decides"),
    ("auto_subscribe", "what every client is subscribed to at CONNECT"),
    ("sessions", "promise by client or user, * is any text; topics go before, listeners after"),
    ("share_groups", "shared subscriptions with a strategy of their own; the first match decides"),
    ("handover.lookup", "time to find out which node owns a session"),
    ("handover.hold", "time new messages wait for older ones still on their way"),
    ("handover.unreachable_wait", "time a CONNECT waits for an old owner that does not answer"),
    ("handover.linger", "time an old owner still takes late messages, at least"),
    ("handover.imports_max", "sessions moved here at once"),
    ("mesh.listen", "UDP address for links of other nodes; not set is no mesh unless mesh.join is"),
    ("mesh.advertise", "address at which peers reach this node; not set is mesh.listen"),
    ("mesh.join", "nodes to join the mesh by"),
    ("mesh.dials_only", "peers cannot dial this node (NAT); it dials them"),
    ("mesh.dev", "trust all nodes of this user on loopback; for trials"),
    ("mesh.cert", "mesh certificate of this node"),
    ("mesh.key", "private key of that certificate"),
    ("mesh.ca", "authority of the mesh"),
    ("mesh.crl", "mesh certificates that are revoked"),
    (
        "storage.promise",
        "what an acknowledgement survives: memory, buffered (the process), synced (power)",
    ),
    (
        "storage.profile",
        "kind of disk: flash (wears, a roadside unit's), ssd, or server (fast, and cores to spare)",
    ),
    (
        "storage.gather",
        "how long after a write what comes waits for the next, which spares a disk; not set is 0ms",
    ),
    ("storage.cache_bytes", "memory for reading"),
    ("storage.write_buffer_bytes", "memory for writing"),
    (
        "storage.reserve_bytes",
        "free bytes of the disk below which what must be stored is refused; 0 is never",
    ),
    ("topics", "class and scope of publications by topic; the first match decides"),
    ("uplink.select", "filters of publications that go to the cloud tier"),
    ("uplink.batch_rows_max", "most rows sent at once"),
    ("uplink.batch_bytes_max", "most bytes sent at once, before compression"),
    ("uplink.linger", "time rows wait for a fuller batch"),
    ("lake.dir", "directory of the cloud tier's tables"),
    ("lake.commit_interval", "time batches are gathered for one commit"),
    ("lake.commit_rows_max", "rows with which a commit does not wait longer"),
    ("admin.listen", "address of the admin HTTP API"),
    ("log.format", "text or json"),
    ("log.level", "error, warn, info, debug or trace; also by module"),
    ("shutdown.deadline", "longest time from SIGTERM to the end"),
    ("shutdown.server_reference", "where clients are sent when the node goes down: \"HOST:PORT\""),
];

/// What the keys of a listener mean; those of other lists say it by their names.
const LISTENER_MEANINGS: &[(&str, &str)] = &[
    ("listeners.url", "scheme, host and port"),
    ("listeners.promise", "what an acknowledgement survives; not set is storage.promise"),
    ("listeners.connections_max", "connections at once"),
    ("listeners.connecting_max", "connections at once that have not sent CONNECT"),
    (
        "listeners.connecting_per_address_max",
        "those of them from one address, or one IPv6 /64; 0 is any number; not behind proxies",
    ),
    (
        "listeners.connect_rate_max",
        "CONNECTs in a second, 0 is any number; one more is refused with 0x9F, before 5.0 with 0x03",
    ),
    ("listeners.proxy_protocol", "clients come through proxies, which say for whom they speak"),
    ("listeners.proxy_trusted", "proxies that are believed"),
];

/// The meaning of a key.
fn meaning(key: &str) -> &'static str {
    let mut known = MEANINGS.iter().chain(LISTENER_MEANINGS);
    known.find(|(name, _)| *name == key).map_or("", |(_, meaning)| meaning)
}

/// The whole configuration as text: valid TOML, with a comment on each line.
#[must_use]
pub fn explain(loaded: &Loaded) -> String {
    let tree = load::tree(&loaded.config);
    let mut out = summary(&loaded.config);
    let mut open = String::new();
    let lists_of_tables = list_items();
    let (lists, values): (Vec<_>, Vec<_>) =
        MEANINGS.iter().map(|(key, _)| *key).partition(|key| lists_of_tables.contains_key(key));
    let width = 46;
    for key in values {
        let (section, name) = key.split_once('.').unwrap_or((key, ""));
        if section != open {
            section.clone_into(&mut open);
            let _ = writeln!(out, "\n[{section}]");
        }
        let value = load::at(&tree, key).cloned().unwrap_or_default();
        let line = match value.is_null() {
            true => format!("# {name} is not set"),
            false => format!("{name} = {value}"),
        };
        let place = loaded.sources.get(key).map(|place| format!(" (from {place})"));
        let _ = writeln!(out, "{line:width$} # {}{}", meaning(key), place.unwrap_or_default());
    }
    for key in lists {
        for item in load::at(&tree, key).and_then(|list| list.as_array()).into_iter().flatten() {
            let _ = writeln!(out, "\n[[{key}]] # {}", meaning(key));
            for (name, value) in item.as_object().into_iter().flatten() {
                if value.is_null() {
                    continue;
                }
                let line = format!("{name} = {value}");
                let _ = match meaning(&format!("{key}.{name}")) {
                    "" => writeln!(out, "{line}"),
                    meaning => writeln!(out, "{line:width$} # {meaning}"),
                };
            }
        }
    }
    out
}

/// A few sentences on what the node would be.
fn summary(config: &Config) -> String {
    let mut out = String::new();
    let node = &config.node;
    let _ = writeln!(out, "# Node {} of region {}, role {}.", node.id, node.region, node.role);
    for listener in &config.listeners {
        let promise = listener.promise.unwrap_or(config.storage.promise).0;
        let _ = writeln!(
            out,
            "# Clients connect at {}; acknowledged publications are {promise}.",
            listener.url.0
        );
    }
    let mesh = match (config.mesh.listen, config.mesh.join.len()) {
        (None, 0) => "# No mesh: mesh.listen and mesh.join are not set.".to_owned(),
        (Some(listen), 0) => format!("# Other nodes join at {listen}."),
        (Some(listen), joins) => format!("# Links at {listen}; joins by {joins} address(es)."),
        (None, joins) => {
            format!("# Joins by {joins} address(es), at a port of the system's choice.")
        }
    };
    let _ = writeln!(out, "{mesh}");
    if !config.uplink.select.is_empty() {
        let _ = writeln!(out, "# Goes to the cloud tier: {}.", config.uplink.select.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use verge_model::Role;

    use super::*;
    use crate::config::Loader;

    #[test]
    fn every_key_has_a_meaning_and_every_meaning_a_key() {
        let loaded = Loader::new().finish(Role::Rsu).unwrap();
        let mut keys = load::keys(&load::tree(&loaded.config));
        let mut explained: Vec<_> = MEANINGS.iter().map(|(key, _)| (*key).to_owned()).collect();
        keys.sort();
        explained.sort();
        assert_eq!(keys, explained);
        let items = list_items();
        let items = items["listeners"].as_object().unwrap().keys();
        let mut keys: Vec<_> = items.map(|key| format!("listeners.{key}")).collect();
        let mut explained: Vec<_> = LISTENER_MEANINGS.iter().map(|(key, _)| *key).collect();
        keys.sort();
        explained.sort_unstable();
        assert_eq!(keys, explained);
    }

    #[test]
    fn an_explanation_is_a_configuration_again() {
        let named = json!({"names": ["a.example", "*.b.example"], "cert": "a.pem", "key": "a.key"});
        let listener = json!({"url": "ws://127.0.0.1:80", "proxy_protocol": true,
            "proxy_trusted": ["10.0.0.0/8", "::1"], "connecting_max": 7, "connecting_per_address_max": 3, "connect_rate_max": 50});
        let mut loader = Loader::new();
        loader.set("node.id=rsu-1").unwrap();
        loader.set("node.position=48.1,11.5").unwrap();
        loader.set("uplink.select=a/#,b/+").unwrap();
        loader.flag("test", "tls.certificates", vec![named]);
        loader.flag("test", "listeners", vec![listener]);
        let loaded = loader.finish(Role::Regional).unwrap();
        let text = explain(&loaded);
        let line = text.lines().find(|line| line.starts_with("connect_rate_max = 50 ")).unwrap();
        assert!(line.contains("# CONNECTs in a second, 0 is any number"), "{line}");
        assert!(text.contains("\"rsu-1\"") && text.contains("(from --set)"), "{text}");

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut again = Loader::new();
        again.file(file.path()).unwrap();
        assert_eq!(again.finish(Role::Rsu).unwrap().config, loaded.config);
    }
}
