//! The thread that says how the node is: `$SYS` topics, rates of single topics, what was dropped,
//! and whether the books balance.
//!
//! It asks the shards as the admin API does, and hands what it makes of the answers to one of them
//! to publish.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Interval;
use verge_broker_core::drops::DropTeller;
use verge_broker_core::ledger::watch::{Change, LedgerWatch};
use verge_broker_core::shard::api::{Answer, Mail, NodeMessage, Query};
use verge_broker_core::sys_topic::{Loads, SysStatus, sys_topics};
use verge_mqtt_proto::TopicName;

use crate::admin::Admin;
use crate::admin::views::rfc3339;
use crate::clock;
use crate::shard::{ShardMail, on_this_thread};

/// How often rates of topics are taken, and the books looked at.
const SAMPLE: Duration = Duration::from_secs(5);

/// How often drops are told.
const DROPS: Duration = Duration::from_secs(1);

/// What the thread remembers from one time to the next.
struct Reporter {
    admin: Arc<Admin>,
    started: Instant,
    sampled: Instant,
    loads: Loads,
    clients_max: u64,
    sessions_max: u64,
    books: LedgerWatch,
    drops: DropTeller,
}

/// Starts the thread: `$SYS` topics now and every `interval`, which is 0 for never. It ends when
/// `stop` is true.
///
/// # Errors
/// The system gives no thread.
pub fn spawn(
    admin: Arc<Admin>,
    interval: Duration,
    stop: watch::Receiver<bool>,
) -> io::Result<JoinHandle<()>> {
    Builder::new().name("sys".into()).spawn(move || {
        on_this_thread(async move {
            let now = clock::instant();
            let reporter = Reporter {
                admin,
                started: now,
                sampled: now,
                loads: Loads::default(),
                clients_max: 0,
                sessions_max: 0,
                books: LedgerWatch::default(),
                drops: DropTeller::default(),
            };
            reporter.run(interval, stop).await;
        });
    })
}

impl Reporter {
    async fn run(mut self, interval: Duration, mut stop: watch::Receiver<bool>) {
        let mut publishes = (!interval.is_zero()).then(|| tokio::time::interval(interval));
        let mut samples = tokio::time::interval(SAMPLE);
        // They are $SYS topics too.
        let mut drops = publishes.is_some().then(|| tokio::time::interval(DROPS));
        loop {
            let publish = tick(&mut publishes);
            let drops = tick(&mut drops);
            tokio::select! {
                _ = publish => self.publish().await,
                _ = drops => self.tell_drops(),
                _ = samples.tick() => {
                    let metrics = &self.admin.shared.extensions.topic_metrics;
                    if metrics.is_active() {
                        metrics.sample(SAMPLE.as_secs_f64());
                    }
                    self.look_at_books().await;
                }
                // An error says that the sender is gone, and with it the node.
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Says what was dropped since the last time.
    fn tell_drops(&mut self) {
        let admin = &self.admin;
        let told = self.drops.tell(&admin.node.node_id, &admin.shared, clock::wall());
        self.hand_out(told, false);
    }

    fn hand_out(&self, topics: Vec<(TopicName, String)>, retain: bool) {
        let messages = topics.into_iter().map(|(topic, value)| NodeMessage {
            topic,
            payload: Bytes::from(value),
            retain,
        });
        let messages: Vec<_> = messages.collect();
        let first = self.admin.mailboxes.shards.first().filter(|_| !messages.is_empty());
        if let Some(mailbox) = first {
            mailbox.put(ShardMail(Mail::Publish(messages)));
        }
    }

    /// Looks whether the books balance. Looks are far apart, and not counted while messages flow.
    async fn look_at_books(&mut self) {
        let admin = &self.admin;
        let before = admin.shared.ledger.snapshot();
        let Ok(held) = admin.held().await else { return };
        let after = admin.shared.ledger.snapshot();
        let held = held.total();
        match self.books.look(&before, held, &after) {
            Some(Change::OffBy(off_by)) => {
                tracing::warn!(off_by, held, books = ?after, "the ledger does not balance");
            }
            Some(Change::Balanced) => tracing::info!("the ledger balances again"),
            None => {}
        }
        admin.off_by.store(self.books.off_by(), Ordering::Relaxed);
    }

    async fn publish(&mut self) {
        let Some(mut status) = self.status().await else {
            return tracing::debug!("the shards did not say how they are");
        };
        let now = clock::instant();
        self.loads.sample(&status, now.saturating_duration_since(self.sampled));
        self.sampled = now;
        status.loads = self.loads;
        self.hand_out(sys_topics(&status), true);
    }

    async fn status(&mut self) -> Option<SysStatus> {
        let answers = self.admin.ask(Query::Counts).await.ok()?;
        let (mut connected, mut sessions, mut held) = (0, 0, 0);
        for answer in answers {
            if let Answer::Counts(counts) = answer {
                connected += counts.connected;
                sessions += counts.sessions;
                held += counts.held;
            }
        }
        self.clients_max = self.clients_max.max(connected);
        self.sessions_max = self.sessions_max.max(sessions);
        let shared = &self.admin.shared;
        Some(SysStatus {
            node: self.admin.node.node_id.clone(),
            version: self.admin.node.version.to_owned(),
            datetime: rfc3339(clock::wall()),
            uptime: clock::instant().saturating_duration_since(self.started),
            clients_connected: connected,
            clients_max: self.clients_max,
            sessions,
            sessions_max: self.sessions_max,
            subscriptions: shared.router.subscription_count() as u64,
            filters: shared.router.filter_count() as u64,
            retained: shared.retained.count() as u64,
            delayed: shared.extensions.delayed.waiting().0,
            held,
            counters: shared.counters.snapshot(),
            ledger: shared.ledger.snapshot(),
            loads: Loads::default(),
        })
    }
}

/// The next time, or never.
async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
