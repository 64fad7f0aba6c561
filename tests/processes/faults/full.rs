//! A disk that fills: a small file system in memory, mounted where the node keeps its data.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use verge_mqtt_proto::{QoS, ReasonCode};

use super::{Publisher, away, closes_311, drain, goes_on_without_a_disk, refuses, takes};
use crate::programs::run;
use crate::site::Site;

/// A file system of its own, unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None`, loudly, where nothing can be mounted.
    fn tmpfs(site: &Site, name: &str, megabytes: u32) -> Option<Self> {
        let at = site.path(&format!("{name}.data"));
        fs::create_dir(&at).expect("a directory can be made");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]).arg(&at);
        let output = run(&mut mount);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            eprintln!("SKIPPED: no file system can be mounted here, so no full disk: {said}");
            return None;
        }
        Some(Self(at))
    }

    /// Takes what is left, so that a compaction gives the node none of it.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("ballast")).expect("a file can be made");
        while file.write_all(&[0; 4_096]).is_ok() {}
    }

    fn remount(&self, how: &str) {
        let mut mount = Command::new("mount");
        let output = run(mount.args(["-o", &format!("remount,{how}")]).arg(&self.0));
        assert!(output.status.success(), "remount: {output:?}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(&self.0));
    }
}

/// Settings under which queues do not fill before the disk.
const DEEP: [&str; 3] =
    ["queue.bytes_max=1073741824", "storage.write_buffer_bytes=4194304", "storage.promise=synced"];

/// Fills, is borne, gets room, goes on.
fn fills(name: &str, reserve: &str, kind: &str) {
    let site = Site::new();
    let Some(mount) = Mount::tmpfs(&site, name, 96) else { return };
    let mut node = site.node(name).with(DEEP).with([reserve]).started();
    let mut once = away(&node, QoS::ExactlyOnce);
    let mut publisher = Publisher::new(&node, QoS::AtLeastOnce, 60_000);
    let refused = std::iter::repeat_with(|| publisher.publish(&node)).take(4_000).flatten().next();
    assert_eq!(refused, Some(ReasonCode::QuotaExceeded), "{}", node.log());
    if kind == "full" {
        mount.fill();
        let again =
            std::iter::repeat_with(|| publisher.publish(&node)).take(4_000).flatten().next();
        assert_eq!(again, Some(ReasonCode::QuotaExceeded), "{}", node.log());
    }
    refuses(&node, kind);
    goes_on_without_a_disk(&node);
    closes_311(&node);
    assert_eq!(publisher.publish(&node), Some(ReasonCode::QuotaExceeded));

    mount.remount("size=300m");
    takes(&node);
    publisher.publish_all(&node, 20);
    node.balances();
    node.kill();
    node.start();
    assert_eq!(drain(&mut once, &node), publisher.taken);
    node.balances();
}

#[test]
fn a_full_disk_is_refused_and_the_node_recovers_by_itself_when_there_is_room() {
    fills("full", "storage.reserve_bytes=0", "full");
}

#[test]
fn what_is_held_back_is_not_used_for_messages() {
    fills("held-back", "storage.reserve_bytes=33554432", "reserve");
}

#[test]
fn queues_drain_when_no_message_finds_room_and_that_makes_room() {
    let site = Site::new();
    let Some(_mount) = Mount::tmpfs(&site, "drains", 96) else { return };
    let node = site.node("drains").with(DEEP).with(["storage.reserve_bytes=33554432"]).started();
    let mut away = away(&node, QoS::AtLeastOnce);
    let mut publisher = Publisher::new(&node, QoS::AtLeastOnce, 60_000);
    let refused = std::iter::repeat_with(|| publisher.publish(&node)).take(4_000).flatten().next();
    assert_eq!(refused, Some(ReasonCode::QuotaExceeded), "{}", node.log());
    assert_eq!(drain(&mut away, &node), publisher.taken);
    takes(&node);
    publisher.publish_all(&node, 5);
    node.balances();
}

#[test]
fn a_file_system_mounted_read_only_is_refused_at_start_with_one_line() {
    let site = Site::new();
    let Some(mount) = Mount::tmpfs(&site, "read-only", 96) else { return };
    let mut node = site.node("read-only").with(["storage.reserve_bytes=0"]).started();
    assert!(node.terminate().success());
    mount.remount("ro");
    let line = node.refuses_to_start();
    assert!(line.contains("takes no writes") && line.contains("--data-dir"), "{line}");
    mount.remount("rw");
    node.start();
}
