//! Files that are torn, damaged, or another node's.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use verge_mqtt_proto::QoS;

use super::{Publisher, away, drain};
use crate::programs::output_of;
use crate::site::Site;

/// The files of a data directory with this extension, oldest first.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a data directory can be listed");
    let paths = entries.map(|entry| entry.expect("it can be listed to its end").path());
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

#[test]
fn garbage_at_the_end_of_the_log_takes_nothing_with_it() {
    let site = Site::new();
    let mut node = site.node("garbage").started();
    let mut once = away(&node, QoS::ExactlyOnce);
    let mut publisher = Publisher::new(&node, QoS::AtLeastOnce, 500);
    publisher.publish_all(&node, 30);
    node.kill();
    let log = files(&site.path("garbage.data"), "log").pop().expect("there is a log");
    let mut log = OpenOptions::new().append(true).open(log).expect("it can be opened");
    log.write_all(&[0xa5; 5_000]).expect("it can be written");
    node.start();
    assert_eq!(drain(&mut once, &node), publisher.taken);
    publisher.publish_all(&node, 5);
    node.balances();
}

#[test]
fn a_log_that_is_cut_short_keeps_what_came_before() {
    let site = Site::new();
    let mut node = site.node("torn").started();
    let mut once = away(&node, QoS::ExactlyOnce);
    let mut publisher = Publisher::new(&node, QoS::AtLeastOnce, 500);
    publisher.publish_all(&node, 30);
    node.kill();
    let log = files(&site.path("torn.data"), "log").pop().expect("there is a log");
    let whole = fs::metadata(&log).expect("it is there").len();
    // In the last PUBLISH: 500 bytes of payload and some rows.
    let cut = OpenOptions::new().write(true).open(&log).expect("it can be opened");
    cut.set_len(whole - 200).expect("it can be cut");
    node.start();
    assert_eq!(drain(&mut once, &node), publisher.taken[..29], "all but the last");
    publisher.publish_all(&node, 5);
    node.balances();
}

#[test]
fn a_damaged_block_hides_its_rows_and_no_others() {
    const MESSAGES: usize = 300;
    let site = Site::new();
    let mut node = site.node("damaged").started();
    let mut once = away(&node, QoS::ExactlyOnce);
    let mut publisher = Publisher::new(&node, QoS::AtLeastOnce, 3_000);
    publisher.publish_all(&node, MESSAGES);
    // The next start makes files of the log.
    node.kill();
    node.start();
    node.kill();
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |found| found.len());
    let file = files(&site.path("damaged.data"), "sst").into_iter().max_by_key(size);
    let file = file.expect("there are files");
    let mut bytes = fs::read(&file).expect("it can be read");
    assert!(bytes.len() > MESSAGES * 1_000, "the messages are in {}", file.display());
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 16] {
        *byte ^= 0x5a;
    }
    fs::write(&file, bytes).expect("it can be written");

    node.start();
    let came = drain(&mut once, &node);
    assert!(node.metric("verge_storage_left_out_total", "") > 0);
    assert!(node.metric("verge_storage_failures_total", "kind=\"corrupt\"") > 0);
    let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
    assert!(node.log().contains(&name), "the log names the file");
    assert!(came.is_sorted(), "in order, once");
    let lost = MESSAGES - came.len();
    assert!((1..=10).contains(&lost), "{lost} of {MESSAGES} were in the block");
    publisher.publish_all(&node, 5);
    assert_eq!(node.status("/readyz"), Some(200));
    node.balances();
}

#[test]
fn a_copied_directory_is_refused_under_another_name() {
    let site = Site::new();
    let mut node = site.node("original").started();
    assert!(node.terminate().success());
    let (from, to) = (site.path("original.data"), site.path("copy.data"));
    output_of(std::process::Command::new("cp").arg("-a").args([from, to]));
    let line = site.node("copy").refuses_to_start();
    assert!(line.contains("belongs to node 'original', not to 'copy'"), "{line}");
    assert!(line.contains("--node-id original"), "{line}");
    node.start();
}

#[test]
fn a_directory_in_use_is_refused() {
    let site = Site::new();
    let node = site.node("in-use").started();
    let line = site.node("in-use").refuses_to_start();
    assert!(line.contains("is in use by another process"), "{line}");
    assert_eq!(node.status("/readyz"), Some(200));
}
