//! Shards: threads that each own a share of the clients, their connections and their sessions.
//!
//! The decisions are [`verge_broker_core::shard::Shard`]'s; this is the loop that gives it sockets,
//! mail, time and a storage writer. Within a shard nothing is locked.
//!
//! | file | holds |
//! |---|---|
//! | [`mailbox`] | how threads write to each other |
//! | `turn` | the loop |
//! | `connection` | the table of connections |
//! | `ready` | which sockets are ready |
//! | `flush` | writing, and closing |
//! | `owed` | what slow connections are owed together |
//! | `streams` | the streams of QUIC connections |

mod connection;
mod flush;
pub mod mailbox;
mod owed;
mod ready;
mod streams;
mod turn;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::timeout;
use verge_broker_core::shard::Shard;
use verge_broker_core::shard::api::{Mail, ShardIndex, Ticket};
use verge_storage::StoreError;
use verge_storage_rocksdb::WriterHandle;

use self::mailbox::{Mailbox, Weigh};
use self::turn::Driver;
use crate::app::{Alarm, Opening};
use crate::authn::PasswordThreads;
use crate::clock::Clock;
use crate::listener::{self, Arrival};
use crate::mesh::HubMailbox;

/// Connections on their way to one shard; accepting waits beyond it.
pub const ARRIVALS_MAX: usize = 1_024;

/// How long listeners are waited for when the node goes down: a QUIC endpoint, for the last words to
/// clients of other shards.
const DRAIN: Duration = Duration::from_secs(3);

/// A piece of mail for a shard.
pub struct ShardMail(pub Mail);

impl Weigh for ShardMail {
    fn weight(&self) -> usize {
        self.0.weight()
    }
}

/// A commit that came back to its shard.
pub type Completion = (Ticket, Result<(), StoreError>);

/// A shard's mailbox.
pub type ShardMailbox = Mailbox<ShardMail, Completion>;

/// The mailboxes of a node.
#[derive(Clone)]
pub struct Mailboxes {
    /// By shard.
    pub shards: Arc<[ShardMailbox]>,
    /// The hub's.
    pub hub: HubMailbox,
}

/// What connections that do not read may be owed, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Outputs {
    /// One of them.
    pub one: usize,
    /// All of a shard together, nearly: each may be owed little then.
    pub total: usize,
}

/// What one shard's thread is given.
pub struct ShardSetup {
    /// The shard, with its sessions restored.
    pub core: Shard,
    /// Which one it is.
    pub index: ShardIndex,
    /// The node's clock.
    pub clock: Clock,
    /// Where it writes.
    pub writer: WriterHandle,
    /// Everyone's mailboxes.
    pub mailboxes: Mailboxes,
    /// Its connections.
    pub arrivals: mpsc::Receiver<Arrival>,
    /// Listeners whose tasks run on this thread, as they come.
    pub openings: mpsc::Receiver<Opening>,
    /// What connections may be owed.
    pub outputs: Outputs,
    /// Who checks passwords, if there are users.
    pub passwords: Option<PasswordThreads>,
    /// Raised if the thread panics.
    pub alarm: Alarm,
}

/// Starts a shard's thread. It ends when the shard was told to go down and everything is written.
///
/// # Errors
/// The system gives no thread.
pub fn spawn(setup: ShardSetup) -> io::Result<JoinHandle<()>> {
    let name = format!("shard-{}", setup.index.0);
    Builder::new().name(name).spawn(move || {
        let ShardSetup {
            core,
            index,
            clock,
            writer,
            mailboxes,
            arrivals,
            openings,
            outputs,
            passwords,
            alarm,
        } = setup;
        let _alarm = alarm;
        on_this_thread(async move {
            let (over, is_over) = oneshot::channel();
            let serving = tokio::task::spawn_local(serve(openings, is_over));
            let mut driver = Driver::new(core, index, clock, writer, mailboxes, arrivals, outputs);
            driver.passwords = passwords;
            turn::run(driver).await;
            // A QUIC endpoint on this thread carries the last words of other shards too.
            drop(over);
            // A panic is one of this thread's tasks and was told.
            let _ = serving.await;
        });
    })
}

/// Serves listeners as they come, and waits for all to end once the thread's work is over.
async fn serve(mut openings: mpsc::Receiver<Opening>, mut over: oneshot::Receiver<()>) {
    let mut serving = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            Some(Opening { listener, doorman, stop }) = openings.recv() => {
                serving.spawn_local(listener::serve(listener, doorman, stop));
            }
            Some(_) = serving.join_next() => {}
            _ = &mut over => break,
        }
    }
    // The other shards say goodbye to their clients meanwhile.
    let _ = timeout(DRAIN, async { while serving.join_next().await.is_some() {} }).await;
}

/// Runs a future, and the tasks it spawns, on a runtime of this thread's own.
pub(crate) fn on_this_thread(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a process that starts can have one more reactor");
    LocalSet::new().block_on(&runtime, future);
}
