//! The books as metrics: each count by class, so that a sum over classes is the node's.

use verge_model::Class;

use super::{Ledger, LedgerSnapshot, Metric, Opened};

const OPENED: (&str, &str) =
    ("ledger_opened_debts_total", "Messages owed to sessions at QoS 1 and 2, by origin");
const SETTLED: (&str, &str) =
    ("ledger_settled_debts_total", "Messages no longer owed to sessions, by outcome");
const DROPPED: (&str, &str) =
    ("ledger_dropped_debts_total", "Messages owed to sessions and dropped, by reason");

impl Ledger {
    /// The books as metrics.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let books: Vec<_> = Class::ALL.into_iter().zip(self.by_class()).collect();
        let mut metrics = Vec::new();
        // Samples of one name stand together.
        for of in [opened, settled, dropped] {
            metrics.extend(books.iter().flat_map(|(class, books)| of(*class, books)));
        }
        metrics
    }
}

fn one(
    (name, help): (&'static str, &'static str),
    label: (&'static str, &'static str),
    class: Class,
    value: u64,
) -> Metric {
    Metric { name, help, labels: vec![label, ("class", class.as_str())], value }
}

fn opened(class: Class, books: &LedgerSnapshot) -> Vec<Metric> {
    let table = [
        (Opened::Recovered, books.recovered),
        (Opened::Accepted, books.accepted),
        (Opened::Imported, books.imported),
    ];
    let metric = |(way, count): (Opened, u64)| one(OPENED, ("origin", way.as_str()), class, count);
    table.into_iter().map(metric).collect()
}

fn settled(class: Class, books: &LedgerSnapshot) -> Vec<Metric> {
    let table = [
        ("delivered", books.delivered),
        ("expired", books.expired),
        ("dropped", books.dropped.values().sum()),
        ("handed_over", books.handed_over),
        ("discarded", books.discarded),
        ("redelivered", books.redelivered),
        ("had_already", books.had_already),
    ];
    let metric = |(outcome, count)| one(SETTLED, ("outcome", outcome), class, count);
    table.into_iter().map(metric).collect()
}

fn dropped(class: Class, books: &LedgerSnapshot) -> Vec<Metric> {
    let dropped = books.dropped.iter();
    dropped.map(|(why, count)| one(DROPPED, ("reason", why.as_str()), class, *count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{DropReason, Settled};

    #[test]
    fn the_books_are_metrics_with_one_value_a_reason_and_class() {
        let ledger = Ledger::default();
        ledger.open(Opened::Imported, Class::Safety, 7);
        ledger.settle(Settled::Dropped(DropReason::TooLarge), Class::Bulk, 3);
        let all = ledger.metrics();
        assert_eq!(all.len(), Class::ALL.len() * (3 + 7 + DropReason::ALL.len()));
        let shown: Vec<_> = all
            .into_iter()
            .filter(|metric| metric.value > 0)
            .map(|metric| format!("{}{:?} {}", metric.name, metric.labels, metric.value))
            .collect();
        let expected = [
            r#"ledger_opened_debts_total[("origin", "imported"), ("class", "safety")] 7"#,
            r#"ledger_settled_debts_total[("outcome", "dropped"), ("class", "bulk")] 3"#,
            r#"ledger_dropped_debts_total[("reason", "too_large"), ("class", "bulk")] 3"#,
        ];
        assert_eq!(shown, expected);
    }
}
