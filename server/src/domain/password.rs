//! Passwords: argon2id off the async threads, a few at a time.
//!
//! One hash takes tens of milliseconds and 19 MiB by design, so as many run at once as there are cores and the rest
//! wait; a burst of logins cannot take the hub's memory or starve its other calls.

use std::sync::{Arc, LazyLock};

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use tokio::sync::Semaphore;

use crate::model::{Error, Result};

/// Hashes and verifies passwords.
pub struct Passwords {
    permits: Arc<Semaphore>,
}

impl Passwords {
    pub fn new() -> Passwords {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Passwords { permits: Arc::new(Semaphore::new(cores)) }
    }

    /// The PHC string of a new password.
    pub async fn hash(&self, password: String) -> Result<String> {
        self.run(move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()))
            .await?
            .map_err(|error| Error::internal(format!("a password could not be hashed: {error}")))
    }

    /// Whether `password` is the one of `hash`. Without a hash it takes as long and says no, so that the time of
    /// the answer does not tell whether the account exists.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool> {
        static NOBODY: LazyLock<String> = LazyLock::new(|| {
            Argon2::default()
                .hash_password(b"nobody has this password")
                .map(|hash| hash.to_string())
                .unwrap_or_default()
        });
        self.run(move || {
            let stored = hash.as_deref().unwrap_or(&NOBODY);
            let matches = PasswordHash::new(stored)
                .is_ok_and(|parsed| Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok());
            matches && hash.is_some()
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let permit = self.permits.clone().acquire_owned().await.map_err(Error::internal)?;
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        })
        .await
        .map_err(Error::internal)
    }
}
