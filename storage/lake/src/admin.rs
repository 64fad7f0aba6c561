//! The admin HTTP API.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 while the process runs |
//! | `/readyz` | 200 once tables can be written and links made, 503 while ending |
//! | `/metrics` | Prometheus text |
//! | `/api/v1/node` | this node |
//! | `/api/v1/members?page=1&limit=100` | the mesh |
//! | `/api/v1/uplinks?page=1&limit=100` | every log: watermark and lag |

use std::net::SocketAddr;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::status::{MemberView, NodeView, Status, UplinkView};

/// Entries of a page unless asked otherwise.
const LIMIT_DEFAULT: usize = 100;

/// Most entries of a page.
const LIMIT_MAX: usize = 1_000;

/// What handlers read.
#[derive(Clone)]
pub struct AdminState {
    /// The latest snapshot.
    pub status: watch::Receiver<Status>,
    /// Whether work is taken.
    pub ready: watch::Receiver<bool>,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Page {
    #[serde(default = "Page::first")]
    page: usize,
    #[serde(default = "Page::limit")]
    limit: usize,
}

/// Part of a list.
#[derive(Debug, Serialize)]
struct Items<T> {
    items: Vec<T>,
    /// Entries of the whole list.
    total: usize,
}

/// Listens; the address tells the port if 0 was asked for.
///
/// # Errors
/// One line that names the address.
pub async fn bind(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), String> {
    let refused = |error: std::io::Error| {
        format!("admin address {addr}: {error}; choose another with --admin")
    };
    let listener = TcpListener::bind(addr).await.map_err(refused)?;
    let addr = listener.local_addr().map_err(refused)?;
    Ok((listener, addr))
}

/// Answers until the process ends.
pub async fn serve(listener: TcpListener, state: AdminState) {
    if let Err(error) = axum::serve(listener, router(state)).await {
        tracing::error!(%error, "admin API ended");
    }
}

fn router(state: AdminState) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/node", get(node))
        .route("/api/v1/members", get(members))
        .route("/api/v1/uplinks", get(uplinks))
        .with_state(state)
}

async fn readyz(State(state): State<AdminState>) -> impl IntoResponse {
    if *state.ready.borrow() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn metrics(State(state): State<AdminState>) -> impl IntoResponse {
    let text = state.status.borrow().metrics();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

async fn node(State(state): State<AdminState>) -> Json<NodeView> {
    Json(state.status.borrow().node.clone())
}

async fn members(
    State(state): State<AdminState>,
    Query(page): Query<Page>,
) -> Json<Items<MemberView>> {
    Json(page.of(&state.status.borrow().members))
}

async fn uplinks(
    State(state): State<AdminState>,
    Query(page): Query<Page>,
) -> Json<Items<UplinkView>> {
    Json(page.of(&state.status.borrow().uplinks))
}

impl Page {
    fn first() -> usize {
        1
    }

    fn limit() -> usize {
        LIMIT_DEFAULT
    }

    fn of<T: Clone>(self, list: &[T]) -> Items<T> {
        let limit = self.limit.clamp(1, LIMIT_MAX);
        let skipped = self.page.saturating_sub(1).saturating_mul(limit);
        let items = list.iter().skip(skipped).take(limit).cloned().collect();
        Items { items, total: list.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_never_leave_the_list_or_their_bounds() {
        let list: Vec<usize> = (0..2_500).collect();
        let of = |page, limit| {
            let items = Page { page, limit }.of(&list);
            assert_eq!(items.total, 2_500);
            (items.items.first().copied(), items.items.len())
        };
        assert_eq!(of(1, 100), (Some(0), 100));
        assert_eq!(of(3, 1_000), (Some(2_000), 500));
        assert_eq!(of(0, 0), (Some(0), 1));
        assert_eq!(of(1, usize::MAX), (Some(0), 1_000));
        assert_eq!(of(usize::MAX, usize::MAX), (None, 0));
    }
}
