//! Python with a client library from PyPI, installed once per build folder.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use crate::programs::{build_dir, installed, output_of};

/// Python that can import `package`, given as `name==version`. The folder's name has it too, so
/// that another version is another folder.
pub(crate) fn python_with(package: &str) -> PathBuf {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _one = INSTALLING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = build_dir().with_file_name(package.replace("==", "-"));
    let python = dir.join("bin/python");
    let done = dir.join("installed");
    if !done.exists() {
        // What an interrupted installation left.
        let _ = std::fs::remove_dir_all(&dir);
        output_of(installed("python3").args(["-m", "venv"]).arg(&dir));
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", package];
        output_of(Command::new(&python).args(pip));
        std::fs::write(&done, package).expect("the build folder can be written");
    }
    python
}
