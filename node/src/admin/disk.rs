//! What metrics say of the disk.

use verge_broker_core::counters::Metric;

use super::Admin;
use super::metrics::Gauge;

/// Counters and gauges of the disk and of what is written to it.
#[must_use]
pub fn metrics(admin: &Admin) -> (Vec<Metric>, Vec<Gauge>) {
    let health = &admin.shared.storage;
    let disk = admin.disk.disk_use();
    let mut counters = Vec::new();
    for (trouble, value) in health.counts() {
        counters.push(Metric {
            name: "storage_failures_total",
            help: "Failures of the disk, by kind",
            labels: vec![("kind", trouble.as_str())],
            value,
        });
    }
    for (name, help, value) in [
        (
            "storage_recoveries_total",
            "Times a store that had failed works again",
            health.recoveries(),
        ),
        (
            "storage_left_out_total",
            "Stretches of rows that were left out, since they cannot be read",
            health.left_out(),
        ),
        ("storage_wal_bytes_total", "Bytes written to the write-ahead log", disk.wal_bytes),
        (
            "storage_flushed_bytes_total",
            "Bytes written when memory became files",
            disk.flushed_bytes,
        ),
        (
            "storage_compaction_read_bytes_total",
            "Bytes read by compactions",
            disk.compaction_read_bytes,
        ),
        (
            "storage_compaction_written_bytes_total",
            "Bytes written by compactions",
            disk.compaction_written_bytes,
        ),
        (
            "storage_stalled_microseconds_total",
            "Time for which writes waited for flushes and compactions",
            disk.stalled_micros,
        ),
    ] {
        counters.push(Metric { name, help, labels: Vec::new(), value });
    }
    let gauge = |name, help, value: f64| Gauge { name, help, value };
    let gauges = vec![
        gauge(
            "storage_writable",
            "1 while messages that must be stored are taken",
            if health.is_refusing() { 0.0 } else { 1.0 },
        ),
        gauge(
            "storage_free_bytes",
            "Bytes free on the file system of the data directory",
            disk.free_bytes as f64,
        ),
        gauge("storage_reserve_bytes", "Bytes held back of them", disk.reserve_bytes as f64),
    ];
    (counters, gauges)
}
