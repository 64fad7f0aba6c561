//! What waits to be written on one lane: bounded in bytes, filled by the node, emptied by one writer.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::SendError;

/// What a queued frame costs beside its bytes, so that empty frames have a bound too.
pub(crate) const FRAME_COST: usize = 48;

/// The queue of one lane.
#[derive(Debug)]
pub(crate) struct LaneQueue {
    bytes_max: usize,
    // Held for a few pushes or pops, never across an await.
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Bytes>,
    /// Cost of what is queued and of what the writer took and has not yet written.
    bytes: usize,
    closed: bool,
}

impl LaneQueue {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::default(), changed: Notify::new() }
    }

    /// Queues a frame. An empty lane takes one of any size.
    pub(crate) fn push(&self, frame: Bytes) -> Result<(), SendError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(SendError::NoLink);
        }
        let cost = cost(&frame);
        if state.bytes > 0 && state.bytes.saturating_add(cost) > self.bytes_max {
            return Err(SendError::Full);
        }
        state.bytes += cost;
        state.frames.push_back(frame);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Moves frames of up to `bytes_max` together, and at least one, into `out`; waits for the first.
    /// False when the queue is closed and empty.
    pub(crate) async fn take(&self, bytes_max: usize, out: &mut Vec<Bytes>) -> bool {
        loop {
            let changed = self.changed.notified();
            if let Some(taken) = self.try_take(bytes_max, out) {
                return taken;
            }
            changed.await;
        }
    }

    fn try_take(&self, bytes_max: usize, out: &mut Vec<Bytes>) -> Option<bool> {
        let mut state = self.state.lock();
        let mut taken = 0;
        while let Some(frame) = state.frames.front() {
            if taken > 0 && taken + frame.len() > bytes_max {
                break;
            }
            taken += cost(frame);
            out.extend(state.frames.pop_front());
        }
        match (taken, state.closed) {
            (0, false) => None,
            (0, true) => Some(false),
            _ => Some(true),
        }
    }

    /// The writer wrote what it took.
    pub(crate) fn written(&self, frames: &[Bytes]) {
        let bytes: usize = frames.iter().map(cost).sum();
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// Takes no more frames; those queued are still written.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_one();
    }

    /// Takes no more frames and forgets those queued.
    pub(crate) fn discard(&self) {
        let mut state = self.state.lock();
        *state = State { closed: true, ..State::default() };
        drop(state);
        self.changed.notify_one();
    }

    /// Cost of what is not yet written.
    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}

fn cost(frame: &Bytes) -> usize {
    frame.len() + FRAME_COST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Bytes {
        Bytes::from(vec![0; len])
    }

    async fn take(queue: &LaneQueue, max: usize) -> Vec<usize> {
        let mut out = Vec::new();
        queue.take(max, &mut out).await;
        queue.written(&out);
        out.iter().map(Bytes::len).collect()
    }

    #[tokio::test]
    async fn a_full_lane_refuses_until_something_was_written() {
        let queue = LaneQueue::new(2 * (100 + FRAME_COST));
        assert_eq!(queue.push(frame(100)), Ok(()));
        assert_eq!(queue.push(frame(100)), Ok(()));
        assert_eq!(queue.push(frame(0)), Err(SendError::Full));
        assert_eq!(take(&queue, 1).await, [100]);
        assert_eq!(queue.push(frame(0)), Ok(()));
        assert_eq!(take(&queue, 1 << 20).await, [100, 0]);
        assert_eq!(queue.bytes(), 0);
    }

    #[tokio::test]
    async fn an_empty_lane_takes_one_frame_of_any_size() {
        let queue = LaneQueue::new(10);
        assert_eq!(queue.push(frame(1000)), Ok(()));
        assert_eq!(queue.push(frame(1)), Err(SendError::Full));
    }

    #[tokio::test]
    async fn a_closed_lane_is_emptied_and_a_discarded_one_is_not() {
        let queue = LaneQueue::new(1000);
        queue.push(frame(1)).unwrap();
        queue.close();
        assert_eq!(queue.push(frame(1)), Err(SendError::NoLink));
        assert_eq!(take(&queue, 1000).await, [1]);
        assert!(!queue.take(1000, &mut Vec::new()).await);

        let queue = LaneQueue::new(1000);
        queue.push(frame(1)).unwrap();
        queue.discard();
        assert!(!queue.take(1000, &mut Vec::new()).await);
        assert_eq!(queue.bytes(), 0);
    }
}
