//! Transcripts of the receiver, and of a sender and a receiver over a link that fails.

use verge_model::UnixMillis;

use super::*;
use crate::uplink::{EncodedRows, Outlets, SenderOutput, StreamConfig};

#[test]
fn batches_wait_for_the_interval_and_are_acknowledged_after_the_commit() {
    let mut r = loaded(0);
    batch(&mut r, 1, 3, 0);
    batch(&mut r, 4, 5, 500);
    assert_eq!(said(&mut r), Vec::<String>::new());
    assert_eq!(r.poll_timeout(), Some(Millis(2_000)));
    r.handle_timeout(at(2_000));
    assert_eq!(said(&mut r), ["commit 1: rsu after 0 to 5"]);
    batch(&mut r, 6, 6, 2_100);
    assert_eq!(r.poll_timeout(), None, "one commit at a time");
    r.handle_committed(1, &[(key(5), 5)], at(2_200));
    assert_eq!(said(&mut r), ["ack 5"]);
    r.handle_timeout(at(4_100));
    assert_eq!(said(&mut r), ["commit 2: rsu after 5 to 6"]);
    assert!(!r.is_idle());
    r.handle_committed(2, &[(key(5), 6)], at(4_200));
    assert_eq!(said(&mut r), ["ack 6"]);
    assert!(r.is_idle());
}

#[test]
fn a_backlog_is_committed_at_once() {
    let mut r = loaded(0);
    batch(&mut r, 1, 4_096, 0);
    assert_eq!(said(&mut r), Vec::<String>::new());
    batch(&mut r, 4_097, 8_192, 1);
    assert_eq!(said(&mut r), ["commit 1: rsu after 0 to 8192"]);
}

#[test]
fn an_offer_is_answered_with_watermark_and_resume_point() {
    let mut r = loaded(7);
    batch(&mut r, 8, 9, 0);
    r.handle_frame(rsu().key(), &offer(5, "messages", 20), at(1));
    assert_eq!(said(&mut r), ["ack 7", "resume 9"]);
    let status: Vec<_> = r.streams().collect();
    assert_eq!((status[0].watermark, status[0].accepted, status[0].lag()), (Some(7), 9, 12));
}

#[test]
fn overlaps_are_trimmed_and_a_gap_is_asked_for_once() {
    let mut r = loaded(3);
    batch(&mut r, 1, 3, 0);
    batch(&mut r, 2, 6, 0);
    batch(&mut r, 5, 8, 0);
    assert_eq!(said(&mut r), Vec::<String>::new());
    batch(&mut r, 10, 12, 0);
    batch(&mut r, 13, 15, 0);
    assert_eq!(said(&mut r), ["resume 8"]);
    r.flush(at(1));
    let Some(ReceiverOutput::Commit(commit)) = r.poll_output() else { panic!("a commit is due") };
    let wanted: Vec<_> =
        commit.parts[0].batches.iter().map(|held| (held.after, held.batch.last)).collect();
    assert_eq!(wanted, [(3, 6), (6, 8)]);
}

#[test]
fn a_failed_commit_comes_again_with_growing_waits() {
    let mut r = loaded(0);
    batch(&mut r, 1, 3, 0);
    r.handle_timeout(at(2_000));
    assert_eq!(said(&mut r), ["commit 1: rsu after 0 to 3"]);
    r.handle_commit_failed(1, at(2_000));
    assert_eq!(r.poll_timeout(), Some(Millis(2_500)));
    r.handle_timeout(at(2_499));
    assert_eq!(said(&mut r), Vec::<String>::new());
    r.handle_timeout(at(2_500));
    assert_eq!(said(&mut r), ["commit 1: rsu after 0 to 3"]);
    r.handle_commit_failed(1, at(2_500));
    assert_eq!(r.poll_timeout(), Some(Millis(3_500)));
    for _ in 0..40 {
        r.handle_commit_failed(1, at(0));
    }
    assert_eq!(r.poll_timeout(), Some(Millis(30_000)));
}

#[test]
fn a_log_the_sink_could_not_read_starts_over_when_offered() {
    let mut r = loaded(0);
    batch(&mut r, 1, 3, 0);
    r.handle_timeout(at(2_000));
    batch(&mut r, 4, 5, 2_001);
    said(&mut r);
    r.handle_committed(1, &[], at(2_100));
    batch(&mut r, 6, 7, 2_200);
    assert_eq!(said(&mut r), Vec::<String>::new(), "not asked for at once: the same would come");
    r.handle_frame(rsu().key(), &offer(5, "messages", 9), at(30_000));
    assert_eq!(said(&mut r), ["resume 0"]);
}

#[test]
fn another_writer_to_the_same_table_moves_the_watermark() {
    let mut r = loaded(0);
    batch(&mut r, 1, 3, 0);
    r.handle_timeout(at(2_000));
    batch(&mut r, 4, 6, 2_001);
    said(&mut r);
    r.handle_committed(1, &[(key(5), 8)], at(2_100));
    assert_eq!(said(&mut r), ["ack 8"]);
    batch(&mut r, 7, 10, 2_200);
    r.flush(at(2_300));
    assert_eq!(said(&mut r), ["commit 2: rsu after 8 to 10"]);
}

#[test]
fn a_new_log_id_is_a_new_stream_from_the_start() {
    let mut r = loaded(9);
    r.handle_frame(rsu().key(), &offer(6, "messages", 3), at(0));
    assert_eq!(said(&mut r), ["load messages"]);
    r.handle_loaded(key(6), 0);
    assert_eq!(said(&mut r), ["resume 0"]);
    assert_eq!(r.streams().map(|status| status.stream.log_id).collect::<Vec<_>>(), [6]);
}

#[test]
fn what_is_held_of_a_former_log_is_still_committed() {
    let mut r = loaded(0);
    batch(&mut r, 1, 3, 0);
    r.handle_frame(rsu().key(), &offer(6, "messages", 3), at(0));
    r.handle_loaded(key(6), 0);
    said(&mut r);
    r.flush(at(1));
    assert_eq!(said(&mut r), ["commit 1: rsu after 0 to 3"]);
}

#[test]
fn a_batch_of_an_unknown_stream_loads_it() {
    let mut r = Receiver::new(ReceiverConfig::default());
    batch(&mut r, 1, 3, 0);
    assert_eq!(said(&mut r), ["load messages"]);
    r.handle_load_failed(key(5));
    r.handle_frame(rsu().key(), &offer(5, "messages", 4), at(0));
    assert_eq!(said(&mut r), ["load messages"]);
    r.handle_loaded(key(5), 2);
    assert_eq!(said(&mut r), ["ack 2", "resume 2"]);
}

#[test]
fn security_a_full_receiver_refuses_and_asks_again_when_there_is_room() {
    let config = ReceiverConfig { held_bytes_max: 100, ..ReceiverConfig::default() };
    let mut r = Receiver::new(config);
    r.handle_frame(rsu().key(), &offer(5, "messages", 9), at(0));
    r.handle_loaded(key(5), 0);
    said(&mut r);
    sized(&mut r, 1, 1, 80);
    sized(&mut r, 2, 2, 80);
    sized(&mut r, 3, 3, 10);
    assert_eq!((r.held_bytes(), said(&mut r)), (80, vec![]));
    r.flush(at(1));
    r.handle_committed(1, &[(key(5), 1)], at(2));
    assert_eq!(said(&mut r), ["commit 1: rsu after 0 to 1", "ack 1", "resume 1"]);
}

#[test]
fn security_a_node_speaks_only_for_itself_and_only_of_tables() {
    let mut r = loaded(0);
    let stranger = NodeKey(1);
    let transcript: [(NodeKey, Bytes, &str); 6] = [
        (stranger, offer(5, "messages", 9), "it speaks for the log of rsu"),
        (rsu().key(), offer(7, "../x", 9), "its stream's name cannot be a table's"),
        (rsu().key(), offer(5, "other", 9), "is named messages, not other"),
        (rsu().key(), Frame::Ack { stream: key(5), last: 1 }.encode(), "only the cloud tier"),
        (rsu().key(), Bytes::from_static(b"\x09"), "version 9"),
        (rsu().key(), Frame::Batch(raw_batch(4, 3, 9)).encode(), "its batch 4..=3 is none"),
    ];
    for (from, frame, reason) in transcript {
        r.handle_frame(from, &frame, at(0));
        let lines = said(&mut r);
        assert!(lines.len() == 1 && lines[0].contains(reason), "{lines:?} has no '{reason}'");
    }
}

#[test]
fn streams_take_turns_when_a_commit_is_full() {
    let config = ReceiverConfig { commit_rows_max: 10, ..ReceiverConfig::default() };
    let mut r = Receiver::new(config);
    let nodes: Vec<NodeId> = ["a", "b", "c"].map(|name| name.parse().unwrap()).into();
    for node in &nodes {
        let key = StreamKey { origin: node.key(), log_id: 1, stream: 0 };
        let name = "messages".to_owned();
        let offer = Frame::Offer {
            stream: key,
            origin_id: node.clone(),
            name: name.clone(),
            first: 1,
            next: 1,
        };
        r.handle_frame(node.key(), &offer.encode(), at(0));
        r.handle_loaded(key, 0);
        let batch = Batch { stream: key, origin_id: node.clone(), name, ..raw_batch(1, 9, 9) };
        r.handle_frame(node.key(), &Frame::Batch(batch).encode(), at(0));
    }
    let mut served = Vec::new();
    for id in 1..=2 {
        let commit = std::iter::from_fn(|| r.poll_output())
            .find_map(|output| match output {
                ReceiverOutput::Commit(commit) => Some(commit),
                ReceiverOutput::Send { .. }
                | ReceiverOutput::Load { .. }
                | ReceiverOutput::Refused { .. } => None,
            })
            .expect("a commit is due");
        served.extend(commit.parts.iter().map(|part| part.origin_id.to_string()));
        let marks: Vec<_> = commit.parts.iter().map(|part| (part.stream, part.last)).collect();
        r.handle_committed(id, &marks, at(2_000));
    }
    served.sort();
    assert_eq!(served, ["a", "b", "c"]);
}

/// A node's outlets and a cloud whose process crashes, over a link that is cut, driven by a seed:
/// whatever happens, the table ends with every row once.
#[test]
fn every_row_is_in_the_table_once_over_cuts_and_crashes() {
    for seed in 0..300 {
        World::new(seed).run();
    }
}

struct World {
    seed: u64,
    random: u64,
    outlets: Outlets,
    receiver: Receiver,
    table: Vec<u64>,
    mark: u64,
    trimmed: u64,
    appended: u64,
    linked: bool,
    to_cloud: VecDeque<Bytes>,
    to_node: VecDeque<Bytes>,
    reads: VecDeque<(u64, usize)>,
    commits: VecDeque<Commit>,
    loads: VecDeque<StreamKey>,
    clock: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let config = StreamConfig { stream: key(5), origin_id: rsu(), name: "messages".into() };
        Self {
            seed,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            outlets: Outlets::new(config, 1, 1),
            receiver: Receiver::new(ReceiverConfig::default()),
            table: Vec::new(),
            mark: 0,
            trimmed: 0,
            appended: 0,
            linked: false,
            to_cloud: VecDeque::new(),
            to_node: VecDeque::new(),
            reads: VecDeque::new(),
            commits: VecDeque::new(),
            loads: VecDeque::new(),
            clock: 0,
        }
    }

    fn run(&mut self) {
        for _ in 0..400 {
            match self.draw(20) {
                0 => self.cut(),
                1 => self.crash_cloud(),
                2 => self.crash_node(),
                3..8 => self.append(),
                _ => self.step(true),
            }
        }
        // Faults end; everything must arrive.
        for _ in 0..600 {
            self.step(false);
        }
        let all: Vec<u64> = (1..=self.appended).collect();
        assert_eq!(self.table, all, "seed {}", self.seed);
        assert_eq!(self.trimmed, self.appended, "seed {}: all is trimmed", self.seed);
    }

    fn append(&mut self) {
        self.appended += self.draw(6) + 1;
        self.outlets.handle_bounds(self.trimmed + 1, self.appended + 1);
        self.settle();
    }

    fn cut(&mut self) {
        self.linked = false;
        self.to_cloud.clear();
        self.to_node.clear();
        self.outlets.handle_link_down(CLOUD);
        self.settle();
    }

    fn crash_cloud(&mut self) {
        self.cut();
        self.receiver = Receiver::new(ReceiverConfig::default());
        self.commits.clear();
        self.loads.clear();
    }

    fn crash_node(&mut self) {
        self.cut();
        let config = StreamConfig { stream: key(5), origin_id: rsu(), name: "messages".into() };
        self.outlets = Outlets::new(config, self.trimmed + 1, self.appended + 1);
        self.outlets.add_peer(CLOUD);
        self.reads.clear();
    }

    fn step(&mut self, faults: bool) {
        self.clock += self.draw(1_000);
        let now = at(self.clock);
        if !self.linked {
            self.linked = true;
            self.outlets.handle_link_up(CLOUD, now);
        }
        self.outlets.handle_timeout(now);
        self.receiver.handle_timeout(now);
        self.settle();
        if let Some((from, max)) = self.reads.pop_front() {
            let last = self.appended.min(from + self.draw(max as u64));
            let rows =
                EncodedRows { last, encoding: 1, raw_len: 1, bytes: Bytes::from(vec![0; 9]) };
            self.outlets.handle_rows(CLOUD, from, Some(rows), now);
        }
        if let Some(frame) = self.to_cloud.pop_front() {
            self.receiver.handle_frame(rsu().key(), &frame, now);
        }
        if let Some(frame) = self.to_node.pop_front() {
            self.outlets.handle_frame(CLOUD, &Frame::decode(&frame).unwrap(), now);
        }
        if let Some(stream) = self.loads.pop_front() {
            self.receiver.handle_loaded(stream, self.mark);
        }
        if let Some(commit) = self.commits.pop_front() {
            self.commit(commit, faults, now);
        }
        self.settle();
    }

    /// The sink: rows above the watermark and the watermark, or nothing; the answer may be wrong.
    fn commit(&mut self, commit: Commit, faults: bool, now: Now) {
        if faults && self.draw(4) == 0 {
            return self.receiver.handle_commit_failed(commit.id, now);
        }
        for held in &commit.parts[0].batches {
            let rows = held.batch.first..=held.batch.last;
            self.table.extend(rows.filter(|seq| *seq > held.after && *seq > self.mark));
        }
        self.mark = self.mark.max(commit.parts[0].last);
        if faults && self.draw(4) == 0 {
            return self.receiver.handle_commit_failed(commit.id, now);
        }
        self.receiver.handle_committed(commit.id, &[(key(5), self.mark)], now);
    }

    fn settle(&mut self) {
        self.receiver.check_invariants();
        self.outlets.senders().for_each(|(_, sender)| sender.check_invariants());
        while let Some(output) = self.outlets.poll_output() {
            match output {
                SenderOutput::Send { frame, .. } => self.to_cloud.push_back(frame),
                SenderOutput::Read { from, .. } => self.reads.push_back((from, 5)),
                SenderOutput::Trim { upto } => {
                    assert!(upto <= self.mark, "only what is in the table is trimmed");
                    self.trimmed = upto;
                }
                SenderOutput::LogBehind { last, .. } => panic!("{last} was never appended"),
            }
        }
        while let Some(output) = self.receiver.poll_output() {
            match output {
                ReceiverOutput::Send { frame, .. } => self.to_node.push_back(frame),
                ReceiverOutput::Load { stream, .. } => self.loads.push_back(stream),
                ReceiverOutput::Commit(commit) => self.commits.push_back(commit),
                ReceiverOutput::Refused { reason, .. } => panic!("{reason}"),
            }
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }
}

const CLOUD: NodeKey = NodeKey(7);

fn at(ms: u64) -> Now {
    Now { mono: Millis(ms), wall: UnixMillis(ms) }
}

fn rsu() -> NodeId {
    "rsu".parse().unwrap()
}

fn key(log_id: u64) -> StreamKey {
    StreamKey { origin: rsu().key(), log_id, stream: 0 }
}

fn offer(log_id: u64, name: &str, next: u64) -> Bytes {
    Frame::Offer { stream: key(log_id), origin_id: rsu(), name: name.into(), first: 1, next }
        .encode()
}

fn raw_batch(first: u64, last: u64, size: usize) -> Batch {
    Batch {
        stream: key(5),
        origin_id: rsu(),
        name: "messages".into(),
        first,
        last,
        encoding: 1,
        raw_len: 9,
        bytes: Bytes::from(vec![0; size]),
    }
}

fn sized(r: &mut Receiver, first: u64, last: u64, size: usize) {
    r.handle_frame(rsu().key(), &Frame::Batch(raw_batch(first, last, size)).encode(), at(0));
}

fn batch(r: &mut Receiver, first: u64, last: u64, ms: u64) {
    r.handle_frame(rsu().key(), &Frame::Batch(raw_batch(first, last, 9)).encode(), at(ms));
}

/// A receiver that knows log 5 of `rsu`, with this watermark.
fn loaded(last: u64) -> Receiver {
    let mut r = Receiver::new(ReceiverConfig::default());
    r.handle_frame(rsu().key(), &offer(5, "messages", last + 1), at(0));
    r.handle_loaded(key(5), last);
    said(&mut r);
    r
}

/// Everything said since the last call, a line each.
fn said(r: &mut Receiver) -> Vec<String> {
    r.check_invariants();
    std::iter::from_fn(|| r.poll_output())
        .map(|output| match output {
            ReceiverOutput::Send { frame, .. } => match Frame::decode(&frame).unwrap() {
                Frame::Resume { last, .. } => format!("resume {last}"),
                Frame::Ack { last, .. } => format!("ack {last}"),
                other @ (Frame::Offer { .. } | Frame::Batch(_)) => {
                    panic!("{other:?} is the node's to say")
                }
            },
            ReceiverOutput::Load { name, .. } => format!("load {name}"),
            ReceiverOutput::Commit(commit) => {
                let parts: Vec<String> = commit
                    .parts
                    .iter()
                    .map(|part| format!("{} after {} to {}", part.origin_id, part.after, part.last))
                    .collect();
                format!("commit {}: {}", commit.id, parts.join(", "))
            }
            ReceiverOutput::Refused { reason, .. } => format!("refused: {reason}"),
        })
        .collect()
}
