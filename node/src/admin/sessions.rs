//! Sessions and their subscriptions, wherever they are: in a shard's memory, or on the disk only.
//!
//! Shards say what they have in memory; the rest is read from the store, on a thread that serves
//! nobody, in the order of clients, as far as the page that is wanted.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::sync::Arc;
use std::vec;

use axum::Json;
use axum::extract::{Query as UrlQuery, State};
use axum::http::StatusCode;
use verge_broker_core::shard::api::{Answer, Query, SessionView, SubscriptionView};
use verge_model::ClientKey;
use verge_mqtt_proto::TopicFilter;
use verge_storage::key::OpenKey;
use verge_storage::{KeyRange, Store, StoreError, StoreRows};

use super::page::{ApiError, Page, PageQuery};
use super::views::{SessionAnswer, SubscriptionAnswer};
use super::{Admin, Paged, Shared};

/// Queued messages of a session that are counted, at most; beyond it the count is this.
const QUEUED_MAX: usize = 100_000;

/// `GET /api/v1/sessions`
pub(super) async fn sessions(
    State(admin): Shared,
    UrlQuery(query): UrlQuery<PageQuery>,
) -> Paged<SessionAnswer> {
    let here = resident(&admin).await?;
    let parked = parked_count(&admin).await?;
    let store = Arc::clone(&admin.store);
    on_a_thread(move || {
        let mut cut = Cut::of(query, here.len() + parked);
        let names = names_of(&here);
        let mut here = in_order(here, |view| &view.client);
        for_parked(&*store, &names, |client, no| {
            while let Some(view) = here.next_if(|view| view.client <= *client) {
                cut.take(|| Ok(Some(SessionAnswer::from(view))))?;
            }
            cut.take(|| Ok(view_of(&*store, client, no)?.map(SessionAnswer::from)))?;
            Ok(!cut.is_full())
        })?;
        for view in here {
            cut.take(|| Ok(Some(SessionAnswer::from(view))))?;
        }
        Ok(cut.page)
    })
    .await
}

/// `GET /api/v1/subscriptions`
pub(super) async fn subscriptions(
    State(admin): Shared,
    UrlQuery(query): UrlQuery<PageQuery>,
) -> Paged<SubscriptionAnswer> {
    let here = admin.ask(Query::Subscriptions).await?;
    let of = |answer| if let Answer::Subscriptions(list) = answer { Some(list) } else { None };
    let here = here.into_iter().filter_map(of);
    let here: Vec<SubscriptionView> = here.flatten().collect();
    let names = names_of(&resident(&admin).await?);
    let parked = parked_count(&admin).await?;
    let all = admin.shared.router.subscription_count();
    let total = if parked == 0 { here.len() } else { all.max(here.len()) };
    let store = Arc::clone(&admin.store);
    on_a_thread(move || {
        let mut cut = Cut::of(query, total);
        let mut here = in_order(here, |view| &view.client);
        for_parked(&*store, &names, |client, no| {
            while let Some(view) = here.next_if(|view| view.client <= *client) {
                cut.take(|| Ok(Some(SubscriptionAnswer::from(view))))?;
            }
            for row in store.subscriptions_of(no) {
                let Some((key, record)) = readable(row)? else { continue };
                let Ok(filter) = TopicFilter::try_from(key.filter) else { continue };
                let view = SubscriptionView { client: client.clone(), filter, qos: record.qos };
                cut.take(|| Ok(Some(SubscriptionAnswer::from(view))))?;
            }
            Ok(!cut.is_full())
        })?;
        for view in here {
            cut.take(|| Ok(Some(SubscriptionAnswer::from(view))))?;
        }
        Ok(cut.page)
    })
    .await
}

/// A page that fills.
struct Cut<T> {
    page: Page<T>,
    before: usize,
}

impl<T> Cut<T> {
    fn of(query: PageQuery, total: usize) -> Self {
        let page = Page { total, ..Page::of(Vec::new(), query) };
        let before = (page.page - 1).saturating_mul(page.limit);
        Self { page, before }
    }

    fn is_full(&self) -> bool {
        self.page.items.len() >= self.page.limit
    }

    /// The next of the list, which is made only if it is on the page.
    fn take(
        &mut self,
        make: impl FnOnce() -> Result<Option<T>, StoreError>,
    ) -> Result<(), StoreError> {
        if self.before > 0 {
            self.before -= 1;
        } else if !self.is_full() {
            self.page.items.extend(make()?);
        }
        Ok(())
    }
}

/// Sessions in memory.
async fn resident(admin: &Admin) -> Result<Vec<SessionView>, ApiError> {
    let answers = admin.ask(Query::Sessions).await?.into_iter();
    let of = |answer| if let Answer::Sessions(list) = answer { Some(list) } else { None };
    Ok(answers.filter_map(of).flatten().collect())
}

/// How many others there are.
async fn parked_count(admin: &Admin) -> Result<usize, ApiError> {
    let answers = admin.ask(Query::Counts).await?.into_iter();
    let counts =
        answers.map(|answer| if let Answer::Counts(counts) = answer { counts.parked } else { 0 });
    Ok(usize::try_from(counts.sum::<u64>()).unwrap_or(usize::MAX))
}

fn names_of(views: &[SessionView]) -> BTreeSet<ClientKey> {
    views.iter().filter(|view| !view.sealed).map(|view| view.client.clone()).collect()
}

fn in_order<V>(mut views: Vec<V>, client: impl Fn(&V) -> &ClientKey) -> Peekable<vec::IntoIter<V>> {
    views.sort_by(|a, b| client(a).cmp(client(b)));
    views.into_iter().peekable()
}

/// Visits the stored sessions of clients without one in memory, until `visit` has enough.
fn for_parked(
    store: &dyn Store,
    in_memory: &BTreeSet<ClientKey>,
    mut visit: impl FnMut(&ClientKey, u64) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    for row in store.rows::<OpenKey>(KeyRange::all()) {
        let Some((OpenKey(client), record)) = readable(row)? else { continue };
        if !in_memory.contains(&client) && !visit(&client, record.session_no)? {
            break;
        }
    }
    Ok(())
}

fn view_of(
    store: &dyn Store,
    client: &ClientKey,
    no: u64,
) -> Result<Option<SessionView>, StoreError> {
    let Some(header) = readable(store.session(no))?.flatten() else { return Ok(None) };
    Ok(Some(SessionView {
        client: client.clone(),
        claim: header.claim,
        connected: false,
        sealed: false,
        session_expiry_secs: header.session_expiry_secs,
        subscriptions: store.subscriptions_of(no).count() as u64,
        queued: store.queue_of(no).take(QUEUED_MAX).count() as u64,
        inflight: 0,
        open_fragments: header.open_fragments.len() as u64,
    }))
}

/// The row, or nothing if this one is damaged: its session says so when it is touched.
fn readable<T>(row: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match row {
        Ok(row) => Ok(Some(row)),
        Err(StoreError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn on_a_thread<T: Send + 'static>(
    read: impl FnOnce() -> Result<Page<T>, StoreError> + Send + 'static,
) -> Paged<T> {
    let refused = |line: String| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, line);
    let read = tokio::task::spawn_blocking(read).await;
    let page = read.map_err(|error| refused(error.to_string()))?;
    page.map(Json).map_err(|error| refused(error.to_string()))
}
