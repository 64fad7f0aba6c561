//! What the API says of extensions.

use axum::Json;
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use verge_broker_core::extension::topic_metrics::{RegisterError, TopicView};
use verge_broker_core::shard::api::{Answer, DelayedView, Query};
use verge_mqtt_proto::TopicName;

use super::Shared;
use super::page::{ApiError, Page, PageQuery};
use super::views::rfc3339;

/// An entry of `GET /api/v1/delayed`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DelayedAnswer {
    /// When it is published.
    due_at: String,
    /// Its name.
    id: String,
    /// Where it is published.
    topic: String,
    /// Whose it is.
    client_id: String,
    qos: u8,
    retain: bool,
    payload_bytes: usize,
    accepted_at: String,
}

impl From<DelayedView> for DelayedAnswer {
    fn from(view: DelayedView) -> Self {
        Self {
            due_at: rfc3339(view.due_at),
            id: view.id.to_string(),
            topic: view.topic,
            client_id: view.publisher.as_ref().to_owned(),
            qos: view.qos,
            retain: view.retain,
            payload_bytes: view.payload_bytes,
            accepted_at: rfc3339(view.accepted_at),
        }
    }
}

/// Messages that wait to be published, the next first.
pub(super) async fn delayed(
    State(admin): Shared,
    UrlQuery(page): UrlQuery<PageQuery>,
) -> Result<Json<Page<DelayedAnswer>>, ApiError> {
    let of = |answer| if let Answer::Delayed(list) = answer { Some(list) } else { None };
    admin.list(Query::Delayed, page, of, |_| true).await
}

/// Topics that are counted.
pub(super) async fn topics(
    State(admin): Shared,
    UrlQuery(page): UrlQuery<PageQuery>,
) -> Json<Page<TopicView>> {
    Json(Page::of(admin.shared.extensions.topic_metrics.views(), page))
}

/// One of them.
pub(super) async fn topic(
    State(admin): Shared,
    Path(topic): Path<String>,
) -> Result<Json<TopicView>, ApiError> {
    let view = admin.shared.extensions.topic_metrics.view(&topic);
    view.map(Json).ok_or_else(|| not_counted(&topic))
}

/// Body of `POST /api/v1/topic-metrics`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegisterQuestion {
    topic: String,
}

/// Counts one more.
pub(super) async fn register(
    State(admin): Shared,
    Json(question): Json<RegisterQuestion>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let refused = |status, why: String| ApiError::new(status, why);
    let topic = TopicName::parse(&question.topic)
        .map_err(|error| refused(StatusCode::BAD_REQUEST, error.to_string()))?;
    let metrics = &admin.shared.extensions.topic_metrics;
    metrics.register(&topic, crate::clock::wall()).map_err(|error| {
        let status = match error {
            RegisterError::Exists => StatusCode::CONFLICT,
            RegisterError::Full => StatusCode::BAD_REQUEST,
        };
        refused(status, error.to_string())
    })?;
    Ok((StatusCode::CREATED, Json(json!({ "topic": question.topic }))))
}

/// Counts one less.
pub(super) async fn deregister(
    State(admin): Shared,
    Path(topic): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if !admin.shared.extensions.topic_metrics.deregister(&topic) {
        return Err(not_counted(&topic));
    }
    Ok(Json(json!({ "deregistered": topic })))
}

fn not_counted(topic: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("topic '{topic}' is not registered"))
}
