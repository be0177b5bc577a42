//! The sources that may post, by their name in the URL, with their keys. A reload replaces all of
//! them at once. What was last received from each source and refused is remembered across reloads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;

use crate::telemetry::status::{SourceRefusal, SourceStatus};
use crate::webhook::signature::Keys;

/// One configured source.
#[derive(Debug)]
pub struct Source {
    /// Its name under `[sources]`.
    pub name: Arc<str>,
    /// Keys with which its bodies are verified.
    pub keys: Keys,
    /// Display name of each key, in the order of the keys; never the secret itself.
    pub secret_names: Vec<Arc<str>>,
    /// Files without a secret whose last secret stays in use.
    pub kept_secrets: Arc<[Arc<str>]>,
    /// Whether its secret is still missing; until it is there, every body is refused.
    pub awaits_secret: bool,
}

/// The sources in use. Clones share them; a request sees either all old ones or all new ones.
#[derive(Debug, Clone)]
pub struct Sources {
    /// By name in lower case, because names in URLs are case-insensitive.
    current: Arc<ArcSwap<HashMap<String, Arc<Source>>>>,
    histories: Arc<Mutex<HashMap<Arc<str>, History>>>,
}

/// What happened to one source since the process started.
#[derive(Debug, Default)]
struct History {
    status: SourceStatus,
    has_accepted: bool,
}

impl Sources {
    /// A set of sources of which nothing was received yet.
    #[must_use]
    pub fn new(sources: impl IntoIterator<Item = Source>) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(by_name(sources))),
            histories: Arc::default(),
        }
    }

    /// Replaces all sources, from the next request on.
    pub fn replace(&self, sources: impl IntoIterator<Item = Source>) {
        self.current.store(Arc::new(by_name(sources)));
    }

    /// The source with that name, compared case-insensitively.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Source>> {
        self.current.load().get(&name.to_ascii_lowercase()).cloned()
    }

    /// The names of the sources that refuse every body because their secret is still missing.
    #[must_use]
    pub fn awaiting(&self) -> Vec<Arc<str>> {
        let sources = self.current.load();
        let awaiting = sources.values().filter(|source| source.awaits_secret);
        awaiting.map(|source| Arc::clone(&source.name)).collect()
    }

    /// Whether every source refuses every body because its secret is still missing.
    #[must_use]
    pub fn all_await_secrets(&self) -> bool {
        self.current
            .load()
            .values()
            .all(|source| source.awaits_secret)
    }

    /// The names of all sources, in no particular order.
    #[must_use]
    pub fn names(&self) -> Vec<Arc<str>> {
        let sources = self.current.load();
        let names = sources.values().map(|source| Arc::clone(&source.name));
        names.collect()
    }

    /// The status of each source, sorted by name.
    #[must_use]
    pub fn status(&self) -> Vec<SourceStatus> {
        let sources = self.current.load();
        let mut sources: Vec<_> = sources.values().collect();
        sources.sort_by_key(|source| &source.name);
        let status = |source: &Arc<Source>| SourceStatus {
            name: Arc::clone(&source.name),
            kept_secrets: source.kept_secrets.clone(),
            ..self.history(&source.name, |history| history.status.clone())
        };
        sources.into_iter().map(status).collect()
    }

    /// Records a complete and verified webhook; `secret` is the position of the key that signed it.
    pub(super) fn received(&self, source: &Source, at: Timestamp, secret: Option<usize>) {
        let secret = secret.and_then(|index| source.secret_names.get(index));
        self.history(&source.name, |history| {
            history.status.last_received = Some(at);
            history.status.last_secret = secret.cloned();
        });
    }

    /// Records an accepted webhook. Returns whether it is the first of its source.
    pub(super) fn accepted(&self, source: &Source) -> bool {
        let accepted = |history: &mut History| !std::mem::replace(&mut history.has_accepted, true);
        self.history(&source.name, accepted)
    }

    /// Records a refused request.
    pub(super) fn refused(&self, source: &Source, refusal: SourceRefusal) {
        self.history(&source.name, |history| {
            history.status.last_refused = Some(refusal);
        });
    }

    fn history<T>(&self, name: &Arc<str>, visit: impl FnOnce(&mut History) -> T) -> T {
        let histories = self.histories.lock();
        let mut histories = histories.unwrap_or_else(PoisonError::into_inner);
        visit(histories.entry(Arc::clone(name)).or_default())
    }
}

fn by_name(sources: impl IntoIterator<Item = Source>) -> HashMap<String, Arc<Source>> {
    let named = |source: Source| (source.name.to_ascii_lowercase(), Arc::new(source));
    sources.into_iter().map(named).collect()
}
