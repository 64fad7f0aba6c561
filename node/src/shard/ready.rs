//! Which sockets of a shard are ready: an epoll of its own, which the runtime watches as one
//! descriptor.
//!
//! The runtime would keep a registration of 256 bytes and a task of 128 for each socket. Here one
//! costs nothing beside its descriptor: the kernel is given the connection's [`ConnId`], which never
//! repeats, so that what is said about a connection that is gone is nobody's. It is told once when
//! something changes (edge-triggered); what is left of a socket's readiness the socket remembers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags, EventVec};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use verge_broker_core::shard::api::ConnId;

use crate::listener::transport::Ready;

/// Sockets taken at once, and read before the others of a turn have theirs.
const EVENTS_MAX: usize = 1_024;

/// The sockets of a shard.
pub(super) struct Sockets {
    epoll: AsyncFd<OwnedFd>,
    events: EventVec,
}

impl Sockets {
    /// Of the present runtime's thread; watches nothing yet.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe, since a source might close its \
                                       descriptor; an `OwnedFd` that nobody else has does not"
        )]
        let epoll = AsyncFd::with_interest(epoll, Interest::READABLE)?;
        Ok(Self { epoll, events: EventVec::with_capacity(EVENTS_MAX) })
    }

    /// Watches a socket until it is closed.
    pub(super) fn add(&self, socket: impl AsFd, id: ConnId) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(self.epoll.get_ref(), socket, EventData::new_u64(id.0), flags)?)
    }

    /// Tells which became ready since it was asked last. The task is woken when there are more.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut became_ready: impl FnMut(ConnId, Ready),
    ) -> io::Result<()> {
        while let Poll::Ready(guard) = self.epoll.poll_read_ready(cx) {
            let is_all = match epoll::wait(self.epoll.get_ref(), &mut self.events, 0) {
                Ok(()) => self.events.len() < EVENTS_MAX,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if is_all {
                guard?.clear_ready();
            }
            self.tell(&mut became_ready);
            if !is_all {
                cx.waker().wake_by_ref();
                break;
            }
        }
        Ok(())
    }

    /// Tells which became ready since it was asked last, without waiting, and how many. Where nothing
    /// is told, [`Sockets::poll`] waits.
    pub(super) fn take(
        &mut self,
        mut became_ready: impl FnMut(ConnId, Ready),
    ) -> io::Result<usize> {
        match epoll::wait(self.epoll.get_ref(), &mut self.events, 0) {
            Ok(()) => {}
            Err(Errno::INTR) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
        self.tell(&mut became_ready);
        Ok(self.events.len())
    }

    fn tell(&self, became_ready: &mut impl FnMut(ConnId, Ready)) {
        for event in &self.events {
            let gone = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
            let flags = event.flags;
            let ended = flags.intersects(gone);
            let read = ended || flags.contains(EventFlags::IN);
            became_ready(ConnId(event.data.u64()), Ready { read, ended });
        }
    }
}
