//! Frames between nodes and records on disk: what no version of ours wrote is refused, not believed
//! and not the end of the process.

use bytes::Bytes;
use verge_broker_core::record::ForwardRecord;
use verge_mesh_proto::handover::HandoverFrame;
use verge_mesh_proto::uplink;
use verge_mesh_proto::wire::Frame;

/// The first byte names the reader, the rest is the frame.
pub(super) fn run(input: &[u8]) {
    let Some((&first, rest)) = input.split_first() else { return };
    match first % 4 {
        0 => {
            if let Ok(Some(frame)) = Frame::decode(Bytes::copy_from_slice(rest)) {
                let again = Frame::decode(frame.encode());
                assert_eq!(again.expect("what was written is well formed"), Some(frame));
            }
        }
        1 => {
            if let Ok(frame) = HandoverFrame::decode(rest) {
                let again = HandoverFrame::decode(&frame.encode());
                assert_eq!(again.expect("what was written is well formed"), frame);
            }
        }
        2 => {
            if let Ok(frame) = uplink::Frame::decode(rest) {
                let _ = format!("{frame:?}");
            }
        }
        _ => {
            if let Ok(record) = ForwardRecord::decode(rest) {
                let _ = format!("{record:?}");
            }
        }
    }
}
