//! Ctrl-C and SIGTERM: what is under way is finished and nothing new begun; a second one ends at
//! once, and nothing is lost by that either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What shells say of a process that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Whether it was asked to stop.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Begins to listen.
    pub fn listen() -> anyhow::Result<Self> {
        let flag = Arc::<AtomicBool>::default();
        let (mut interrupt, mut terminate) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        let told = Arc::clone(&flag);
        tokio::spawn(async move {
            either(&mut interrupt, &mut terminate).await;
            told.store(true, Ordering::Relaxed);
            either(&mut interrupt, &mut terminate).await;
            std::process::exit(INTERRUPTED);
        });
        Ok(Self(flag))
    }

    /// Whether it was.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
