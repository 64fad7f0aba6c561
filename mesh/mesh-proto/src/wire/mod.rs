//! Frames: one kind byte, then the body.
//!
//! Bodies are postcard, except where a body is another protocol's bytes or a message: those follow
//! raw, so that they are not copied twice. A frame of unknown kind is skipped and counted, and bytes
//! after a known body are ignored: a later version may add both.

mod frame;
mod hello;

pub use frame::{
    BucketDigests, BucketKeys, FlushDone, Forward, ForwardAck, Frame, GroupDigests, LookupAsk,
    LookupReply, RegistryAck, RegistryForget, RegistryItem, RegistryPut, RepairEntries,
    RepairWants, RouteAck, RouteChange, RouteChunk, RouteChunkAck, RouteOps, RouteResync,
    Superseded, WireError,
};
pub use hello::{Hello, Received, RouteHead};
