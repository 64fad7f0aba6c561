//! `GET /api/v1/ledger`: what is owed, by class and reason, who holds the most of it, and what
//! waits elsewhere than in sessions.
//!
//! With `?scope=mesh` it is the sum over the members that answer ([`super::ledger_mesh`]).

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query as UrlQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use verge_broker_core::ledger::LedgerSnapshot;
use verge_broker_core::rule::UPLINK_STREAM;
use verge_broker_core::shard::api::{Answer, HolderView, Query};
use verge_model::{Class, NodeKey};
use verge_mqtt_proto::session::Held;
use verge_storage::{Family, LogBounds, LogKey};

use super::page::ApiError;
use super::{Admin, Shared, ledger_mesh};
use crate::mesh::view::MeshView;

/// Sessions named for holding the most, by messages and by bytes: what fits a screen.
pub const HOLDERS_MAX: usize = 10;

/// `GET /api/v1/ledger`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerAnswer {
    /// The node whose books these are.
    pub node_id: String,
    /// All classes together.
    #[serde(flatten)]
    pub all: BooksAnswer,
    /// The same, class by class.
    pub classes: BTreeMap<String, BooksAnswer>,
    /// An imbalance that lasts; `null`: there is none.
    pub imbalance: Option<i64>,
    /// The sessions that hold the most.
    pub holders: HoldersAnswer,
    /// What waits elsewhere than in sessions.
    pub waiting: WaitingAnswer,
    /// The outbox since the data directory was made: `selected = acked + pending`.
    pub uplink: UplinkAnswer,
}

/// Debts opened, settled and held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BooksAnswer {
    /// By origin.
    pub opened: OpenedAnswer,
    /// By outcome.
    pub settled: SettledAnswer,
    /// Counted from the sessions.
    pub held: u64,
    /// Bytes of what is held; a message counts for each session that is owed it.
    pub held_bytes: u64,
    /// `opened - settled - held`.
    pub balance: i64,
}

/// How debts came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenedAnswer {
    /// Held by an earlier life of the node.
    pub recovered: u64,
    /// Of messages that were accepted.
    pub accepted: u64,
    /// Came with sessions of other nodes.
    pub imported: u64,
    /// All of them.
    pub total: u64,
}

/// How debts ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SettledAnswer {
    /// Acknowledged by the client.
    pub delivered: u64,
    /// The message or the session expired.
    pub expired: u64,
    /// By reason.
    pub dropped: BTreeMap<String, u64>,
    /// To other nodes, with their sessions.
    pub handed_over: u64,
    /// With sessions that ended.
    pub discarded: u64,
    /// To other members of a shared subscription.
    pub redelivered: u64,
    /// Came twice in a handover.
    pub had_already: u64,
    /// All of them.
    pub total: u64,
}

/// The outbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UplinkAnswer {
    /// Rows ever put into it.
    pub selected: u64,
    /// Rows the cloud tier has.
    pub acked: u64,
    /// Rows that wait.
    pub pending: u64,
}

/// The sessions that hold the most, the first the most of all; at most [`HOLDERS_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HoldersAnswer {
    /// By messages.
    pub by_messages: Vec<HolderAnswer>,
    /// By bytes.
    pub by_bytes: Vec<HolderAnswer>,
}

/// A session that holds much.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HolderAnswer {
    /// Whose it is.
    pub client: String,
    /// The node that has it.
    pub node: String,
    /// `connected`, `parked`, or `sealed`: another node has taken it over and pulls what is here.
    pub state: String,
    /// The node that pulls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moves_to: Option<String>,
    /// Messages held.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What waits elsewhere than in sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitingAnswer {
    /// For other nodes, in all forward logs.
    pub forward_messages: u64,
    /// By node and class.
    pub forward: Vec<ForwardAnswer>,
    /// For the cloud tier.
    pub uplink_messages: u64,
    /// To be published later.
    pub delayed_messages: u64,
    /// Bytes of those.
    pub delayed_bytes: u64,
    /// In logs of sessions that other nodes have taken over and pull.
    pub in_transit_messages: u64,
    /// In queues that were stored by an earlier life of the node and were not read yet, about: they
    /// are recovered when their session is touched.
    pub unread_messages_about: u64,
}

/// A forward log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ForwardAnswer {
    /// The node it is for.
    pub node: String,
    /// The class of its messages.
    pub class: String,
    /// Messages that wait.
    pub messages: u64,
}

impl BooksAnswer {
    fn new(books: &LedgerSnapshot, held: u64, held_bytes: u64) -> Self {
        let LedgerSnapshot { recovered, accepted, imported, .. } = *books;
        let dropped =
            books.dropped.iter().map(|(why, count)| (why.as_str().to_owned(), *count)).collect();
        Self {
            opened: OpenedAnswer { recovered, accepted, imported, total: books.opened() },
            settled: SettledAnswer {
                delivered: books.delivered,
                expired: books.expired,
                dropped,
                handed_over: books.handed_over,
                discarded: books.discarded,
                redelivered: books.redelivered,
                had_already: books.had_already,
                total: books.settled(),
            },
            held,
            held_bytes,
            balance: books.balance(held),
        }
    }

    /// Adds another node's.
    pub fn add(&mut self, other: &Self) {
        let (mine, others) = (&mut self.opened, &other.opened);
        mine.recovered += others.recovered;
        mine.accepted += others.accepted;
        mine.imported += others.imported;
        mine.total += others.total;
        let (mine, others) = (&mut self.settled, &other.settled);
        mine.delivered += others.delivered;
        mine.expired += others.expired;
        for (reason, count) in &others.dropped {
            *mine.dropped.entry(reason.clone()).or_default() += count;
        }
        mine.handed_over += others.handed_over;
        mine.discarded += others.discarded;
        mine.redelivered += others.redelivered;
        mine.had_already += others.had_already;
        mine.total += others.total;
        self.held += other.held;
        self.held_bytes += other.held_bytes;
        self.balance += other.balance;
    }
}

impl HoldersAnswer {
    /// The greatest of `all`.
    #[must_use]
    pub fn of(mut all: Vec<HolderAnswer>) -> Self {
        let mut top = |measure: fn(&HolderAnswer) -> u64| {
            all.sort_by(|a, b| measure(b).cmp(&measure(a)).then_with(|| a.client.cmp(&b.client)));
            all.iter().take(HOLDERS_MAX).cloned().collect()
        };
        Self { by_messages: top(|holder| holder.messages), by_bytes: top(|holder| holder.bytes) }
    }
}

/// What an answer is made from.
struct Facts<'a> {
    node_id: &'a str,
    books: [LedgerSnapshot; Class::ALL.len()],
    held: Held,
    holders: Vec<HolderView>,
    off_by: i64,
    logs: Vec<(LogKey, LogBounds)>,
    delayed: (u64, u64),
    queue_rows: u64,
    mesh: &'a MeshView,
}

impl Facts<'_> {
    fn answer(self) -> LedgerAnswer {
        let mut all = LedgerSnapshot::default();
        let mut classes = BTreeMap::new();
        for (class, books) in Class::ALL.into_iter().zip(self.books) {
            let place = class as usize;
            let (messages, bytes) = (self.held.messages[place], self.held.bytes[place]);
            classes.insert(class.to_string(), BooksAnswer::new(&books, messages, bytes));
            all += books;
        }
        let pending = |log: LogKey| {
            let bounds = self.logs.iter().find(|(key, _)| *key == log);
            bounds.map_or(LogBounds { first: 1, next: 1 }, |(_, bounds)| *bounds)
        };
        let outbox = pending(LogKey::Outbox { stream: UPLINK_STREAM });
        let forward: Vec<_> = self
            .logs
            .iter()
            .filter_map(|(log, bounds)| match log {
                LogKey::Forward { peer, class } => Some((peer, class, bounds.len())),
                LogKey::Outbox { .. } => None,
            })
            .filter(|(_, _, messages)| *messages > 0)
            .map(|(peer, class, messages)| ForwardAnswer {
                node: self.mesh.name_of(*peer),
                class: class.to_string(),
                messages,
            })
            .collect();
        let unread = self.queue_rows.saturating_sub(self.held.total());
        let sealed = self.holders.iter().filter(|holder| holder.moves_to.is_some());
        let in_transit_messages = sealed.map(|holder| holder.held.total()).sum();
        let name_of = |node: NodeKey| self.mesh.name_of(node);
        let holders = self.holders.into_iter().map(|view| HolderAnswer {
            client: view.client.to_string(),
            node: self.node_id.to_owned(),
            state: match (view.moves_to, view.connected) {
                (Some(_), _) => "sealed",
                (None, true) => "connected",
                (None, false) => "parked",
            }
            .to_owned(),
            moves_to: view.moves_to.map(name_of),
            messages: view.held.total(),
            bytes: view.held.total_bytes(),
        });
        LedgerAnswer {
            node_id: self.node_id.to_owned(),
            all: BooksAnswer::new(&all, self.held.total(), self.held.total_bytes()),
            classes,
            imbalance: (self.off_by != 0).then_some(self.off_by),
            holders: HoldersAnswer::of(holders.collect()),
            waiting: WaitingAnswer {
                forward_messages: forward.iter().map(|log| log.messages).sum(),
                forward,
                uplink_messages: outbox.len(),
                delayed_messages: self.delayed.0,
                delayed_bytes: self.delayed.1,
                in_transit_messages,
                unread_messages_about: unread,
            },
            uplink: UplinkAnswer {
                selected: outbox.next - 1,
                acked: outbox.first - 1,
                pending: outbox.len(),
            },
        }
    }
}

impl Admin {
    /// What all sessions hold.
    pub(crate) async fn held(&self) -> Result<Held, ApiError> {
        let mut held = Held::default();
        for answer in self.ask(Query::Held).await? {
            if let Answer::Held(of_shard) = answer {
                held += of_shard;
            }
        }
        Ok(held)
    }

    /// The books of this node.
    pub(super) async fn ledger(&self) -> Result<LedgerAnswer, ApiError> {
        let held = self.held().await?;
        let books = self.shared.ledger.by_class();
        let holders = self.ask(Query::Holders(HOLDERS_MAX)).await?;
        let holders = holders
            .into_iter()
            .filter_map(|answer| if let Answer::Holders(list) = answer { Some(list) } else { None })
            .flatten()
            .collect();
        let failed = |error: verge_storage::StoreError| {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        };
        let logs = self.store.logs().map_err(failed)?;
        let bounds = |log| Ok((log, self.store.log_bounds(log)?));
        let logs = logs.into_iter().map(bounds).collect::<Result<_, _>>().map_err(failed)?;
        let sizes = self.store.sizes().map_err(failed)?;
        let queue = sizes.into_iter().find(|size| size.family == Family::Queue);
        let facts = Facts {
            node_id: &self.node.node_id,
            books,
            held,
            holders,
            off_by: self.off_by(),
            logs,
            delayed: self.shared.extensions.delayed.waiting(),
            queue_rows: queue.map_or(0, |size| size.rows),
            mesh: &self.mesh.load(),
        };
        Ok(facts.answer())
    }
}

/// Whose books are wanted.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct LedgerQuery {
    #[serde(default)]
    scope: LedgerScope,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LedgerScope {
    /// This node's.
    #[default]
    Node,
    /// Those of all members that answer.
    Mesh,
}

/// `GET /api/v1/ledger`
pub(super) async fn ledger(
    State(admin): Shared,
    UrlQuery(query): UrlQuery<LedgerQuery>,
) -> Result<Response, ApiError> {
    let own = admin.ledger().await?;
    Ok(match query.scope {
        LedgerScope::Node => Json(own).into_response(),
        LedgerScope::Mesh => {
            Json(ledger_mesh::sum(own, &admin.mesh.load().members).await).into_response()
        }
    })
}

#[cfg(test)]
mod tests {
    use verge_model::ClientKey;

    use super::*;

    fn holder(client: &str, messages: usize, bytes: usize) -> HolderView {
        let mut held = Held::default();
        held.add(Class::Safety, messages, bytes);
        let client = ClientKey::anonymous(client);
        HolderView { client, connected: false, moves_to: None, held }
    }

    #[test]
    fn the_ledger_answers_books_by_class_holders_and_what_waits() {
        let mut books: [LedgerSnapshot; 4] = Default::default();
        books[0] = LedgerSnapshot { accepted: 5, delivered: 3, ..LedgerSnapshot::default() };
        let mut held = Held::default();
        held.add(Class::Safety, 2, 300);
        let forward = LogKey::Forward { peer: NodeKey(7), class: Class::Bulk };
        let uplink = LogKey::Outbox { stream: UPLINK_STREAM };
        let moving = HolderView { moves_to: Some(NodeKey(7)), ..holder("moving", 4, 1) };
        let facts = Facts {
            node_id: "a",
            books,
            held,
            holders: vec![holder("few-large", 1, 200), moving],
            off_by: 0,
            logs: vec![
                (forward, LogBounds { first: 3, next: 5 }),
                (uplink, LogBounds { first: 4, next: 11 }),
            ],
            delayed: (1, 20),
            queue_rows: 9,
            mesh: &MeshView::default(),
        };
        let answer = facts.answer();
        let json = serde_json::to_value(&answer).unwrap();
        let numbers = ["held", "held_bytes", "balance"].map(|name| json[name].as_i64().unwrap());
        assert_eq!(numbers, [2, 300, 0]);
        assert_eq!((&json["opened"]["accepted"], &json["imbalance"]), (&5.into(), &().into()));
        assert_eq!(json["classes"]["safety"]["settled"]["delivered"], 3);
        assert_eq!(json["classes"]["bulk"]["opened"]["total"], 0);
        let uplink = serde_json::json!({"selected": 10, "acked": 3, "pending": 7});
        assert_eq!(json["uplink"], uplink);
        let waiting = &json["waiting"];
        assert_eq!(waiting["forward"][0]["class"], "bulk");
        let numbers = ["forward_messages", "uplink_messages", "delayed_messages", "delayed_bytes"];
        assert_eq!(numbers.map(|name| waiting[name].as_u64().unwrap()), [2, 7, 1, 20]);
        assert_eq!(waiting["in_transit_messages"], 4);
        assert_eq!(waiting["unread_messages_about"], 7);
        let first = |list: &str| json["holders"][list][0]["client"].clone();
        assert_eq!(
            (first("by_messages"), first("by_bytes")),
            ("moving".into(), "few-large".into())
        );
        assert_eq!(serde_json::from_value::<LedgerAnswer>(json).unwrap(), answer);
    }

    #[test]
    fn books_of_nodes_add_up() {
        let books = LedgerSnapshot { accepted: 5, delivered: 3, ..LedgerSnapshot::default() };
        let mut sum = BooksAnswer::new(&books, 2, 10);
        sum.add(&BooksAnswer::new(&books, 1, 10));
        assert_eq!((sum.opened.accepted, sum.settled.delivered), (10, 6));
        assert_eq!((sum.held, sum.held_bytes, sum.balance), (3, 20, 1));
    }
}
