//! The programs under test, and the ones they are tested with.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::time::{SOON, eventually, now, pause};

/// `verge` of this build.
pub(crate) fn verge() -> PathBuf {
    built("verge")
}

/// `verge-cloud` of this build.
pub(crate) fn verge_cloud() -> PathBuf {
    built("verge-cloud")
}

/// The folder of the build that this test belongs to: `target/release`.
pub(crate) fn build_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    // target/release/deps/processes-0123456789abcdef
    test.ancestors().nth(2).expect("a test is built two folders deep").to_owned()
}

fn built(name: &str) -> PathBuf {
    let dir = std::env::var_os("VERGE_BIN_DIR").map_or_else(build_dir, PathBuf::from);
    let path = dir.join(name);
    assert!(path.is_file(), "{} is missing: run `make build`", path.display());
    path
}

/// A program that the tests need of the system.
pub(crate) fn installed(name: &str) -> Command {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()));
    assert!(found, "{name} is missing: run `make test-deps`");
    Command::new(name)
}

/// Runs to the end. A program that does not end is ended, and the test fails.
pub(crate) fn run(command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // What these programs say fits into a pipe, so that they can end before they are read.
    let deadline = now() + SOON * 2;
    while child.try_wait().expect("a child can be waited for").is_none() {
        if now() > deadline {
            child.kill().expect("a child can be ended");
            let output = child.wait_with_output().expect("an ended child has an output");
            panic!("{command:?} did not end: {output:?}");
        }
        pause(std::time::Duration::from_millis(5));
    }
    child.wait_with_output().expect("an ended child has an output")
}

/// Runs to the end, which must be a success, and gives what was printed.
pub(crate) fn output_of(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).expect("programs print text")
}

/// Runs to the end, which must be a refusal: this status, one line on standard error and nothing
/// else. Gives the line.
pub(crate) fn refusal_of(command: &mut Command, status: i32) -> String {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{command:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{command:?}: one line: {said}");
    assert!(output.stdout.is_empty(), "{command:?}: {output:?}");
    said
}

/// A program that runs beside the test; it ends with it.
pub(crate) struct Running(pub(crate) std::process::Child);

impl Running {
    /// Starts a program whose output is read when it has ended.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(child.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Waits for its end, which must be a success, and gives what it printed.
    pub(crate) fn output(mut self) -> String {
        eventually("the program ends", || self.0.try_wait().expect("a child can be waited for"));
        let mut text = String::new();
        let stdout = self.0.stdout.as_mut().expect("the output is piped");
        std::io::Read::read_to_string(stdout, &mut text).expect("programs print text");
        let status = self.0.wait().expect("a child can be waited for");
        assert!(status.success(), "{status}: {text}");
        text
    }
}

impl Running {
    /// Waits for its end, which must be a failure, and gives what it said of it.
    pub(crate) fn complaint(mut self) -> String {
        eventually("the program ends", || self.0.try_wait().expect("a child can be waited for"));
        let mut text = String::new();
        let stderr = self.0.stderr.as_mut().expect("the output is piped");
        std::io::Read::read_to_string(stderr, &mut text).expect("programs print text");
        let status = self.0.wait().expect("a child can be waited for");
        assert!(!status.success(), "{text}");
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
