//! The listeners of a running node, and a new configuration for them.
//!
//! ```text
//! SIGHUP, POST /api/v1/reload ─▶ read files ─▶ prepare: certificates, sockets ─▶ take effect
//!                                    │ wrong            │ wrong
//!                                    └──────────────────┴──▶ one line; everything is as it was
//! ```
//!
//! Connections are never touched: what is replaced counts for the next one.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use verge_broker_core::shard::api::ShardIndex;

use crate::config::{self, Config, ConfigError};
use crate::listener::tls::live::{Live, Material};
use crate::listener::{Doorman, ListenError, Listener};

/// Listeners that wait for their shard's thread to serve them; far more than a node has.
pub(super) const OPENINGS_MAX: usize = 256;

/// Keys that a reload takes over; `tls.` stands for all of its section.
const TAKEN_OVER: &[&str] = &["listeners", "tls.", "auth.allow_anonymous"];

/// Reads the configuration again, from where it was read at the start.
pub type Source = Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// A listener to be served by a shard's thread.
pub struct Opening {
    /// The listener.
    pub listener: Arc<Listener>,
    /// Its doorman.
    pub doorman: Doorman,
    /// True when it is to stop.
    pub stop: watch::Receiver<bool>,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Reloaded {
    /// What is new, one line each.
    pub changed: Vec<String>,
    /// What is written otherwise than it is in effect, one line each.
    pub waiting: Vec<String>,
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A listener or its certificates are.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// What listeners are started with.
pub struct Doors {
    /// By shard: where its thread takes listeners to serve.
    pub openings: Vec<mpsc::Sender<Opening>>,
    /// The doorman of all, as of shard 0.
    pub doorman: Doorman,
}

/// The listeners of a node.
pub struct Listeners {
    doors: Doors,
    source: Source,
    /// A lock, since the admin API and a signal may ask at once. Nobody else waits for it.
    state: Mutex<State>,
}

struct State {
    /// As it is in effect.
    config: Config,
    live: Option<Arc<Live>>,
    serving: Vec<Serving>,
    /// The shard that gets the next listener.
    next: usize,
}

struct Serving {
    listener: Arc<Listener>,
    stop: watch::Sender<bool>,
}

impl Listeners {
    /// Serves what was opened for `config`.
    #[must_use]
    pub fn start(
        config: Config,
        source: Source,
        doors: Doors,
        opened: Vec<Listener>,
        live: Option<Arc<Live>>,
    ) -> Self {
        let mut state = State { config, live, serving: Vec::new(), next: 0 };
        for listener in opened {
            state.serve(listener, &doors);
        }
        Self { doors, source, state: Mutex::new(state) }
    }

    /// Where clients connect, with real ports.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.state.lock().serving.iter().map(|one| one.listener.url().to_string()).collect()
    }

    /// No listener accepts any more.
    pub fn stop(&self) {
        for one in &self.state.lock().serving {
            one.stop.send_replace(true);
        }
    }

    /// Reads the configuration again and takes over what can be.
    ///
    /// # Errors
    /// What is wrong; nothing has changed.
    pub fn reload(&self) -> Result<Reloaded, ReloadError> {
        let outcome = (self.source)().map_err(ReloadError::from).and_then(|wanted| {
            let mut state = self.state.lock();
            state.reload(wanted, &self.doors)
        });
        match &outcome {
            Ok(done) => tracing::info!(
                changed = done.changed.join("; "),
                waiting = done.waiting.join("; "),
                "configuration was read again"
            ),
            Err(error) => tracing::warn!(%error, "nothing of the configuration was taken over"),
        }
        outcome
    }
}

impl State {
    fn serve(&mut self, listener: Listener, doors: &Doors) {
        let index = self.next % doors.openings.len();
        self.next += 1;
        let here = ShardIndex(u16::try_from(index).expect("shards are counted in 16 bits"));
        let listener = Arc::new(listener);
        let (stop, stopped) = watch::channel(false);
        let doorman = Doorman { here, ..doors.doorman.clone() };
        let opening = Opening { listener: Arc::clone(&listener), doorman, stop: stopped };
        if doors.openings[index].try_send(opening).is_err() {
            tracing::error!(listener = %listener.url(), "listener cannot be served");
        }
        self.serving.push(Serving { listener, stop });
    }

    fn reload(&mut self, wanted: Config, doors: &Doors) -> Result<Reloaded, ReloadError> {
        let (taken, waiting): (Vec<String>, Vec<String>) =
            config::differences(&self.config, &wanted).into_iter().partition(|key| {
                TAKEN_OVER
                    .iter()
                    .any(|known| key == known || (known.ends_with('.') && key.starts_with(known)))
            });
        let mut done = Reloaded {
            changed: Vec::new(),
            waiting: waiting.iter().map(|key| format!("{key}: from the next start on")).collect(),
        };

        // Everything that may be wrong, before anything changes.
        let has_tls = wanted.listeners.iter().any(|section| section.url.0.scheme.has_tls());
        let material = has_tls.then(|| Material::load(&wanted.tls)).transpose();
        let mut material = material.map_err(ListenError::from)?;
        let live = match (&self.live, material.take()) {
            (None, Some(material)) => Some(Live::new(material)),
            (Some(live), read) => {
                material = read;
                Some(Arc::clone(live))
            }
            (None, None) => None,
        };
        let mut left: Vec<usize> = (0..self.serving.len()).collect();
        let (mut kept, mut opened) = (Vec::new(), Vec::new());
        let mut added = Vec::new();
        for section in &wanted.listeners {
            let known = left
                .iter()
                .position(|place| *self.serving[*place].listener.asked() == section.url.0);
            match known {
                Some(place) => kept.push((left.remove(place), section)),
                None => added.push(section),
            }
        }
        for section in added {
            // Another path of the same port keeps the port's socket.
            let socket = left
                .iter()
                .map(|place| &self.serving[*place].listener)
                .find(|old| old.asked().authority == section.url.0.authority);
            let mut listener =
                Listener::open(section, &wanted, live.as_ref(), socket.map(Arc::as_ref))?;
            listener.open_keys(&self.config.node).map_err(ListenError::from)?;
            opened.push(listener);
        }

        if let (Some(live), Some(material)) = (&live, material) {
            live.replace(material);
            done.changed.push("certificates were read again".to_owned());
        }
        self.live = live;
        for (place, section) in kept {
            let listener = &self.serving[place].listener;
            if listener.set_terms(section, &wanted) {
                done.changed.push(format!("listener {}: other limits", listener.url()));
            }
        }
        for place in left.into_iter().rev() {
            // A QUIC listener's clients live on its socket: it takes no others, and keeps its port
            // until the last is gone.
            let Serving { listener, stop } = self.serving.remove(place);
            stop.send_replace(true);
            done.changed.push(format!("listener {}: closed, its clients stay", listener.url()));
        }
        for listener in opened {
            done.changed.push(format!("listener {}: opened", listener.url()));
            self.serve(listener, doors);
        }
        for key in taken {
            config::take_over(&mut self.config, &wanted, &key);
        }
        Ok(done)
    }
}
