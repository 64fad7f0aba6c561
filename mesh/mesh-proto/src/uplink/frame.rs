//! Frames of the uplink protocol: a version byte, then postcard.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use verge_model::NodeId;

use super::StreamKey;

/// The version written. Older versions are read as long as nodes of them may be in a mesh.
pub const FRAME_VERSION: u8 = 1;

/// What node and cloud say to each other. Variants are numbered on the wire: new ones go last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// Node to cloud: this log exists and I am ready to send it.
    Offer {
        /// The log.
        stream: StreamKey,
        /// The node's name; its key is `stream.origin`.
        origin_id: NodeId,
        /// The uplink's name, which is the table's.
        name: String,
        /// The first row the node still has.
        first: u64,
        /// The sequence the next row will get.
        next: u64,
    },
    /// Cloud to node: send what comes after `last`. Says nothing about what is safe.
    Resume {
        /// The log.
        stream: StreamKey,
        /// The last row the cloud has, in the table or in memory.
        last: u64,
    },
    /// Node to cloud: rows.
    Batch(Batch),
    /// Cloud to node: every row up to `last` is in the table.
    Ack {
        /// The log.
        stream: StreamKey,
        /// The watermark.
        last: u64,
    },
}

/// A range of a log and the rows in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The log.
    pub stream: StreamKey,
    /// The node's name; its key is `stream.origin`.
    pub origin_id: NodeId,
    /// The uplink's name, which is the table's.
    pub name: String,
    /// Start of the range.
    pub first: u64,
    /// End of the range, included.
    pub last: u64,
    /// How `bytes` are written: [`ENCODING_ZSTD_ROWS`](super::ENCODING_ZSTD_ROWS).
    pub encoding: u8,
    /// Length of the encoded rows before compression.
    pub raw_len: u32,
    /// The rows of the range the node has.
    pub bytes: Bytes,
}

/// Why bytes are not a frame. A frame of an unknown version or kind is skipped, not an offence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// There is not even a version byte.
    #[error("uplink frame is empty")]
    Empty,
    /// A newer peer wrote it.
    #[error("uplink frame has version {0}; version {FRAME_VERSION} is known")]
    UnknownVersion(u8),
    /// The body does not follow its version's layout, or is of a kind not known here.
    #[error("uplink frame is malformed: {0}")]
    Malformed(postcard::Error),
}

impl Frame {
    /// The bytes of the frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let size_hint = match self {
            Self::Batch(batch) => batch.bytes.len() + 192,
            Self::Offer { .. } | Self::Resume { .. } | Self::Ack { .. } => 192,
        };
        let mut out = Vec::with_capacity(size_hint);
        out.push(FRAME_VERSION);
        postcard::to_extend(self, out)
            .expect("frames hold only what postcard can write, into memory that grows")
            .into()
    }

    /// The inverse of [`Frame::encode`].
    ///
    /// # Errors
    /// The bytes are no frame, or one of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let Some((&version, body)) = bytes.split_first() else { return Err(FrameError::Empty) };
        if version != FRAME_VERSION {
            return Err(FrameError::UnknownVersion(version));
        }
        postcard::from_bytes(body).map_err(FrameError::Malformed)
    }

    /// The log the frame is about.
    #[must_use]
    pub fn stream(&self) -> StreamKey {
        match self {
            Self::Offer { stream, .. } | Self::Resume { stream, .. } | Self::Ack { stream, .. } => {
                *stream
            }
            Self::Batch(batch) => batch.stream,
        }
    }
}

#[cfg(test)]
mod tests {
    use verge_model::NodeKey;

    use super::*;

    #[test]
    fn golden_bytes() {
        let stream = StreamKey { origin: NodeKey(1), log_id: 2, stream: 3 };
        let origin_id: NodeId = "r".parse().unwrap();
        let name = "messages".to_owned();
        let batch = Batch {
            stream,
            origin_id: origin_id.clone(),
            name: name.clone(),
            first: 4,
            last: 5,
            encoding: 1,
            raw_len: 6,
            bytes: Bytes::from_static(b"xy"),
        };
        let frames = [
            (
                Frame::Offer { stream, origin_id, name, first: 4, next: 9 },
                "01000102030172086d657373616765730409",
            ),
            (Frame::Resume { stream, last: 7 }, "010101020307"),
            (Frame::Batch(batch), "01020102030172086d6573736167657304050106027879"),
            (Frame::Ack { stream, last: 300 }, "0103010203ac02"),
        ];
        for (frame, hex) in frames {
            let bytes = frame.encode();
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(text, hex);
            assert_eq!(Frame::decode(&bytes), Ok(frame));
            for len in 0..bytes.len() {
                assert!(Frame::decode(&bytes[..len]).is_err());
            }
        }
    }

    #[test]
    fn security_what_is_not_a_frame_is_an_error() {
        assert_eq!(Frame::decode(&[]), Err(FrameError::Empty));
        assert_eq!(Frame::decode(&[2, 0]), Err(FrameError::UnknownVersion(2)));
        assert!(matches!(Frame::decode(&[1, 9, 0, 0, 0]), Err(FrameError::Malformed(_))));
        // A node name that is none.
        assert!(matches!(
            Frame::decode(&[1, 0, 1, 2, 3, 1, b'/', 0]),
            Err(FrameError::Malformed(_))
        ));
    }
}
