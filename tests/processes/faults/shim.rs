//! A node whose calls to the system fail, or whose clock is wrong, when a test says so.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::node::Node;
use crate::programs::{build_dir, installed, output_of};
use crate::site::Site;

/// Errors as this system numbers them (`man 3 errno`).
pub(crate) const EIO: u8 = 5;
pub(crate) const EROFS: u8 = 30;

/// The file that says what fails, at the places that `shim.c` names.
pub(crate) struct Faults(File);

impl Faults {
    /// A node under the shim, not started.
    pub(crate) fn node(site: &Site, name: &str) -> (Node, Self) {
        let path = site.path(&format!("{name}.faults"));
        fs::write(&path, [0; 16]).expect("a file can be written");
        let file = OpenOptions::new().write(true).open(&path).expect("it was just made");
        let node = site.node(name).env("LD_PRELOAD", library()).env("VERGE_FAULTS", &path);
        (node.env("VERGE_FAULTS_DIR", &site.path(&format!("{name}.data"))), Self(file))
    }

    pub(crate) fn writes(&self, errno: u8) {
        self.set(0, &[errno]);
    }

    pub(crate) fn syncs(&self, errno: u8) {
        self.set(1, &[errno]);
    }

    pub(crate) fn reads(&self, errno: u8) {
        self.set(2, &[errno]);
    }

    pub(crate) fn clock(&self, wrong_by_secs: i64) {
        self.set(8, &wrong_by_secs.to_ne_bytes());
    }

    fn set(&self, place: u64, bytes: &[u8]) {
        self.0.write_all_at(bytes, place).expect("a file can be written");
    }
}

/// The shim, compiled once.
fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/processes/faults/shim.c");
        let library = build_dir().join(format!("faults-{}.so", std::process::id()));
        let mut compile = installed("cc");
        compile.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).args([source, "-ldl"]);
        output_of(&mut compile);
        library
    })
}
