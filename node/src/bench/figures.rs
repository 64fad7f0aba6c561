//! What each piece of work found, as the columns of its table. The first is the one that counts;
//! what ends in `/s` is the better the more, everything else the less.

use super::conns::Connected;
use super::crowd::{Fanned, Restarted};
use super::durable::{Durable, PAYLOAD_BYTES, Trickled};
use super::report::Figures;
use super::run::Outcome;
use super::store::Kept;
use super::subs::Subscribed;

pub(super) fn exchange_figures(fast: &Outcome, slow: &Outcome) -> Figures {
    let faults = [&fast.counts, &slow.counts].map(|counts| {
        counts.lost + counts.doubled + counts.corrupt + counts.reordered + counts.bad_acks
    });
    let mut notes = fast.notes.clone();
    notes.extend(slow.notes.iter().map(|note| format!("at half rate: {note}")));
    Figures {
        values: vec![
            ("CPU s/M delivered", fast.cpu),
            ("delivered/s", Some(fast.rate)),
            ("p50 ms at half rate", slow.p50_ms),
            ("p99 ms at half rate", slow.p99_ms),
            ("CPU s/M at half rate", slow.cpu),
        ],
        faults: faults.iter().sum(),
        notes,
    }
}

pub(super) fn idle_figures(found: &Connected) -> Figures {
    Figures {
        values: vec![
            ("bytes/connection", Some(found.bytes_each)),
            ("connections/s", Some(found.rate)),
            ("CPU s/1000", Some(found.cpu_per_thousand)),
            ("p99 ms", found.p99_ms),
        ],
        faults: found.failed,
        notes: Vec::new(),
    }
}

pub(super) fn held_figures(found: &Connected) -> Figures {
    let mut figures = idle_figures(found);
    figures.values.push(("messages returned", Some(found.exchanged as f64)));
    figures
}

pub(super) fn churn_figures(found: &Connected) -> Figures {
    Figures {
        values: vec![
            ("CPU s/1000", Some(found.cpu_per_thousand)),
            ("connections/s", Some(found.rate)),
            ("p99 ms", found.p99_ms),
            ("resumed", Some(found.resumed_share)),
        ],
        faults: found.failed,
        notes: Vec::new(),
    }
}

pub(super) fn subscribe_figures(found: &Subscribed) -> Figures {
    Figures {
        values: vec![
            ("CPU us/subscribe", Some(found.subscribe_cpu_us)),
            ("subscribes/s", Some(found.subscribe_rate)),
            ("CPU us/match", Some(found.match_cpu_us)),
            ("matches/s", Some(found.match_rate)),
            ("CPU us/unsubscribe", Some(found.unsubscribe_cpu_us)),
            ("unsubscribes/s", Some(found.unsubscribe_rate)),
            ("bytes/filter", Some(found.bytes_each)),
        ],
        faults: found.missing,
        notes: Vec::new(),
    }
}

pub(super) fn kept_figures(found: &Kept) -> Figures {
    Figures {
        values: vec![
            ("CPU us/stored", Some(found.store_cpu_us)),
            ("stored/s", Some(found.store_rate)),
            ("CPU us/drained", Some(found.drain_cpu_us)),
            ("drained/s", Some(found.drain_rate)),
            ("bytes/message", Some(found.bytes_each)),
        ],
        faults: found.lost + found.wrong,
        notes: Vec::new(),
    }
}

pub(super) fn durable_figures(found: &Durable) -> Figures {
    let drained = ("drained/s", Some(found.drain_rate));
    let faults = found.lost + found.wrong;
    if let Some(lived) = &found.lived {
        let grown = lived.during_ms.zip(lived.before_ms).map(|(during, before)| during / before);
        let values = vec![
            ("live p99 ms in the drain", lived.during_ms),
            ("live p99 ms before", lived.before_ms),
            ("during/before", grown),
            drained,
            ("stored/s", Some(found.store_rate)),
        ];
        return Figures { values, faults, notes: Vec::new() };
    }
    let values = vec![
        ("CPU us/stored", Some(found.store_cpu_us)),
        ("stored/s", Some(found.store_rate)),
        ("PUBACK p50 ms", found.fast_ms[0]),
        ("PUBACK p99 ms", found.fast_ms[1]),
        ("p50 ms at half rate", found.half_ms[0]),
        ("p99 ms at half rate", found.half_ms[1]),
        ("bytes written/message", Some(found.written_each)),
        ("bytes of files/message", Some(found.disk_each)),
        ("resident bytes/message", Some(found.bytes_each)),
        ("CPU us/drained", Some(found.drain_cpu_us)),
        drained,
    ];
    Figures { values, faults, notes: Vec::new() }
}

pub(super) fn fan_figures(found: &Fanned) -> Figures {
    Figures {
        values: vec![
            ("CPU s", Some(found.cpu_secs)),
            ("s to PUBACK", Some(found.secs)),
            ("MB written", Some(found.written_mb)),
            ("MB of files", Some(found.disk_mb)),
            ("MB resident", Some(found.resident_mb)),
            ("sessions drained/s", Some(found.drain_rate)),
        ],
        faults: found.faults,
        notes: Vec::new(),
    }
}

pub(super) fn restart_figures(found: &Restarted) -> Figures {
    Figures {
        values: vec![
            ("bytes/parked session", Some(found.bytes_each)),
            ("after restart", Some(found.bytes_each_after)),
            ("s to ready", Some(found.ready_secs[0])),
            ("s to first CONNACK", Some(found.ready_secs[1])),
            ("s to ready, killed", found.killed_secs[0]),
            ("s to CONNACK, killed", found.killed_secs[1]),
            ("s to end", Some(found.stop_secs)),
            ("made/s", Some(found.make_rate)),
        ],
        faults: found.faults,
        notes: Vec::new(),
    }
}

/// Seconds of ten years, for which the disk of a roadside unit is to live.
const TEN_YEARS_SECS: f64 = 315_576_000.0;

pub(super) fn trickle_figures(found: &Trickled, rate: f64) -> Figures {
    let [stored, drained] = found.written_each;
    let terabytes = drained * rate * TEN_YEARS_SECS / 1e12;
    Figures {
        values: vec![
            ("bytes written/message", Some(drained)),
            ("written/payload", Some(drained / PAYLOAD_BYTES as f64)),
            ("until stored", Some(stored)),
            ("TB in ten years", Some(terabytes)),
            ("CPU us/stored", Some(found.cpu_us)),
            ("PUBACK p50 ms", found.puback_ms[0]),
            ("PUBACK p99 ms", found.puback_ms[1]),
        ],
        faults: found.faults,
        notes: Vec::new(),
    }
}
