//! What the process shows of itself: a snapshot the uplink task renews and the admin API reads.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;
use verge_mesh_proto::uplink::StreamStatus;
use verge_mesh_proto::{MemberSnapshot, NodeInfo};

use crate::receive::SinkCounters;

/// A snapshot.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// This node.
    pub node: NodeView,
    /// Every other member of the mesh, by name.
    pub members: Vec<MemberView>,
    /// Every log that ever sent something to this process, in order.
    pub uplinks: Vec<UplinkView>,
    /// Compressed bytes received and not committed.
    pub held_bytes: usize,
    /// Counts of the sink.
    pub counters: Arc<SinkCounters>,
}

/// This node, as the API shows it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NodeView {
    /// Its name.
    pub node_id: String,
    /// What it is for.
    pub role: String,
    /// Its region.
    pub region: String,
    /// The version of the program.
    pub version: &'static str,
    /// Which life of its data directory.
    pub incarnation: u32,
    /// Where peers reach it.
    pub mesh_addr: String,
    /// Where the tables are.
    pub lake: String,
}

/// A member, as the API shows it.
#[derive(Debug, Clone, Serialize)]
pub struct MemberView {
    /// Its name.
    pub node_id: String,
    /// What it is for, once it said so.
    pub role: Option<String>,
    /// Its region, once it said so.
    pub region: Option<String>,
    /// `up` or `down`.
    pub state: &'static str,
    /// Where peers reach it.
    pub mesh_addr: String,
    /// Its client listeners.
    pub listeners: Vec<String>,
}

/// A log, as the API shows it.
#[derive(Debug, Clone, Serialize)]
pub struct UplinkView {
    /// The node.
    pub origin: String,
    /// Which life of its data directory, 16 hexadecimal digits.
    pub log_id: String,
    /// Which of its uplinks.
    pub stream: u16,
    /// The table.
    pub table: String,
    /// The last row in the table; not known until the sink answered.
    pub watermark: Option<u64>,
    /// The last row received.
    pub accepted: u64,
    /// The last row the node is known to have.
    pub known: u64,
    /// Rows the node is known to have that are not in the table.
    pub lag: u64,
}

impl NodeView {
    /// What is shown of a node whose tables are in `lake`.
    #[must_use]
    pub fn of(info: &NodeInfo, lake: String) -> Self {
        Self {
            node_id: info.node_id.to_string(),
            role: info.role.to_string(),
            region: info.region.clone(),
            version: env!("CARGO_PKG_VERSION"),
            incarnation: info.incarnation,
            mesh_addr: info.mesh_addr.to_string(),
            lake,
        }
    }
}

impl From<MemberSnapshot> for MemberView {
    fn from(member: MemberSnapshot) -> Self {
        let info = member.info.as_ref();
        Self {
            node_id: member.node_id.to_string(),
            role: info.map(|info| info.role.to_string()),
            region: info.map(|info| info.region.clone()),
            state: if member.up { "up" } else { "down" },
            mesh_addr: member.addr.to_string(),
            listeners: info.map(|info| info.listeners.clone()).unwrap_or_default(),
        }
    }
}

impl From<StreamStatus> for UplinkView {
    fn from(status: StreamStatus) -> Self {
        Self {
            lag: status.lag(),
            origin: status.origin_id.to_string(),
            log_id: format!("{:016x}", status.stream.log_id),
            stream: status.stream.stream,
            table: status.name,
            watermark: status.watermark,
            accepted: status.accepted,
            known: status.known,
        }
    }
}

impl Status {
    /// The metrics in Prometheus' text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        use std::fmt::Write;
        let mut out = String::new();
        let c = &self.counters;
        let up = self.members.iter().filter(|member| member.state == "up").count();
        let single = [
            ("mesh_members_up", "gauge", "Members of the mesh alive, without this one", up as u64),
            (
                "uplink_held_bytes",
                "gauge",
                "Compressed bytes received and not committed",
                self.held_bytes as u64,
            ),
            (
                "lake_commits_total",
                "counter",
                "Commits to tables",
                c.commits.load(Ordering::Relaxed),
            ),
            (
                "lake_commit_failures_total",
                "counter",
                "Commits that failed and were tried again",
                c.commit_failures.load(Ordering::Relaxed),
            ),
            ("lake_rows_total", "counter", "Rows in commits", c.rows.load(Ordering::Relaxed)),
            (
                "lake_rows_missing_total",
                "counter",
                "Rows that nodes dropped before they were sent",
                c.rows_missing.load(Ordering::Relaxed),
            ),
            (
                "lake_batches_unreadable_total",
                "counter",
                "Batches that could not be read",
                c.batches_unreadable.load(Ordering::Relaxed),
            ),
        ];
        for (name, kind, help, value) in single {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        type Of = fn(&UplinkView) -> u64;
        let by_uplink: [(&str, &str, Of); 2] = [
            ("uplink_watermark_rows", "Last row of a log in its table", |u| {
                u.watermark.unwrap_or(0)
            }),
            ("uplink_lag_rows", "Rows a node has that are not in the table", |u| u.lag),
        ];
        for (name, help, value) in by_uplink {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
            for uplink in &self.uplinks {
                // Names of nodes and tables need no escaping.
                let UplinkView { origin, log_id, stream, table, .. } = uplink;
                let _ = writeln!(
                    out,
                    "{name}{{origin=\"{origin}\",log_id=\"{log_id}\",stream=\"{stream}\",\
                     table=\"{table}\"}} {}",
                    value(uplink)
                );
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_name_every_uplink() {
        let uplink = UplinkView {
            origin: "rsu-1".into(),
            log_id: format!("{:016x}", 5),
            stream: 0,
            table: "messages".into(),
            watermark: Some(7),
            accepted: 8,
            known: 9,
            lag: 2,
        };
        let status = Status { uplinks: vec![uplink], ..Status::default() };
        let text = status.metrics();
        let labels =
            "{origin=\"rsu-1\",log_id=\"0000000000000005\",stream=\"0\",table=\"messages\"}";
        for line in [
            "# TYPE lake_rows_total counter\nlake_rows_total 0\n".to_owned(),
            format!("uplink_watermark_rows{labels} 7\n"),
            format!("uplink_lag_rows{labels} 2\n"),
        ] {
            assert!(text.contains(&line), "{line} is not in {text}");
        }
    }
}
