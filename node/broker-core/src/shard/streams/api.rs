//! The words of a connection's streams.

use verge_mqtt_proto::ReasonCode;
pub use verge_mqtt_proto::StreamKind;

use crate::shard::api::ConnId;

/// A stream of a connection: its QUIC stream id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamNo(pub u64);

impl StreamNo {
    /// The control stream, which is the whole of a connection without streams.
    pub const CONTROL: Self = Self(0);

    /// Whether it is the control stream.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.0 == 0
    }
}

/// How the client ended a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// FIN: all bytes before it were offered, and what was not consumed will not be complete.
    Finished,
    /// RESET_STREAM or STOP_SENDING. The driver mirrors the code on the other half.
    Reset,
}

/// The application error code with which a stream is reset: a reason code of the standard, or of
/// those that only streams have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamCode(pub u8);

impl StreamCode {
    /// The stream ended inside a packet.
    pub const INCOMPLETE_PACKET: Self = Self(0xBA);
    /// What is written to the stream is not taken, while other streams are read.
    pub const STALLED: Self = Self(0xBC);
}

impl From<ReasonCode> for StreamCode {
    fn from(reason: ReasonCode) -> Self {
        Self(reason.byte())
    }
}

/// Where a packet came, and so where its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) struct Via {
    pub(in crate::shard) conn: ConnId,
    pub(in crate::shard) stream: StreamNo,
}

impl Via {
    /// The control stream of a connection.
    pub(in crate::shard) const fn control(conn: ConnId) -> Self {
        Self { conn, stream: StreamNo::CONTROL }
    }
}
