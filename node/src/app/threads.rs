//! The threads of a node: started, watched, joined.

use std::sync::mpsc::sync_channel;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::clock;

/// Alarms that wait to be heard; one is enough to end the node.
const ALARMS_MAX: usize = 64;

/// How long what was started is waited for when a node does not start.
const FAILED_START_WAIT: Duration = Duration::from_secs(5);

/// The threads of a node.
#[derive(Default)]
pub(super) struct Threads {
    pub(super) shards: Vec<JoinHandle<()>>,
    pub(super) sys: Option<JoinHandle<()>>,
    pub(super) disk: Option<JoinHandle<()>>,
    pub(super) mesh: Option<JoinHandle<()>>,
    pub(super) admin: Option<JoinHandle<()>>,
    pub(super) writer: Option<JoinHandle<()>>,
}

impl Drop for Threads {
    /// Of a node that did not start nothing goes on: the store is closed before the process may end.
    fn drop(&mut self) {
        let Self { shards, sys, disk, mesh, admin, writer } = self;
        let left = shards
            .drain(..)
            .chain(sys.take())
            .chain(disk.take())
            .chain(mesh.take())
            .chain(admin.take())
            .chain(writer.take());
        let left: Vec<_> = left.collect();
        if !left.is_empty() {
            join_by(left, clock::instant() + FAILED_START_WAIT);
        }
    }
}

/// Raised when its thread panics: a node without one of its threads must not go on as if it served.
#[derive(Debug, Clone)]
pub struct Alarm(mpsc::Sender<String>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = std::thread::current().name().unwrap_or("without a name").to_owned();
            // If it is full, the node has heard already.
            let _ = self.0.try_send(name);
        }
    }
}

/// Hears alarms.
#[derive(Debug)]
pub(super) struct Alarms(mpsc::Receiver<String>);

impl Alarms {
    /// The alarm to give to threads, and who hears it.
    pub(super) fn new() -> (Alarm, Self) {
        let (sender, receiver) = mpsc::channel(ALARMS_MAX);
        (Alarm(sender), Self(receiver))
    }

    /// The name of a thread that panicked.
    pub(super) async fn recv(&mut self) -> String {
        match self.0.recv().await {
            Some(name) => name,
            // All threads ended well, which only a drain makes them do.
            None => std::future::pending().await,
        }
    }
}

/// Waits for threads to end. False if some have not at the deadline.
pub(super) fn join_by(
    threads: impl IntoIterator<Item = JoinHandle<()>>,
    deadline: Instant,
) -> bool {
    let threads: Vec<_> = threads.into_iter().collect();
    let (done, wait) = sync_channel(1);
    let joining = Builder::new().name("drain".into()).spawn(move || {
        for thread in threads {
            // A panic was told by its alarm.
            let _ = thread.join();
        }
        let _ = done.send(());
    });
    let left = deadline.saturating_duration_since(clock::instant());
    joining.is_ok() && wait.recv_timeout(left).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_is_heard_and_one_that_ends_is_not() {
        let (alarm, mut alarms) = Alarms::new();
        let held = alarm.clone();
        Builder::new().name("fine".into()).spawn(move || drop(held)).unwrap().join().unwrap();
        let broken = Builder::new().name("broken".into());
        let broken = broken.spawn(move || {
            let _alarm = alarm;
            panic!("as asked");
        });
        assert!(broken.unwrap().join().is_err());
        assert_eq!(alarms.0.try_recv(), Ok("broken".to_owned()));
    }

    #[test]
    fn joining_ends_with_the_threads_or_at_the_deadline() {
        let (hold, held) = sync_channel::<()>(0);
        let waits = Builder::new().spawn(move || assert!(held.recv().is_err())).unwrap();
        let quick = Builder::new().spawn(|| ()).unwrap();
        assert!(join_by([quick], clock::instant() + Duration::from_secs(5)));
        assert!(!join_by([waits], clock::instant() + Duration::from_millis(5)));
        drop(hold);
    }
}
