//! The end of a run: waiting until nothing is owed, and asking nodes and tables what they have.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::cluster::Cluster;
use super::http;
use super::process::Usage;
use super::world::{Owed, World};

/// How often what is owed is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long clients listen on when nothing is owed any more: what comes then came twice.
const LISTEN_ON: Duration = Duration::from_secs(2);
/// How long the cloud tier may take for what the nodes still have.
const CLOUD_WITHIN: Duration = Duration::from_secs(60);
/// How long a node may take for its books.
const BOOKS_WITHIN: Duration = Duration::from_secs(10);

/// What the tables hold of each node. Payloads differ, since each has its vehicle and number, so
/// they tell how many different reports came whatever the nodes say.
const ROWS_SQL: &str = "SELECT origin, count(*) AS rows, count(DISTINCT seq) AS seqs, \
     min(seq) AS first_seq, max(seq) AS last_seq, count(DISTINCT payload) AS payloads \
     FROM messages GROUP BY origin ORDER BY origin";

/// A node's `GET /api/v1/ledger`, as far as it is checked.
#[derive(Debug, Clone, Deserialize)]
struct Ledger {
    opened: Total,
    settled: Total,
    held: u64,
    balance: i64,
    uplink: Uplink,
}

#[derive(Debug, Clone, Deserialize)]
struct Total {
    total: u64,
}

#[derive(Debug, Clone, Deserialize)]
struct Uplink {
    selected: u64,
}

/// What the tables hold of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rows {
    /// The node.
    pub origin: String,
    /// Rows.
    pub rows: u64,
    /// Different sequence numbers.
    pub seqs: u64,
    /// The smallest of them.
    pub first_seq: u64,
    /// The largest of them.
    pub last_seq: u64,
    /// Different payloads.
    pub payloads: u64,
}

/// What a node says of itself, and the tables of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeFacts {
    /// The node.
    pub node: String,
    /// Debts it took on since its start.
    pub opened: u64,
    /// Debts it settled.
    pub settled: u64,
    /// Debts it still has.
    pub held: u64,
    /// What does not add up: 0 in books that balance.
    pub balance: i64,
    /// Records it selected for the cloud tier.
    pub selected: u64,
    /// What the tables hold of it.
    pub rows: Rows,
    /// Position reports vehicles know it acknowledged.
    pub acknowledged: u64,
    /// What it used.
    pub usage: Usage,
}

impl NodeFacts {
    /// What is wrong with them, in words.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let (node, rows) = (&self.node, &self.rows);
        let mut complaints = Vec::new();
        if self.balance != 0 {
            complaints.push(format!("{node}: its ledger is off by {}", self.balance));
        }
        if rows.rows != self.selected {
            complaints.push(format!(
                "{node}: {} rows in the table, {} records selected",
                rows.rows, self.selected
            ));
        }
        if rows.seqs != rows.rows {
            let twice = rows.rows - rows.seqs.min(rows.rows);
            complaints.push(format!("{node}: {twice} records stand in the table twice"));
        }
        if rows.rows > 0 && rows.last_seq - rows.first_seq + 1 != rows.seqs {
            complaints.push(format!("{node}: its records in the table have gaps"));
        }
        if rows.payloads < self.acknowledged {
            complaints.push(format!(
                "{node}: acknowledged {} position reports, {} are in the table",
                self.acknowledged, rows.payloads
            ));
        }
        complaints
    }
}

/// Waits until nothing is owed, and a little longer; what is still owed when the time is over.
pub async fn drain(world: &World, within: Duration, mut progress: impl FnMut(Owed)) -> Owed {
    let deadline = Instant::now() + within;
    loop {
        let owed = world.owed();
        progress(owed);
        if owed.total() == 0 {
            sleep(LISTEN_ON).await;
            return world.owed();
        }
        if Instant::now() >= deadline {
            return owed;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Asks every node for its books, and the tables for what came of each.
///
/// # Errors
/// A node or the cloud tier does not answer.
pub async fn facts(world: &World, cluster: &Cluster) -> Result<Vec<NodeFacts>, String> {
    let mut facts = Vec::new();
    for (index, (node, admin, usage)) in cluster.brokers().enumerate() {
        let ledger = ledger(admin).await?;
        let is_rsu = index < world.sites.len();
        facts.push(NodeFacts {
            node: node.to_owned(),
            opened: ledger.opened.total,
            settled: ledger.settled.total,
            held: ledger.held,
            balance: ledger.balance,
            selected: ledger.uplink.selected,
            rows: Rows::default(),
            acknowledged: if is_rsu { world.cams_acked_by(index) } else { 0 },
            usage,
        });
    }
    let selected: u64 = facts.iter().map(|node| node.selected).sum();
    let rows = rows_when_complete(cluster, selected).await?;
    for node in &mut facts {
        if let Some(found) = rows.iter().find(|rows| rows.origin == node.node) {
            node.rows = found.clone();
        }
    }
    Ok(facts)
}

async fn ledger(admin: SocketAddr) -> Result<Ledger, String> {
    http::get_json(admin, "/api/v1/ledger", BOOKS_WITHIN).await
}

/// The tables, as soon as they have as many rows as were selected, or when the time is over.
async fn rows_when_complete(cluster: &Cluster, selected: u64) -> Result<Vec<Rows>, String> {
    let deadline = Instant::now() + CLOUD_WITHIN;
    loop {
        let answer = cluster.query(ROWS_SQL).await;
        let rows = answer.and_then(|json| {
            serde_json::from_slice::<Vec<Rows>>(&json)
                .map_err(|error| format!("verge-cloud query answered no rows: {error}"))
        });
        let late = Instant::now() >= deadline;
        match rows {
            Ok(rows) if late || rows.iter().map(|rows| rows.rows).sum::<u64>() >= selected => {
                return Ok(rows);
            }
            // Before the first commit there is no table.
            Err(error) if late => return Err(error),
            Ok(_) | Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_that_agree_are_not_complained_of() {
        assert_eq!(facts().complaints(), Vec::<String>::new());
        let quiet = NodeFacts { selected: 0, acknowledged: 0, rows: Rows::default(), ..facts() };
        assert_eq!(quiet.complaints(), Vec::<String>::new());
    }

    #[test]
    fn each_way_to_disagree_is_named() {
        type Change = fn(&mut NodeFacts);
        let cases: [(Change, &str); 5] = [
            (|facts| facts.balance = -2, "ledger is off by -2"),
            (|facts| facts.selected = 11, "10 rows in the table, 11 records selected"),
            (|facts| facts.rows.seqs = 9, "1 records stand in the table twice"),
            (|facts| facts.rows.last_seq = 11, "have gaps"),
            (|facts| facts.acknowledged = 10, "acknowledged 10 position reports, 9 are in"),
        ];
        for (change, wanted) in cases {
            let mut facts = facts();
            change(&mut facts);
            let complaints = facts.complaints().join("; ");
            assert!(complaints.contains(wanted), "{complaints:?}, not {wanted:?}");
        }
    }

    fn facts() -> NodeFacts {
        let rows = Rows {
            origin: "a".into(),
            rows: 10,
            seqs: 10,
            first_seq: 1,
            last_seq: 10,
            payloads: 9,
        };
        NodeFacts {
            node: "a".into(),
            opened: 5,
            settled: 5,
            held: 0,
            balance: 0,
            selected: 10,
            rows,
            acknowledged: 9,
            usage: Usage::default(),
        }
    }
}
