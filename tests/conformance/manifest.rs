//! `manifest.toml`: every numbered normative statement of MQTT 5.0 and 3.1.1, where it is implemented
//! and what shows it.
//!
//! The test holds it complete and true: all numbers are there, once; every statement that binds a
//! Server is shown by a test, or says why not; what it names exists; and the cases of this program
//! and the manifest name each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::table;

/// How many statements each section has, as the appendices B of the standards list them: in all 251
/// of 5.0 (of 7 March 2019) and 141 of 3.1.1 (of 29 October 2014). Numbers run from 1, but for the
/// sections in [`FIRST`].
const SECTIONS: [(&str, &[(&str, u32)]); 2] = [
    (
        "5.0",
        &[
            ("1.5.4", 3),
            ("1.5.5", 1),
            ("1.5.7", 1),
            ("2.1.3", 1),
            ("2.2.1", 6),
            ("2.2.2", 1),
            ("3.1.0", 2),
            ("3.1.2", 30),
            ("3.1.3", 12),
            ("3.1.4", 6),
            ("3.2.0", 2),
            ("3.2.2", 22),
            ("3.3.1", 13),
            ("3.3.2", 20),
            ("3.3.4", 10),
            ("3.4.2", 3),
            ("3.5.2", 3),
            ("3.6.1", 1),
            ("3.6.2", 3),
            ("3.7.2", 3),
            ("3.8.1", 1),
            ("3.8.3", 5),
            ("3.8.4", 8),
            ("3.9.2", 2),
            ("3.9.3", 2),
            ("3.10.1", 1),
            ("3.10.3", 2),
            ("3.10.4", 6),
            ("3.11.2", 2),
            ("3.11.3", 2),
            ("3.12.4", 1),
            ("3.14.0", 1),
            ("3.14.1", 1),
            ("3.14.2", 4),
            ("3.14.4", 3),
            ("3.15.1", 1),
            ("3.15.2", 3),
            ("4.1.0", 2),
            ("4.2.0", 1),
            ("4.3.1", 1),
            ("4.3.2", 5),
            ("4.3.3", 13),
            ("4.4.0", 2),
            ("4.5.0", 2),
            ("4.6.0", 6),
            ("4.7.0", 1),
            ("4.7.1", 2),
            ("4.7.2", 1),
            ("4.7.3", 4),
            ("4.8.2", 6),
            ("4.9.0", 3),
            ("4.12.0", 7),
            ("4.12.1", 2),
            ("4.13.1", 1),
            ("4.13.2", 1),
            ("6.0.0", 4),
        ],
    ),
    (
        "3.1.1",
        &[
            ("1.5.3", 3),
            ("2.2.2", 2),
            ("2.3.1", 7),
            ("3.1.0", 2),
            ("3.1.2", 24),
            ("3.1.3", 11),
            ("3.1.4", 5),
            ("3.2.0", 1),
            ("3.2.2", 6),
            ("3.3.1", 12),
            ("3.3.2", 3),
            ("3.3.4", 1),
            ("3.3.5", 2),
            ("3.6.1", 1),
            ("3.8.1", 1),
            ("3.8.3", 4),
            ("3.8.4", 6),
            ("3.9.3", 2),
            ("3.10.1", 1),
            ("3.10.3", 2),
            ("3.10.4", 6),
            ("3.12.4", 1),
            ("3.14.1", 1),
            ("3.14.4", 3),
            ("4.1.0", 2),
            ("4.3.1", 1),
            ("4.3.2", 2),
            ("4.3.3", 2),
            ("4.4.0", 1),
            ("4.5.0", 2),
            ("4.6.0", 6),
            ("4.7.1", 3),
            ("4.7.2", 1),
            ("4.7.3", 4),
            ("4.8.0", 2),
            ("6.0.0", 4),
            ("7.0.0", 2),
            ("7.1.1", 1),
            ("7.1.2", 1),
        ],
    ),
];

/// Sections whose first number is not 1: 5.0 has no 2.2.1-1.
const FIRST: [(&str, &str, u32); 1] = [("5.0", "2.2.1", 2)];

/// Where the packages that hold tests are.
const PACKAGES: [(&str, &str); 4] = [
    ("verge", "node"),
    ("verge-broker-core", "node/broker-core"),
    ("verge-mqtt-proto", "node/mqtt-proto"),
    ("verge-tests", "tests"),
];

/// A statement of the manifest.
struct Statement {
    number: String,
    version: String,
    binds: String,
    implemented: Vec<String>,
    shown: Vec<String>,
    status: Option<String>,
}

impl Statement {
    fn name(&self) -> String {
        format!("{} of {}", self.number, self.version)
    }
}

#[test]
fn every_statement_is_shown_or_says_why_not() {
    let manifest = read();
    let mut wrong = numbers_that_are_wrong(&manifest);
    for statement in &manifest {
        let name = statement.name();
        match (statement.shown.is_empty(), statement.status.as_deref()) {
            (true, None) => wrong.push(format!("{name} is not shown and says not why")),
            (false, Some(status)) => wrong.push(format!("{name} is shown and is a {status}")),
            (true, Some("gap" | "not-applicable")) | (false, None) => {}
            (true, Some(status)) => wrong.push(format!("{name}: a status is no {status}")),
        }
        if !["server", "client", "both"].contains(&statement.binds.as_str()) {
            wrong.push(format!("{name} binds {}", statement.binds));
        }
        if statement.implemented.is_empty() && statement.status.is_none() {
            wrong.push(format!("{name} is implemented nowhere"));
        }
        let code = statement.implemented.iter().filter(|place| !is_code(place));
        wrong.extend(code.map(|place| format!("{name}: there is no {place}")));
        let tests = statement.shown.iter().filter(|test| !is_test(test));
        wrong.extend(tests.map(|test| format!("{name}: there is no test {test}")));
    }
    wrong.extend(cases_that_disagree(&manifest));
    println!("{}", coverage(&manifest));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").to_owned()
}

fn read() -> Vec<Statement> {
    let path = root().join("tests/conformance/manifest.toml");
    let text = fs::read_to_string(path).expect("the manifest can be read");
    let table: toml::Table = text.parse().expect("the manifest is TOML");
    let known = ["number", "version", "says", "binds", "implemented", "shown", "status", "reason"];
    let statements = table["statement"].as_array().expect("a list of statements");
    let statements = statements.iter().map(|entry| {
        let entry = entry.as_table().expect("a statement is a table");
        let text = |key: &str| entry.get(key).and_then(toml::Value::as_str).map(str::to_owned);
        let number = text("number").expect("a statement has a number");
        let list = |key: &str| -> Vec<String> {
            let list = entry.get(key).and_then(toml::Value::as_array);
            let texts = list.into_iter().flatten();
            texts.map(|item| item.as_str().expect("a list of texts").to_owned()).collect()
        };
        assert!(entry.keys().all(|key| known.contains(&key.as_str())), "{number}: an unknown key");
        assert!(text("says").is_some_and(|says| !says.is_empty()), "{number} says nothing");
        let status = text("status");
        assert_eq!(status.is_some(), text("reason").is_some(), "{number}: a status has a reason");
        Statement {
            version: text("version").expect("a statement has a version"),
            binds: text("binds").expect("a statement binds someone"),
            implemented: list("implemented"),
            shown: list("shown"),
            number,
            status,
        }
    });
    statements.collect()
}

/// Numbers that are missing, doubled, or none of the standard's.
fn numbers_that_are_wrong(manifest: &[Statement]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut all = BTreeSet::new();
    for (version, sections) in SECTIONS {
        for &(section, count) in sections {
            let first = FIRST.iter().find(|(of, place, _)| (*of, *place) == (version, section));
            let first = first.map_or(1, |(.., first)| *first);
            all.extend(
                (first..=count)
                    .map(|number| (version.to_owned(), format!("MQTT-{section}-{number}"))),
            );
        }
    }
    let mut seen = BTreeSet::new();
    for statement in manifest {
        let key = (statement.version.clone(), statement.number.clone());
        if !all.contains(&key) {
            wrong.push(format!("the standard has no {}", statement.name()));
        }
        if !seen.insert(key) {
            wrong.push(format!("{} is there twice", statement.name()));
        }
    }
    wrong.extend(
        all.difference(&seen).map(|(version, number)| format!("{number} of {version} is missing")),
    );
    wrong
}

/// Whether `path` or `path::function` is in the sources.
fn is_code(place: &str) -> bool {
    let (path, item) = place.split_once("::").unwrap_or((place, ""));
    let Ok(text) = fs::read_to_string(root().join(path)) else { return false };
    item.is_empty() || has_function(&text, item)
}

/// Whether `package::module::test`, or a case `conformance::module::name`, is in the sources.
fn is_test(test: &str) -> bool {
    let parts: Vec<&str> = test.split("::").collect();
    let [package, modules @ .., name] = &parts[..] else { return false };
    if *package == "conformance" {
        let [module] = modules else { return false };
        let path = format!("tests/conformance/cases/{module}.rs");
        return is_code(&format!("{path}::{name}"))
            && table::all().iter().any(|case| case.name == *name);
    }
    let Some((_, dir)) = PACKAGES.iter().find(|(of, _)| of == package) else { return false };
    let module = modules.join("/");
    let inline = modules.strip_suffix(&["tests"]).unwrap_or(modules).join("/");
    let places = [
        format!("{dir}/src/{module}.rs"),
        format!("{dir}/src/{inline}.rs"),
        format!("{dir}/src/{inline}/mod.rs"),
        format!("{dir}/tests/{module}.rs"),
        format!("{dir}/{module}.rs"),
    ];
    places
        .iter()
        .any(|path| fs::read_to_string(root().join(path)).is_ok_and(|text| is_test_in(&text, name)))
}

fn has_function(text: &str, name: &str) -> bool {
    text.contains(&format!("fn {name}(")) || text.contains(&format!("fn {name}<"))
}

/// Whether the function is one that the harness runs: `#[test]` stands over it.
fn is_test_in(text: &str, name: &str) -> bool {
    let Some((before, _)) = text.split_once(&format!("fn {name}()")) else { return false };
    before.rsplit("\n\n").next().is_some_and(|over| over.contains("#[test]"))
}

/// Cases that a statement names without being named by them, and the other way round.
fn cases_that_disagree(manifest: &[Statement]) -> Vec<String> {
    let mut said: BTreeMap<(&str, String), BTreeSet<&str>> = BTreeMap::new();
    for case in table::all() {
        for (version, numbers) in [("5.0", case.v5), ("3.1.1", case.v4)] {
            for number in numbers {
                let key = (version, format!("MQTT-{number}"));
                let new = said.entry(key).or_default().insert(case.name);
                assert!(new, "{} names {number} twice, or two cases have its name", case.name);
            }
        }
    }
    let mut wrong = Vec::new();
    for statement in manifest {
        let key = (statement.version.as_str(), statement.number.clone());
        let by_cases = said.remove(&key).unwrap_or_default();
        let names = statement.shown.iter().filter(|test| test.starts_with("conformance::"));
        let here: BTreeSet<&str> = names.filter_map(|test| test.rsplit("::").next()).collect();
        wrong.extend(by_cases.symmetric_difference(&here).map(|case| {
            format!("{}: the manifest and the case {case} disagree", statement.name())
        }));
    }
    wrong.extend(said.keys().map(|(version, number)| {
        format!("cases name {number} of {version}, which is not in the manifest")
    }));
    wrong
}

/// The coverage as a table.
fn coverage(manifest: &[Statement]) -> String {
    let mut text =
        String::from("version  binds    statements  shown  at the wire  gap  not applicable");
    for version in ["5.0", "3.1.1"] {
        for binds in ["server", "both", "client"] {
            let of: Vec<&Statement> = manifest
                .iter()
                .filter(|statement| statement.version == version && statement.binds == binds)
                .collect();
            let count = |is: &dyn Fn(&Statement) -> bool| of.iter().filter(|s| is(s)).count();
            let status = |wanted| count(&|s| s.status.as_deref() == Some(wanted));
            let wire = count(&|s| s.shown.iter().any(|test| test.starts_with("conformance::")));
            let shown = count(&|s| !s.shown.is_empty());
            let (gap, other) = (status("gap"), status("not-applicable"));
            let all = of.len();
            write!(
                text,
                "\n{version:7}  {binds:7}  {all:10}  {shown:5}  {wire:11}  {gap:3}  {other:14}"
            )
            .expect("a text takes text");
        }
    }
    text
}
