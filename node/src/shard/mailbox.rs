//! A thread's mailbox: bounded, and one wake per turn however much is put in.
//!
//! Who finds it full keeps its mail and takes nothing new in until there is room, so nothing is lost
//! and nothing grows without bound. Completions of commits do not count: there are no more of them
//! than commits under way, which are bounded where they begin.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};

use parking_lot::Mutex;

/// Mail for the hub that waits to be read; a turn reads all of it, so this is what may arrive during
/// the longest turn.
pub const HUB_MAIL_MAX: usize = 16_384;

/// Most mail for one shard that waits to be read. What is under way to a session when its queue is
/// half full must fit into the other half, twice: once in the box, once taken out of it.
pub const SHARD_MAIL_MAX: usize = 1_024;

/// The part of a session's queue that may wait in a mailbox, if that is less.
pub const SHARD_MAIL_PART: usize = 8;

/// Something that takes room in a mailbox.
pub trait Weigh {
    /// How much.
    fn weight(&self) -> usize;
}

/// A mailbox for mail `M` and completions `C`.
#[derive(Debug)]
pub struct Mailbox<M, C> {
    // Held while queues are swapped or appended to, never while mail is handled.
    inner: Arc<Mutex<Inner<M, C>>>,
    /// What may wait in it, by weight; the last piece may pass it.
    max: usize,
}

#[derive(Debug)]
struct Inner<M, C> {
    mail: VecDeque<M>,
    weight: usize,
    completions: VecDeque<C>,
    reader: Option<Waker>,
}

impl<M: Weigh, C> Mailbox<M, C> {
    /// An empty mailbox for mail of this weight. Clones are the same one.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let inner =
            Inner { mail: VecDeque::new(), weight: 0, completions: VecDeque::new(), reader: None };
        Self { inner: Arc::new(Mutex::new(inner)), max }
    }

    /// Moves mail from the front of `mail` into the box while there is room. What remains in `mail`
    /// found none.
    pub fn put_all(&self, mail: &mut VecDeque<M>) {
        if mail.is_empty() {
            return;
        }
        let mut inner = self.inner.lock();
        while inner.weight < self.max
            && let Some(piece) = mail.pop_front()
        {
            inner.weight += piece.weight();
            inner.mail.push_back(piece);
        }
        wake(inner.reader.take());
    }

    /// Puts one piece of mail, whether or not there is room: for the few that are sent by the
    /// process itself.
    pub fn put(&self, mail: M) {
        let mut inner = self.inner.lock();
        inner.weight += mail.weight();
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
        inner.weight = 0;
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
        Self { inner: Arc::clone(&self.inner), max: self.max }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    impl Weigh for usize {
        fn weight(&self) -> usize {
            *self
        }
    }

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
        let mailbox = Mailbox::<usize, u32>::new(10);
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
        let mailbox = Mailbox::<usize, ()>::new(10);
        let mut mail = VecDeque::from([4, 4, 40, 4, 1]);
        mailbox.put_all(&mut mail);
        assert_eq!(mail, [4, 1], "as heavy as the last one is");
        let mut cx = Context::from_waker(Waker::noop());
        let mut taken = VecDeque::new();
        mailbox.take(&mut cx, &mut taken, &mut VecDeque::new());
        assert_eq!(taken, [4, 4, 40]);
        mailbox.put_all(&mut mail);
        assert!(mail.is_empty(), "there is room when it was read");
    }
}
