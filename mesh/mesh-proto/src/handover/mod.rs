//! How a session follows its vehicle from one node to the next.
//!
//! A session is a set of *fragments*: single-writer logs `L(epoch, node)`, one for each owner it
//! has had. The newest claim owns the session; it pulls every older fragment that is still open,
//! and a fragment ends only when all of it is durable at its puller (Apache BookKeeper's logs and
//! fences, with claims in place of a coordinator).
//!
//! ```text
//!  new owner B                                   old owner A
//!      │  Takeover(fragment, claim)  ─────────────▶ │  stops sending, seals the log durably
//!      │ ◀───────────── Sealed(header)              │
//!      │  header durable; CONNACK                   │
//!      │  Pull(after)  ───────────────────────────▶ │  deletes what is ≤ after
//!      │ ◀───────────── Entries(…, more, closed)    │
//!      │  entries durable; Pull(after) …            │
//!      │ ◀───────────── Nudge                       │  a late message came
//!      │  Routed(head)  ──────────────────────────▶ │  after the linger, and when all that any node
//!      │                                            │  planned without B's routes has arrived:
//!      │ ◀───────────── Entries(closed)             │  no route leads here any more
//!      │  Drained  ───────────────────────────────▶ │  forgets the session
//! ```
//!
//! Every frame may be lost, doubled or late; B asks again until it is answered, and A answers the
//! same question the same way.
//!
//! [`frame`] is what travels; [`Import`] is B's side for one fragment. A's side has no state of its
//! own beyond the sealed session.

pub mod frame;
pub mod import;

pub use frame::{
    Body, Cursor, EntryState, FrameError, HandoverFrame, Refusal, SealedHeader, TransferEntry,
};
pub use import::{Action, Import, ImportConfig};
