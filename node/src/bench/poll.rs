//! What is ready, and a wait that ends when asked: epoll, with a timer of its own because epoll's
//! counts milliseconds.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Instant;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags, EventVec};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::clock;

/// A millisecond in nanoseconds.
pub(super) const MS: u64 = 1_000_000;
/// A second in nanoseconds.
pub(super) const SEC: u64 = 1_000_000_000;
/// The token of the timer.
const TIMER: u64 = u64::MAX;
/// Events taken at once.
const EVENTS_MAX: usize = 512;

/// Nanoseconds of this process: since it was first asked.
pub(super) fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(clock::instant).elapsed();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// One source that is ready.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    /// As it was added.
    pub(super) token: u64,
    /// Something can be read, or the other side is gone.
    pub(super) read: bool,
    /// Something can be written.
    pub(super) write: bool,
}

/// Level-triggered readiness.
pub(super) struct Poller {
    epoll: OwnedFd,
    timer: OwnedFd,
    /// When the timer fires; 0 for never.
    armed: u64,
    events: EventVec,
}

impl Poller {
    /// Watches nothing yet.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        Ok(Self { epoll, timer, armed: 0, events: EventVec::with_capacity(EVENTS_MAX) })
    }

    /// Watches a source. Closing it ends that.
    pub(super) fn add(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// Watches for room to write too, or no more.
    pub(super) fn watch_writes(&self, source: impl AsFd, token: u64, on: bool) -> io::Result<()> {
        let flags = if on { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, source, EventData::new_u64(token), flags)?)
    }

    /// Waits until something is ready or `until` is reached, and puts what is into `ready`.
    pub(super) fn wait(&mut self, until: u64, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let left = until.saturating_sub(now());
        let timeout = if left == 0 {
            0
        } else if left > 100 * MS {
            i32::try_from(left / MS).unwrap_or(i32::MAX)
        } else {
            self.arm(until, left)?;
            -1
        };
        match epoll::wait(&self.epoll, &mut self.events, timeout) {
            Ok(()) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &self.events {
            let token = event.data.u64();
            if token == TIMER {
                let mut ticks = [0; 8];
                // It has fired; how often does not matter.
                let _ = rustix::io::read(&self.timer, &mut ticks);
                self.armed = 0;
                continue;
            }
            let flags = event.flags;
            let read = flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR);
            ready.push(Ready { token, read, write: flags.contains(EventFlags::OUT) });
        }
        Ok(())
    }

    fn arm(&mut self, until: u64, left: u64) -> io::Result<()> {
        if self.armed == until {
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec {
            tv_sec: i64::try_from(left / SEC).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(left % SEC).unwrap_or(0),
        };
        let spec = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        self.armed = until;
        Ok(())
    }
}
