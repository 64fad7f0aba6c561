//! How many instructions the hot path takes, as callgrind counts them: the same on a noisy machine as
//! on a quiet one, so that a change that makes a message dearer is seen when it is made.
//!
//! The test runs its own program again under valgrind, once for each case, where [`hot_path`] does the
//! case's steps inside one function; callgrind counts inside that function only.
//! `expected.txt` holds what was counted when it was last written: `make bench-counts`.

mod cases;
mod expected;

#[path = "../../node/broker-core/benches/rig/mod.rs"]
mod rig;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use self::cases::{CASES, Counted, STEPS};
use self::expected::{Expected, Verdict};

/// The case to count, in the program that runs under valgrind.
const COUNTING: &str = "VERGE_COUNTS";
/// Set to write what was counted instead of judging it.
const UPDATE: &str = "VERGE_COUNTS_UPDATE";
/// Steps before those that are counted.
const WARM_STEPS: u64 = 20;
/// The level the expectations were counted at.
const OPT_LEVEL: &str = "3";

/// Every case does what it says; under valgrind, this is what is counted.
#[test]
fn hot_path() {
    let counting = std::env::var(COUNTING).ok();
    for case in CASES {
        if counting.as_ref().is_some_and(|name| name != case.name) {
            continue;
        }
        let mut step = (case.make)();
        // Tables and buffers find their size.
        (0..WARM_STEPS).for_each(|_| step());
        counted_steps(&mut *step);
    }
}

/// What callgrind looks for: it counts from entry to return.
#[inline(never)]
fn counted_steps(step: &mut dyn FnMut()) {
    for _ in 0..STEPS {
        step();
    }
}

#[test]
fn the_hot_path_takes_no_more_instructions_than_expected() {
    let dir = tempfile::tempdir().unwrap();
    let counted = count(dir.path());
    if std::env::var_os(UPDATE).is_some() {
        expected::write(&counted);
        return;
    }
    let level = env!("VERGE_OPT_LEVEL");
    if level != OPT_LEVEL {
        println!("compiled at level {level}: counts are known for level {OPT_LEVEL} only");
        return;
    }
    let expected = Expected::read();
    let mut worse = Vec::new();
    println!(
        "{:<28} {:>10} {:>10} {:>8}",
        "instructions a message", "expected", "counted", "change"
    );
    for (name, count) in &counted {
        let verdict = expected.judge(name, *count);
        println!("{name:<28} {verdict}");
        if matches!(verdict, Verdict::Worse { .. } | Verdict::Unknown { .. }) {
            worse.push(format!("{name} {verdict}"));
        }
    }
    assert!(
        worse.is_empty(),
        "dearer than expected (make bench-counts, if it must be): {worse:#?}"
    );
}

/// Instructions of one message, by case.
fn count(dir: &Path) -> Vec<(&'static str, u64)> {
    CASES.iter().map(|case| (case.name, count_one(dir, case))).collect()
}

fn count_one(dir: &Path, case: &Counted) -> u64 {
    let out = dir.join("callgrind.out");
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .arg("--toggle-collect=*counted_steps*")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().expect("this program has a path"))
        .args(["--exact", "hot_path", "--test-threads=1"])
        .env(COUNTING, case.name)
        .stdout(Stdio::null())
        .status()
        .expect("valgrind is there: make test-deps");
    assert!(status.success(), "{} under valgrind: {status}", case.name);
    let text = fs::read_to_string(&out).expect("callgrind wrote its profile");
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    let total: u64 =
        total.expect("a profile has a total").trim().parse().expect("a total is a number");
    assert!(total > 0, "{}: the steps were found by name", case.name);
    total / (STEPS * case.messages)
}
