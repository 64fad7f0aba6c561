//! The process: everything it is made of, in the order of dependence.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use tokio::sync::watch;
use verge::clock::Clock;
use verge::config::Config;
use verge_mesh::{IdentityFiles, Links, LinksConfig, MeshIdentity, pki};
use verge_mesh_proto::uplink::{DEFAULT_STREAM_NAME, ReceiverConfig};
use verge_mesh_proto::{MeshConfig, MeshCore, Restored};
use verge_model::NodeId;
use verge_storage::Store;
use verge_storage_rocksdb::{RocksStore, Writer};

use crate::admin::{self, AdminState};
use crate::delta::DeltaSink;
use crate::lake::Lake;
use crate::member::Member;
use crate::receive;
use crate::status::{NodeView, Status};
use crate::uplinks::{Uplinks, UplinksError};

/// Submissions waiting for the storage writer; the journal has one under way at a time.
const WRITER_QUEUE: usize = 16;

/// A process that is ready.
pub struct App {
    node_id: NodeId,
    mesh: SocketAddr,
    admin: SocketAddr,
    config: Config,
    uplinks: Uplinks,
    ready: watch::Sender<bool>,
    writer: JoinHandle<()>,
}

impl App {
    /// Opens the lake, the data directory, the links and the admin API.
    ///
    /// # Errors
    /// The first of them that cannot be had, in one line that says what to do.
    pub async fn start(config: Config) -> Result<Self, String> {
        let clock = Clock::start();
        let node_id = config.node.id.clone();
        if !config.mesh.is_on() {
            return Err("the cloud tier lives on a mesh: give --mesh-listen or --join".to_owned());
        }
        let lake: Lake = config.lake.dir.parse().map_err(|e| format!("lake.dir: {e}"))?;
        let mut sink = DeltaSink::new(lake.clone());
        sink.ensure(DEFAULT_STREAM_NAME).await.map_err(|e| format!("lake '{lake}': {e}"))?;

        let store_config = verge_storage_rocksdb::Config {
            profile: config.storage.profile.0,
            wal_bytes_max: config.storage.profile.0.wal_bytes_max(),
            reserve_bytes: config.storage.reserve_bytes,
            ..verge_storage_rocksdb::Config::new(&config.node.data_dir)
        };
        let store =
            RocksStore::open(&store_config, &node_id, rand::random()).map_err(|e| e.to_string())?;
        let restored = Restored::load(&store).map_err(|e| e.to_string())?;

        let links_config = links_config(&config, &node_id)?;
        let (links, events) = Links::bind(links_config).map_err(|e| e.to_string())?;
        let mesh = links.local_addr();
        let core_config = mesh_config(&config, mesh, &store);
        let (admin_listener, admin) = admin::bind(config.admin.listen).await?;

        let node = NodeView::of(&core_config.info(), lake.to_string());
        let core = MeshCore::new(core_config, restored, clock.now(), rand::random());
        let store = Arc::new(store);
        tokio::spawn(look_after(Arc::downgrade(&store)));
        let (handle, writer) = Writer::spawn(store, WRITER_QUEUE);
        let member = Member::new(core, links, events, handle, clock);
        let (status, _) = watch::channel(Status::default());
        let (ready, ready_reader) = watch::channel(true);
        let receiver = ReceiverConfig {
            commit_interval: config.lake.commit_interval.0.0,
            commit_rows_max: config.lake.commit_rows_max.max(1) as u64,
            ..ReceiverConfig::default()
        };
        let uplinks = Uplinks::new(member, receiver, receive::spawn(sink), clock, node, status);
        let state = AdminState { status: uplinks.status_reader(), ready: ready_reader };
        tokio::spawn(admin::serve(admin_listener, state));
        Ok(Self { node_id, mesh, admin, config, uplinks, ready, writer })
    }

    /// The line that says so.
    #[must_use]
    pub fn ready_line(&self) -> String {
        let Self { node_id, mesh, admin, .. } = self;
        format!("ready node={node_id} listeners=mesh://{mesh},admin://{admin}")
    }

    /// Runs until `stop` is true, then commits and acknowledges what is held and leaves the mesh.
    ///
    /// # Errors
    /// Something failed that only a restart mends.
    pub async fn run(self, stop: watch::Receiver<bool>) -> Result<(), UplinksError> {
        let Self { config, uplinks, ready, writer, .. } = self;
        let mut stopped = stop.clone();
        tokio::spawn(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
            ready.send_replace(false);
        });
        let outcome = uplinks.run(stop, config.shutdown.deadline.0.0).await;
        // The writer ends when its last handle went with the member: what waits is written.
        let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        outcome
    }
}

/// Looks after the disk for as long as the store is open.
async fn look_after(store: Weak<RocksStore>) {
    let mut looks = tokio::time::interval(verge::disk::LOOK_EVERY);
    loop {
        looks.tick().await;
        let Some(store) = store.upgrade() else { return };
        // A panic is in the log, and the next look is another.
        let _ = tokio::task::spawn_blocking(move || store.look_after()).await;
    }
}

fn links_config(config: &Config, node_id: &NodeId) -> Result<LinksConfig, String> {
    let mesh = &config.mesh;
    let anywhere: SocketAddr = match (mesh.dev, mesh.join.iter().all(SocketAddr::is_ipv4)) {
        (true, true) => SocketAddr::from(([127, 0, 0, 1], 0)),
        (false, true) => SocketAddr::from(([0, 0, 0, 0], 0)),
        (true, false) => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0)),
        (false, false) => SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0)),
    };
    let mut links = LinksConfig::new(mesh.listen.unwrap_or(anywhere), identity(config, node_id)?);
    links.dev = mesh.dev;
    Ok(links)
}

fn identity(config: &Config, node_id: &NodeId) -> Result<MeshIdentity, String> {
    let mesh = &config.mesh;
    if mesh.dev {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let home =
            home.ok_or("mesh.dev=true keeps its authority in the home directory: set HOME")?;
        return pki::dev_identity(&home, node_id).map_err(|e| e.to_string());
    }
    let file = |key: &str, path: &Option<PathBuf>| {
        path.clone().ok_or_else(|| {
            format!(
                "the mesh needs {key}: make certificates with `verge pki init` and `verge pki \
                     issue node {node_id}`"
            )
        })
    };
    let files = IdentityFiles {
        cert: file("mesh.cert", &mesh.cert)?,
        key: file("mesh.key", &mesh.key)?,
        ca: file("mesh.ca", &mesh.ca)?,
        crl: mesh.crl.clone(),
    };
    MeshIdentity::load(node_id, &files).map_err(|e| e.to_string())
}

fn mesh_config(config: &Config, listening: SocketAddr, store: &RocksStore) -> MeshConfig {
    let identity = store.identity();
    let advertise = config.mesh.advertise.unwrap_or(listening);
    MeshConfig {
        node_id: identity.node_id.clone(),
        role: verge_model::Role::Cloud,
        region: config.node.region.clone(),
        advertise,
        position: None,
        listeners: Vec::new(),
        admin: Some(config.admin.listen),
        incarnation: identity.incarnation,
        log_id: identity.log_id,
        // Nobody can dial an address that is none.
        dials_only: config.mesh.dials_only || advertise.ip().is_unspecified(),
        join: config.mesh.join.clone(),
        lookup_timeout: MeshConfig::LOOKUP_TIMEOUT,
    }
}

#[cfg(test)]
#[path = "app_tests.rs"]
mod tests;
