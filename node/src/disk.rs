//! The thread that looks after the disk: what is free, and whether a store that failed works again.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use verge_storage_rocksdb::RocksStore;

use crate::app::Alarm;
use crate::shard::on_this_thread;

/// How often the disk is looked at: a disk that takes 100 MB/s loses a reserve of 64 MB in as long.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Starts the thread. It ends when `stop` is true.
///
/// # Errors
/// The system gives no thread.
pub fn spawn(
    store: Arc<RocksStore>,
    alarm: Alarm,
    mut stop: watch::Receiver<bool>,
) -> io::Result<JoinHandle<()>> {
    Builder::new().name("disk".into()).spawn(move || {
        let _alarm = alarm;
        on_this_thread(async move {
            let mut looks = tokio::time::interval(LOOK_EVERY);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = looks.tick() => store.look_after(),
                    // An error says that the sender is gone, and with it the node.
                    _ = stop.wait_for(|stop| *stop) => return,
                }
            }
        });
    })
}
