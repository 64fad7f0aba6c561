//! One process of a mesh: started, asked, killed, restarted.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::programs::{self, output_of};
use crate::site::without_settings;
use crate::time::{eventually, until};

/// Lines of a log that are shown when a test fails.
const TAIL_LINES: usize = 25;

/// Longest wait for one answer of an admin API.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A process, or the place of one.
pub(crate) struct Node {
    pub(crate) name: String,
    /// Where clients connect.
    pub(crate) mqtt: SocketAddr,
    /// Where other nodes link, if it is in a mesh.
    pub(crate) mesh: Option<SocketAddr>,
    /// Its admin API.
    pub(crate) admin: SocketAddr,
    program: PathBuf,
    args: Vec<String>,
    dir: PathBuf,
    home: PathBuf,
    env: Vec<(String, String)>,
    child: Option<Child>,
}

impl Node {
    pub(crate) fn new(
        program: PathBuf,
        name: &str,
        dir: &Path,
        admin: SocketAddr,
        mqtt: SocketAddr,
    ) -> Self {
        Self {
            name: name.to_owned(),
            mqtt,
            mesh: None,
            admin,
            program,
            args: Vec::new(),
            dir: dir.to_owned(),
            home: dir.join("home"),
            env: Vec::new(),
            child: None,
        }
    }

    pub(crate) fn args<const N: usize>(&mut self, args: [&str; N]) {
        self.args.extend(args.map(str::to_owned));
    }

    /// Settings, each `section.key=VALUE`.
    pub(crate) fn with<const N: usize>(mut self, settings: [&str; N]) -> Self {
        for setting in settings {
            self.args(["--set", setting]);
        }
        self
    }

    /// With a variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: &Path) -> Self {
        self.env.push((name.to_owned(), value.display().to_string()));
        self
    }

    /// Another home, and so another development authority.
    pub(crate) fn at_home(mut self, home: PathBuf) -> Self {
        fs::create_dir_all(&home).expect("a directory can be made");
        self.home = home;
        self
    }

    /// Started, and serving.
    pub(crate) fn started(mut self) -> Self {
        self.start();
        self
    }

    /// Starts the process and waits until it serves: its `ready` line, and its `/readyz`.
    pub(crate) fn start(&mut self) {
        let lives = self.ready_lines().len();
        self.spawn();
        until("the node is ready", || {
            let child = self.child.as_mut().expect("it was just started");
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                panic!("{} ended at start with {status}:\n{}", self.name, self.log());
            }
            self.ready_lines().len() > lives && self.status("/readyz") == Some(200)
        });
    }

    /// Starts the process.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        // As many open files as the system lets it have.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"ulimit -n "$(ulimit -H -n)"; exec "$0" "$@""#]);
        command.arg(&self.program).args(&self.args).current_dir(&self.dir);
        without_settings(&mut command);
        command.env("HOME", &self.home).stdin(Stdio::null());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdout(append(&self.out_path())).stderr(append(&self.log_path()));
        self.child = Some(command.spawn().expect("a shell can be started"));
    }

    /// Ends the process as a power cut would.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("a node that runs");
        assert_eq!(child.try_wait().ok(), Some(None), "{} ended:\n{}", self.name, self.log());
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// Asks the process to end, and waits until it has.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a node that runs");
        let kill = format!("kill -TERM {}", child.id());
        output_of(Command::new("/bin/sh").args(["-c", &kill]));
        eventually("the node ends", || child.try_wait().expect("a child can be waited for"))
    }

    /// Asks the process to read its configuration again, as a service manager does.
    pub(crate) fn hang_up(&self) {
        let child = self.child.as_ref().expect("a node that runs");
        let kill = format!("kill -HUP {}", child.id());
        output_of(Command::new("/bin/sh").args(["-c", &kill]));
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The most memory of the machine's that the process ever had.
    pub(crate) fn resident_bytes_peak(&self) -> u64 {
        let id = self.child.as_ref().expect("a node that runs").id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let size = line.expect("it has memory").trim().trim_end_matches(" kB");
        size.parse::<u64>().expect("a number") * 1024
    }

    pub(crate) fn mesh_addr(&self) -> SocketAddr {
        self.mesh.expect("a node of a mesh")
    }

    /// `GET`, which must succeed.
    pub(crate) fn get(&self, path: &str) -> Value {
        let mut answer = agent().get(self.url(path)).call().expect("the admin API answers");
        assert_eq!(answer.status().as_u16(), 200, "{path}");
        answer.body_mut().read_json().expect("the admin API answers with JSON")
    }

    /// The entries of a list.
    pub(crate) fn list(&self, what: &str) -> Vec<Value> {
        let page = self.get(&format!("/api/v1/{what}?limit=1000"));
        page["items"].as_array().expect("a list has items").clone()
    }

    /// The status of an answer, if there is one.
    pub(crate) fn status(&self, path: &str) -> Option<u16> {
        agent().get(self.url(path)).call().ok().map(|answer| answer.status().as_u16())
    }

    /// The status and text of an answer.
    pub(crate) fn answer(&self, path: &str) -> (u16, String) {
        let mut answer = agent().get(self.url(path)).call().expect("the admin API answers");
        let text = answer.body_mut().read_to_string().expect("answers are text");
        (answer.status().as_u16(), text)
    }

    /// Started as [`start`](Self::start) does, but it must not serve: the line it says.
    pub(crate) fn refuses_to_start(&self) -> String {
        let mut command = Command::new(&self.program);
        command.args(&self.args).current_dir(&self.dir);
        without_settings(&mut command);
        command.env("HOME", &self.home);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        programs::refusal_of(&mut command, 2)
    }

    /// The status of a request with this body.
    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> u16 {
        let url = self.url(path);
        let answer = match method {
            "DELETE" => agent().delete(url).call(),
            _ => agent().post(url).send_json(body),
        };
        answer.expect("the admin API answers").status().as_u16()
    }

    /// The sum of all samples of a metric whose labels contain `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> u64 {
        let mut answer = agent().get(self.url("/metrics")).call().expect("there are metrics");
        let text = answer.body_mut().read_to_string().expect("metrics are text");
        let samples = text.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            let (of, labels) = sample.split_once('{').unwrap_or((sample, ""));
            (of == name && labels.contains(label)).then(|| value.parse::<f64>().expect("a number"))
        });
        samples.sum::<f64>() as u64
    }

    /// Connections closed for a reason.
    pub(crate) fn closed_for(&self, reason: &str) -> u64 {
        self.metric("verge_connections_closed_total", &format!("reason=\"{reason}\""))
    }

    /// Waits until the books balance; while messages are under way they are read in two glances.
    pub(crate) fn balances(&self) {
        let mut last = Value::Null;
        for _ in 0..400 {
            last = self.get("/api/v1/ledger");
            if last["balance"] == 0 {
                return;
            }
            crate::time::pause(crate::time::millis(25));
        }
        panic!("the books of {} do not balance: {last}", self.name);
    }

    /// What `verge ctl` prints about this node.
    pub(crate) fn ctl<const N: usize>(&self, args: [&str; N]) -> String {
        let admin = self.admin.to_string();
        let mut command = Command::new(programs::verge());
        output_of(command.args(["ctl", "--admin", &admin]).args(args))
    }

    /// What it has written to standard error, in all its lives.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Its `ready` lines, one for each life that got so far.
    pub(crate) fn ready_lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.out_path()).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter(|line| line.starts_with("ready ")).map(str::to_owned).collect()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    fn out_path(&self) -> PathBuf {
        self.dir.join(format!("{}.out", self.name))
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = self.log();
        if std::thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            eprintln!("the end of the log of {}:\n{tail}\n", self.name);
        } else {
            assert!(!log.contains("panicked at"), "{} panicked:\n{log}", self.name);
        }
    }
}

/// Waits until every node has links to every other.
pub(crate) fn linked(nodes: &[&Node]) {
    for node in nodes {
        until(&format!("{} has its links", node.name), || {
            let members = node.list("members");
            let others = nodes.iter().filter(|other| other.name != node.name);
            others.into_iter().all(|other| {
                members.iter().any(|member| {
                    member["node_id"] == other.name.as_str()
                        && member["linked"] == true
                        && member["state"] == "alive"
                })
            })
        });
    }
}

/// Waits until `node` knows that `other` wants `filter`.
pub(crate) fn routed(node: &Node, filter: &str, other: &Node) {
    until(&format!("{} knows that {} wants {filter}", node.name, other.name), || {
        let routes = node.list("routes");
        routes.iter().any(|route| route["filter"] == filter && route["node"] == other.name.as_str())
    });
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_WITHIN))
        .http_status_as_error(false)
        .build();
    config.into()
}

fn append(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("a log can be written")
}
