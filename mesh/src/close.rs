//! Why connections are closed: the codes on the wire, and the words for the log.

use quinn::{ConnectionError, VarInt};

/// Why this side closes a connection. The numbers are on the wire and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseCode {
    /// The node shuts down.
    Shutdown = 0,
    /// Another connection of this pair and kind stays.
    Duplicate = 1,
    /// The node's layers above asked for it.
    Asked = 2,
    /// The peer broke the rules of lanes and frames.
    Protocol = 3,
    /// Another node was expected, or none.
    WrongNode = 4,
    /// A certificate of the link has expired.
    Expired = 5,
}

impl CloseCode {
    pub(crate) fn varint(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

/// Whether the peer closed because it keeps another connection to this node.
pub(crate) fn is_duplicate(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ApplicationClosed(close)
        if close.error_code == CloseCode::Duplicate.varint())
}

/// One line on why a connection ended or was never made.
pub(crate) fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TimedOut => "no answer".to_owned(),
        ConnectionError::LocallyClosed => "closed by this node".to_owned(),
        ConnectionError::Reset => {
            "the peer does not know this connection (it restarted)".to_owned()
        }
        ConnectionError::VersionMismatch => "the peer speaks another version of QUIC".to_owned(),
        ConnectionError::CidsExhausted => "connection ids are exhausted".to_owned(),
        ConnectionError::ApplicationClosed(close) => {
            let reason = one_line(&String::from_utf8_lossy(&close.reason));
            let code = close.error_code;
            if reason.is_empty() {
                format!("closed by the peer (code {code})")
            } else {
                format!("closed by the peer: {reason}")
            }
        }
        ConnectionError::ConnectionClosed(close) => {
            let reason = one_line(&String::from_utf8_lossy(&close.reason));
            if reason.is_empty() {
                format!("refused by the peer: {}", close.error_code)
            } else {
                format!("refused by the peer: {reason}")
            }
        }
        ConnectionError::TransportError(error) => one_line(&error.reason),
    }
}

/// A peer's text, fit for one line of a log.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
