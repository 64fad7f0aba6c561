//! The file of users, and the threads that check passwords.
//!
//! A password costs milliseconds; a shard serves all its clients meanwhile. What waits is bounded:
//! beyond it a client is told to come back (Server busy).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::Builder;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use verge_broker_core::authn::users::{Users, UsersError};
use verge_broker_core::authn::{Authn, PasswordCheck, PasswordVerdict};

use crate::clock::Clock;

/// Threads that check passwords: a storm of clients leaves the other cores to those that are served.
const THREADS: usize = 2;

/// Passwords that wait to be checked: what the threads do in the time a CONNECT may take.
const QUEUE_MAX: usize = 1_024;

/// Largest file of users that is read: a million users of two hundred bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// How soon a changed file of users counts.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why there are no users: one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum UsersFileError {
    /// The file cannot be read.
    #[error("auth.users_file = {path:?}: {source}: `verge passwd` makes one")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is wrong.
    #[error("auth.users_file = {path:?}: {source}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Where, and what.
        source: UsersError,
    },
}

/// Reads a file of users.
///
/// # Errors
/// It cannot be read, or a line is wrong.
pub fn read_users(path: &Path) -> Result<Users, UsersFileError> {
    let failed = |source| UsersFileError::Read { path: path.to_owned(), source };
    let about = fs::metadata(path).map_err(failed)?;
    if about.len() > FILE_BYTES_MAX {
        return Err(failed(io::Error::other("the file is too large")));
    }
    if about.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others can read the file of users; chmod 600 it");
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    Users::parse(&text).map_err(|source| UsersFileError::Line { path: path.to_owned(), source })
}

/// A password to check, and who wants to know.
struct Job {
    check: PasswordCheck,
    done: Box<dyn FnOnce(PasswordVerdict) + Send>,
}

/// The threads. They end with the last handle.
#[derive(Clone)]
pub struct PasswordThreads {
    jobs: SyncSender<Job>,
    /// Dropped with the last handle, which ends the thread that looks at the file.
    _watch: SyncSender<()>,
}

impl PasswordThreads {
    /// Starts them, and a thread that looks whether the file has changed.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn spawn(authn: &Arc<Authn>, path: PathBuf, clock: Clock) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel::<Job>(QUEUE_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        for index in 0..THREADS {
            let (authn, waiting) = (Arc::clone(authn), Arc::clone(&waiting));
            Builder::new().name(format!("passwords-{index}")).spawn(move || {
                // The lock is held while waiting: one thread waits for work, the others for it.
                while let Some(Job { check, done }) = next(&waiting) {
                    done(authn.check_password(&check, clock.now().mono));
                }
            })?;
        }
        let (watch, ended) = sync_channel(0);
        let authn = Arc::clone(authn);
        Builder::new().name("users".into()).spawn(move || look_after(&path, &authn, &ended))?;
        Ok(Self { jobs, _watch: watch })
    }

    /// Lets a password be checked; `done` is called on another thread, or at once if too many wait.
    pub fn check(&self, check: PasswordCheck, done: impl FnOnce(PasswordVerdict) + Send + 'static) {
        use std::sync::mpsc::TrySendError;
        let job = Job { check, done: Box::new(done) };
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) =
            self.jobs.try_send(job)
        {
            (job.done)(PasswordVerdict::Busy);
        }
    }
}

fn next(waiting: &Mutex<Receiver<Job>>) -> Option<Job> {
    waiting.lock().recv().ok()
}

/// Reads the file again when it has changed; a broken one is told of and left alone.
fn look_after(path: &Path, authn: &Authn, ended: &Receiver<()>) {
    let mut seen = changed_at(path);
    while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        let changed = changed_at(path);
        if changed == seen {
            continue;
        }
        seen = changed;
        match read_users(path) {
            Ok(users) => {
                tracing::info!(users = users.len(), "users read anew");
                authn.replace(users);
            }
            Err(error) => tracing::error!(%error, "users stay as they were"),
        }
    }
}

fn changed_at(path: &Path) -> Option<(SystemTime, u64)> {
    let about = fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_is_named_in_one_line() {
        let said = read_users(Path::new("/nowhere/users")).unwrap_err().to_string();
        assert!(said.starts_with("auth.users_file = \"/nowhere/users\": No such file"), "{said}");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "a:b\n").unwrap();
        let said = read_users(file.path()).unwrap_err().to_string();
        assert!(said.ends_with(": line 1: not NAME:VERIFIER"), "{said}");
    }
}
