//! Application error codes of CONNECTION_CLOSE, and the words for what quinn says ended a connection.

use quinn::{ConnectionError, VarInt};

/// Why this side closes a connection. The numbers are those of the brokers that were first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// MQTT ended in order, on either side's wish.
    NoError = 0,
    /// The control stream ended or broke without a DISCONNECT.
    ControlStreamDown = 1,
    /// The node cannot take the connection now.
    Overloaded = 2,
}

impl CloseCode {
    pub(crate) fn varint(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

/// First of the transport error codes that carry a TLS alert, RFC 9001 section 4.8.
const CRYPTO_ERROR: u64 = 0x100;

/// Last of them.
const CRYPTO_ERROR_LAST: u64 = 0x1ff;

/// A handshake that came to nothing, as metrics name it.
pub(super) fn handshake_label(error: &ConnectionError) -> &'static str {
    let code = match error {
        ConnectionError::TransportError(error) => u64::from(error.code),
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        ConnectionError::VersionMismatch
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => return "quic_handshake",
    };
    if (CRYPTO_ERROR..=CRYPTO_ERROR_LAST).contains(&code) {
        "tls_handshake"
    } else {
        "quic_handshake"
    }
}
