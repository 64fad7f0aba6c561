//! The sink's task between a receiver and a sink that fails on demand.

use std::sync::Mutex;

use bytes::Bytes;
use verge_mesh_proto::uplink::{HeldBatch, encode_rows};
use verge_model::{MessageId, UnixMillis};
use verge_storage::Record;
use verge_storage::record::OutboxRecord;

use super::*;

#[tokio::test]
async fn rows_are_unpacked_trimmed_and_stored_by_table() {
    let (log, mut handle) = started(None);
    let commit = Commit {
        id: 4,
        parts: vec![
            part("a", "messages", 2, vec![(2, batch("a", 1, 3)), (3, batch("a", 3, 5))]),
            part("b", "events", 0, vec![(0, batch("b", 1, 1))]),
        ],
    };
    handle.requests.send(Request::Commit(commit)).await.unwrap();
    let Some(Answer::Committed { id: 4, marks: Some(marks) }) = handle.answers.recv().await else {
        panic!("the commit succeeds")
    };
    assert_eq!(marks, [(key("b"), 1), (key("a"), 5)]);
    assert_eq!(*log.lock().unwrap(), ["events: b 1", "messages: a 3 4 5"]);
    assert_eq!(handle.counters.rows.load(Ordering::Relaxed), 4);
    assert_eq!(handle.counters.rows_missing.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_failed_table_fails_the_commit() {
    let (_, mut handle) = started(Some("messages"));
    let part = part("a", "messages", 0, vec![(0, batch("a", 1, 1))]);
    handle.requests.send(Request::Commit(Commit { id: 1, parts: vec![part] })).await.unwrap();
    let answer = handle.answers.recv().await.unwrap();
    assert!(matches!(answer, Answer::Committed { id: 1, marks: None }));
    let load =
        Request::Load { stream: key("a"), origin_id: node("a"), table: "messages".to_owned() };
    handle.requests.send(load).await.unwrap();
    let answer = handle.answers.recv().await.unwrap();
    assert!(matches!(answer, Answer::Loaded { last: None, .. }));
}

#[tokio::test]
async fn security_batches_that_cannot_be_read_are_left_out_and_others_stored() {
    let bad: [fn(&mut Batch); 5] = [
        |batch| batch.encoding = 9,
        |batch| batch.bytes = Bytes::from_static(b"no zstd"),
        // A bomb: more than it says.
        |batch| batch.raw_len = 3,
        |batch| batch.raw_len += 1,
        |batch| batch.last = 2,
    ];
    for (at, spoil) in bad.into_iter().enumerate() {
        let (log, mut handle) = started(None);
        let mut spoilt = batch("a", 1, 3);
        spoil(&mut spoilt);
        let parts = vec![
            part("a", "messages", 0, vec![(0, spoilt)]),
            part("b", "messages", 0, vec![(0, batch("b", 1, 2))]),
        ];
        handle.requests.send(Request::Commit(Commit { id: 1, parts })).await.unwrap();
        let Some(Answer::Committed { marks: Some(marks), .. }) = handle.answers.recv().await else {
            panic!("the commit succeeds")
        };
        assert_eq!(marks, [(key("b"), 2)], "case {at}");
        assert_eq!(*log.lock().unwrap(), ["messages: b 1 2"]);
        assert_eq!(handle.counters.batches_unreadable.load(Ordering::Relaxed), 1);
    }
}

type Log = Arc<Mutex<Vec<String>>>;

/// Writes down what it is given; the table `broken` fails.
struct LogSink {
    log: Log,
    broken: Option<&'static str>,
}

impl LogSink {
    fn check(&self, table: &str) -> Result<(), SinkError> {
        if self.broken == Some(table) {
            let detail = "no space left".to_owned();
            return Err(SinkError::Store { table: table.to_owned(), detail });
        }
        Ok(())
    }
}

impl Sink for LogSink {
    async fn resume_point(
        &mut self,
        table: &str,
        _origin: &NodeId,
        _stream: StreamKey,
    ) -> Result<u64, SinkError> {
        self.check(table).map(|()| 0)
    }

    async fn commit(&mut self, table: &str, group: &[StreamRows]) -> Result<Vec<Mark>, SinkError> {
        self.check(table)?;
        for stream in group {
            let seqs: Vec<String> = stream.rows.iter().map(|(seq, _)| seq.to_string()).collect();
            let line = format!("{table}: {} {}", stream.origin, seqs.join(" "));
            self.log.lock().unwrap().push(line);
        }
        Ok(group.iter().map(|s| Mark { stream: s.stream, last: s.last }).collect())
    }
}

fn started(broken: Option<&'static str>) -> (Log, SinkHandle) {
    let log = Log::default();
    let handle = spawn(LogSink { log: Arc::clone(&log), broken });
    (log, handle)
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn key(origin: &str) -> StreamKey {
    StreamKey { origin: node(origin).key(), log_id: 1, stream: 0 }
}

fn part(origin: &str, table: &str, after: u64, batches: Vec<(u64, Batch)>) -> Part {
    Part {
        stream: key(origin),
        origin_id: node(origin),
        name: table.to_owned(),
        after,
        last: batches.last().unwrap().1.last,
        batches: batches.into_iter().map(|(after, batch)| HeldBatch { after, batch }).collect(),
    }
}

fn batch(origin: &str, first: u64, last: u64) -> Batch {
    let rows: Vec<(u64, Bytes)> = (first..=last)
        .map(|seq| {
            let record = OutboxRecord {
                id: MessageId { node: node(origin).key(), incarnation: 1, seq },
                published_at: UnixMillis(seq),
                client_id: "v".into(),
                topic: "t".into(),
                qos: 0,
                payload: Bytes::new(),
            };
            (seq, record.encode())
        })
        .collect();
    let raw = encode_rows(&rows);
    Batch {
        stream: key(origin),
        origin_id: node(origin),
        name: "messages".to_owned(),
        first,
        last,
        encoding: ENCODING_ZSTD_ROWS,
        raw_len: raw.len().try_into().unwrap(),
        bytes: zstd::bulk::compress(&raw, 1).unwrap().into(),
    }
}
