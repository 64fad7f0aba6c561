//! Defaults by role. A role is nothing else: every value below can be set by hand.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use verge_broker_core::router::{Redeliver, ShareStrategy};
use verge_model::{NodeId, Role};
use verge_storage::Promise;
use verge_storage_rocksdb::Profile;

use super::sections::*;
use super::text::{ListenerUrl, Scheme, Span, SpanOrNever, Text};

/// The port of the admin API.
pub const ADMIN_PORT: u16 = 18_083;

/// The standard port of MQTT.
pub const MQTT_PORT: u16 = 1_883;

const MIB: usize = 1024 * 1024;

/// What a node of `role` does when nothing is configured.
#[must_use]
pub fn defaults(role: Role, id: NodeId) -> Config {
    // A roadside unit has 512 MB, a regional server some gigabytes.
    let large = match role {
        Role::Rsu => false,
        Role::Regional | Role::Cloud => true,
    };
    let pick = |small: usize, big: usize| if large { big } else { small };
    Config {
        node: NodeSection {
            id,
            role,
            region: "default".to_owned(),
            position: None,
            data_dir: "./verge-data".into(),
            shards: 0,
        },
        listeners: match role {
            Role::Rsu | Role::Regional => vec![ListenerSection::of(local_listener())],
            Role::Cloud => Vec::new(),
        },
        tls: TlsSection {
            cert: None,
            key: None,
            client_ca: None,
            client_crl: None,
            client_certificate: ClientCertificate::None,
            certificates: Vec::new(),
        },
        auth: AuthSection { allow_anonymous: Anonymous::Loopback, users_file: None },
        session: SessionSection {
            expiry_max: Text(SpanOrNever(Some(days(7)))),
            v3_expiry: Text(SpanOrNever(Some(days(1)))),
            park_after: secs(5),
            receive_maximum: 256,
            inflight_max: 64,
            topic_alias_maximum: 32,
            topic_alias_maximum_out: 32,
            keep_alive_max: secs(1_200),
            packet_bytes_max: MIB,
            connect_timeout: secs(10),
            subscriptions_max: pick(10_000, 100_000),
            qos_max: 2,
            retain_available: true,
            wildcard_subscription_available: true,
            subscription_identifier_available: true,
            shared_subscription_available: true,
            response_information: None,
            payload_format_checked: false,
            publish_rate_max: 0,
            publish_bytes_rate_max: 0,
        },
        queue: QueueSection {
            messages_max: pick(10_000, 100_000),
            bytes_max: pick(16 * MIB, 128 * MIB),
            output_bytes_high: pick(MIB, 4 * MIB),
            output_bytes_total: pick(32 * MIB, 512 * MIB),
            publisher_hold_max: secs(1),
        },
        retained: RetainedSection {
            messages_max: pick(100_000, 1_000_000),
            bytes_max: pick(64 * MIB, 512 * MIB),
        },
        shared: SharedSection {
            strategy: Text(ShareStrategy::LocalFirst),
            redeliver: Redeliver::SessionEnd,
        },
        sessions: Vec::new(),
        share_groups: Vec::new(),
        delayed: DelayedSection {
            messages_max: pick(10_000, 100_000) as u64,
            bytes_max: pick(16 * MIB, 128 * MIB) as u64,
        },
        sys: SysSection { interval: secs(60) },
        events: EventsSection { on: Vec::new(), rate_max: 1_000 },
        topic_metrics: TopicMetricsSection { topics: Vec::new() },
        rewrite: Vec::new(),
        auto_subscribe: Vec::new(),
        handover: HandoverSection {
            lookup: Text(Span(Duration::from_millis(300))),
            hold: secs(2),
            unreachable_wait: secs(2),
            linger: secs(30),
            imports_max: pick(64, 256),
        },
        mesh: MeshSection {
            listen: None,
            advertise: None,
            join: Vec::new(),
            dials_only: false,
            dev: false,
            cert: None,
            key: None,
            ca: None,
            crl: None,
        },
        storage: StorageSection {
            promise: Text(Promise::Synced),
            profile: Text(match role {
                Role::Rsu => Profile::Flash,
                Role::Regional => Profile::Ssd,
                Role::Cloud => Profile::Server,
            }),
            gather: None,
            cache_bytes: pick(16 * MIB, 256 * MIB),
            // The more a message finds room in memory until it is settled, the less is written.
            write_buffer_bytes: pick(48 * MIB, 128 * MIB),
            // What is in memory becomes files once more, and compactions need as much again.
            reserve_bytes: pick(64 * MIB, 512 * MIB) as u64,
        },
        topics: Vec::new(),
        uplink: UplinkSection {
            select: Vec::new(),
            batch_rows_max: 4_096,
            batch_bytes_max: MIB,
            linger: Text(Span(Duration::from_millis(200))),
        },
        lake: LakeSection {
            dir: "./verge-lake".to_owned(),
            commit_interval: secs(1),
            commit_rows_max: 100_000,
        },
        admin: AdminSection { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT)) },
        log: LogSection { format: LogFormat::Text, level: "info".to_owned() },
        shutdown: ShutdownSection { deadline: secs(10), server_reference: None },
    }
}

/// The name of a node that was given none: the machine's, as far as it fits.
#[must_use]
pub fn default_node_id() -> NodeId {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    host.trim().parse().unwrap_or_else(|_| "verge".parse().expect("a letter begins it"))
}

fn local_listener() -> ListenerUrl {
    let authority = format!("{}:{MQTT_PORT}", Ipv4Addr::LOCALHOST);
    ListenerUrl { scheme: Scheme::Tcp, authority, path: String::new() }
}

fn secs(number: u64) -> Text<Span> {
    Text(Span(Duration::from_secs(number)))
}

fn days(number: u64) -> Duration {
    Duration::from_secs(number * 24 * 3_600)
}
