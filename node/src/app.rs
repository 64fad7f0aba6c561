//! The composition of a node: everything from outside comes in here, and is wired in order of
//! dependence.

mod extensions;
mod listeners;
mod restored;
mod settings;
mod threads;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use verge_broker_core::authn::Authn;
use verge_broker_core::hub::Hub;
use verge_broker_core::rule::RuleError;
use verge_broker_core::shard::Shard;
use verge_broker_core::shard::api::{Mail, ShardIndex};
use verge_broker_core::shared::NodeShared;
use verge_mesh_proto::{MeshCore, Restored};
use verge_storage::{Store, StoreError};
use verge_storage_rocksdb::{RocksStore, Writer, WriterHandle};

use self::listeners::{Doors, OPENINGS_MAX};
pub use self::listeners::{Listeners, Opening, ReloadError, Reloaded, Source};
pub use self::threads::Alarm;
use self::threads::{Alarms, Threads};
use crate::admin::views::{NodeAnswer, rfc3339};
use crate::admin::{self, Admin, AdminError, AdminServer};
use crate::authn::{PasswordThreads, UsersFileError, read_users};
use crate::clock::{self, Clock};
use crate::config::{Config, ConfigError};
use crate::listener::quic::keys::KeyError;
use crate::listener::{Arrival, Doorman, ListenError, Listener};
use crate::mesh::links::{IdentitySetupError, links_config};
use crate::mesh::view::MeshView;
use crate::mesh::{HubMailbox, MeshError, MeshSetup};
use crate::shard::{self, ARRIVALS_MAX, Mailboxes, ShardMail, ShardMailbox, ShardSetup};

/// Batches that wait for the storage writer; each is a turn of a shard, so this is far more than
/// shards produce while one fsync takes.
const WRITER_QUEUE_MAX: usize = 4_096;

/// Why a node did not start. Nothing of it is running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A client listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The admin API.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The secrets of a `quic://` listener.
    #[error(transparent)]
    QuicKeys(#[from] KeyError),
    /// The data directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The mesh certificate.
    #[error(transparent)]
    Identity(#[from] IdentitySetupError),
    /// The mesh.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The file of users.
    #[error(transparent)]
    Users(#[from] UsersFileError),
    /// An extension.
    #[error(transparent)]
    Extensions(#[from] ConfigError),
    /// A topic rule.
    #[error("topics: {0}")]
    Rules(#[from] RuleError),
    /// A thread.
    #[error("a thread did not start: {0}")]
    Thread(#[from] io::Error),
}

/// A node that serves.
pub struct Node {
    config: Config,
    listeners: Arc<Listeners>,
    mesh_addr: Option<SocketAddr>,
    admin_addr: SocketAddr,
    ready: Arc<AtomicBool>,
    mailboxes: Mailboxes,
    /// True when the admin API is to stop.
    admin_stop: watch::Sender<bool>,
    /// True when an operator asked the node to go down.
    drain: watch::Receiver<bool>,
    alarms: Alarms,
    threads: Threads,
}

/// Why a node goes down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It was asked to.
    Asked(&'static str),
    /// One of its threads ended.
    Broken(String),
}

impl Node {
    /// Starts a node; `source` gives its configuration again when that is to be read again. Ports first, since they fail most often and cost nothing; then the data
    /// directory, what it holds, and the threads.
    ///
    /// # Errors
    /// What is in the way, in one line.
    pub fn start(config: Config, source: Source) -> Result<Self, StartError> {
        let clock = Clock::start();
        let id = &config.node.id;
        let admin_server = AdminServer::bind(config.admin.listen)?;
        let (mut listeners, live) = Listener::bind_all(&config)?;
        let urls: Vec<Arc<str>> = listeners.iter().map(|listener| listener.url().clone()).collect();
        let links = if config.mesh.is_on() { Some(links_config(&config.mesh, id)?) } else { None };

        let passwords = authn(&config, clock)?;
        let store = Arc::new(RocksStore::open(&settings::store(&config), id, rand::random())?);
        for listener in &mut listeners {
            listener.open_keys(&config.node)?;
        }
        let identity = store.identity().clone();
        let rules = settings::topic_rules(&config)?;
        let shared = NodeShared::new(id.key(), identity.incarnation, rules)
            .with_shared(extensions::shared(&config, rand::random()))
            .with_extensions(extensions::extensions(&config, settings::shard_count(&config))?)
            .with_storage(Arc::clone(store.health()))
            .with_retained(settings::retained(&config))
            .with_store(Arc::clone(&store) as Arc<dyn Store>);
        let shared = Arc::new(shared);
        let restored = restored::load(&store, &shared, settings::shard_count(&config))?;
        let mesh_restored = Restored::load(&*store)?;
        let (sessions, damaged) = (restored.sessions.len(), restored.damaged);

        let count = settings::shard_count(&config);
        let seed: u64 = rand::random();
        let mut shards: Vec<Shard> = (0..count)
            .map(|index| {
                let authn = passwords.as_ref().map(|(authn, _)| Arc::clone(authn));
                let config = settings::shard(&config, ShardIndex(index), count, authn);
                Shard::new(config, Arc::clone(&shared), seed.wrapping_add(u64::from(index)))
            })
            .collect();
        let now = clock.now();
        for session in restored.sessions {
            shards[usize::from(session.shard(count).0)].restore(session, now);
        }
        for delayed in restored.delayed {
            let shard = usize::from(delayed.shard(count).0);
            if let Err(error) = shards[shard].restore_delayed(delayed, now) {
                tracing::error!(%error, "a message to be published later was left out");
            }
        }
        shards.iter_mut().for_each(|shard| shard.start(now));

        let mut threads = Threads::default();
        let (alarm, alarms) = Alarms::new();
        let disk = Arc::clone(&store);
        let store: Arc<dyn Store> = store;
        let gather = config.storage.gather();
        let (writer, writing) =
            Writer::spawn_gathering(Arc::clone(&store), WRITER_QUEUE_MAX, gather);
        threads.writer = Some(writing);
        let mailboxes = Mailboxes {
            shards: (0..count).map(|_| ShardMailbox::new(settings::shard_mail(&config))).collect(),
            hub: HubMailbox::default(),
        };
        let view = Arc::new(ArcSwap::from_pointee(MeshView::default()));

        let mesh = MeshSetup {
            links,
            hub: {
                let (config, shared, urls) = (config.clone(), Arc::clone(&shared), urls.clone());
                let admin = admin_server.addr();
                Box::new(move |bound| {
                    let mesh = settings::mesh(&config, &identity, bound, &urls, admin);
                    let mut core = MeshCore::new(mesh, mesh_restored, clock.now(), rand::random());
                    // Without a mesh nobody else is told of them.
                    let told = config.mesh.is_on().then(|| shared.router.routes());
                    for filter in told.into_iter().flatten() {
                        core.add_route(filter.shared_text());
                    }
                    Hub::new(settings::hub(&config, count), core, shared)
                })
            },
            shared: Arc::clone(&shared),
            clock,
            writer: writer.clone(),
            store: Arc::clone(&store),
            mailboxes: mailboxes.clone(),
            uplink: config.uplink.clone(),
            view: Arc::clone(&view),
            alarm: alarm.clone(),
        };
        let (thread, mesh_addr) = crate::mesh::spawn(mesh)?;
        threads.mesh = Some(thread);
        // Not before everything that may be in the way: a refusal is one line.
        let incarnation = store.identity().incarnation;
        tracing::info!(node = %id, incarnation, sessions, damaged, "data directory opened");

        let ready = Arc::new(AtomicBool::new(false));
        let (admin_stop, admin_stopped) = watch::channel(false);
        let (ask_drain, drain) = watch::channel(false);
        let shard_count = shards.len();
        let clients = Clients {
            config: &config,
            shared: &shared,
            clock,
            writer: writer.clone(),
            mailboxes: &mailboxes,
            passwords: passwords.map(|(_, threads)| threads),
            alarm: alarm.clone(),
        };
        let doors = clients.serve(shards, &mut threads)?;
        let listeners = Listeners::start(config.clone(), source, doors, listeners, live);
        let listeners = Arc::new(listeners);
        let admin = Admin {
            node: NodeAnswer {
                node_id: id.to_string(),
                role: config.node.role.as_str(),
                region: config.node.region.clone(),
                position: config.node.position.map(|position| position.0),
                listeners: listeners.urls(),
                mesh_addr: mesh_addr.map(|addr| addr.to_string()),
                incarnation,
                version: env!("CARGO_PKG_VERSION"),
                shards: shard_count,
                ready: false,
                warnings: Vec::new(),
                started_at: rfc3339(clock::wall()),
                process_id: std::process::id(),
            },
            shared: Arc::clone(&shared),
            mailboxes: mailboxes.clone(),
            mesh: view,
            store,
            disk: Arc::clone(&disk),
            writer: writer.clone(),
            ready: Arc::clone(&ready),
            off_by: AtomicI64::new(0),
            drain: ask_drain,
            listeners: Arc::clone(&listeners),
        };
        let admin_addr = admin_server.addr();
        let admin = Arc::new(admin);
        let every = config.sys.interval.0.0;
        let sys_stopped = admin_stopped.clone();
        threads.disk = Some(crate::disk::spawn(disk, alarm, admin_stopped.clone())?);
        threads.sys = Some(crate::sys::spawn(Arc::clone(&admin), every, sys_stopped)?);
        threads.admin = Some(admin_server.serve(admin::routes(admin), admin_stopped)?);

        ready.store(true, Ordering::Release);
        Ok(Self {
            config,
            listeners,
            mesh_addr,
            admin_addr,
            ready,
            mailboxes,
            admin_stop,
            drain,
            alarms,
            threads,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn listeners(&self) -> &Arc<Listeners> {
        &self.listeners
    }

    /// Where the admin API answers.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Says on standard output that the node serves.
    pub fn announce(&self) {
        let listeners = self.listeners.urls().join(",");
        let mut line = format!("ready node={} listeners={listeners}", self.config.node.id);
        if let Some(addr) = self.mesh_addr {
            line.push_str(&format!(" mesh={addr}"));
        }
        line.push_str(&format!(" admin={}\n", self.admin_addr));
        let mut out = io::stdout().lock();
        // Whoever started the node may not listen.
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }

    /// Waits until the node is to go down.
    #[must_use]
    pub fn wait(&mut self) -> Reason {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return Reason::Broken(format!("signals cannot be waited for: {error}")),
        };
        runtime.block_on(async {
            let (Ok(mut term), Ok(mut int), Ok(mut hangup)) = (
                signal(SignalKind::terminate()),
                signal(SignalKind::interrupt()),
                signal(SignalKind::hangup()),
            ) else {
                return Reason::Broken("signals cannot be waited for".to_owned());
            };
            let reloads = async {
                while hangup.recv().await.is_some() {
                    // What came of it is in the log.
                    let _ = self.listeners.reload();
                }
            };
            tokio::select! {
                () = reloads => Reason::Broken("signals cannot be waited for".to_owned()),
                _ = term.recv() => Reason::Asked("SIGTERM"),
                _ = int.recv() => Reason::Asked("SIGINT"),
                Ok(_) = self.drain.wait_for(|drain| *drain) => Reason::Asked("the admin API"),
                thread = self.alarms.recv() => Reason::Broken(format!("thread {thread} ended")),
            }
        })
    }

    /// Takes the node down: no new clients, the present ones are told, everything is written, and
    /// the mesh hears of it. Gives up, and says so, after `shutdown.deadline`; what is on disk then
    /// is taken up at the next start.
    pub fn drain(self) {
        let deadline = clock::instant() + self.config.shutdown.deadline.0.0;
        let mut threads = self.threads;
        self.ready.store(false, Ordering::Release);
        self.listeners.stop();
        for mailbox in self.mailboxes.shards.iter() {
            mailbox.put(ShardMail(Mail::Shutdown));
        }
        let mut done = threads::join_by(std::mem::take(&mut threads.shards), deadline);
        self.mailboxes.hub.stop();
        done &= threads::join_by(threads.mesh.take(), deadline);
        self.admin_stop.send_replace(true);
        done &= threads::join_by(threads.sys.take(), deadline);
        done &= threads::join_by(threads.disk.take(), deadline);
        done &= threads::join_by(threads.admin.take(), deadline);
        // Every handle of the writer went with its thread, so it flushes and ends.
        done &= threads::join_by(threads.writer.take(), deadline);
        if done {
            tracing::info!("everything is written");
        } else {
            tracing::warn!("not everything ended within shutdown.deadline");
        }
    }
}

/// Users with passwords, if the configuration names their file, and the threads that check them.
fn authn(
    config: &Config,
    clock: Clock,
) -> Result<Option<(Arc<Authn>, PasswordThreads)>, StartError> {
    let Some(path) = &config.auth.users_file else { return Ok(None) };
    let authn = Arc::new(Authn::new(read_users(path)?, &rand::random()));
    let threads = PasswordThreads::spawn(&authn, path.clone(), clock)?;
    Ok(Some((authn, threads)))
}

/// What shard threads are started with.
struct Clients<'a> {
    config: &'a Config,
    shared: &'a Arc<NodeShared>,
    clock: Clock,
    writer: WriterHandle,
    mailboxes: &'a Mailboxes,
    passwords: Option<PasswordThreads>,
    alarm: threads::Alarm,
}

impl Clients<'_> {
    /// Starts a thread per shard; listeners come later.
    fn serve(self, shards: Vec<Shard>, threads: &mut Threads) -> io::Result<Doors> {
        let (doors, arrivals): (Vec<mpsc::Sender<Arrival>>, Vec<_>) =
            shards.iter().map(|_| mpsc::channel(ARRIVALS_MAX)).unzip();
        let doorman = Doorman {
            shards: doors.into(),
            here: ShardIndex(0),
            connect_timeout: self.config.session.connect_timeout.0.0,
            limits: settings::decode_limits(self.config),
            has_users: self.passwords.is_some(),
            clock: self.clock,
            shared: Arc::clone(self.shared),
        };
        let outputs = settings::outputs(self.config, shards.len());
        let mut posts = Vec::with_capacity(shards.len());
        for (index, (core, arrivals)) in (0_u16..).zip(shards.into_iter().zip(arrivals)) {
            let (post, openings) = mpsc::channel(OPENINGS_MAX);
            posts.push(post);
            threads.shards.push(shard::spawn(ShardSetup {
                core,
                index: ShardIndex(index),
                clock: self.clock,
                writer: self.writer.clone(),
                mailboxes: self.mailboxes.clone(),
                arrivals,
                openings,
                outputs,
                passwords: self.passwords.clone(),
                alarm: self.alarm.clone(),
            })?);
        }
        Ok(Doors { openings: posts, doorman })
    }
}

/// The environment, as far as it is text.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
