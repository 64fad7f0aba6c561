//! The sink on real files: exactly once, whatever is repeated, and whoever else writes.

use bytes::Bytes;
use verge_model::{MessageId, UnixMillis};
use verge_storage::record::OutboxRecord;

use super::*;
use crate::query::{Format, query};

#[tokio::test]
async fn rows_and_watermark_are_stored_together() {
    let lake = TempLake::new();
    let mut sink = lake.sink();
    assert_eq!(resume(&mut sink, "a", 1).await, 0);
    commit(&mut sink, &[rows("a", 1, 0, 1..=3)]).await;
    assert_eq!(resume(&mut sink, "a", 1).await, 3);
    assert_eq!(lake.seqs().await, ["a/1: 1 2 3"]);
}

#[tokio::test]
async fn a_commit_repeated_by_the_same_or_another_process_adds_nothing() {
    let lake = TempLake::new();
    let mut sink = lake.sink();
    commit(&mut sink, &[rows("a", 1, 0, 1..=3)]).await;
    commit(&mut sink, &[rows("a", 1, 0, 1..=3)]).await;
    drop(sink);
    // The process ended after the commit and before the acknowledgement; the node resends, and
    // cuts its batches elsewhere.
    let mut sink = lake.sink();
    assert_eq!(resume(&mut sink, "a", 1).await, 3);
    assert_eq!(commit(&mut sink, &[rows("a", 1, 0, 1..=2)]).await, [3]);
    assert_eq!(commit(&mut sink, &[rows("a", 1, 1, 2..=5)]).await, [5]);
    assert_eq!(lake.seqs().await, ["a/1: 1 2 3 4 5"]);
}

#[tokio::test]
async fn files_written_without_a_commit_are_not_rows() {
    let lake = TempLake::new();
    let mut sink = lake.sink();
    commit(&mut sink, &[rows("a", 1, 0, 1..=3)]).await;
    // The process ends between the files and the commit.
    let table = sink.open("messages").await.unwrap();
    let mut builder = TableBuilder::with_capacity(4);
    builder.append(&rows("a", 1, 3, 4..=6), 3);
    assert!(!table.write_files(builder).await.ok().unwrap().is_empty());
    drop(sink);
    let mut sink = lake.sink();
    assert_eq!(resume(&mut sink, "a", 1).await, 3);
    commit(&mut sink, &[rows("a", 1, 3, 4..=6)]).await;
    assert_eq!(lake.seqs().await, ["a/1: 1 2 3 4 5 6"]);
}

#[tokio::test]
async fn origins_and_log_ids_have_their_own_watermarks_in_one_commit() {
    let lake = TempLake::new();
    let mut sink = lake.sink();
    let group = [rows("a", 1, 0, 1..=2), rows("b", 9, 0, 1..=1), rows("a", 2, 0, 1..=3)];
    assert_eq!(commit(&mut sink, &group).await, [2, 1, 3]);
    assert_eq!(lake.versions(), 2, "one commit made the table, one holds the group");
    let group = [rows("a", 1, 0, 1..=2), rows("b", 9, 1, 2..=4)];
    assert_eq!(commit(&mut sink, &group).await, [2, 4]);
    assert_eq!(lake.seqs().await, ["a/1: 1 2", "a/2: 1 2 3", "b/9: 1 2 3 4"]);
}

#[tokio::test]
async fn a_stale_second_writer_starts_again_from_the_new_snapshot() {
    let lake = TempLake::new();
    let (mut first, mut second) = (lake.sink(), lake.sink());
    assert_eq!(resume(&mut first, "a", 1).await, 0);
    assert_eq!(resume(&mut second, "a", 1).await, 0);
    assert_eq!(commit(&mut first, &[rows("a", 1, 0, 1..=3)]).await, [3]);
    // Holds the snapshot from before, and rows the other has partly stored.
    let stale = second.tables.get_mut("messages").unwrap();
    let attempt = stale.commit(&lake.lake(), "messages", &[rows("a", 1, 0, 1..=5)]).await;
    assert!(matches!(attempt, Err(Attempt::Conflict)));
    assert_eq!(lake.seqs().await, ["a/1: 1 2 3"]);
    assert_eq!(commit(&mut second, &[rows("a", 1, 0, 1..=5)]).await, [5]);
    assert_eq!(commit(&mut first, &[rows("a", 1, 0, 1..=4)]).await, [5]);
    assert_eq!(lake.seqs().await, ["a/1: 1 2 3 4 5"]);
}

#[tokio::test]
async fn what_another_writer_stored_of_another_log_is_noticed() {
    let lake = TempLake::new();
    let (mut first, mut second) = (lake.sink(), lake.sink());
    assert_eq!((resume(&mut first, "a", 1).await, resume(&mut first, "b", 1).await), (0, 0));
    commit(&mut second, &[rows("b", 1, 0, 1..=3)]).await;
    // The commits do not touch the same log, so Delta would let the second follow the first.
    assert_eq!(commit(&mut first, &[rows("a", 1, 0, 1..=2)]).await, [2]);
    assert_eq!(commit(&mut first, &[rows("b", 1, 0, 1..=4)]).await, [4]);
    assert_eq!(lake.seqs().await, ["a/1: 1 2", "b/1: 1 2 3 4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_at_once_store_every_row_once() {
    let lake = TempLake::new();
    lake.sink().ensure("messages").await.unwrap();
    let writers = ["a", "b"].map(|_| {
        let mut sink = lake.sink();
        tokio::spawn(async move {
            for last in 1..=10_u64 {
                // Contention is an error that is safe to repeat, as the receiver does.
                while sink.commit("messages", &[rows("a", 1, 0, 1..=last)]).await.is_err() {}
            }
        })
    });
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(lake.seqs().await, ["a/1: 1 2 3 4 5 6 7 8 9 10"]);
}

#[tokio::test]
async fn dropped_rows_move_the_watermark_without_rows() {
    let lake = TempLake::new();
    let mut sink = lake.sink();
    let mut gap = rows("a", 1, 0, 3..=4);
    gap.last = 6;
    assert_eq!(commit(&mut sink, &[gap]).await, [6]);
    let mut empty = rows("a", 1, 6, 7..=9);
    empty.rows.clear();
    assert_eq!(commit(&mut sink, &[empty]).await, [9]);
    drop(sink);
    assert_eq!(resume(&mut lake.sink(), "a", 1).await, 9);
    assert_eq!(lake.seqs().await, ["a/1: 3 4"]);
}

#[tokio::test]
async fn the_watermark_survives_checkpoints() {
    let lake = TempLake::new();
    let mut sink = lake.sink();
    commit(&mut sink, &[rows("b", 1, 0, 1..=1)]).await;
    for last in 1..=105_u64 {
        commit(&mut sink, &[rows("a", 1, last - 1, last..=last)]).await;
    }
    let log = lake.dir.path().join("messages/_delta_log");
    assert!(log.join("_last_checkpoint").exists());
    let mut sink = lake.sink();
    assert_eq!(resume(&mut sink, "a", 1).await, 105);
    assert_eq!(resume(&mut sink, "b", 1).await, 1);
}

#[tokio::test]
async fn a_directory_that_cannot_be_a_table_is_an_error_in_one_line() {
    let lake = TempLake::new();
    std::fs::write(lake.dir.path().join("messages"), b"a file").unwrap();
    let error = lake.sink().ensure("messages").await.unwrap_err().to_string();
    assert!(error.starts_with("table 'messages': ") && !error.contains('\n'), "{error}");
}

#[tokio::test]
async fn queries_answer_in_every_format() {
    let lake = TempLake::new();
    let mut sink = lake.sink();
    let mut two = rows("a", 1, 0, 1..=2);
    two.rows[1].1.payload = Bytes::from_static(b"\x00\xff");
    commit(&mut sink, &[two]).await;
    let sql = "SELECT origin, log_id, seq, published_at, day, client_id, topic, qos, payload, json, \
               lat, lon, speed, heading FROM messages ORDER BY seq";
    let csv = lake.ask(sql, Format::Csv).await;
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(
        lines[0],
        "origin,log_id,seq,published_at,day,client_id,topic,qos,payload,json,lat,lon,speed,heading"
    );
    assert_eq!(
        lines[1],
        "a,0000000000000001,1,2026-11-24T06:00:00.001Z,2026-11-24,v-1,v2x/cam,1,\
         7b226c6174223a34382e352c226c6f6e223a31317d,\"{\"\"lat\"\":48.5,\"\"lon\"\":11}\",48.5,11.0,,"
    );
    assert_eq!(
        lines[2],
        "a,0000000000000001,2,2026-11-24T06:00:00.002Z,2026-11-24,v-1,v2x/cam,1,00ff,,,,,"
    );
    let json: serde_json::Value = serde_json::from_str(
        &lake.ask("SELECT seq, payload, lat FROM messages WHERE seq = 2", Format::Json).await,
    )
    .unwrap();
    assert_eq!(json, serde_json::json!([{"seq": 2, "payload": "00ff", "lat": null}]));
    let table = lake.ask("SELECT count(*) AS n FROM messages", Format::Table).await;
    assert_eq!(table, "+---+\n| n |\n+---+\n| 2 |\n+---+\n");
    let none = "SELECT seq FROM messages WHERE seq > 9";
    assert_eq!(lake.ask(none, Format::Csv).await, "seq\n");
    assert_eq!(lake.ask(none, Format::Json).await, "[]\n");
    let encoded = lake
        .ask("SELECT encode(payload, 'base64') AS b FROM messages WHERE seq = 2", Format::Csv)
        .await;
    assert_eq!(encoded, "b\nAP8\n");
}

#[tokio::test]
async fn security_queries_only_read_and_errors_are_one_line() {
    let lake = TempLake::new();
    lake.sink().ensure("messages").await.unwrap();
    for sql in [
        "SELEC 1",
        "SELECT nope FROM messages",
        "SELECT * FROM absent",
        "DELETE FROM messages",
        "INSERT INTO messages SELECT * FROM messages",
        "DROP TABLE messages",
        "COPY messages TO '/tmp/x.csv'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "",
    ] {
        let error = query(&lake.lake(), sql, Format::Csv, &mut Vec::new()).await.unwrap_err();
        let line = error.to_string();
        assert!(line.starts_with("SQL: ") && !line.contains('\n'), "{sql}: {line}");
    }
    assert_eq!(lake.ask("SELECT count(*) AS n FROM messages", Format::Csv).await, "n\n0\n");
}

struct TempLake {
    dir: TempDir,
}

/// A directory that goes when it is dropped.
struct TempDir(PathBuf);

impl TempDir {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl TempLake {
    fn new() -> Self {
        let name = format!("verge-lake-{}-{:016x}", std::process::id(), rand::random::<u64>());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        Self { dir: TempDir(dir) }
    }

    fn lake(&self) -> Lake {
        Lake::Dir(self.dir.path().to_owned())
    }

    fn sink(&self) -> DeltaSink {
        DeltaSink::new(self.lake())
    }

    fn versions(&self) -> usize {
        let log = std::fs::read_dir(self.dir.path().join("messages/_delta_log")).unwrap();
        log.filter(|entry| entry.as_ref().unwrap().path().extension() == Some("json".as_ref()))
            .count()
    }

    async fn ask(&self, sql: &str, format: Format) -> String {
        let mut out = Vec::new();
        query(&self.lake(), sql, format, &mut out).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The sequences in the table, a line per log.
    async fn seqs(&self) -> Vec<String> {
        let csv = self
            .ask("SELECT origin, log_id, seq FROM messages ORDER BY 1, 2, 3", Format::Csv)
            .await;
        let mut logs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in csv.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            let log = format!("{}/{}", fields[0], fields[1].trim_start_matches('0'));
            logs.entry(log).or_default().push(fields[2].to_owned());
        }
        logs.into_iter().map(|(log, seqs)| format!("{log}: {}", seqs.join(" "))).collect()
    }
}

async fn resume(sink: &mut DeltaSink, origin: &str, log_id: u64) -> u64 {
    let of = rows(origin, log_id, 0, 1..=1);
    sink.resume_point("messages", &of.origin, of.stream).await.unwrap()
}

async fn commit(sink: &mut DeltaSink, group: &[StreamRows]) -> Vec<u64> {
    let marks = sink.commit("messages", group).await.unwrap();
    marks.into_iter().map(|mark| mark.last).collect()
}

fn rows(origin: &str, log_id: u64, after: u64, seqs: std::ops::RangeInclusive<u64>) -> StreamRows {
    let origin: NodeId = origin.parse().unwrap();
    let record = |seq| OutboxRecord {
        id: MessageId { node: origin.key(), incarnation: 1, seq },
        published_at: UnixMillis(1_795_500_000_000 + seq),
        client_id: "v-1".into(),
        topic: "v2x/cam".into(),
        qos: 1,
        payload: Bytes::from_static(br#"{"lat":48.5,"lon":11}"#),
    };
    StreamRows {
        stream: StreamKey { origin: origin.key(), log_id, stream: 0 },
        after,
        last: *seqs.end(),
        rows: seqs.map(|seq| (seq, record(seq))).collect(),
        origin,
    }
}
