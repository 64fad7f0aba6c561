//! The ground a test stands on: a directory, a home, nodes with ports of their own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex, PoisonError};

use tempfile::TempDir;

use crate::node::Node;
use crate::{ports, programs};

/// Tests that run at once, whatever the number of cores: each has several processes.
const AT_ONCE: usize = 3;

/// A test's own directory. Dropped after the nodes in it, since those are made from it later.
pub(crate) struct Site {
    dir: TempDir,
    _turn: Turn,
}

impl Site {
    /// A clean site, when it is this test's turn.
    pub(crate) fn new() -> Self {
        let turn = Turn::take();
        let dir = tempfile::tempdir().expect("a directory can be made");
        let site = Self { dir, _turn: turn };
        std::fs::create_dir(site.home()).expect("a directory can be made");
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The home directory of everything here; a development authority belongs to it.
    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// A node that is not started, outside any mesh.
    pub(crate) fn node(&self, name: &str) -> Node {
        let admin = ports::free();
        let mqtt = ports::free();
        let data = self.path(&format!("{name}.data"));
        let mut node = Node::new(programs::verge(), name, self.dir.path(), admin, mqtt);
        node.args(["run", "--node-id", name, "--set", "storage.promise=buffered"]);
        // More than one shard on every machine.
        node.args(["--set", "node.shards=2"]);
        node.args(["--data-dir", &data.display().to_string()]);
        node.args(["--listen", &format!("tcp://{mqtt}"), "--admin", &admin.to_string()]);
        node
    }

    /// A node that is not started, with the listeners of its configuration file.
    pub(crate) fn configured(&self, name: &str, mqtt: SocketAddr, toml: &str) -> Node {
        let admin = ports::free();
        let (data, file) = (self.path(&format!("{name}.data")), self.configure(name, toml));
        let mut node = Node::new(programs::verge(), name, self.dir.path(), admin, mqtt);
        node.args(["run", "--config", &file, "--node-id", name]);
        node.args(["--set", "storage.promise=buffered", "--set", "node.shards=2"]);
        node.args(["--data-dir", &data.display().to_string(), "--admin", &admin.to_string()]);
        node
    }

    /// Writes the configuration file of a node.
    pub(crate) fn configure(&self, name: &str, toml: &str) -> String {
        let file = self.path(&format!("{name}.toml"));
        std::fs::write(&file, toml).expect("a file can be written");
        file.display().to_string()
    }

    /// A node that is not started, of the development mesh of this site's home.
    pub(crate) fn mesh_node(&self, name: &str, role: &str, join: &[&Node]) -> Node {
        let mut node = self.node(name);
        node.args(["--role", role, "--set", "mesh.dev=true"]);
        in_mesh(&mut node, join);
        node
    }

    /// A cloud tier that is not started, of the same mesh.
    pub(crate) fn cloud(&self, name: &str, join: &[&Node]) -> Node {
        let admin = ports::free();
        let data = self.path(&format!("{name}.data")).display().to_string();
        let lake = self.lake().display().to_string();
        let program = programs::verge_cloud();
        let mut cloud = Node::new(program, name, self.dir.path(), admin, ports::free());
        cloud.args(["run", "--node-id", name, "--data-dir", &data, "--lake", &lake]);
        cloud.args(["--admin", &admin.to_string(), "--set", "mesh.dev=true"]);
        in_mesh(&mut cloud, join);
        cloud
    }

    /// The tables of this site.
    pub(crate) fn lake(&self) -> PathBuf {
        self.path("lake")
    }

    /// A command of `verge` here.
    pub(crate) fn verge<const N: usize>(&self, args: [&str; N]) -> Command {
        self.command(&programs::verge(), &args)
    }

    /// A command of `verge-cloud` here.
    pub(crate) fn verge_cloud<const N: usize>(&self, args: [&str; N]) -> Command {
        self.command(&programs::verge_cloud(), &args)
    }

    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.dir.path()).env("HOME", self.home());
        without_settings(&mut command);
        command
    }
}

fn in_mesh(node: &mut Node, join: &[&Node]) {
    let mesh = ports::free();
    node.mesh = Some(mesh);
    node.args(["--mesh-listen", &mesh.to_string()]);
    for peer in join {
        node.args(["--join", &peer.mesh_addr().to_string()]);
    }
}

/// Settings of the user's own nodes are none of the test's.
pub(crate) fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("VERGE") {
            command.env_remove(name);
        }
    }
}

static TURNS: Mutex<usize> = Mutex::new(AT_ONCE);
static TURN_ENDED: Condvar = Condvar::new();

/// One of [`AT_ONCE`].
struct Turn;

impl Turn {
    fn take() -> Self {
        let free = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = TURN_ENDED.wait_while(free, |free| *free == 0);
        *waited.unwrap_or_else(PoisonError::into_inner) -= 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TURNS.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        TURN_ENDED.notify_one();
    }
}
