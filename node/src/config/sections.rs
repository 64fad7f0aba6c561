//! The sections of a configuration file and their types. Defaults by role are in `profile`, what
//! each key means is in `explain`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use verge_broker_core::rule::Scope;
use verge_model::{Class, LatLon, NodeId, Role};
use verge_storage::Promise;
use verge_storage_rocksdb::Profile;

pub use super::extensions::{
    AutoSubscribeSection, DelayedSection, EventsSection, RetainedSection, RewriteSection,
    SessionRuleSection, ShareGroupSection, SharedSection, SysSection, TopicMetricsSection,
};
use super::text::{ListenerUrl, Network, Span, SpanOrNever, Text};

/// All settings of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who the node is.
    pub node: NodeSection,
    /// Where clients connect.
    pub listeners: Vec<ListenerSection>,
    /// Certificates of `tls://` and `wss://` listeners.
    pub tls: TlsSection,
    /// Who may connect.
    pub auth: AuthSection,
    /// What sessions are granted.
    pub session: SessionSection,
    /// What waits for a session.
    pub queue: QueueSection,
    /// Retained messages.
    pub retained: RetainedSection,
    /// Shared subscriptions.
    pub shared: SharedSection,
    /// What is promised to sessions by whose they are; the first that matches decides.
    pub sessions: Vec<SessionRuleSection>,
    /// Groups of shared subscriptions that choose otherwise; the first that names one decides.
    pub share_groups: Vec<ShareGroupSection>,
    /// Messages that are published later.
    pub delayed: DelayedSection,
    /// The node's state as topics.
    pub sys: SysSection,
    /// What clients do as messages.
    pub events: EventsSection,
    /// Counts of single topics.
    pub topic_metrics: TopicMetricsSection,
    /// Topics and filters that become others; the first whose filter matches decides.
    pub rewrite: Vec<RewriteSection>,
    /// What every client is subscribed to at CONNECT.
    pub auto_subscribe: Vec<AutoSubscribeSection>,
    /// How sessions move between nodes.
    pub handover: HandoverSection,
    /// Links to other nodes.
    pub mesh: MeshSection,
    /// What the disk promises.
    pub storage: StorageSection,
    /// Rules by topic; the first that matches decides.
    pub topics: Vec<TopicSection>,
    /// What goes to the cloud tier.
    pub uplink: UplinkSection,
    /// The cloud tier's tables; read by `verge-cloud` only.
    pub lake: LakeSection,
    /// The admin API.
    pub admin: AdminSection,
    /// The log.
    pub log: LogSection,
    /// How the node goes down.
    pub shutdown: ShutdownSection,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    /// The node's name in the mesh.
    pub id: NodeId,
    /// Its profile of defaults.
    pub role: Role,
    /// Its region.
    pub region: String,
    /// Where it stands.
    pub position: Option<Text<LatLon>>,
    /// Where it keeps what it keeps.
    pub data_dir: PathBuf,
    /// Shard threads; 0 is one per core.
    pub shards: u16,
}

/// `[[listeners]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerSection {
    /// Scheme, host and port.
    pub url: Text<ListenerUrl>,
    /// Promise for what is published here; `None` takes the storage's.
    #[serde(default)]
    pub promise: Option<Text<Promise>>,
    /// Most connections at once.
    #[serde(default = "ListenerSection::default_connections_max")]
    pub connections_max: usize,
    /// Most connections at once that have not said CONNECT.
    #[serde(default = "ListenerSection::default_connecting_max")]
    pub connecting_max: usize,
    /// Most of them from one address; 0 for any.
    #[serde(default = "ListenerSection::default_connecting_per_address_max")]
    pub connecting_per_address_max: usize,
    /// Most CONNECTs in a second; 0 for any.
    #[serde(default)]
    pub connect_rate_max: u32,
    /// Clients are behind proxies, which say for whom they speak.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Proxies that are believed.
    #[serde(default = "ListenerSection::default_proxy_trusted")]
    pub proxy_trusted: Vec<Text<Network>>,
}

impl ListenerSection {
    /// What the operating system's default of a million open files leaves room for, and far more
    /// than a roadside unit sees.
    fn default_connections_max() -> usize {
        100_000
    }

    /// What a core shakes hands with in a few seconds, at some kilobytes each: more at once is an
    /// attack, or takes longer than clients wait.
    fn default_connecting_max() -> usize {
        4_096
    }

    /// Half of all: one address alone keeps nobody else out. Thousands of vehicles may share the
    /// address of their network.
    fn default_connecting_per_address_max() -> usize {
        Self::default_connecting_max() / 2
    }

    /// Proxies of this machine.
    fn default_proxy_trusted() -> Vec<Text<Network>> {
        Network::loopback().map(Text).into()
    }

    /// A listener with nothing but its address given.
    #[must_use]
    pub fn of(url: ListenerUrl) -> Self {
        Self {
            url: Text(url),
            promise: None,
            connections_max: Self::default_connections_max(),
            connecting_max: Self::default_connecting_max(),
            connecting_per_address_max: Self::default_connecting_per_address_max(),
            connect_rate_max: 0,
            proxy_protocol: false,
            proxy_trusted: Self::default_proxy_trusted(),
        }
    }
}

/// `[tls]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// The listeners' certificate chain, PEM.
    pub cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// Authorities whose client certificates are accepted, PEM.
    pub client_ca: Option<PathBuf>,
    /// Revoked client certificates, PEM.
    pub client_crl: Option<PathBuf>,
    /// Whether clients show a certificate.
    pub client_certificate: ClientCertificate,
    /// Certificates for clients that ask for a server by name.
    pub certificates: Vec<CertificateSection>,
}

/// `[[tls.certificates]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateSection {
    /// Server names that get it; `*.` before a name stands for one label.
    pub names: Vec<String>,
    /// The certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificate {
    /// None is asked for.
    None,
    /// One that is shown is verified.
    Optional,
    /// Without one there is no connection.
    Required,
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSection {
    /// Who may connect without credentials.
    pub allow_anonymous: Anonymous,
    /// Users with passwords, made by `verge passwd`.
    pub users_file: Option<PathBuf>,
}

/// Who may connect without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// Clients of this machine.
    Loopback,
    /// Everyone.
    Always,
    /// No one.
    Never,
}

impl Anonymous {
    /// Whether a client from `peer` may.
    #[must_use]
    pub fn allows(self, peer: SocketAddr) -> bool {
        match self {
            Self::Loopback => peer.ip().to_canonical().is_loopback(),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// `[session]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionSection {
    /// Longest Session Expiry Interval granted.
    pub expiry_max: Text<SpanOrNever>,
    /// How long a 3.1.1 session with Clean Session 0 outlives its connection.
    pub v3_expiry: Text<SpanOrNever>,
    /// How long a session without a connection stays in memory.
    pub park_after: Text<Span>,
    /// Receive Maximum granted.
    pub receive_maximum: u16,
    /// Most messages in flight to a client.
    pub inflight_max: u16,
    /// Topic Alias Maximum granted.
    pub topic_alias_maximum: u16,
    /// Most topic aliases set towards a client.
    pub topic_alias_maximum_out: u16,
    /// Longest keep alive granted.
    pub keep_alive_max: Text<Span>,
    /// Largest packet taken.
    pub packet_bytes_max: usize,
    /// How long a connection may take for its CONNECT.
    pub connect_timeout: Text<Span>,
    /// Most subscriptions of a session.
    pub subscriptions_max: usize,
    /// Highest QoS granted.
    pub qos_max: u8,
    /// Whether messages may be retained.
    pub retain_available: bool,
    /// Whether filters may have wildcards.
    pub wildcard_subscription_available: bool,
    /// Whether subscriptions may have identifiers.
    pub subscription_identifier_available: bool,
    /// Whether subscriptions may be shared.
    pub shared_subscription_available: bool,
    /// Basis of response topics.
    pub response_information: Option<String>,
    /// Whether a payload that says it is UTF-8 must be.
    pub payload_format_checked: bool,
    /// Most messages a client may publish in a second.
    pub publish_rate_max: u32,
    /// Most bytes a client may publish in a second.
    pub publish_bytes_rate_max: u64,
}

/// `[queue]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSection {
    /// Most messages owed to a session.
    pub messages_max: usize,
    /// Most bytes owed to a session.
    pub bytes_max: usize,
    /// Bytes in a connection's output above which its queue waits.
    pub output_bytes_high: usize,
    /// How long publishers wait for a subscriber whose queue is half full.
    pub publisher_hold_max: Text<Span>,
    /// Bytes in the outputs of all connections together; from half of it on, each may hold little.
    pub output_bytes_total: usize,
}

/// `[handover]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandoverSection {
    /// How long homes are asked who owns a session.
    pub lookup: Text<Span>,
    /// How long new messages wait for older ones.
    pub hold: Text<Span>,
    /// How long a CONNECT waits for an old owner.
    pub unreachable_wait: Text<Span>,
    /// How long an old owner keeps its routes.
    pub linger: Text<Span>,
    /// Most imports at once.
    pub imports_max: usize,
}

/// `[mesh]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshSection {
    /// UDP address for links of other nodes.
    pub listen: Option<SocketAddr>,
    /// The address at which peers reach this node.
    pub advertise: Option<SocketAddr>,
    /// Nodes to join by.
    pub join: Vec<SocketAddr>,
    /// Peers cannot dial this node; it dials them.
    pub dials_only: bool,
    /// Nodes of one user on loopback share an authority made on first use.
    pub dev: bool,
    /// This node's mesh certificate, PEM.
    pub cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// The mesh's authority, PEM.
    pub ca: Option<PathBuf>,
    /// Revoked mesh certificates, PEM.
    pub crl: Option<PathBuf>,
}

impl MeshSection {
    /// Whether this node talks to others at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.listen.is_some() || !self.join.is_empty()
    }
}

/// `[storage]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageSection {
    /// What an acknowledgement promises, unless a listener says otherwise.
    pub promise: Text<Promise>,
    /// What kind of disk the data directory is on.
    pub profile: Text<Profile>,
    /// How long after a group of writes what comes waits for the next; `None` is not at all.
    pub gather: Option<Text<Span>>,
    /// Memory for reading.
    pub cache_bytes: usize,
    /// Memory for writing.
    pub write_buffer_bytes: usize,
    /// Free bytes below which messages that must be stored are refused; 0 is never.
    pub reserve_bytes: u64,
}

impl StorageSection {
    /// How long after a group of writes what comes waits for the next.
    #[must_use]
    pub fn gather(&self) -> Duration {
        self.gather.map_or(Duration::ZERO, |span| span.0.0)
    }
}

/// `[[topics]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSection {
    /// Which topics.
    pub filter: String,
    /// Priority of their messages.
    #[serde(default)]
    pub class: Option<Class>,
    /// How far their messages go.
    #[serde(default)]
    pub scope: Option<Scope>,
    /// What an acknowledgement of theirs promises; `None` takes the listener's.
    #[serde(default)]
    pub promise: Option<Text<Promise>>,
}

/// `[uplink]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkSection {
    /// Filters of publications that go to the cloud tier.
    pub select: Vec<String>,
    /// Most rows of one batch.
    pub batch_rows_max: usize,
    /// Most bytes of one batch, before compression.
    pub batch_bytes_max: usize,
    /// How long rows wait for a fuller batch.
    pub linger: Text<Span>,
}

/// `[lake]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LakeSection {
    /// Directory of the tables.
    pub dir: String,
    /// How long batches are gathered for one commit.
    pub commit_interval: Text<Span>,
    /// Rows with which a commit does not wait longer.
    pub commit_rows_max: usize,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminSection {
    /// Address of the HTTP API.
    pub listen: SocketAddr,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// How lines look.
    pub format: LogFormat,
    /// A level, or directives such as `info,verge=debug`.
    pub level: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors: one JSON object a line.
    Json,
}

/// `[shutdown]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownSection {
    /// Longest time from the signal to the end.
    pub deadline: Text<Span>,
    /// Where clients are sent.
    pub server_reference: Option<String>,
}

/// Items of lists of tables, by section: the keys each may have.
pub(super) fn list_items() -> BTreeMap<&'static str, serde_json::Value> {
    let listener = serde_json::json!({"url": "", "promise": null, "connections_max": 0,
        "connecting_max": 0, "connecting_per_address_max": 0, "connect_rate_max": 0,
        "proxy_protocol": false, "proxy_trusted": []});
    let certificate = serde_json::json!({"names": [], "cert": "", "key": ""});
    let topic = serde_json::json!({"filter": "", "class": null, "scope": null, "promise": null});
    let session = serde_json::json!({"clients": null, "users": null, "promise": ""});
    let group = serde_json::json!({"group": "", "filter": null, "strategy": ""});
    let rewrite = serde_json::json!({"action": "", "filter": "", "regex": "", "destination": ""});
    let auto = serde_json::json!({
        "filter": "", "qos": 0, "no_local": false, "retain_as_published": false,
        "retain_handling": 0,
    });
    BTreeMap::from([
        ("listeners", listener),
        ("tls.certificates", certificate),
        ("topics", topic),
        ("sessions", session),
        ("share_groups", group),
        ("rewrite", rewrite),
        ("auto_subscribe", auto),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_clients_of_this_machine_are_known_by_address() {
        let local = ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"];
        for peer in local {
            assert!(Anonymous::Loopback.allows(peer.parse().unwrap()), "{peer}");
        }
        let other = "192.0.2.1:1".parse().unwrap();
        assert!(!Anonymous::Loopback.allows(other) && Anonymous::Always.allows(other));
        assert!(!Anonymous::Never.allows("127.0.0.1:1".parse().unwrap()));
    }
}
