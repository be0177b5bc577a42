//! Who may post, by the name in the URL, and the keys of each. Swapped whole at a reload.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::webhook::signature::Keys;

/// One configured source.
#[derive(Debug)]
pub struct Source {
    /// Its name under `[sources]`.
    pub name: Arc<str>,
    /// What its bodies are checked with.
    pub keys: Keys,
    /// Its secret is not there yet: until then every body is refused.
    pub awaits_secret: bool,
}

/// The sources in use. Clones share them; a request sees either all old ones or all new ones.
#[derive(Debug, Clone)]
pub struct Sources(Arc<ArcSwap<HashMap<Arc<str>, Arc<Source>>>>);

impl Sources {
    /// These sources.
    #[must_use]
    pub fn new(sources: impl IntoIterator<Item = Source>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(by_name(sources))))
    }

    /// Uses these from the next request on.
    pub fn replace(&self, sources: impl IntoIterator<Item = Source>) {
        self.0.store(Arc::new(by_name(sources)));
    }

    /// The source of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Source>> {
        self.0.load().get(name).cloned()
    }

    /// The names of those that refuse everything because their secret is not there yet.
    #[must_use]
    pub fn awaiting(&self) -> Vec<Arc<str>> {
        let sources = self.0.load();
        let awaiting = sources.values().filter(|source| source.awaits_secret);
        awaiting.map(|source| Arc::clone(&source.name)).collect()
    }

    /// The names of all.
    #[must_use]
    pub fn names(&self) -> Vec<Arc<str>> {
        self.0.load().keys().cloned().collect()
    }
}

fn by_name(sources: impl IntoIterator<Item = Source>) -> HashMap<Arc<str>, Arc<Source>> {
    let named = |source: Source| (Arc::clone(&source.name), Arc::new(source));
    sources.into_iter().map(named).collect()
}
