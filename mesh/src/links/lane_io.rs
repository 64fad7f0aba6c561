//! The writers and readers of a link's lanes and of its hello.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::sync::oneshot;

use super::link::Link;
use super::{Shared, Signal};
use crate::Lane;
use crate::close::CloseCode;
use crate::event::LinkEvent;
use crate::frame::{self, Decoder};
use crate::lanes::{kind_name, lane_of_wire, lanes_of, place_of, priority, wire_number};

/// Bytes that one write takes from the queue.
const WRITE_BYTES: usize = 256 << 10;

/// Bytes that one read takes from the stream.
const READ_BYTES: usize = 256 << 10;

/// Writes the hello on the rest of the greeting's stream, if one is said.
pub(super) async fn write_hello(hello: Option<oneshot::Receiver<Bytes>>, mut stream: SendStream) {
    let Some(hello) = hello else { return };
    let Ok(bytes) = hello.await else { return };
    let mut chunks = frame::encode(&[bytes], &[]);
    // A loss is seen by the link's own task.
    if stream.write_all_chunks(&mut chunks).await.is_ok() && stream.finish().is_ok() {
        let _ = stream.stopped().await;
    }
}

/// Writes what is queued on a lane until the queue is closed and empty and the peer has it all, or
/// the connection is lost.
pub(super) async fn write_lane(shared: Arc<Shared>, link: Arc<Link>, place: usize) {
    let lane = lanes_of(link.kind)[place];
    // A loss is seen by the link's own task.
    if let Ok(Some(stream)) = write_queue(&shared, &link, place, lane).await {
        let _ = stream.stopped().await;
    }
}

async fn write_queue(
    shared: &Shared,
    link: &Link,
    place: usize,
    lane: Lane,
) -> Result<Option<SendStream>, WriteError> {
    let queue = link.queue(place);
    let mut frames: Vec<Bytes> = Vec::new();
    let mut stream: Option<SendStream> = None;
    while queue.take(WRITE_BYTES, &mut frames).await {
        let mut chunks;
        let stream = match &mut stream {
            Some(stream) => {
                chunks = frame::encode(&frames, &[]);
                stream
            }
            None => {
                chunks = frame::encode(&frames, &[wire_number(lane)]);
                let opened = link.conn().open_uni().await?;
                opened.set_priority(priority(lane))?;
                stream.insert(opened)
            }
        };
        stream.write_all_chunks(&mut chunks).await?;
        queue.written(&frames);
        shared.counters.frames_sent.add(frames.len() as u64);
        let bytes: usize = frames.iter().map(Bytes::len).sum();
        shared.counters.frame_bytes_sent.add(bytes as u64);
        frames.clear();
    }
    if let Some(stream) = &mut stream {
        stream.finish()?;
    }
    Ok(stream)
}

/// What a peer did against the rules of lanes and frames, or that its connection was lost.
#[derive(Debug, thiserror::Error)]
enum ReadLaneError {
    #[error("lane {number} is not of a {kind} link")]
    UnknownLane { number: u8, kind: &'static str },
    #[error("a second stream of lane {0}")]
    SecondStream(u8),
    #[error("something follows the hello")]
    BehindHello,
    #[error("the stream ended before its lane was named or within a frame")]
    Truncated,
    #[error(transparent)]
    FrameTooLong(#[from] frame::FrameTooLong),
    #[error("lane reset")]
    Reset,
    #[error("lost")]
    Lost,
    #[error("the node is gone")]
    NodeGone,
}

impl From<ReadError> for ReadLaneError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(_) | ReadError::ClosedStream => Self::Lost,
            ReadError::Reset(_) | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                Self::Reset
            }
        }
    }
}

/// Reads a peer's lane to its end. The channel to the node gives the pace: while it is full nothing
/// is read, and flow control stops the peer.
pub(super) async fn read_lane(shared: Arc<Shared>, link: Arc<Link>, mut stream: RecvStream) {
    if let Err(error) = read_frames(&shared, &link, &mut stream).await {
        let _ = stream.stop(VarInt::from_u32(0));
        punish(&link, &error);
    }
}

/// Reads the peer's hello and tells it. False if it will never be read: the peer ended the stream
/// without one, as it does when it stops, or the connection is at its end.
pub(super) async fn read_hello(shared: &Shared, link: &Link, mut stream: RecvStream) -> bool {
    let bytes = match read_one_frame(&mut stream).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return false,
        Err(error) => {
            punish(link, &error);
            return false;
        }
    };
    let event = LinkEvent::Hello { peer: link.node.clone(), kind: link.kind, bytes };
    shared.events.send(Signal::Event(event)).await.is_ok()
}

async fn read_one_frame(stream: &mut RecvStream) -> Result<Option<Bytes>, ReadLaneError> {
    let mut decoder = Decoder::default();
    let mut frame = None;
    while let Some(chunk) = stream.read_chunk(READ_BYTES, true).await? {
        decoder.push(&chunk.bytes);
        if frame.is_none() {
            frame = decoder.poll_frame()?;
        }
        if frame.is_some() && !decoder.is_empty() {
            return Err(ReadLaneError::BehindHello);
        }
    }
    if decoder.is_empty() { Ok(frame) } else { Err(ReadLaneError::Truncated) }
}

/// Closes the link of a peer that broke the rules; a lost connection is at its end anyway.
fn punish(link: &Link, error: &ReadLaneError) {
    match error {
        ReadLaneError::Lost | ReadLaneError::NodeGone => {}
        ReadLaneError::UnknownLane { .. }
        | ReadLaneError::SecondStream(_)
        | ReadLaneError::BehindHello
        | ReadLaneError::Reset
        | ReadLaneError::Truncated
        | ReadLaneError::FrameTooLong(_) => link.close(CloseCode::Protocol, &error.to_string()),
    }
}

async fn read_frames(
    shared: &Shared,
    link: &Link,
    stream: &mut RecvStream,
) -> Result<(), ReadLaneError> {
    let lane = read_lane_number(link, stream).await?;
    let mut decoder = Decoder::default();
    while let Some(chunk) = stream.read_chunk(READ_BYTES, true).await? {
        decoder.push(&chunk.bytes);
        while let Some(bytes) = decoder.poll_frame()? {
            shared.counters.frames_received.add(1);
            shared.counters.frame_bytes_received.add(bytes.len() as u64);
            let event = LinkEvent::Frame { peer: link.key, lane, bytes };
            let sent = shared.events.send(Signal::Event(event)).await;
            sent.map_err(|_| ReadLaneError::NodeGone)?;
        }
    }
    if decoder.is_empty() { Ok(()) } else { Err(ReadLaneError::Truncated) }
}

async fn read_lane_number(link: &Link, stream: &mut RecvStream) -> Result<Lane, ReadLaneError> {
    let chunk = stream.read_chunk(1, true).await?;
    let number = chunk.and_then(|chunk| chunk.bytes.first().copied());
    let number = number.ok_or(ReadLaneError::Truncated)?;
    let lane = lane_of_wire(link.kind, number);
    let lane = lane.ok_or(ReadLaneError::UnknownLane { number, kind: kind_name(link.kind) })?;
    let first = link.begin_read(place_of(lane).1);
    if first { Ok(lane) } else { Err(ReadLaneError::SecondStream(number)) }
}
