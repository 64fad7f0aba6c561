//! `verge ctl ledger`: the books as tables.

use std::fmt::Write;

use serde_json::Value;
use verge_model::Class;

use super::ctl::{Columns, cell, table};

/// Rows of the table of books: title, and where an answer has it.
const ROWS: &[(&str, &str)] = &[
    ("opened.recovered", "/opened/recovered"),
    ("opened.accepted", "/opened/accepted"),
    ("opened.imported", "/opened/imported"),
    ("opened.total", "/opened/total"),
    ("settled.delivered", "/settled/delivered"),
    ("settled.expired", "/settled/expired"),
    ("settled.handed_over", "/settled/handed_over"),
    ("settled.discarded", "/settled/discarded"),
    ("settled.redelivered", "/settled/redelivered"),
    ("settled.had_already", "/settled/had_already"),
    ("settled.total", "/settled/total"),
    ("held", "/held"),
    ("held_bytes", "/held_bytes"),
    ("balance", "/balance"),
];

const HOLDERS: Columns = &[
    ("CLIENT", "client"),
    ("NODE", "node"),
    ("STATE", "state"),
    ("MOVES TO", "moves_to"),
    ("MESSAGES", "messages"),
    ("BYTES", "bytes"),
];
const FORWARD: Columns = &[("FOR NODE", "node"), ("CLASS", "class"), ("MESSAGES", "messages")];
const NODES: Columns = &[
    ("NODE", "node_id"),
    ("OPENED", "opened"),
    ("SETTLED", "settled"),
    ("HELD", "held"),
    ("HELD BYTES", "held_bytes"),
    ("BALANCE", "balance"),
];
const UNANSWERED: Columns = &[("NO ANSWER FROM", "node_id"), ("REASON", "reason")];

/// The answer, of a node or of the mesh, as text.
pub(super) fn text(answer: &Value) -> String {
    let mut out = books(answer);
    if let Some(off_by) = answer["imbalance"].as_i64() {
        let _ = writeln!(out, "\nWARNING: the books are off by {off_by}, and stay so");
    }
    let moving = &answer["handover"];
    if moving.is_object() {
        let lines = ["handed_over", "imported", "unconfirmed", "in_transit"];
        let lines = lines.map(|name| format!("handover.{name}  {}\n", cell(&moving[name])));
        let _ = write!(out, "\n{}", lines.concat());
    }
    let waiting = &answer["waiting"];
    let lines = [
        ("forward", "forward_messages"),
        ("uplink", "uplink_messages"),
        ("delayed", "delayed_messages"),
        ("in_transit", "in_transit_messages"),
        ("unread_about", "unread_messages_about"),
    ];
    let lines = lines.map(|(name, at)| format!("waiting.{name}  {}\n", cell(&waiting[at])));
    let _ = write!(out, "\n{}", lines.concat());
    let lists = [
        ("", FORWARD, &waiting["forward"]),
        ("most messages:\n", HOLDERS, &answer["holders"]["by_messages"]),
        ("most bytes:\n", HOLDERS, &answer["holders"]["by_bytes"]),
        ("", NODES, &answer["nodes"]),
        ("", UNANSWERED, &answer["unanswered"]),
    ];
    for (title, columns, list) in lists {
        let entries = list.as_array().map(Vec::as_slice).unwrap_or_default();
        if !entries.is_empty() {
            let _ = write!(out, "\n{title}{}", table(columns, entries));
        }
    }
    out
}

/// A row for each way to open and settle, a column for each class and one for all.
fn books(answer: &Value) -> String {
    let mut rows: Vec<(String, String)> =
        ROWS.iter().map(|(title, at)| ((*title).to_owned(), (*at).to_owned())).collect();
    let reasons = answer["settled"]["dropped"].as_object().into_iter().flat_map(|map| map.keys());
    let dropped = reasons
        .map(|why| (format!("settled.dropped.{why}"), format!("/settled/dropped/{why}")))
        .collect::<Vec<_>>();
    let before_total = rows.iter().position(|(title, _)| title == "settled.total");
    let at = before_total.unwrap_or(rows.len());
    rows.splice(at..at, dropped);
    let titles = Class::ALL.map(Class::as_str).into_iter().chain(["total"]);
    let mut lines = vec![std::iter::once("").chain(titles).map(str::to_owned).collect::<Vec<_>>()];
    for (title, at) in rows {
        let books = Class::ALL.into_iter().map(|class| &answer["classes"][class.as_str()]);
        let number = |books: &Value| books.pointer(&at).map_or_else(|| "-".to_owned(), cell);
        let numbers = books.chain([answer]).map(number);
        lines.push(std::iter::once(title).chain(numbers).collect());
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..lines[0].len()).map(|n| width(n).unwrap_or(0)).collect();
    let mut out = String::new();
    for line in &lines {
        let _ = write!(out, "{:1$}", line[0], widths[0]);
        for (number, width) in line.iter().zip(&widths).skip(1) {
            let _ = write!(out, "  {number:>width$}");
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn books_stand_in_columns_by_class() {
        let books = |held: u64| {
            json!({
                "opened": {"recovered": 0, "accepted": 5, "imported": 0, "total": 5},
                "settled": {"delivered": 3, "dropped": {"queue_full": 1}, "total": 4},
                "held": held, "held_bytes": 10, "balance": 0,
            })
        };
        let mut answer = books(1);
        answer["classes"] = json!({"safety": books(1), "bulk": books(0)});
        answer["imbalance"] = json!(-2);
        answer["waiting"] = json!({"forward_messages": 7});
        answer["holders"] = json!({"by_messages": [{"client": "v", "messages": 1}]});
        let text = text(&answer);
        for line in [
            "                            safety  control  telemetry  bulk  total",
            "opened.accepted                  5        -          -     5      5",
            "settled.dropped.queue_full       1        -          -     1      1",
            "held                             1        -          -     0      1",
            "WARNING: the books are off by -2, and stay so",
            "waiting.forward  7",
            "v       -     -      -         1         -",
        ] {
            assert!(text.lines().any(|of| of == line), "{line}\n{text}");
        }
    }
}
