//! Nodes and the cloud tier over real links and real tables, with crashes of the cloud in between.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout};
use verge::config::Loader;
use verge_mesh_proto::uplink::{
    ENCODING_ZSTD_ROWS, EncodedRows, Frame, Outlets, SenderOutput, StreamConfig, StreamKey,
    encode_rows,
};
use verge_mesh_proto::{LinkKind, Output};
use verge_model::{MessageId, NodeKey, Role, UnixMillis};
use verge_storage::record::OutboxRecord;
use verge_storage::{MemoryStore, Record};

use super::*;
use crate::member::MemberEvent;
use crate::query::{Format, query};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_of_two_nodes_is_in_the_table_once_over_crashes_of_the_cloud() {
    let place = Place::new();
    let mesh = place.free_address();
    // Three seconds of rows, over which the cloud crashes three times.
    let nodes = ["rsu-1", "rsu-2"].map(|name| place.start_node(name, mesh, 15_000));
    for _ in 0..3 {
        let cloud = place.start_cloud(mesh).await;
        sleep(Duration::from_millis(900)).await;
        // As by SIGKILL: whatever is held, being committed or not yet acknowledged is lost.
        cloud.crash().await;
    }
    let cloud = place.start_cloud(mesh).await;
    for node in nodes {
        timeout(Duration::from_secs(60), node).await.expect("all rows are trimmed").unwrap();
    }
    cloud.stop().await;
    let csv = place
        .ask(
            "SELECT origin, count(*), count(DISTINCT seq), min(seq), max(seq) FROM messages \
              GROUP BY origin ORDER BY origin",
        )
        .await;
    let lines: Vec<&str> = csv.lines().skip(1).collect();
    assert_eq!(lines, ["rsu-1,15000,15000,1,15000", "rsu-2,15000,15000,1,15000"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ending_commits_and_acknowledges_what_is_held() {
    let place = Place::new();
    let mesh = place.free_address();
    let cloud = place.start_cloud_with(mesh, &["lake.commit_interval=1h"]).await;
    let node = place.start_node("rsu-1", mesh, 50);
    let mut status = cloud.status.clone();
    let held = status.wait_for(|status| status.uplinks.iter().any(|log| log.accepted == 50));
    timeout(Duration::from_secs(30), held).await.expect("rows arrive").unwrap();
    assert_eq!(place.ask("SELECT count(*) FROM messages").await, "count(*)\n0\n");
    cloud.stop().await;
    timeout(Duration::from_secs(10), node).await.expect("the node was told").unwrap();
    assert_eq!(place.ask("SELECT count(*) FROM messages").await, "count(*)\n50\n");
}

/// A mesh's certificates, a lake and data directories, removed when dropped.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Cloud {
    stop: watch::Sender<bool>,
    status: watch::Receiver<Status>,
    runtime: Option<tokio::runtime::Runtime>,
    task: JoinHandle<Result<(), UplinksError>>,
}

impl Cloud {
    /// Ends every task at once.
    async fn crash(mut self) {
        let runtime = self.runtime.take();
        tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
    }

    async fn stop(mut self) {
        self.stop.send_replace(true);
        (&mut self.task).await.unwrap().unwrap();
        self.crash().await;
    }
}

impl Place {
    fn new() -> Self {
        let name = format!("verge-cloud-{}-{:016x}", std::process::id(), rand::random::<u64>());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        pki::init_ca(&dir.join("ca")).unwrap();
        Self(dir)
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Below the ports the kernel gives to others, so that it stays free while nobody listens.
    fn free_address(&self) -> SocketAddr {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let place = std::process::id().wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            let address = SocketAddr::from(([127, 0, 0, 1], 10_000 + (place % 2_000) as u16));
            if std::net::UdpSocket::bind(address).is_ok() {
                return address;
            }
        }
    }

    fn certified(&self, name: &str) -> IdentityFiles {
        let dir = self.dir(&format!("cert-{name}"));
        if !dir.exists() {
            let node = name.parse().unwrap();
            pki::issue_node(&self.dir("ca"), &node, pki::Validity::default(), &dir).unwrap();
        }
        let file = |suffix: &str| dir.join(format!("{name}.{suffix}"));
        IdentityFiles { cert: file("pem"), key: file("key"), ca: dir.join("ca.pem"), crl: None }
    }

    async fn start_cloud(&self, mesh: SocketAddr) -> Cloud {
        self.start_cloud_with(mesh, &["lake.commit_interval=100ms"]).await
    }

    /// Starts in a runtime of its own, so that a crash leaves nothing behind.
    async fn start_cloud_with(&self, mesh: SocketAddr, settings: &[&str]) -> Cloud {
        let files = self.certified("cloud");
        let mut loader = Loader::new();
        let path = |path: &Path| path.display().to_string();
        for setting in [
            "node.id=cloud".to_owned(),
            format!("node.data_dir={}", path(&self.dir("cloud"))),
            format!("lake.dir={}", path(&self.dir("lake"))),
            format!("mesh.listen={mesh}"),
            format!("mesh.cert={}", path(&files.cert)),
            format!("mesh.key={}", path(&files.key)),
            format!("mesh.ca={}", path(&files.ca)),
            "admin.listen=127.0.0.1:0".to_owned(),
        ] {
            loader.set(&setting).unwrap();
        }
        settings.iter().for_each(|setting| loader.set(setting).unwrap());
        let config = loader.finish(Role::Cloud).unwrap().config;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let app = runtime.spawn(start_patiently(config)).await.unwrap();
        assert!(app.ready_line().starts_with(&format!("ready node=cloud listeners=mesh://{mesh}")));
        let status = app.uplinks.status_reader();
        let (stop, stopped) = watch::channel(false);
        let task = runtime.spawn(app.run(stopped));
        Cloud { stop, status, runtime: Some(runtime), task }
    }

    /// A node to whose outbox 50 rows are appended every 10 ms, up to `rows`; the task ends when all
    /// of them are trimmed.
    fn start_node(&self, name: &str, cloud: SocketAddr, rows: u64) -> JoinHandle<()> {
        let id: NodeId = name.parse().unwrap();
        let identity = MeshIdentity::load(&id, &self.certified(name)).unwrap();
        tokio::spawn(run_node(id, identity, cloud, rows))
    }

    async fn ask(&self, sql: &str) -> String {
        let mut out = Vec::new();
        query(&Lake::Dir(self.dir("lake")), sql, Format::Csv, &mut out).await.unwrap();
        String::from_utf8(out).unwrap()
    }
}

/// The writer's thread of a crashed predecessor may hold the directory a moment longer.
async fn start_patiently(config: Config) -> App {
    let give_up = Instant::now() + Duration::from_secs(10);
    loop {
        match App::start(config.clone()).await {
            Ok(app) => return app,
            Err(error) => assert!(Instant::now() < give_up, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn run_node(id: NodeId, identity: MeshIdentity, cloud: SocketAddr, rows: u64) {
    let clock = Clock::start();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let (links, events) = Links::bind(LinksConfig::new(listen, identity)).unwrap();
    let core_config = MeshConfig {
        node_id: id.clone(),
        role: Role::Rsu,
        region: "default".into(),
        advertise: links.local_addr(),
        position: None,
        listeners: Vec::new(),
        admin: None,
        incarnation: 1,
        log_id: 7,
        dials_only: false,
        join: vec![cloud],
        lookup_timeout: MeshConfig::LOOKUP_TIMEOUT,
    };
    let core = MeshCore::new(core_config, Restored::default(), clock.now(), rand::random());
    let store = Arc::new(MemoryStore::new(&id, 7));
    let (handle, _writer) = Writer::spawn(store, 16);
    let mut member = Member::new(core, links, events, handle, clock);
    let stream = StreamKey { origin: id.key(), log_id: 7, stream: 0 };
    let config =
        StreamConfig { stream, origin_id: id.clone(), name: DEFAULT_STREAM_NAME.to_owned() };
    let mut outlets = Outlets::new(config, 1, 1);
    let mut appended = 0;
    let mut ticks = interval(Duration::from_millis(10));
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                appended = rows.min(appended + 50);
                outlets.handle_bounds(1, appended + 1);
                outlets.handle_timeout(clock.now());
            }
            event = member.recv() => match event.unwrap() {
                MemberEvent::Linked { peer, kind: LinkKind::Bulk } if peer.as_str() == "cloud" => {
                    outlets.handle_link_up(peer.key(), clock.now());
                }
                MemberEvent::Unlinked { peer, kind: LinkKind::Bulk } => {
                    outlets.handle_link_down(peer.key());
                }
                MemberEvent::Core(output) => if let Output::Uplink { from, bytes } = *output {
                    outlets.handle_frame(from, &Frame::decode(&bytes).unwrap(), clock.now());
                },
                MemberEvent::Linked { .. } | MemberEvent::Unlinked { .. } => {}
            }
        }
        while let Some(output) = outlets.poll_output() {
            match output {
                SenderOutput::Send { peer, frame } => {
                    if !member.core_mut().send_uplink(peer, frame) {
                        outlets.handle_link_down(peer);
                    }
                }
                SenderOutput::Read { peer, from, rows_max, .. } => {
                    let last = appended.min(from + rows_max as u64 - 1);
                    outlets.handle_rows(peer, from, Some(encoded(peer, from, last)), clock.now());
                }
                SenderOutput::Trim { upto } if upto == rows => return member.leave().await,
                SenderOutput::Trim { .. } => {}
                SenderOutput::LogBehind { last, .. } => panic!("{last} was never appended"),
            }
        }
    }
}

fn encoded(node: NodeKey, from: u64, last: u64) -> EncodedRows {
    let row = |seq| {
        let record = OutboxRecord {
            id: MessageId { node, incarnation: 1, seq },
            published_at: UnixMillis(1_795_500_000_000 + seq),
            client_id: "v-1".into(),
            topic: "v2x/cam".into(),
            qos: 1,
            payload: Bytes::from(format!("{{\"lat\":48.5,\"n\":{seq}}}")),
        };
        (seq, record.encode())
    };
    let raw = encode_rows(&(from..=last).map(row).collect::<Vec<_>>());
    EncodedRows {
        last,
        encoding: ENCODING_ZSTD_ROWS,
        raw_len: raw.len().try_into().unwrap(),
        bytes: zstd::bulk::compress(&raw, 1).unwrap().into(),
    }
}
