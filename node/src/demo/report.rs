//! What came of a run: for people as aligned text, for programs as JSON.

use std::fmt::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::check::NodeFacts;
use super::histogram::Histogram;
use super::moves::Moves;
use super::process::Usage;
use super::tally::Flow;

/// The whole report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether everything that must hold held.
    pub passed: bool,
    /// What did not.
    pub complaints: Vec<String>,
    /// What was run.
    pub run: Run,
    /// What was broken on purpose.
    pub faults: Faults,
    /// What became of the messages, by flow.
    pub flows: Vec<NamedFlow>,
    /// How vehicles went between nodes.
    pub handovers: Handovers,
    /// Times.
    pub latencies: Vec<NamedTimes>,
    /// What each node that speaks MQTT says, and the tables of it.
    pub nodes: Vec<NodeFacts>,
    /// What the cloud tier used.
    pub cloud: Usage,
}

/// What was run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Run {
    /// The trace's file.
    pub trace: String,
    /// Roadside units.
    pub rsus: usize,
    /// Vehicles.
    pub vehicles: usize,
    /// Of those, how many use TLS.
    pub vehicles_tls: usize,
    /// Seconds of the trace.
    pub trace_secs: f64,
    /// Seconds of the trace in one second.
    pub speed: f64,
    /// What chance began with.
    pub seed: u64,
    /// Seconds until everybody was connected and every way known.
    pub greeting_secs: f64,
    /// Seconds of traffic.
    pub traffic_secs: f64,
    /// Seconds until nothing was owed.
    pub drain_secs: f64,
}

/// What was broken on purpose; absent in a calm run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Faults {
    /// The roadside unit that was killed.
    pub killed: Option<String>,
    /// When, in seconds from the start of the traffic.
    pub killed_at_secs: Option<f64>,
    /// How long it was down, until it served again.
    pub down_secs: Option<f64>,
    /// When the cloud link was cut.
    pub cut_at_secs: Option<f64>,
    /// When it was restored.
    pub cut_until_secs: Option<f64>,
    /// Datagrams that met the cut.
    pub datagrams_dropped: u64,
}

/// One flow's counts.
#[derive(Debug, Clone, Serialize)]
pub struct NamedFlow {
    /// From whom to whom.
    pub name: &'static str,
    /// At which QoS.
    pub qos: u8,
    /// What became of it.
    #[serde(flatten)]
    pub flow: Flow,
}

/// How vehicles went between nodes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Handovers {
    /// Handovers of the trace, by positions alone.
    pub planned: u64,
    /// What became of them.
    #[serde(flatten)]
    pub moves: Moves,
    /// Attempts to connect that failed.
    pub connects_failed: u64,
    /// Sessions of applications and the operator that were not there any more.
    pub other_sessions_lost: u64,
    /// Questions for the nearest node.
    pub nearest_asked: u64,
    /// Answers that agree with the positions.
    pub nearest_agreed: u64,
    /// Questions without an answer.
    pub nearest_failed: u64,
    /// Publications a node has refused.
    pub refused: u64,
}

/// Quantiles of a kind of time, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct NamedTimes {
    /// What was timed.
    pub name: &'static str,
    /// How often.
    pub count: u64,
    /// Half are not longer.
    pub p50_ms: Option<f64>,
    /// 99 of 100 are not longer.
    pub p99_ms: Option<f64>,
    /// The longest.
    pub max_ms: Option<f64>,
}

impl NamedTimes {
    /// The quantiles of a histogram.
    #[must_use]
    pub fn new(name: &'static str, times: &Histogram) -> Self {
        let ms = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1000.0);
        Self {
            name,
            count: times.len(),
            p50_ms: ms(times.quantile(0.5)),
            p99_ms: ms(times.quantile(0.99)),
            max_ms: ms(times.longest()),
        }
    }
}

impl Report {
    /// Judges the run: adds a complaint for everything that does not hold.
    #[must_use]
    pub fn judged(mut self) -> Self {
        for NamedFlow { name, qos, flow } in &self.flows {
            if flow.lost > 0 {
                self.complaints.push(format!("{name}: {} of {} lost", flow.lost, flow.sent));
            }
            if *qos == 2 && flow.duplicated > 0 {
                self.complaints.push(format!("{name}: {} came twice at QoS 2", flow.duplicated));
            }
            if flow.invented > 0 {
                self.complaints.push(format!("{name}: {} came that nobody sent", flow.invented));
            }
        }
        let Handovers { planned, moves, other_sessions_lost, .. } = self.handovers;
        if moves.made + moves.merged != planned {
            self.complaints.push(format!(
                "the trace has {planned} handovers, vehicles made {} and merged {}",
                moves.made, moves.merged
            ));
        }
        let sessions_lost = moves.sessions_lost + other_sessions_lost;
        if sessions_lost > 0 {
            self.complaints.push(format!("{sessions_lost} sessions were lost"));
        }
        self.complaints.extend(self.nodes.iter().flat_map(NodeFacts::complaints));
        self.passed = self.complaints.is_empty();
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = &self.run;
        writeln!(
            f,
            "{} vehicles ({} over TLS), {} roadside units, one regional node, one cloud tier",
            run.vehicles, run.vehicles_tls, run.rsus
        )?;
        writeln!(
            f,
            "{}: {:.0} s at speed {}, seed {}; greeting {:.1} s, traffic {:.1} s, drain {:.1} s\n",
            run.trace,
            run.trace_secs,
            run.speed,
            run.seed,
            run.greeting_secs,
            run.traffic_secs,
            run.drain_secs
        )?;
        self.write_faults(f)?;
        f.write_str(&self.flow_table())?;
        self.write_handovers(f)?;
        f.write_str(&self.time_table())?;
        f.write_str(&self.node_table())?;
        if self.passed {
            return writeln!(
                f,
                "PASSED: nothing lost, nothing twice at QoS 2, every ledger balances, every record \
                 is in the table once."
            );
        }
        writeln!(f, "FAILED:")?;
        self.complaints.iter().try_for_each(|complaint| writeln!(f, "  {complaint}"))
    }
}

impl Report {
    fn write_faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = &self.faults;
        if let (Some(killed), Some(at), Some(down)) =
            (&faults.killed, faults.killed_at_secs, faults.down_secs)
        {
            writeln!(f, "{killed} was killed at {at:.1} s and served again {down:.1} s later")?;
        }
        if let (Some(at), Some(until)) = (faults.cut_at_secs, faults.cut_until_secs) {
            writeln!(
                f,
                "the cloud link was cut from {at:.1} s to {until:.1} s; {} datagrams met the cut",
                number(faults.datagrams_dropped)
            )?;
        }
        if faults.killed.is_some() || faults.cut_at_secs.is_some() {
            writeln!(f)?;
        }
        Ok(())
    }

    fn flow_table(&self) -> String {
        let mut table =
            Table::new(&["flow", "QoS", "sent", "delivered", "lost", "duplicated", "out of order"]);
        for NamedFlow { name, qos, flow } in &self.flows {
            let counts = [flow.sent, flow.delivered, flow.lost, flow.duplicated, flow.out_of_order];
            let mut row = vec![(*name).to_owned(), qos.to_string()];
            row.extend(counts.map(number));
            table.row(row);
        }
        table.text()
    }

    fn write_handovers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Handovers { planned, moves, .. } = self.handovers;
        let handovers = &self.handovers;
        writeln!(
            f,
            "handovers: {planned} in the trace = {} made + {} merged while away; {} detours, {} \
             sessions lost",
            moves.made,
            moves.merged,
            moves.detours,
            moves.sessions_lost + handovers.other_sessions_lost
        )?;
        writeln!(
            f,
            "nearest node: {} of {} answers agree with the positions, {} questions unanswered; {} \
             connects failed, {} publications refused and repeated\n",
            handovers.nearest_agreed,
            handovers.nearest_asked - handovers.nearest_failed,
            handovers.nearest_failed,
            handovers.connects_failed,
            handovers.refused
        )
    }

    fn time_table(&self) -> String {
        let mut table = Table::new(&["time", "count", "p50 ms", "p99 ms", "max ms"]);
        for times in &self.latencies {
            let mut row = vec![times.name.to_owned(), number(times.count)];
            let all = [times.p50_ms, times.p99_ms, times.max_ms];
            row.extend(all.map(|ms| ms.map_or("-".to_owned(), |ms| format!("{ms:.1}"))));
            table.row(row);
        }
        table.text()
    }

    fn node_table(&self) -> String {
        let mut table = Table::new(&[
            "node", "debts", "settled", "held", "balance", "selected", "rows", "peak MB", "CPU s",
        ]);
        let usage = |usage: &Usage| {
            let mib = usage.rss_peak_bytes as f64 / f64::from(1 << 20);
            [format!("{mib:.1}"), format!("{:.1}", usage.cpu_secs)]
        };
        for node in &self.nodes {
            let mut row = vec![node.node.clone()];
            row.extend([node.opened, node.settled, node.held].map(number));
            row.push(node.balance.to_string());
            row.extend([node.selected, node.rows.rows].map(number));
            row.extend(usage(&node.usage));
            table.row(row);
        }
        let mut cloud = vec!["cloud".to_owned()];
        cloud.extend(["-"; 4].map(str::to_owned));
        cloud.push(number(self.nodes.iter().map(|node| node.selected).sum()));
        cloud.push(number(self.nodes.iter().map(|node| node.rows.rows).sum()));
        cloud.extend(usage(&self.cloud));
        table.row(cloud);
        table.text()
    }
}

/// A table of text: the first column to the left, all others to the right.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    fn row(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// The table, and an empty line.
    fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Writing to a string cannot fail.
                let _ = match column {
                    0 => write!(line, "{cell:<width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.push('\n');
        text
    }
}

/// A number with its thousands apart.
#[must_use]
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_thousands() {
        let numbers = [0, 7, 999, 1_000, 123_456, 1_234_567].map(number);
        assert_eq!(numbers, ["0", "7", "999", "1,000", "123,456", "1,234,567"]);
    }

    #[test]
    fn tables_are_aligned() {
        let mut table = Table::new(&["flow", "sent"]);
        table.row(vec!["commands".into(), "1,000".into()]);
        table.row(vec!["x".into(), "7".into()]);
        assert_eq!(table.text(), "flow       sent\ncommands  1,000\nx             7\n\n");
    }

    #[test]
    fn a_run_without_fault_passes_and_says_so() {
        let report = report().judged();
        assert!(report.passed, "{:?}", report.complaints);
        let text = report.to_string();
        assert!(text.contains("496 in the trace = 490 made + 6 merged"), "{text}");
        assert!(text.contains("PASSED"), "{text}");
    }

    #[test]
    fn what_must_hold_is_complained_of_when_it_does_not() {
        type Change = fn(&mut Report);
        let cases: [(Change, &str); 7] = [
            (|report| report.flows[0].flow.lost = 1, "commands: 1 of 10 lost"),
            (|report| report.flows[0].flow.duplicated = 2, "2 came twice at QoS 2"),
            (|report| report.flows[1].flow.lost = 3, "positions: 3 of 10 lost"),
            (|report| report.flows[1].flow.invented = 1, "1 came that nobody sent"),
            (|report| report.handovers.moves.made = 1, "the trace has 496 handovers"),
            (|report| report.handovers.moves.sessions_lost = 1, "1 sessions were lost"),
            (|report| report.complaints.push("a node died".into()), "a node died"),
        ];
        for (change, wanted) in cases {
            let mut report = report();
            change(&mut report);
            let text = report.judged().to_string();
            assert!(text.contains("FAILED") && text.contains(wanted), "{text}");
        }
    }

    #[test]
    fn duplicates_at_qos_1_are_counted_and_allowed() {
        let mut report = report();
        report.flows[1].flow.duplicated = 5;
        assert!(report.judged().passed);
    }

    #[test]
    fn json_names_every_count() {
        let json = serde_json::to_value(report().judged()).unwrap();
        assert_eq!(json["passed"], true);
        assert_eq!(json["flows"][0]["delivered"], 10);
        assert_eq!(json["handovers"]["made"], 490);
    }

    fn report() -> Report {
        let flow = Flow { sent: 10, delivered: 10, ..Flow::default() };
        Report {
            passed: false,
            complaints: Vec::new(),
            run: Run::default(),
            faults: Faults::default(),
            flows: vec![
                NamedFlow { name: "commands", qos: 2, flow },
                NamedFlow { name: "positions", qos: 1, flow },
            ],
            handovers: Handovers {
                planned: 496,
                moves: Moves { made: 490, merged: 6, ..Moves::default() },
                ..Handovers::default()
            },
            latencies: vec![NamedTimes::new("handover", &Histogram::default())],
            nodes: Vec::new(),
            cloud: Usage::default(),
        }
    }
}
