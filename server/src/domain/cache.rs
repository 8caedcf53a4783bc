//! A bounded cache that never shows a hub anything older than its own last write.
//!
//! Forgetting a key raises the generation of its stripe; an entry is good only while its stripe's generation is the
//! one that was read *before* its value was loaded. So a value that was read from the database while a write was
//! committing is never served after that write was answered, however the two interleave. What other hubs wrote is
//! seen when the entry is older than the cache's lifetime.

use std::future::Future;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::model::Result;

/// Keys share a generation by chance; more stripes only mean fewer needless reloads.
const STRIPES: usize = 1024;

/// Values by key, loaded when they are missing, old or forgotten.
pub struct Cache<K, V> {
    entries: quick_cache::sync::Cache<K, Entry<V>>,
    generations: Vec<AtomicU64>,
    hasher: RandomState,
    lifetime: Duration,
    loading: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    generation: u64,
    loaded: Instant,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// A cache of `capacity` entries.
    pub fn new(capacity: usize, lifetime: Duration) -> Self {
        Cache {
            entries: quick_cache::sync::Cache::new(capacity),
            generations: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            lifetime,
            loading: tokio::sync::Mutex::new(()),
        }
    }

    /// The value of `key` as it was last loaded, however long ago, unless this hub has changed it since.
    pub fn last(&self, key: &K) -> Option<V> {
        let generation = self.generation(key).load(Ordering::Acquire);
        self.entries.get(key).filter(|entry| entry.generation == generation).map(|entry| entry.value)
    }

    /// The value of `key`, from `load` when it is not at hand. Errors are not kept.
    pub async fn get_or_load<F: Future<Output = Result<V>>>(&self, key: K, load: impl FnOnce() -> F) -> Result<V> {
        let generation = self.generation(&key).load(Ordering::Acquire);
        if let Some(value) = self.fresh(&key) {
            return Ok(value);
        }
        let loaded = Instant::now();
        let value = load().await?;
        self.entries.insert(key, Entry { value: value.clone(), generation, loaded });
        Ok(value)
    }

    /// The same, where loading is dear: of those who miss it at once, one loads it, and the others wait for that.
    pub async fn get_or_load_once<F: Future<Output = Result<V>>>(&self, key: K, load: impl FnOnce() -> F) -> Result<V> {
        if let Some(value) = self.fresh(&key) {
            return Ok(value);
        }
        let _alone = self.loading.lock().await;
        self.get_or_load(key, load).await
    }

    fn fresh(&self, key: &K) -> Option<V> {
        let generation = self.generation(key).load(Ordering::Acquire);
        let entry = self.entries.get(key)?;
        (entry.generation == generation && entry.loaded.elapsed() < self.lifetime).then_some(entry.value)
    }

    /// Forgets `key`. To be called after COMMIT and before the writer's caller is answered.
    pub fn forget(&self, key: &K) {
        self.generation(key).fetch_add(1, Ordering::AcqRel);
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        for generation in &self.generations {
            generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn generation(&self, key: &K) -> &AtomicU64 {
        &self.generations[self.hasher.hash_one(key) as usize % STRIPES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_value_read_while_it_was_forgotten_is_not_served_again() {
        let cache: Cache<u8, &str> = Cache::new(8, Duration::from_secs(3600));
        let read_during_a_write = cache.get_or_load(1, || async {
            cache.forget(&1);
            Ok("old")
        });
        assert_eq!(read_during_a_write.await.unwrap(), "old");
        assert_eq!(cache.get_or_load(1, || async { Ok("new") }).await.unwrap(), "new");
        assert_eq!(cache.get_or_load(1, || async { Ok("never loaded") }).await.unwrap(), "new");
    }

    #[tokio::test]
    async fn of_many_who_miss_a_value_at_once_one_loads_it() {
        let cache: Cache<u8, u32> = Cache::new(8, Duration::from_secs(3600));
        let loads = AtomicU64::new(0);
        let all = (0..20).map(|_| {
            cache.get_or_load_once(1, || async {
                loads.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(7)
            })
        });
        let values = futures::future::join_all(all).await;
        assert!(values.into_iter().all(|value| value.unwrap() == 7));
        assert_eq!(loads.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn an_entry_past_its_lifetime_is_loaded_again() {
        let cache: Cache<u8, u32> = Cache::new(8, Duration::ZERO);
        assert_eq!(cache.get_or_load(1, || async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(cache.get_or_load(1, || async { Ok(2) }).await.unwrap(), 2);
    }
}
