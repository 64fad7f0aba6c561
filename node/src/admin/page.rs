//! Pages of lists, and refusals.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// Most entries of a page.
pub const PAGE_ENTRIES_MAX: usize = 1_000;

/// Which page is wanted: `?page=&limit=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct PageQuery {
    /// From 1.
    #[serde(default = "one")]
    pub page: usize,
    /// Entries of a page.
    #[serde(default = "hundred")]
    pub limit: usize,
}

fn one() -> usize {
    1
}

fn hundred() -> usize {
    100
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// Its entries.
    pub items: Vec<T>,
    /// Which page it is, from 1.
    pub page: usize,
    /// Most entries of a page.
    pub limit: usize,
    /// Entries of the whole list.
    pub total: usize,
}

impl<T> Page<T> {
    /// The page of `list` that is wanted.
    #[must_use]
    pub fn of(list: Vec<T>, query: PageQuery) -> Self {
        let limit = query.limit.clamp(1, PAGE_ENTRIES_MAX);
        let page = query.page.max(1);
        let total = list.len();
        let before = (page - 1).saturating_mul(limit);
        Self { items: list.into_iter().skip(before).take(limit).collect(), page, limit, total }
    }
}

/// A refusal: status and one line.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    line: String,
}

impl ApiError {
    /// A refusal.
    #[must_use]
    pub fn new(status: StatusCode, line: impl Into<String>) -> Self {
        Self { status, line: line.into() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(serde_json::json!({ "error": self.line }))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cut_a_list() {
        let page = |page, limit| Page::of((0..5).collect(), PageQuery { page, limit });
        assert_eq!(page(1, 2).items, [0, 1]);
        assert_eq!(page(3, 2).items, [4]);
        assert_eq!(page(4, 2), Page { items: vec![], page: 4, limit: 2, total: 5 });
        assert_eq!(page(0, 0), Page { items: vec![0], page: 1, limit: 1, total: 5 });
        assert_eq!(page(usize::MAX, usize::MAX).limit, PAGE_ENTRIES_MAX);
    }
}
