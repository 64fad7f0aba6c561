//! A thread's mailbox: bounded, and one wake per turn however much is put in.
//!
//! Who finds it full keeps its mail and takes nothing new in until there is room, so nothing is lost
//! and nothing grows without bound. Completions of commits do not count: there are no more of them
//! than commits under way, which are bounded where they begin.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};

use parking_lot::Mutex;

/// Mail for one shard or the hub that waits to be read; a turn reads all of it, so this is what may
/// arrive during the longest turn.
pub const MAILBOX_MAX: usize = 16_384;

/// A mailbox for mail `M` and completions `C`.
#[derive(Debug)]
pub struct Mailbox<M, C> {
    // Held while queues are swapped or appended to, never while mail is handled.
    inner: Arc<Mutex<Inner<M, C>>>,
}

#[derive(Debug)]
struct Inner<M, C> {
    mail: VecDeque<M>,
    completions: VecDeque<C>,
    reader: Option<Waker>,
}

impl<M, C> Mailbox<M, C> {
    /// An empty mailbox. Clones are the same one.
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner { mail: VecDeque::new(), completions: VecDeque::new(), reader: None };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Moves mail from the front of `mail` into the box while there is room. What remains in `mail`
    /// found none.
    pub fn put_all(&self, mail: &mut VecDeque<M>) {
        if mail.is_empty() {
            return;
        }
        let mut inner = self.inner.lock();
        let room = MAILBOX_MAX.saturating_sub(inner.mail.len()).min(mail.len());
        inner.mail.extend(mail.drain(..room));
        wake(inner.reader.take());
    }

    /// Puts one piece of mail, whether or not there is room: for the few that are sent by the
    /// process itself.
    pub fn put(&self, mail: M) {
        let mut inner = self.inner.lock();
        inner.mail.push_back(mail);
        wake(inner.reader.take());
    }

    /// Puts a completion.
    pub fn complete(&self, completion: C) {
        let mut inner = self.inner.lock();
        inner.completions.push_back(completion);
        wake(inner.reader.take());
    }

    /// Takes everything, into queues that are empty. What comes later wakes the reader's task.
    pub fn take(
        &self,
        cx: &mut Context<'_>,
        mail: &mut VecDeque<M>,
        completions: &mut VecDeque<C>,
    ) {
        debug_assert!(mail.is_empty() && completions.is_empty());
        let mut inner = self.inner.lock();
        std::mem::swap(&mut inner.mail, mail);
        std::mem::swap(&mut inner.completions, completions);
        match &mut inner.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            None => inner.reader = Some(cx.waker().clone()),
        }
    }
}

fn wake(reader: Option<Waker>) {
    if let Some(reader) = reader {
        reader.wake();
    }
}

impl<M, C> Clone for Mailbox<M, C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<M, C> Default for Mailbox<M, C> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn mail_is_read_in_order_and_wakes_once_a_turn() {
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        let mut cx = Context::from_waker(&waker);
        let mailbox = Mailbox::<u32, u32>::new();
        let (mut mail, mut completions) = (VecDeque::new(), VecDeque::new());
        mailbox.take(&mut cx, &mut mail, &mut completions);
        mailbox.put(1);
        mailbox.put_all(&mut VecDeque::from([2, 3]));
        mailbox.complete(9);
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        mailbox.take(&mut cx, &mut mail, &mut completions);
        assert_eq!((Vec::from(mail), Vec::from(completions)), (vec![1, 2, 3], vec![9]));
    }

    #[test]
    fn a_full_box_leaves_the_rest_with_the_sender() {
        let mailbox = Mailbox::<usize, ()>::new();
        let mut mail: VecDeque<usize> = (0..MAILBOX_MAX + 2).collect();
        mailbox.put_all(&mut mail);
        assert_eq!(mail, [MAILBOX_MAX, MAILBOX_MAX + 1]);
    }
}
