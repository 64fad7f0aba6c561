//! The programs under test, and the ones they are tested with.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;

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
    let (stdout, stderr) = (drained(child.stdout.take()), drained(child.stderr.take()));
    let deadline = now() + SOON * 2;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break Some(status);
        }
        if now() > deadline {
            child.kill().expect("a child can be ended");
            child.wait().expect("an ended child can be waited for");
            break None;
        }
        pause(std::time::Duration::from_millis(5));
    };
    let bytes = |thread: JoinHandle<Vec<u8>>| thread.join().expect("a reader does not panic");
    let (stdout, stderr) = (bytes(stdout), bytes(stderr));
    let said = || String::from_utf8_lossy(&stderr).into_owned();
    let status = status.unwrap_or_else(|| panic!("{command:?} did not end: {}", said()));
    Output { status, stdout, stderr }
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
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Starts a program whose output is read when it has ended.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(child.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Waits for its end, which must be a success, and gives what it printed.
    pub(crate) fn output(self) -> String {
        let (status, stdout, stderr) = self.ended();
        assert!(status.success(), "{status}: {stdout}{stderr}");
        stdout
    }

    /// Waits for its end, which must be a failure, and gives what it said of it.
    pub(crate) fn complaint(self) -> String {
        let (status, stdout, stderr) = self.ended();
        assert!(!status.success(), "{stdout}{stderr}");
        stderr
    }

    /// Waits for its end; what it printed is read meanwhile, since it may be more than a pipe holds.
    fn ended(mut self) -> (ExitStatus, String, String) {
        let (stdout, stderr) = (drained(self.0.stdout.take()), drained(self.0.stderr.take()));
        let child = &mut self.0;
        let status =
            eventually("the program ends", || child.try_wait().expect("a child can be waited for"));
        let text = |thread: JoinHandle<Vec<u8>>| {
            let bytes = thread.join().expect("a reader does not panic");
            String::from_utf8(bytes).expect("programs print text")
        };
        (status, text(stdout), text(stderr))
    }
}

/// Reads a pipe to its end on a thread.
fn drained(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        }
        bytes
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_program_may_print_more_than_a_pipe_holds() {
    let print = |to: &str| {
        let mut shell = installed("sh");
        shell.args(["-c", &format!("yes 0123456 | head -c 1000000 {to}")]);
        shell
    };
    assert_eq!(Running::spawn(&mut print("")).output().len(), 1_000_000);
    assert_eq!(output_of(&mut print("")).len(), 1_000_000);
    let mut fails = print(">&2; exit 3");
    assert_eq!(Running::spawn(&mut fails).complaint().len(), 1_000_000);
}
