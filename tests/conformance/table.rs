//! The cases, and how they are run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::bench::{Bench, Nodes};
use crate::cases;
use crate::wire::Version;
use crate::wire::stream::Transport;

/// Cases that run at once: most of them wait for the node.
const WORKERS: usize = 8;

/// How a client writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bytes {
    /// A packet at once.
    Together,
    /// Every byte by itself.
    Single,
}

/// How many of the cases are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of them.
    Whole,
    /// Those of sections that speak of bytes and connections more than of messages.
    Quick,
}

impl Extent {
    /// The whole, if `VERGE_CONFORMANCE` says so.
    pub(crate) fn of_environment() -> Self {
        match std::env::var("VERGE_CONFORMANCE") {
            Ok(extent) if extent == "whole" => Self::Whole,
            Ok(_) | Err(_) => Self::Quick,
        }
    }
}

/// Something a client sees of the standard.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// The behaviour.
    pub(crate) name: &'static str,
    /// The statements of 5.0 that it shows; without any it is not run in 5.0.
    pub(crate) v5: &'static [&'static str],
    /// The statements of 3.1.1 that it shows; without any it is not run in 3.1.1.
    pub(crate) v4: &'static [&'static str],
    pub(crate) run: fn(&Bench),
}

/// A table of cases: the function's name, and what it shows of each version.
macro_rules! behaviours {
    ($($name:ident { 5: [$($v5:literal),*], 4: [$($v4:literal),*] })*) => {
        pub(crate) const CASES: &[crate::table::Case] = &[$(crate::table::Case {
            name: stringify!($name),
            v5: &[$($v5),*],
            v4: &[$($v4),*],
            run: $name,
        }),*];
    };
}
pub(crate) use behaviours;

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    cases::ALL.iter().flat_map(|cases| cases.iter().copied()).collect()
}

/// Runs the cases in the versions they speak of, and fails with all that failed.
pub(crate) fn run(transport: Transport, bytes: Bytes, extent: Extent) {
    let only = std::env::var("VERGE_CASE").unwrap_or_default();
    let mut runs = Vec::new();
    let cases = if extent == Extent::Whole { all() } else { cases::QUICK.concat() };
    for case in cases.into_iter().filter(|case| case.name.contains(&only)) {
        runs.extend((!case.v5.is_empty()).then_some((case, Version::V5)));
        runs.extend((!case.v4.is_empty()).then_some((case, Version::V4)));
    }
    assert!(!runs.is_empty(), "no case is called {only}");
    let nodes = Nodes::get();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((case, version)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let bench = Bench::new(nodes.clone(), *version, transport, bytes);
                    let result = catch_unwind(AssertUnwindSafe(|| (case.run)(&bench)));
                    if let Err(panic) = result {
                        let what = panic
                            .downcast_ref::<String>()
                            .cloned()
                            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                        let what = what.unwrap_or_default();
                        let line = format!("{} in {}: {what}", case.name, version.name());
                        failed.lock().expect("nobody panics with the list").push(line);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics with the list");
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), runs.len(), failed.join("\n"));
}
