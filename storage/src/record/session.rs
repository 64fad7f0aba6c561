//! The header of a session.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use verge_model::{Claim, ClientKey, UnixMillis};

use super::{Record, WillRecord};

/// The header of a session; its subscriptions, queue and marks are rows of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Whose session it is; the key holds only the number this node gave it.
    pub client: ClientKey,
    /// The claim by which this node owns, or owned, the session.
    pub claim: Claim,
    /// How long the session outlives its connection; `None`: for ever.
    pub session_expiry_secs: Option<u32>,
    /// Protocol level of the last CONNECT: 3, 4 or 5.
    pub protocol_version: u8,
    /// The will of the last CONNECT, until it is published or removed.
    pub will: Option<WillRecord>,
    /// When the last connection ended; `None` while connected, and after a crash.
    pub disconnected_at: Option<UnixMillis>,
    /// Whether this node still writes the session.
    pub state: SessionState,
    /// Fragments other nodes hold and this one has not imported to their end.
    pub open_fragments: Vec<FragmentRecord>,
    /// Causal context of the replicated subscriptions, opaque here.
    pub subscription_clock: Bytes,
}

/// An older log of the session that is still being pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FragmentRecord {
    /// The claim it was written under.
    pub claim: Claim,
    /// Whether what its header says has been taken in.
    pub headed: bool,
}

/// Whether a node still writes a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionState {
    /// This node serves it.
    Open,
    /// Another node took it over; what is here is being pulled, and then deleted.
    Sealed {
        /// The claim that superseded this node's.
        to: Claim,
        /// When.
        sealed_at: UnixMillis,
    },
}

impl Record for SessionRecord {
    const NAME: &'static str = "session";
    const VERSION: u8 = 1;
}

#[cfg(test)]
mod tests {
    use verge_model::NodeKey;

    use super::*;
    use crate::record::golden;

    #[test]
    fn golden_bytes() {
        let open = SessionRecord {
            client: ClientKey::anonymous("v"),
            claim: Claim { epoch: 2, node: NodeKey(5) },
            session_expiry_secs: None,
            protocol_version: 4,
            will: None,
            disconnected_at: None,
            state: SessionState::Open,
            open_fragments: Vec::new(),
            subscription_clock: Bytes::new(),
        };
        golden::holds(&open, "01000176020500040000000000");
        let sealed = SessionRecord {
            session_expiry_secs: Some(300),
            protocol_version: 5,
            will: Some(WillRecord {
                topic: "w".into(),
                payload: Bytes::from_static(b"x"),
                qos: 1,
                retain: true,
                delay_secs: 9,
                properties: Bytes::new(),
            }),
            disconnected_at: Some(UnixMillis(1_000)),
            state: SessionState::Sealed {
                to: Claim { epoch: 3, node: NodeKey(6) },
                sealed_at: UnixMillis(2_000),
            },
            open_fragments: vec![FragmentRecord {
                claim: Claim { epoch: 1, node: NodeKey(4) },
                headed: true,
            }],
            subscription_clock: Bytes::from_static(&[0xcc]),
            ..open
        };
        golden::holds(
            &sealed,
            "01000176020501ac020501017701780101090001e807010306d00f0101040101cc",
        );
    }
}
