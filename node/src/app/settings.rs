//! From the configuration to what each part of a node wants to know.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::available_parallelism;

use verge_broker_core::authn::Authn;
use verge_broker_core::hub::HubConfig;
use verge_broker_core::retained::RetainedLimits;
use verge_broker_core::rule::{RuleError, TopicRule, TopicRules};
use verge_broker_core::shard::api::{ShardConfig, ShardIndex, Terms};
use verge_mesh_proto::MeshConfig;
use verge_mqtt_proto::{ConnectionConfig, DecodeLimits, QoS, TopicFilter};
use verge_storage::Identity;

use crate::config::Config;
use crate::mesh::links::advertised;
use crate::shard::Outputs;
use crate::shard::mailbox::{SHARD_MAIL_MAX, SHARD_MAIL_PART};

/// Threads that serve clients: as configured, or [`default_shards`].
pub(super) fn shard_count(config: &Config) -> u16 {
    match config.node.shards {
        0 => default_shards(available_parallelism().map_or(1, |cores| cores.get())),
        count => count,
    }
}

/// One per core but one, which the writer, the mesh, the kernel's half of the network and the rest of
/// the machine share; on one core, one (ADR 0011).
fn default_shards(cores: usize) -> u16 {
    u16::try_from(cores.saturating_sub(1).max(1)).unwrap_or(u16::MAX)
}

/// What connections of one of so many shards may be owed.
pub(super) fn outputs(config: &Config, shards: usize) -> Outputs {
    let total = config.queue.output_bytes_total / shards.max(1);
    Outputs { one: config.queue.output_bytes_high, total }
}

/// What a shard wants to know.
pub(super) fn shard(
    config: &Config,
    index: ShardIndex,
    count: u16,
    authn: Option<Arc<Authn>>,
) -> ShardConfig {
    let Config { session, queue, handover, .. } = config;
    ShardConfig {
        index,
        count,
        node: config.node.id.key(),
        mesh: config.mesh.is_on(),
        packet_bytes_max: session.packet_bytes_max,
        receive_maximum: session.receive_maximum,
        inflight_max: session.inflight_max,
        topic_alias_maximum: session.topic_alias_maximum,
        keep_alive_secs_max: u16::try_from(session.keep_alive_max.0.0.as_secs())
            .unwrap_or(u16::MAX),
        connect_timeout: session.connect_timeout.0.0,
        session_expiry_secs_max: session.expiry_max.0.secs(),
        v3_session_expiry_secs: session.v3_expiry.0.secs(),
        park_after: session.park_after.0.0,
        queue_messages_max: queue.messages_max,
        queue_bytes_max: queue.bytes_max,
        output_bytes_high: queue.output_bytes_high,
        promise: config.storage.promise.0,
        qos_max: match session.qos_max {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        },
        handover_hold: handover.hold.0.0,
        handover_unreachable_wait: handover.unreachable_wait.0.0,
        handover_linger: handover.linger.0.0,
        handovers_max: handover.imports_max,
        terms: Terms {
            topic_alias_maximum_out: session.topic_alias_maximum_out,
            authn,
            subscriptions_max: session.subscriptions_max,
            retain_available: session.retain_available,
            wildcard_subscription_available: session.wildcard_subscription_available,
            subscription_identifier_available: session.subscription_identifier_available,
            shared_subscription_available: session.shared_subscription_available,
            response_information: session.response_information.as_deref().map(Into::into),
            server_reference: config.shutdown.server_reference.as_deref().map(Into::into),
            payload_format_checked: session.payload_format_checked,
            publish_rate_max: session.publish_rate_max,
            publish_bytes_rate_max: session.publish_bytes_rate_max,
            publisher_hold_max: queue.publisher_hold_max.0.0,
        },
    }
}

/// How much mail for a shard may wait.
pub(super) fn shard_mail(config: &Config) -> usize {
    (config.queue.messages_max / SHARD_MAIL_PART).clamp(1, SHARD_MAIL_MAX)
}

/// How many retained messages are kept.
pub(super) fn retained(config: &Config) -> RetainedLimits {
    RetainedLimits {
        messages_max: config.retained.messages_max,
        bytes_max: config.retained.bytes_max,
        ..RetainedLimits::default()
    }
}

/// What is accepted of a CONNECT before its shard is known: what the shard will accept.
pub(super) fn decode_limits(config: &Config) -> DecodeLimits {
    let connect_bytes_max = ConnectionConfig::default().connect_bytes_max;
    let packet_bytes_max = config.session.packet_bytes_max.min(connect_bytes_max);
    DecodeLimits { packet_bytes_max, ..DecodeLimits::default() }
}

/// What the hub wants to know.
pub(super) fn hub(config: &Config, shards: u16) -> HubConfig {
    HubConfig { shards, promise: config.storage.promise.0 }
}

/// Rules by topic, then what goes to the cloud tier.
pub(super) fn topic_rules(config: &Config) -> Result<TopicRules, RuleError> {
    // A filter that does not parse was refused with the configuration.
    let rule = |filter: &str| TopicFilter::parse(filter).ok().map(TopicRule::new);
    let topics = config.topics.iter().filter_map(|section| {
        Some(TopicRule {
            class: section.class,
            scope: section.scope,
            promise: section.promise.map(|promise| promise.0),
            ..rule(&section.filter)?
        })
    });
    let uplinks = config
        .uplink
        .select
        .iter()
        .filter_map(|filter| Some(TopicRule { uplink: Some(true), ..rule(filter)? }));
    TopicRules::compile(topics.chain(uplinks).collect())
}

/// What the store may take of the machine.
pub(super) fn store(config: &Config) -> verge_storage_rocksdb::Config {
    verge_storage_rocksdb::Config {
        memtables_bytes_max: config.storage.write_buffer_bytes,
        profile: config.storage.profile.0,
        wal_bytes_max: config.storage.profile.0.wal_bytes_max(),
        block_cache_bytes: config.storage.cache_bytes,
        reserve_bytes: config.storage.reserve_bytes,
        ..verge_storage_rocksdb::Config::new(&config.node.data_dir)
    }
}

/// What the mesh core wants to know. A node without links has an address nobody dials.
pub(super) fn mesh(
    config: &Config,
    identity: &Identity,
    bound: Option<SocketAddr>,
    listeners: &[Arc<str>],
    admin: SocketAddr,
) -> MeshConfig {
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let (advertise, dials_only) = advertised(&config.mesh, bound.unwrap_or(nowhere));
    MeshConfig {
        node_id: config.node.id.clone(),
        role: config.node.role,
        region: config.node.region.clone(),
        advertise,
        position: config.node.position.map(|position| position.0),
        listeners: listeners.iter().map(|url| reachable(url, advertise.ip())).collect(),
        admin: Some(admin),
        incarnation: identity.incarnation,
        log_id: identity.log_id,
        dials_only,
        join: config.mesh.join.clone(),
        lookup_timeout: config.handover.lookup.0.0,
    }
}

/// A listener on all addresses is told by the one at which the node is reached.
fn reachable(url: &str, advertised: IpAddr) -> String {
    let host = match advertised {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let Some((scheme, authority)) = url.split_once("://") else { return url.to_owned() };
    match authority.rsplit_once(':') {
        Some(("0.0.0.0" | "[::]", port)) if !advertised.is_unspecified() => {
            format!("{scheme}://{host}:{port}")
        }
        Some(_) | None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use verge_broker_core::rule::Scope;
    use verge_model::{Class, Role};
    use verge_storage::Promise;

    use super::*;
    use crate::config::Loader;

    #[test]
    fn a_core_is_left_for_the_rest() {
        assert_eq!([1, 2, 3, 64, 100_000].map(default_shards), [1, 1, 2, 63, u16::MAX]);
    }

    #[test]
    fn rules_of_topics_and_uplink_do_not_hide_each_other() {
        let mut loader = Loader::new();
        let rules = [
            json!({"filter": "a/#", "class": "safety", "promise": "memory"}),
            json!({"filter": "#", "scope": "node"}),
        ];
        loader.flag("test", "topics", rules.to_vec());
        loader.set("uplink.select=a/+").unwrap();
        let config = loader.finish(Role::Rsu).unwrap().config;
        let rules = topic_rules(&config).unwrap();
        let outcome = rules.for_topic("a/b");
        assert_eq!((outcome.class, outcome.promise), (Class::Safety, Some(Promise::Memory)));
        assert_eq!((outcome.scope, outcome.uplinks.len()), (Scope::Node, 1));
        assert!(rules.for_topic("b").uplinks.is_empty());
    }

    #[test]
    fn listeners_on_all_addresses_are_told_by_the_advertised_one() {
        let ip = "192.0.2.7".parse().unwrap();
        assert_eq!(reachable("tcp://0.0.0.0:1883", ip), "tcp://192.0.2.7:1883");
        assert_eq!(reachable("tls://[::]:8883", ip), "tls://192.0.2.7:8883");
        assert_eq!(reachable("tcp://127.0.0.1:1883", ip), "tcp://127.0.0.1:1883");
    }
}
