//! What came out: medians over the rounds, ratios to the null broker and to the best of the others,
//! as a table, as JSON and as a page.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::peers::Peer;

/// What one broker did in one piece of work.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(super) struct Figures {
    /// By name; what ends in `/s` is the better the more. The first is the one that counts.
    pub(super) values: Vec<(&'static str, Option<f64>)>,
    /// Messages or connections that went wrong.
    pub(super) faults: u64,
    /// What to mind.
    pub(super) notes: Vec<String>,
}

/// A point of the plot.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(super) struct Point {
    /// Messages offered a second.
    pub(super) offered: f64,
    /// Messages delivered a second.
    pub(super) delivered: f64,
    /// Latency.
    pub(super) p50_ms: Option<f64>,
    /// Latency.
    pub(super) p99_ms: Option<f64>,
}

/// What several rounds of one piece of work showed of one broker.
#[derive(Debug, Default, serde::Serialize)]
struct Cell {
    rounds: Vec<Figures>,
    failures: Vec<String>,
}

/// Everything.
#[derive(Debug, serde::Serialize)]
pub(super) struct Results {
    peers: Vec<Peer>,
    /// By piece of work, in order; then by broker.
    works: Vec<(String, BTreeMap<Peer, Cell>)>,
    /// Latency against offered rate.
    pub(super) curves: Vec<(Peer, Vec<Point>)>,
}

impl Results {
    /// Nothing yet, of these.
    pub(super) fn new(peers: &[Peer]) -> Self {
        Self { peers: peers.to_vec(), works: Vec::new(), curves: Vec::new() }
    }

    /// One round more.
    pub(super) fn add(&mut self, work: &str, peer: Peer, figures: Figures) {
        self.cell(work, peer).rounds.push(figures);
    }

    /// It could not be done.
    pub(super) fn fail(&mut self, work: &str, peer: Peer, error: String) {
        eprintln!("  {}: {error}", peer.name());
        self.cell(work, peer).failures.push(error);
    }

    /// Whether any delivery of Verge's went wrong.
    pub(super) fn verge_is_at_fault(&self) -> bool {
        self.works.iter().any(|(_, cells)| cells.get(&Peer::Verge).is_some_and(Cell::is_at_fault))
    }

    fn cell(&mut self, work: &str, peer: Peer) -> &mut Cell {
        let at = self.works.iter().position(|(name, _)| name == work).unwrap_or_else(|| {
            self.works.push((work.to_owned(), BTreeMap::new()));
            self.works.len() - 1
        });
        self.works[at].1.entry(peer).or_default()
    }

    /// The tables, in Markdown.
    pub(super) fn tables(&self) -> String {
        let mut text = String::new();
        for (work, cells) in &self.works {
            let _ = writeln!(text, "### {work}\n");
            text += &self.table(cells);
            for (peer, cell) in cells {
                for note in cell.remarks() {
                    let _ = writeln!(text, "- {}: {note}", peer.name());
                }
            }
            text.push('\n');
        }
        text
    }

    fn table(&self, cells: &BTreeMap<Peer, Cell>) -> String {
        let names: Vec<&str> = cells.values().find_map(Cell::names).unwrap_or_default();
        let Some(first) = names.first() else { return "Nobody could do it.\n".to_owned() };
        let mut header = vec!["broker".to_owned(), (*first).to_owned()];
        header.extend(["× null".to_owned(), "× best other".to_owned()]);
        header.extend(names.iter().skip(1).map(|name| (*name).to_owned()));
        header.push("faults".to_owned());
        let null = cells.get(&Peer::Null).and_then(|cell| cell.median(first));
        let best = best_other(cells, first).map(|(_, value)| value);
        let mut rows = vec![header];
        for peer in &self.peers {
            let Some(cell) = cells.get(peer).filter(|cell| !cell.rounds.is_empty()) else {
                continue;
            };
            let own = cell.median(first);
            let ratio = |to: Option<f64>| match (own, to) {
                (Some(own), Some(to)) if to > 0.0 => format!("{:.2}", own / to),
                (_, _) => "-".to_owned(),
            };
            let mut row = vec![peer.name().to_owned(), number(own), ratio(null), ratio(best)];
            row.extend(names.iter().skip(1).map(|name| number(cell.median(name))));
            row.push(cell.rounds.iter().map(|figures| figures.faults).sum::<u64>().to_string());
            rows.push(row);
        }
        aligned(&rows)
    }

    /// Where another broker is better, one line each.
    pub(super) fn losses(&self) -> Vec<String> {
        let mut losses = Vec::new();
        for (work, cells) in &self.works {
            let Some(verge) = cells.get(&Peer::Verge) else { continue };
            for name in verge.names().unwrap_or_default() {
                let (Some(own), Some((peer, best))) = (verge.median(name), best_other(cells, name))
                else {
                    continue;
                };
                let factor = if more_is_better(name) { best / own } else { own / best };
                // Less than this is the noise of a shared machine.
                if factor > 1.05 {
                    losses.push(format!(
                        "{work}, {name}: {} {} against {} {}",
                        peer.name(),
                        number(Some(best)),
                        number(Some(own)),
                        Peer::Verge.name()
                    ));
                }
            }
        }
        losses
    }

    /// Comparisons with another broker, of which [`losses`](Self::losses) are some.
    pub(super) fn comparisons(&self) -> usize {
        let compared = self.works.iter().filter_map(|(_, cells)| {
            let verge = cells.get(&Peer::Verge)?;
            let names = verge.names()?;
            let both = |name: &&&str| verge.median(name).and(best_other(cells, name)).is_some();
            Some(names.iter().filter(both).count())
        });
        compared.sum()
    }
}

impl Cell {
    fn names(&self) -> Option<Vec<&'static str>> {
        Some(self.rounds.first()?.values.iter().map(|(name, _)| *name).collect())
    }

    fn median(&self, wanted: &str) -> Option<f64> {
        let values = self.rounds.iter().filter_map(|figures| {
            figures.values.iter().find(|(name, _)| *name == wanted).and_then(|(_, value)| *value)
        });
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    fn is_at_fault(&self) -> bool {
        !self.failures.is_empty() || self.rounds.iter().any(|figures| figures.faults > 0)
    }

    fn remarks(&self) -> Vec<String> {
        let notes = self.rounds.iter().flat_map(|figures| figures.notes.clone());
        let mut remarks: Vec<String> = notes.chain(self.failures.clone()).collect();
        remarks.sort();
        remarks.dedup();
        remarks
    }
}

fn best_other(cells: &BTreeMap<Peer, Cell>, name: &str) -> Option<(Peer, f64)> {
    let others = cells.iter().filter(|(peer, _)| peer.is_other());
    let values = others.filter_map(|(peer, cell)| Some((*peer, cell.median(name)?)));
    if more_is_better(name) {
        values.max_by(|a, b| a.1.total_cmp(&b.1))
    } else {
        values.min_by(|a, b| a.1.total_cmp(&b.1))
    }
}

fn more_is_better(name: &str) -> bool {
    name.ends_with("/s") || name == "resumed"
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 1_000.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.3}"),
    }
}

/// A Markdown table that reads as a table.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = if column == 0 {
                write!(text, "| {cell:<width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text += "|\n";
        if at == 0 {
            for (column, width) in widths.iter().enumerate() {
                let end = if column == 0 { "-" } else { ":" };
                let _ = write!(text, "|-{}{end}", "-".repeat(*width));
            }
            text += "|\n";
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_ratios_and_losses_are_told() {
        let mut results = Results::new(&[Peer::Verge, Peer::Null, Peer::Mosquitto]);
        let figures = |cpu, rate| Figures {
            values: vec![("CPU s", Some(cpu)), ("delivered/s", Some(rate))],
            faults: 0,
            notes: Vec::new(),
        };
        for cpu in [9.0, 4.0, 2.0] {
            results.add("pairs", Peer::Verge, figures(cpu, 100.0));
        }
        results.add("pairs", Peer::Null, figures(1.0, 1_000.0));
        results.add("pairs", Peer::Mosquitto, figures(8.0, 200.0));
        let tables = results.tables();
        assert!(tables.contains("| Verge     | 4.000 |   4.00 |         0.50 |"), "{tables}");
        assert_eq!(
            results.losses(),
            ["pairs, delivered/s: Mosquitto 200.0 against 100.0 Verge"],
            "less CPU is better, more deliveries are"
        );
        assert_eq!(results.comparisons(), 2);
        assert!(!results.verge_is_at_fault());
        results.fail("pairs", Peer::Verge, "it broke".into());
        assert!(results.verge_is_at_fault() && results.tables().contains("- Verge: it broke"));
    }
}
