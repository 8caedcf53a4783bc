//! Whoever works on a key hears of what is enqueued for it.
//!
//! A job that goes on for as long as there is work of its key need not end and be claimed again for each new piece: it
//! listens, and looks when it hears something. A hint, for the work of this server alone; what others on the database
//! enqueue is found by looking now and then.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::model::job::{Kind, NewJob};

/// Who listens on this server.
#[derive(Default)]
pub(in crate::storage) struct Listeners(Mutex<HashMap<(Kind, String), watch::Sender<()>>>);

impl Listeners {
    /// Listens from now on.
    pub fn listen(&self, kind: Kind, key: &str) -> Listener {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody listens to any more go when the next one comes.
        listeners.retain(|_, sender| sender.receiver_count() > 0);
        Listener(listeners.entry((kind, key.to_owned())).or_default().subscribe())
    }

    /// The keys among those of these jobs that somebody listens to.
    pub fn heard(&self, jobs: &[NewJob]) -> Vec<watch::Sender<()>> {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.is_empty() {
            return Vec::new();
        }
        jobs.iter().filter_map(|job| listeners.get(&(job.kind, job.key.clone())).cloned()).collect()
    }
}

/// Hears of new jobs of a key.
pub struct Listener(watch::Receiver<()>);

impl Listener {
    /// Waits until one was committed since the last call, or since it listens.
    pub async fn heard(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody is left to say anything.
            std::future::pending::<()>().await;
        }
    }
}
