//! `GET /metrics`: Prometheus's text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use verge_broker_core::counters::Metric;

/// What every metric's name begins with.
const PREFIX: &str = "verge_";

/// Ticks of `/proc/self/stat` per second; the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Bytes of a page of `/proc/self/statm`.
const PAGE_BYTES: u64 = 4_096;

/// A metric that goes up and down.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// `<area>_<noun>_<unit>`.
    pub name: &'static str,
    /// One sentence without its full stop.
    pub help: &'static str,
    /// The value.
    pub value: f64,
}

/// The text of counters, gauges and this process's use of the machine.
#[must_use]
pub fn text(counters: &[Metric], gauges: &[Gauge]) -> String {
    let mut out = String::new();
    // All samples of one name stand together, under one header.
    let mut by_name: BTreeMap<&str, (&str, String)> = BTreeMap::new();
    for Metric { name, help, labels, value } in counters {
        let (_, samples) = by_name.entry(name).or_insert_with(|| (help, String::new()));
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let braced =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(samples, "{PREFIX}{name}{braced} {value}");
    }
    for (name, (help, samples)) in by_name {
        let _ =
            write!(out, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} counter\n{samples}");
    }
    for Gauge { name, help, value } in gauges {
        let header = format!("# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} gauge");
        let _ = writeln!(out, "{header}\n{PREFIX}{name} {value}");
    }
    process(&mut out);
    out
}

/// Metrics every Prometheus client has, under their usual names.
fn process(out: &mut String) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    if let Some(pages) = number_at(&read("/proc/self/statm"), 1) {
        let name = "process_resident_memory_bytes";
        let _ = writeln!(out, "# TYPE {name} gauge\n{name} {}", pages * PAGE_BYTES);
    }
    let stat = read("/proc/self/stat");
    // The second field is the program's name in brackets and may hold spaces.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    if let (Some(user), Some(system)) = (number_at(fields, 11), number_at(fields, 12)) {
        let name = "process_cpu_seconds_total";
        let seconds = (user + system) as f64 / TICKS_PER_SECOND;
        let _ = writeln!(out, "# TYPE {name} counter\n{name} {seconds}");
    }
}

fn number_at(text: &str, place: usize) -> Option<u64> {
    text.split_whitespace().nth(place)?.parse().ok()
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_name_share_a_header() {
        let metric = |label, value| Metric {
            name: "x_total",
            help: "Xs",
            labels: vec![("kind", label)],
            value,
        };
        let counters = [
            metric("a", 1),
            Metric { name: "w_total", help: "Ws", labels: vec![], value: 3 },
            metric("b\"", 2),
        ];
        let gauges = [Gauge { name: "sessions", help: "Sessions", value: 4.0 }];
        let wanted = "\
            # HELP verge_w_total Ws\n# TYPE verge_w_total counter\nverge_w_total 3\n\
            # HELP verge_x_total Xs\n# TYPE verge_x_total counter\n\
            verge_x_total{kind=\"a\"} 1\nverge_x_total{kind=\"b\\\"\"} 2\n\
            # HELP verge_sessions Sessions\n# TYPE verge_sessions gauge\nverge_sessions 4\n";
        let text = text(&counters, &gauges);
        assert!(text.starts_with(wanted), "{text}");
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
        assert!(text.contains("\nprocess_cpu_seconds_total "), "{text}");
    }
}
