//! `verge ctl`: questions to a running node, as tables or JSON.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Failure, print_ignoring_closed_pipe};
use crate::config::profile::ADMIN_PORT;

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Widest column of a table; longer texts are cut.
const COLUMN_CHARS_MAX: usize = 60;

/// Options of `verge ctl`.
#[derive(Debug, Args)]
pub struct CtlArgs {
    /// Address of the node's admin HTTP API
    #[arg(long, global = true, value_name = "A:P", env = "VERGE_ADMIN",
        default_value_t = SocketAddr::from(([127, 0, 0, 1], ADMIN_PORT)))]
    admin: SocketAddr,
    /// Print the API's JSON
    #[arg(long, global = true)]
    json: bool,
    /// Page of a list, from 1
    #[arg(long, global = true, default_value_t = 1)]
    page: usize,
    /// Entries of a page
    #[arg(long, global = true, default_value_t = 100)]
    limit: usize,
    #[command(subcommand)]
    command: CtlCommand,
}

/// Options of `verge backup`, which is `verge ctl backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Address of the node's admin HTTP API
    #[arg(long, value_name = "A:P", env = "VERGE_ADMIN",
        default_value_t = SocketAddr::from(([127, 0, 0, 1], ADMIN_PORT)))]
    admin: SocketAddr,
    /// Print the manifest
    #[arg(long)]
    json: bool,
    /// The directory, on the node's machine; it must not be there, or be empty
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Takes a backup of a running node.
///
/// # Errors
/// As [`run`].
pub fn run_backup(args: BackupArgs) -> Result<(), Failure> {
    let BackupArgs { admin, json, dir } = args;
    run(&CtlArgs { admin, json, page: 1, limit: 1, command: CtlCommand::Backup { dir } })
}

/// What to ask or tell.
#[derive(Debug, Subcommand)]
pub enum CtlCommand {
    /// Nodes of the mesh
    Nodes,
    /// Connected clients
    Clients,
    /// Sessions, connected or parked
    Sessions,
    /// Subscriptions of this node's sessions
    Subscriptions,
    /// Filters this node and others want
    Routes,
    /// Retained messages
    Retained,
    /// What was owed, settled, and is held, by class; and who holds the most
    Ledger {
        /// Of all nodes of the mesh that answer, added up
        #[arg(long)]
        mesh: bool,
    },
    /// What lies on the disk: families, logs, free space, what was written
    Storage,
    /// Copy all that the node keeps into a new directory, while it serves
    Backup {
        /// The directory, on the node's machine; it must not be there, or be empty
        dir: PathBuf,
    },
    /// Stop accepting, flush, and end the node
    Drain,
    /// Read the configuration again: listeners and certificates take effect, clients stay
    Reload,
    /// End a client's connection
    Kick {
        /// The client's id
        client: String,
    },
}

/// Columns of each list: title, and the field of an entry.
pub(super) type Columns = &'static [(&'static str, &'static str)];

const NODES: Columns = &[
    ("NODE", "node_id"),
    ("ROLE", "role"),
    ("REGION", "region"),
    ("STATE", "state"),
    ("POSITION", "position"),
    ("MESH", "mesh_addr"),
    ("LISTENERS", "listeners"),
];
const CLIENTS: Columns = &[
    ("CLIENT", "client"),
    ("PEER", "peer"),
    ("LISTENER", "listener"),
    ("MQTT", "protocol_version"),
    ("KEEP ALIVE", "keep_alive_secs"),
    ("CONNECTED AT", "connected_at"),
];
const SESSIONS: Columns = &[
    ("CLIENT", "client"),
    ("STATE", "state"),
    ("EPOCH", "epoch"),
    ("SUBSCRIPTIONS", "subscriptions"),
    ("QUEUED", "queued"),
    ("INFLIGHT", "inflight"),
    ("EXPIRY", "session_expiry_secs"),
    ("FRAGMENTS", "open_fragments"),
];
const SUBSCRIPTIONS: Columns = &[("CLIENT", "client"), ("FILTER", "filter"), ("QOS", "qos")];
const ROUTES: Columns = &[("FILTER", "filter"), ("NODE", "node")];
const RETAINED: Columns = &[
    ("TOPIC", "topic"),
    ("QOS", "qos"),
    ("BYTES", "payload_bytes"),
    ("PUBLISHED AT", "published_at"),
];

/// Asks, and prints the answer.
///
/// # Errors
/// No answer, or the node's refusal, in one line.
pub fn run(args: &CtlArgs) -> Result<(), Failure> {
    let page = format!("?page={}&limit={}", args.page, args.limit);
    let list = |what: &str| get(args, &format!("/api/v1/{what}{page}"));
    let (answer, columns) = match &args.command {
        CtlCommand::Nodes => (list("members")?, NODES),
        CtlCommand::Clients => (list("clients")?, CLIENTS),
        CtlCommand::Sessions => (list("sessions")?, SESSIONS),
        CtlCommand::Subscriptions => (list("subscriptions")?, SUBSCRIPTIONS),
        CtlCommand::Routes => (list("routes")?, ROUTES),
        CtlCommand::Retained => (list("retained")?, RETAINED),
        CtlCommand::Ledger { mesh } => {
            let scope = if *mesh { "?scope=mesh" } else { "" };
            (get(args, &format!("/api/v1/ledger{scope}"))?, &[] as Columns)
        }
        CtlCommand::Storage => (get(args, "/api/v1/storage")?, &[] as Columns),
        CtlCommand::Backup { dir } => (backup(args, dir)?, &[] as Columns),
        CtlCommand::Drain => (post(args, "/api/v1/drain")?, &[] as Columns),
        CtlCommand::Reload => (post(args, "/api/v1/reload")?, &[] as Columns),
        CtlCommand::Kick { client } => {
            (post(args, &format!("/api/v1/clients/{}/kick", escaped(client)))?, &[] as Columns)
        }
    };
    let text = if args.json {
        format!("{answer}\n")
    } else if matches!(args.command, CtlCommand::Storage) {
        super::storage::text(&answer)
    } else if matches!(args.command, CtlCommand::Ledger { .. }) {
        super::ledger::text(&answer)
    } else if columns.is_empty() {
        outline(&answer)
    } else {
        let entries = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut text = table(columns, entries);
        let total = answer["total"].as_u64().unwrap_or_default();
        if total > entries.len() as u64 {
            let _ = writeln!(text, "page {}: {} of {total}", args.page, entries.len());
        }
        text
    };
    print_ignoring_closed_pipe(&text);
    Ok(())
}

fn get(args: &CtlArgs, path: &str) -> Result<Value, Failure> {
    read(args, agent(Some(TIMEOUT)).get(url(args, path)).call())
}

fn post(args: &CtlArgs, path: &str) -> Result<Value, Failure> {
    read(args, agent(Some(TIMEOUT)).post(url(args, path)).send_empty())
}

/// Asks for a backup. How long that takes is the disk's business. Without its files' names, which are
/// in the manifest.
fn backup(args: &CtlArgs, dir: &Path) -> Result<Value, Failure> {
    let dir = std::path::absolute(dir)
        .map_err(|error| Failure::setup(format!("{}: {error}", dir.display())))?;
    let body = json!({ "dir": dir });
    let sent = agent(None).post(url(args, "/api/v1/backup")).send_json(body);
    let mut manifest = read(args, sent)?;
    if let Some(manifest) = manifest.as_object_mut().filter(|_| !args.json) {
        let files = manifest["files"].as_array().map_or(0, Vec::len);
        manifest.insert("files".to_owned(), files.into());
        manifest.insert("dir".to_owned(), json!(dir));
    }
    Ok(manifest)
}

fn agent(timeout: Option<Duration>) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(timeout)
        // A refusal has a body that says why.
        .http_status_as_error(false)
        .build();
    config.into()
}

fn url(args: &CtlArgs, path: &str) -> String {
    format!("http://{}{path}", args.admin)
}

fn read(
    args: &CtlArgs,
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Value, Failure> {
    let unreachable = |error: ureq::Error| {
        Failure::failed(format!(
            "no answer from the admin API at {} ({error}): is the node running, and is --admin right?",
            args.admin
        ))
    };
    let mut answer = answer.map_err(unreachable)?;
    let status = answer.status();
    let body: Value =
        answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_json().map_err(unreachable)?;
    if status.is_success() {
        return Ok(body);
    }
    let why = body["error"].as_str().unwrap_or("no reason given");
    Err(Failure::failed(format!("node at {}: {why}", args.admin)))
}

/// A path segment: everything but letters, digits and `-._~` is escaped.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Aligned columns under their titles.
pub(super) fn table(columns: Columns, entries: &[Value]) -> String {
    let titles = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    let rows =
        entries.iter().map(|entry| columns.iter().map(|(_, field)| cell(&entry[*field])).collect());
    let rows: Vec<Vec<String>> = std::iter::once(titles).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in &rows {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(text, width)| format!("{text:width$}")).collect();
        let _ = writeln!(out, "{}", line.join("  ").trim_end());
    }
    out
}

/// Nested values, one a line, as `a.b  value`.
fn outline(value: &Value) -> String {
    let mut lines = Vec::new();
    flatten("", value, &mut lines);
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, text): &(String, String)| format!("{name:width$}  {text}\n");
    lines.iter().map(line).collect()
}

fn flatten(prefix: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name =
                    if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, lines);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            lines.push((prefix.to_owned(), cell(value)));
        }
    }
}

/// A value in one cell. What a client chose is shown without control characters.
pub(super) fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}={}", cell(value)));
            fields.collect::<Vec<_>>().join(" ")
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    };
    let shown = text.chars().map(|c| if c.is_control() { '?' } else { c });
    let mut out: String = shown.clone().take(COLUMN_CHARS_MAX).collect();
    if shown.count() > COLUMN_CHARS_MAX {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let entries = [
            json!({"client": "v-1", "filter": "a/#", "qos": 1}),
            json!({"client": "vehicle-22", "filter": "b", "qos": null}),
        ];
        let wanted = "CLIENT      FILTER  QOS\nv-1         a/#     1\nvehicle-22  b       -\n";
        assert_eq!(table(SUBSCRIPTIONS, &entries), wanted);
    }

    #[test]
    fn outlines_name_nested_values() {
        let text = outline(&json!({"held": 3, "opened": {"accepted": 5}}));
        assert_eq!(text, "held             3\nopened.accepted  5\n");
    }

    #[test]
    fn security_what_clients_chose_cannot_move_the_cursor() {
        assert_eq!(cell(&json!("a\u{1b}[2Jb")), "a?[2Jb");
        assert_eq!(escaped("a/b c?ä"), "a%2Fb%20c%3F%C3%A4");
    }
}
