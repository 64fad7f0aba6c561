//! Between the broker's types and the records that are stored and forwarded.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use verge_mesh_proto::crdt::sessions::SubscriptionEntry;
use verge_model::{ClientId, ClientKey, MessageId};
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::session::{Subscription, Will};
use verge_mqtt_proto::{OwnedPublishProperties, QoS, RetainHandling, TopicFilter, TopicName};
use verge_storage::record::{MessageRecord, SubscriberRecord, SubscriptionRecord, WillRecord};

use crate::router::ForwardTargets;

/// A record that does not say what its type promises: another version wrote it, or it is damaged.
/// Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {record} record holds {what}")]
pub struct BadRecord {
    /// Which record.
    pub record: &'static str,
    /// What it holds that it cannot.
    pub what: String,
}

fn bad(record: &'static str, what: impl ToString) -> BadRecord {
    BadRecord { record, what: what.to_string() }
}

fn qos(record: &'static str, bits: u8) -> Result<QoS, BadRecord> {
    QoS::from_bits(bits).ok_or_else(|| bad(record, format_args!("QoS {bits}")))
}

/// The stored form of a message.
#[must_use]
pub fn message_to_record(message: &Message) -> MessageRecord {
    MessageRecord {
        id: message.id,
        publisher: message.publisher.clone(),
        stamp: message.stamp,
        expires_at: message.expires_at,
        topic: message.topic.as_str().into(),
        qos: message.qos.bits(),
        retain: message.retain,
        class: message.class,
        properties: properties_to_bytes(&message.properties),
        payload: message.payload.clone(),
    }
}

/// The message of a record.
///
/// # Errors
/// A record that is not a message.
pub fn message_from_record(record: MessageRecord) -> Result<Message, BadRecord> {
    const NAME: &str = "message";
    Ok(Message {
        id: record.id,
        publisher: record.publisher,
        stamp: record.stamp,
        expires_at: record.expires_at,
        topic: TopicName::parse(&record.topic).map_err(|error| bad(NAME, error))?,
        qos: qos(NAME, record.qos)?,
        retain: record.retain,
        class: record.class,
        properties: properties_from_bytes(&record.properties)
            .map_err(|error| bad(NAME, error))?
            .into(),
        payload: record.payload,
        row: None,
    })
}

/// Most messages have none, and then no bytes are stored.
pub(crate) fn properties_to_bytes(properties: &OwnedPublishProperties) -> Bytes {
    if *properties == OwnedPublishProperties::default() {
        return Bytes::new();
    }
    let bytes = postcard::to_stdvec(properties);
    bytes.expect("properties hold nothing that postcard cannot encode").into()
}

fn properties_from_bytes(bytes: &[u8]) -> Result<OwnedPublishProperties, postcard::Error> {
    if bytes.is_empty() {
        return Ok(OwnedPublishProperties::default());
    }
    postcard::from_bytes(bytes)
}

#[derive(Serialize, Deserialize)]
struct WillExtras {
    message_expiry_secs: Option<u32>,
    properties: OwnedPublishProperties,
}

/// The stored form of a Will.
#[must_use]
pub fn will_to_record(will: &Will) -> WillRecord {
    let extras = WillExtras {
        message_expiry_secs: will.message_expiry_secs,
        properties: will.properties.clone(),
    };
    let extras = postcard::to_stdvec(&extras);
    WillRecord {
        topic: will.topic.as_str().into(),
        payload: will.payload.clone(),
        qos: will.qos.bits(),
        retain: will.retain,
        delay_secs: will.delay_secs,
        properties: extras.expect("a Will holds nothing that postcard cannot encode").into(),
    }
}

/// The Will of a record.
///
/// # Errors
/// A record that is not a Will.
pub fn will_from_record(record: &WillRecord) -> Result<Will, BadRecord> {
    const NAME: &str = "will";
    let extras: WillExtras =
        postcard::from_bytes(&record.properties).map_err(|error| bad(NAME, error))?;
    Ok(Will {
        topic: TopicName::parse(&record.topic).map_err(|error| bad(NAME, error))?,
        payload: record.payload.clone(),
        qos: qos(NAME, record.qos)?,
        retain: record.retain,
        delay_secs: record.delay_secs,
        message_expiry_secs: extras.message_expiry_secs,
        properties: extras.properties,
    })
}

/// Set beside Retain Handling in what is stored and replicated of a subscription that was made on a
/// stream other than the control stream.
const ON_STREAM: u8 = 0x04;

fn handling_to_bits(subscription: &Subscription, on_stream: bool) -> u8 {
    subscription.retain_handling as u8 | if on_stream { ON_STREAM } else { 0 }
}

/// Retain Handling, and whether the subscription was made on a stream other than the control
/// stream.
fn handling_from_bits(bits: u8) -> Option<(RetainHandling, bool)> {
    Some((RetainHandling::from_bits(bits & !ON_STREAM)?, bits & ON_STREAM != 0))
}

/// The stored form of a client's subscription, which was made on the control stream or another one.
#[must_use]
pub fn subscription_to_record(
    client: &ClientKey,
    filter: &TopicFilter,
    subscription: &Subscription,
    on_stream: bool,
) -> SubscriptionRecord {
    let subscriber = SubscriberRecord {
        client_hash: client.stable_hash(),
        author: planned_as(client, filter, subscription),
    };
    SubscriptionRecord {
        qos: subscription.qos.bits(),
        no_local: subscription.no_local,
        retain_as_published: subscription.retain_as_published,
        retain_handling: handling_to_bits(subscription, on_stream),
        subscription_id: subscription.id_number(),
        subscriber: Some(subscriber),
    }
}

/// What must be known of a client to plan messages for a subscription of it: whom it leaves out, if
/// it asked for No Local, or who it is, for those of a group who are chosen by that.
#[must_use]
pub fn planned_as(
    client: &ClientKey,
    filter: &TopicFilter,
    subscription: &Subscription,
) -> Option<ClientId> {
    match filter.share() {
        _ if subscription.no_local => Some(client.author()),
        Some(_) => Some(Arc::clone(&client.client_id)),
        None => None,
    }
}

/// The subscription of a record, and whether it was made on a stream other than the control stream.
///
/// # Errors
/// A record that is not a subscription.
pub fn subscription_from_record(
    record: &SubscriptionRecord,
) -> Result<(Subscription, bool), BadRecord> {
    const NAME: &str = "subscription";
    let bits = record.retain_handling;
    let (retain_handling, on_stream) = handling_from_bits(bits)
        .ok_or_else(|| bad(NAME, format_args!("Retain Handling {bits}")))?;
    let subscription = Subscription {
        qos: qos(NAME, record.qos)?,
        no_local: record.no_local,
        retain_as_published: record.retain_as_published,
        retain_handling,
        id: record.subscription_id.and_then(NonZeroU32::new),
    };
    Ok((subscription, on_stream))
}

/// The replicated form of a subscription.
#[must_use]
pub fn subscription_to_entry(
    filter: &TopicFilter,
    subscription: &Subscription,
    on_stream: bool,
) -> SubscriptionEntry {
    SubscriptionEntry {
        filter: filter.as_str().to_owned(),
        qos: subscription.qos.bits(),
        no_local: subscription.no_local,
        retain_as_published: subscription.retain_as_published,
        retain_handling: handling_to_bits(subscription, on_stream),
        id: subscription.id_number(),
    }
}

/// The subscription of a replicated entry, and whether it was made on a stream other than the
/// control stream.
///
/// # Errors
/// An entry that is not a subscription.
pub fn subscription_from_entry(
    entry: &SubscriptionEntry,
) -> Result<(TopicFilter, Subscription, bool), BadRecord> {
    const NAME: &str = "subscription";
    let filter = TopicFilter::parse(&entry.filter).map_err(|error| bad(NAME, error))?;
    let bits = entry.retain_handling;
    let (retain_handling, on_stream) = handling_from_bits(bits)
        .ok_or_else(|| bad(NAME, format_args!("Retain Handling {bits}")))?;
    let subscription = Subscription {
        qos: qos(NAME, entry.qos)?,
        no_local: entry.no_local,
        retain_as_published: entry.retain_as_published,
        retain_handling,
        id: entry.id.and_then(NonZeroU32::new),
    };
    Ok((filter, subscription, on_stream))
}

/// A row of a forward log, and at once the payload of a forwarded message on a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardRecord {
    /// Which of the receiver's subscriptions the message is for.
    pub targets: ForwardTargets,
    /// The message.
    pub message: MessageRecord,
}

impl ForwardRecord {
    /// Version of the encoding.
    const VERSION: u8 = 1;

    /// A message of shared groups that was passed on: how often stands before what version 1 has.
    const VERSION_PASSED_ON: u8 = 2;

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let room = 64 + self.message.topic.len() + self.message.payload.len();
        let mut out = Vec::with_capacity(room);
        match self.targets.hops {
            0 => out.push(Self::VERSION),
            hops => out.extend_from_slice(&[Self::VERSION_PASSED_ON, hops]),
        }
        let out = postcard::to_extend(self, out);
        out.expect("a message holds nothing that postcard cannot encode").into()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Another version, or damaged bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        const NAME: &str = "forward";
        match bytes {
            [Self::VERSION, body @ ..] => {
                postcard::from_bytes(body).map_err(|error| bad(NAME, error))
            }
            [Self::VERSION_PASSED_ON, hops, body @ ..] => {
                let mut record: Self =
                    postcard::from_bytes(body).map_err(|error| bad(NAME, error))?;
                record.targets.hops = *hops;
                Ok(record)
            }
            [version, ..] => Err(bad(NAME, format_args!("version {version}"))),
            [] => Err(bad(NAME, "no bytes")),
        }
    }
}

/// The message of a record that came from another node, to be stored under `row`.
///
/// # Errors
/// A record that is not a message.
pub fn message_from_afar(record: MessageRecord, row: MessageId) -> Result<Arc<Message>, BadRecord> {
    let mut message = message_from_record(record)?;
    message.row = Some(Box::new(row));
    Ok(Arc::new(message))
}
