//! The mesh thread: the hub of the node, with links, mail and a storage writer.
//!
//! The decisions are [`verge_broker_core::hub::Hub`]'s. A node without a mesh has a hub all the
//! same, only no links: it answers that nobody else knows a session.
//!
//! | file | holds |
//! |---|---|
//! | [`links`] | from configuration to links |
//! | `driver` | the loop |
//! | [`view`] | what the loop publishes for the admin API |

mod driver;
pub mod links;
pub mod view;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::task::Context;
use std::thread::{Builder, JoinHandle};

use arc_swap::ArcSwap;
use bytes::Bytes;
use verge_broker_core::hub::Hub;
use verge_broker_core::shard::api::{HubMail, Ticket};
use verge_broker_core::shared::NodeShared;
use verge_mesh::{BindError, Links, LinksConfig};
use verge_storage::{LogKey, Store, StoreError};
use verge_storage_rocksdb::WriterHandle;

use self::driver::Driver;
use self::view::MeshView;
use crate::app::Alarm;
use crate::clock::Clock;
use crate::config::sections::UplinkSection;
use crate::shard::mailbox::{HUB_MAIL_MAX, Mailbox, Weigh};
use crate::shard::{Mailboxes, on_this_thread};
use crate::uplink::Uplink;

/// A piece of mail for the mesh thread.
pub enum HubItem {
    /// For the hub.
    Mail(HubMail),
    /// Leave the mesh and end.
    Stop,
}

/// What came back from the storage writer.
#[derive(Debug)]
pub enum HubDone {
    /// Rows were added to logs, by whosever batch.
    Appended(Vec<(LogKey, u64, Bytes)>),
    /// A batch of the hub was committed, or was not; with the rows it added to logs.
    Committed(Ticket, Result<Vec<(LogKey, u64, Bytes)>, StoreError>),
    /// A batch that deletes what nobody needs was committed.
    Tidied,
}

/// The mesh thread's mailbox.
#[derive(Clone)]
pub struct HubMailbox(Mailbox<HubItem, HubDone>);

impl Weigh for HubItem {
    fn weight(&self) -> usize {
        1
    }
}

impl Default for HubMailbox {
    fn default() -> Self {
        Self(Mailbox::new(HUB_MAIL_MAX))
    }
}

impl HubMailbox {
    /// Moves mail into the box while there is room.
    pub fn put_all(&self, mail: &mut VecDeque<HubItem>) {
        self.0.put_all(mail);
    }

    /// Tells that rows were added to logs.
    pub fn appended(&self, rows: Vec<(LogKey, u64, Bytes)>) {
        self.0.complete(HubDone::Appended(rows));
    }

    /// Tells the thread to leave the mesh and end.
    pub fn stop(&self) {
        self.0.put(HubItem::Stop);
    }

    fn complete(&self, done: HubDone) {
        self.0.complete(done);
    }

    fn take(
        &self,
        cx: &mut Context<'_>,
        mail: &mut VecDeque<HubItem>,
        done: &mut VecDeque<HubDone>,
    ) {
        self.0.take(cx, mail, done);
    }
}

/// What the mesh thread is given.
pub struct MeshSetup {
    /// Links, unless the node is alone.
    pub links: Option<LinksConfig>,
    /// Makes the hub, once it is known where links listen.
    pub hub: Box<dyn FnOnce(Option<SocketAddr>) -> Hub + Send>,
    /// What shards and hub share.
    pub shared: Arc<NodeShared>,
    /// The node's clock.
    pub clock: Clock,
    /// Where it writes.
    pub writer: WriterHandle,
    /// The store, for reading logs.
    pub store: Arc<dyn Store>,
    /// Everyone's mailboxes.
    pub mailboxes: Mailboxes,
    /// The uplink's settings.
    pub uplink: UplinkSection,
    /// Where the state of the mesh is published.
    pub view: Arc<ArcSwap<MeshView>>,
    /// Raised if the thread panics.
    pub alarm: Alarm,
}

/// Why the mesh thread did not start.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The links' address cannot be used.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The outbox cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gives no thread.
    #[error("the mesh thread did not start: {0}")]
    Thread(#[from] io::Error),
    /// It ended before it said why.
    #[error("the mesh thread ended at once")]
    Ended,
}

/// Starts the mesh thread. Returns where links listen, if there are any.
///
/// # Errors
/// The address is taken, or the system gives no thread.
pub fn spawn(setup: MeshSetup) -> Result<(JoinHandle<()>, Option<SocketAddr>), MeshError> {
    let (started, start) = sync_channel(1);
    let thread = Builder::new().name("mesh".into()).spawn(move || {
        let _alarm = setup.alarm.clone();
        on_this_thread(async move {
            match begin(setup) {
                Ok((driver, addr)) => {
                    let _ = started.send(Ok(addr));
                    driver.run().await;
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        });
    })?;
    match start.recv() {
        Ok(Ok(addr)) => Ok((thread, addr)),
        Ok(Err(error)) => {
            // What it was given, the store above all, is let go of before the caller goes on.
            let _ = thread.join();
            Err(error)
        }
        Err(_) => Err(MeshError::Ended),
    }
}

fn begin(setup: MeshSetup) -> Result<(Driver, Option<SocketAddr>), MeshError> {
    let links = setup.links.map(Links::bind).transpose()?;
    let addr = links.as_ref().map(|(links, _)| links.local_addr());
    let (uplink, rows) = Uplink::new(setup.uplink, Arc::clone(&setup.store))?;
    let hub = (setup.hub)(addr);
    let parts = driver::Parts {
        hub,
        shared: setup.shared,
        links,
        clock: setup.clock,
        writer: setup.writer,
        store: setup.store,
        mailboxes: setup.mailboxes,
        uplink,
        rows,
        view: setup.view,
    };
    Ok((Driver::new(parts), addr))
}
