//! Who may post, by the name in the URL, and the keys of each. Swapped whole at a reload. What was
//! last received and refused of each is remembered across reloads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;

use crate::telemetry::status::{SourceRefusal, SourceStatus};
use crate::webhook::signature::Keys;

/// One configured source.
#[derive(Debug)]
pub struct Source {
    /// Its name under `[sources]`.
    pub name: Arc<str>,
    /// What its bodies are checked with.
    pub keys: Keys,
    /// What each of the keys is called where people read it: never the secret.
    pub secret_names: Vec<Arc<str>>,
    /// Its secret is not there yet: until then every body is refused.
    pub awaits_secret: bool,
}

/// The sources in use. Clones share them; a request sees either all old ones or all new ones.
#[derive(Debug, Clone)]
pub struct Sources {
    /// By name in lower case: a URL may spell it in any.
    current: Arc<ArcSwap<HashMap<String, Arc<Source>>>>,
    histories: Arc<Mutex<HashMap<Arc<str>, History>>>,
}

/// What happened to one source since the process started.
#[derive(Debug, Default, Clone)]
struct History {
    last_received: Option<Timestamp>,
    last_secret: Option<Arc<str>>,
    last_refused: Option<SourceRefusal>,
    has_accepted: bool,
}

impl Sources {
    /// These sources.
    #[must_use]
    pub fn new(sources: impl IntoIterator<Item = Source>) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(by_name(sources))),
            histories: Arc::default(),
        }
    }

    /// Uses these from the next request on.
    pub fn replace(&self, sources: impl IntoIterator<Item = Source>) {
        self.current.store(Arc::new(by_name(sources)));
    }

    /// The source of that name, in any case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Source>> {
        self.current.load().get(&name.to_ascii_lowercase()).cloned()
    }

    /// The names of those that refuse everything because their secret is not there yet.
    #[must_use]
    pub fn awaiting(&self) -> Vec<Arc<str>> {
        let sources = self.current.load();
        let awaiting = sources.values().filter(|source| source.awaits_secret);
        awaiting.map(|source| Arc::clone(&source.name)).collect()
    }

    /// The names of all.
    #[must_use]
    pub fn names(&self) -> Vec<Arc<str>> {
        let sources = self.current.load();
        let names = sources.values().map(|source| Arc::clone(&source.name));
        names.collect()
    }

    /// How each of them stands, by name.
    #[must_use]
    pub fn status(&self) -> Vec<SourceStatus> {
        let mut names = self.names();
        names.sort();
        let histories = self.histories();
        let status = |name: Arc<str>| {
            let history = histories.get(&name).cloned().unwrap_or_default();
            SourceStatus {
                name,
                last_received: history.last_received,
                last_secret: history.last_secret,
                last_refused: history.last_refused,
            }
        };
        names.into_iter().map(status).collect()
    }

    /// An authentic webhook was complete; `secret` is the position of the key that signed it.
    pub(super) fn received(&self, source: &Source, at: Timestamp, secret: Option<usize>) {
        let name = secret.map(|index| match source.secret_names.get(index) {
            Some(name) => Arc::clone(name),
            None => format!("secrets[{index}]").into(),
        });
        let mut histories = self.histories();
        let history = histories.entry(Arc::clone(&source.name)).or_default();
        history.last_received = Some(at);
        history.last_secret = name;
    }

    /// A webhook was accepted; whether it is the first of its source.
    pub(super) fn accepted(&self, source: &Source) -> bool {
        let mut histories = self.histories();
        let history = histories.entry(Arc::clone(&source.name)).or_default();
        !std::mem::replace(&mut history.has_accepted, true)
    }

    /// A request was refused.
    pub(super) fn refused(&self, source: &Source, refusal: SourceRefusal) {
        let mut histories = self.histories();
        let history = histories.entry(Arc::clone(&source.name)).or_default();
        history.last_refused = Some(refusal);
    }

    fn histories(&self) -> MutexGuard<'_, HashMap<Arc<str>, History>> {
        self.histories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn by_name(sources: impl IntoIterator<Item = Source>) -> HashMap<String, Arc<Source>> {
    let named = |source: Source| (source.name.to_ascii_lowercase(), Arc::new(source));
    sources.into_iter().map(named).collect()
}
