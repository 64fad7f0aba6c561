//! What is going on, on standard error: one line that is rewritten on a terminal, a line now and
//! then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::Instant;

/// How often a line is written where lines stay.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress line.
#[derive(Debug)]
pub struct Progress {
    on_terminal: bool,
    /// Characters of the line that is on the terminal now.
    shown: usize,
    written: Option<Instant>,
}

impl Progress {
    /// A progress line on standard error.
    #[must_use]
    pub fn new() -> Self {
        Self { on_terminal: std::io::stderr().is_terminal(), shown: 0, written: None }
    }

    /// Shows how things are now.
    pub fn show(&mut self, line: &str) {
        if self.on_terminal {
            let width = self.shown;
            self.write(&format!("\r{line:<width$}"));
            self.shown = line.chars().count();
        } else if self.written.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            self.write(&format!("{line}\n"));
            self.written = Some(Instant::now());
        }
    }

    /// Tells what just happened, and keeps it.
    pub fn tell(&mut self, line: &str) {
        let width = std::mem::take(&mut self.shown);
        let start = if self.on_terminal { "\r" } else { "" };
        self.write(&format!("{start}{line:<width$}\n"));
    }

    /// Standard error may be closed; then nobody wants to know.
    fn write(&self, text: &str) {
        let mut out = std::io::stderr().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
