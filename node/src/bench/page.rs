//! The page for readers: the machine, how it was measured, the tables, and where Verge loses.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use super::peers::Peer;
use super::report::Results;

/// What stands above every table.
const METHOD: &str = "\
Every broker does the same work, freshly started for each piece of it, in turn, round by round; figures are \
medians over the rounds.
One generator thread makes all clients, checks every byte of every delivery, and counts what is lost, doubled, \
reordered or changed (`faults`).
Throughput is a closed loop: a message leaves its publisher's window when it is acknowledged *and* has reached \
everyone, so queueing or dropping wins nothing.
Latency is an open loop at half of the broker's own maximum: messages are due at even times whatever the broker \
does, and latency counts from when a message was due.
CPU is user and system time of the broker's process.
`null` is the limit: one thread that reads, acknowledges and forwards with Verge's codec and does nothing else.
Persistence, logs and limits of the others are off or out of the way; Verge runs with its defaults (what outlives \
a connection is on disk) and raised limits.
In the work named `durable`, `drain-live`, `trickle`, `fan-offline` and `restart` Verge keeps the promise that is named, `synced` where \
none is; Mosquitto's persistence is on above `memory`, which writes a copy of everything at its end and every half hour, \
so that what it acknowledged since is lost with its process; rmqttd has its session storage; rumqttd keeps a log in memory.
`bytes written` are those that the process caused to be written to disk.
Generator and broker share the machine: where a note says that the generator's thread was the limit or that \
threads waited for a core, a rate is a lower bound, and CPU per message is the figure to read.
";

/// The whole page.
pub(super) fn page(results: &Results, peers: &[Peer], command: &str) -> String {
    let mut text = String::from("# Benchmarks\n\n");
    let _ = writeln!(text, "Written by `{command}`; run it again to replace this page.\n");
    text += "## Machine\n\n";
    for (name, value) in machine(peers) {
        let _ = writeln!(text, "- {name}: {value}");
    }
    let _ = writeln!(text, "\n## How\n\n{METHOD}");
    text += "## Where Verge loses\n\n";
    let (losses, compared) = (results.losses(), results.comparisons());
    let _ = writeln!(
        text,
        "Another broker is more than 5 % better in {} of {compared} comparisons.\n",
        losses.len()
    );
    for loss in losses {
        let _ = writeln!(text, "- {loss}");
    }
    if !results.curves.is_empty() {
        text += "\n## Latency against offered rate\n\n";
        text += "![latency against offered rate](benchmarks.svg)\n";
    }
    let _ = write!(text, "\n## Tables\n\n{}", results.tables());
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// The machine, by what it says of itself.
pub(super) fn machine(peers: &[Peer]) -> Vec<(String, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("", |(_, value)| value).trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = after(&read("/proc/cpuinfo"), "model name");
    let memory = after(&read("/proc/meminfo"), "MemTotal");
    let kernel = read("/proc/sys/kernel/osrelease");
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let mut facts = vec![
        ("CPU".to_owned(), format!("{cpu}, {cores} cores for all of it")),
        ("memory".to_owned(), memory),
        ("kernel".to_owned(), kernel.trim().to_owned()),
        ("date".to_owned(), said("date", &["-u", "+%F"]).unwrap_or_default()),
        ("load before".to_owned(), read("/proc/loadavg").trim().to_owned()),
    ];
    let commit = said("git", &["rev-parse", "--short", "HEAD"]).filter(|text| !text.is_empty());
    if let Some(commit) = commit {
        facts.push(("commit".to_owned(), commit));
    }
    facts.extend(peers.iter().map(|peer| (peer.name().to_owned(), peer.version())));
    facts
}
