//! The admin HTTP API.
//!
//! Questions go to the threads that know the answers, as mail, or read what those publish; nothing
//! here has a lock that a client waits for.

pub mod disk;
pub mod extensions;
pub mod ledger;
pub mod ledger_mesh;
pub mod metrics;
pub mod openapi;
pub mod page;
pub mod server;
mod sessions;
pub mod storage;
pub mod views;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use verge_broker_core::shard::api::{Answer, ClientView, Mail, Query, ShardIndex};
use verge_broker_core::shared::NodeShared;
use verge_model::{LatLon, UnixMillis};
use verge_storage::Store;
use verge_storage_rocksdb::{RocksStore, WriterHandle};

use self::metrics::Gauge;
use self::page::{ApiError, Page, PageQuery};
use self::views::{ClientAnswer, NodeAnswer, RetainedAnswer, RouteAnswer, SessionAnswer};
use crate::app::{Listeners, Reloaded};
use crate::mesh::view::MeshView;
use crate::shard::{Mailboxes, ShardMail};

pub use self::server::{AdminError, AdminServer};

/// How long a shard may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Retained messages looked at for one answer.
const RETAINED_MAX: usize = 100_000;

/// What the API knows, or whom it asks.
pub struct Admin {
    /// What does not change about the node.
    pub node: NodeAnswer,
    /// What shards and hub share.
    pub shared: Arc<NodeShared>,
    /// Whom to ask.
    pub mailboxes: Mailboxes,
    /// The mesh as its thread saw it last.
    pub mesh: Arc<ArcSwap<MeshView>>,
    /// The store, for reading.
    pub store: Arc<dyn Store>,
    /// The same, as what lies on a disk.
    pub disk: Arc<RocksStore>,
    /// The writer, for its counts.
    pub writer: WriterHandle,
    /// Whether the node serves.
    pub ready: Arc<AtomicBool>,
    /// By how much the books are off for some time; 0: they balance.
    pub off_by: AtomicI64,
    /// Asks the node to go down.
    pub drain: watch::Sender<bool>,
    /// Its listeners, and its configuration.
    pub listeners: Arc<Listeners>,
}

type Shared = State<Arc<Admin>>;
type Paged<T> = Result<Json<Page<T>>, ApiError>;

/// The routes of a node.
pub fn routes(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(async || Json(openapi::document())))
        .route("/api/v1/node", get(node))
        .route("/api/v1/members", get(members))
        .route("/api/v1/clients", get(clients))
        .route("/api/v1/clients/{id}/kick", post(kick))
        .route("/api/v1/sessions", get(sessions::sessions))
        .route("/api/v1/handovers", get(handovers))
        .route("/api/v1/subscriptions", get(sessions::subscriptions))
        .route("/api/v1/routes", get(mesh_routes))
        .route("/api/v1/retained", get(retained))
        .route("/api/v1/delayed", get(extensions::delayed))
        .route("/api/v1/topic-metrics", get(extensions::topics).post(extensions::register))
        .route(
            "/api/v1/topic-metrics/{topic}",
            get(extensions::topic).delete(extensions::deregister),
        )
        .route("/api/v1/ledger", get(ledger::ledger))
        .route("/api/v1/storage", get(storage::storage))
        .route("/api/v1/backup", post(storage::backup))
        .route("/api/v1/nearest", get(nearest))
        .route("/api/v1/drain", post(drain))
        .route("/api/v1/reload", post(reload))
        .with_state(admin)
}

impl Admin {
    /// Asks every shard, all at once.
    pub(crate) async fn ask(&self, query: Query) -> Result<Vec<Answer>, ApiError> {
        let waiting: Vec<_> = self
            .mailboxes
            .shards
            .iter()
            .map(|mailbox| {
                let (answer, waiting) = oneshot::channel();
                // Who asked may have gone; then nobody wants the answer.
                let reply = Box::new(move |given| drop(answer.send(given)));
                mailbox.put(ShardMail(Mail::Query(query.clone(), reply)));
                waiting
            })
            .collect();
        let all = async {
            let mut answers = Vec::with_capacity(waiting.len());
            for answer in waiting {
                answers.push(answer.await.ok()?);
            }
            Some(answers)
        };
        let busy =
            || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the node did not answer in time");
        tokio::time::timeout(ANSWER_TIMEOUT, all).await.ok().flatten().ok_or_else(busy)
    }

    /// Every shard's list of one kind, sorted, as a page.
    async fn list<V, T: From<V> + Ord>(
        &self,
        query: Query,
        page: PageQuery,
        list_of: fn(Answer) -> Option<Vec<V>>,
        wanted: fn(&T) -> bool,
    ) -> Paged<T> {
        let answers = self.ask(query).await?;
        let views = answers.into_iter().filter_map(list_of).flatten();
        let mut list: Vec<T> = views.map(T::from).filter(wanted).collect();
        list.sort();
        Ok(Json(Page::of(list, page)))
    }

    /// By how much the books are off for some time; 0: they balance.
    #[must_use]
    pub fn off_by(&self) -> i64 {
        self.off_by.load(Ordering::Relaxed)
    }

    /// What is wrong although the node serves.
    fn warnings(&self) -> Vec<String> {
        ledger_warning(self.off_by()).into_iter().collect()
    }
}

/// What the operator is told of books that are off.
fn ledger_warning(off_by: i64) -> Option<String> {
    (off_by != 0).then(|| {
        let what = if off_by > 0 { "missing" } else { "counted too often" };
        let count = off_by.unsigned_abs();
        format!("the ledger does not balance: {count} debts are {what}; see /api/v1/ledger")
    })
}

/// `GET /readyz` of a node that serves.
fn ready_text(warnings: &[String]) -> String {
    let warnings = warnings.iter().map(|warning| format!("warning: {warning}\n"));
    std::iter::once("ready\n".to_owned()).chain(warnings).collect()
}

async fn readyz(State(admin): Shared) -> Response {
    if let Some(trouble) = admin.shared.storage.trouble() {
        let words = format!("not ready: storage: {}: {trouble}\n", trouble.as_str());
        (StatusCode::SERVICE_UNAVAILABLE, words).into_response()
    } else if admin.ready.load(Ordering::Acquire) {
        (StatusCode::OK, ready_text(&admin.warnings())).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

async fn node(State(admin): Shared) -> Json<NodeAnswer> {
    let ready = admin.ready.load(Ordering::Acquire);
    let listeners = admin.listeners.urls();
    Json(NodeAnswer { ready, listeners, warnings: admin.warnings(), ..admin.node.clone() })
}

async fn members(State(admin): Shared, UrlQuery(page): UrlQuery<PageQuery>) -> Json<Value> {
    let members = admin.mesh.load().members.clone();
    Json(serde_json::to_value(Page::of(members, page)).unwrap_or_default())
}

async fn clients(State(admin): Shared, UrlQuery(page): UrlQuery<PageQuery>) -> Paged<ClientAnswer> {
    let of = |answer| if let Answer::Clients(list) = answer { Some(list) } else { None };
    admin.list(Query::Clients, page, of, |_| true).await
}

async fn handovers(
    State(admin): Shared,
    UrlQuery(page): UrlQuery<PageQuery>,
) -> Paged<SessionAnswer> {
    let of = |answer| if let Answer::Sessions(list) = answer { Some(list) } else { None };
    admin.list(Query::Sessions, page, of, SessionAnswer::is_handover).await
}

async fn mesh_routes(
    State(admin): Shared,
    UrlQuery(page): UrlQuery<PageQuery>,
) -> Json<Page<RouteAnswer>> {
    let mesh = admin.mesh.load();
    let own = admin.shared.router.routes();
    let own = own.iter().map(|filter| RouteAnswer {
        filter: filter.as_str().to_owned(),
        node: admin.node.node_id.clone(),
    });
    let remote = admin.shared.router.remote_routes();
    let remote = remote.into_iter().flat_map(|(key, filters)| {
        let node = mesh.name_of(key);
        filters.into_iter().map(move |filter| RouteAnswer { filter, node: node.clone() })
    });
    let mut list: Vec<RouteAnswer> = own.chain(remote).collect();
    list.sort();
    Json(Page::of(list, page))
}

async fn retained(
    State(admin): Shared,
    UrlQuery(page): UrlQuery<PageQuery>,
) -> Json<Page<RetainedAnswer>> {
    let mesh = admin.mesh.load();
    let wall = crate::clock::wall();
    // '#' leaves out topics that begin with '$' [MQTT-4.7.2-1].
    let messages = admin.shared.retained.matches("#", wall, RETAINED_MAX);
    let answer = |message: &Arc<verge_mqtt_proto::message::Message>| RetainedAnswer {
        topic: message.topic.as_str().to_owned(),
        qos: message.qos.bits(),
        payload_bytes: message.payload.len(),
        published_at: views::rfc3339(UnixMillis(message.stamp.wall().0)),
        node: mesh.name_of(message.id.node),
    };
    Json(Page::of(messages.iter().map(answer).collect(), page))
}

#[derive(Debug, Deserialize)]
struct NearestQuery {
    lat: f64,
    lon: f64,
}

async fn nearest(
    State(admin): Shared,
    UrlQuery(query): UrlQuery<NearestQuery>,
) -> Result<impl IntoResponse, ApiError> {
    let from = LatLon::new(query.lat, query.lon)
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error))?;
    Ok(Json(views::nearest(&admin.mesh.load().members, from)))
}

/// Ends the connections of a client, named as the API names it (`client` or `principal/client`),
/// or by its id alone.
async fn kick(State(admin): Shared, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let answers = admin.ask(Query::Clients).await?;
    let views = answers.into_iter().filter_map(|answer| match answer {
        Answer::Clients(list) => Some(list),
        Answer::Sessions(_)
        | Answer::Subscriptions(_)
        | Answer::Held(_)
        | Answer::Holders(_)
        | Answer::Delayed(_)
        | Answer::Counts(_) => None,
    });
    let mut kicked = 0;
    let count = u16::try_from(admin.mailboxes.shards.len()).expect("shards are counted in 16 bits");
    for ClientView { client, .. } in views.flatten() {
        if *client.client_id == *id || client.to_string() == id {
            let shard = usize::from(ShardIndex::of(&client, count).0);
            admin.mailboxes.shards[shard].put(ShardMail(Mail::Kick(client)));
            kicked += 1;
        }
    }
    if kicked == 0 {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            format!("client '{id}' is not connected"),
        ));
    }
    Ok(Json(json!({ "kicked": kicked })))
}

async fn drain(State(admin): Shared) -> Json<Value> {
    admin.drain.send_replace(true);
    Json(json!({ "draining": true }))
}

/// Reads the configuration again. What cannot be taken over now is named.
async fn reload(State(admin): Shared) -> Result<Json<Reloaded>, ApiError> {
    admin
        .listeners
        .reload()
        .map(Json)
        .map_err(|error| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))
}

async fn metrics(State(admin): Shared) -> Result<Response, ApiError> {
    let mut counters = admin.shared.counters.snapshot().metrics();
    counters.extend(admin.shared.ledger.metrics());
    counters.extend(admin.shared.parked.metrics());
    counters.extend(admin.shared.extensions.counts.metrics());
    counters.extend(admin.shared.router.pressure().metrics());
    let mesh = admin.mesh.load();
    counters.extend(mesh.metrics());
    let writer = admin.writer.counts();
    for (name, help, value) in [
        ("storage_groups_total", "Groups of batches committed", writer.groups),
        ("storage_batches_total", "Batches committed", writer.batches),
        ("storage_written_bytes_total", "Bytes of keys and values committed", writer.bytes),
        ("storage_fsyncs_total", "Groups that were synced", writer.fsyncs),
        ("storage_groups_failed_total", "Groups that were not committed", writer.failures),
        ("storage_refused_total", "Batches that found the writer's queue full", writer.refused),
    ] {
        let labels = Vec::new();
        counters.push(verge_broker_core::counters::Metric { name, help, labels, value });
    }
    let (of_disk, gauges_of_disk) = disk::metrics(&admin);
    counters.extend(of_disk);
    counters.push(verge_broker_core::counters::Metric {
        name: "retained_refused_messages_total",
        help: "Messages not retained, since as many or as large ones are as are kept",
        labels: Vec::new(),
        value: admin.shared.retained.refused_count(),
    });
    let gauge = |name, help, value: usize| Gauge { name, help, value: value as f64 };
    let alive = mesh.members.iter().filter(|member| member.is_alive()).count();
    let mut gauges = vec![
        gauge("mesh_members", "Nodes believed alive, this one included", alive),
        gauge(
            "router_subscriptions",
            "Subscriptions of this node's sessions",
            admin.shared.router.subscription_count(),
        ),
        gauge("retained_messages", "Topics with a retained message", admin.shared.retained.count()),
        gauge("retained_bytes", "Bytes of retained messages", admin.shared.retained.bytes()),
    ];
    gauges.extend(gauges_of_disk);
    let (delayed, delayed_bytes) = admin.shared.extensions.delayed.waiting();
    gauges.push(gauge("delayed_messages", "Messages that wait to be published", delayed as usize));
    gauges.push(gauge("delayed_bytes", "Bytes of them", delayed_bytes as usize));
    let held = admin.held().await?;
    gauges.push(gauge("ledger_held_debts", "Messages owed to sessions now", held.total() as usize));
    gauges.push(gauge("ledger_held_bytes", "Bytes of them", held.total_bytes() as usize));
    gauges.push(Gauge {
        name: "ledger_imbalance_debts",
        help: "Debts that the books miss, or have too often if negative, for some time; 0 is right",
        value: admin.off_by() as f64,
    });
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, metrics::text(&counters, &gauges)).into_response())
}

/// Serves nothing but whether the process runs and serves; for processes with another API.
pub fn health_routes(ready: Arc<AtomicBool>) -> Router {
    let readyz = move || {
        let ready = ready.load(Ordering::Acquire);
        async move {
            if ready {
                (StatusCode::OK, "ready\n")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
            }
        }
    };
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(readyz))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_a_warning_is_ready_and_says_it() {
        assert_eq!(ready_text(&[]), "ready\n");
        assert_eq!(ledger_warning(0), None);
        let warnings: Vec<String> = ledger_warning(-2).into_iter().collect();
        let wanted = "ready\nwarning: the ledger does not balance: 2 debts are counted too often; \
            see /api/v1/ledger\n";
        assert_eq!(ready_text(&warnings), wanted);
    }
}
