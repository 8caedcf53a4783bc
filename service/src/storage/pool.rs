//! How connections to PostgreSQL go back to their pool: not those that may never answer again.
//!
//! A network that swallows what is sent says nothing of it, and the driver waits for an answer for ever: first whoever
//! asked, and when they have given up, the pool, which asks the connection whether it is well before it takes it back.
//! Its place would never be free again. So after somebody gave up on an answer, connections that come back are asked
//! with an end to the waiting, and one that says nothing is closed.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::pool::PoolOptions;
use sqlx::{Connection, Postgres};

/// How long a connection may take to say that it is well.
const ANSWER: Duration = Duration::from_secs(2);
/// How long connections are asked so after somebody gave up on one: whoever waits longest has given up by then.
const SUSPICION: Duration = Duration::from_secs(120);

/// When somebody last gave up on an answer, in milliseconds since the first look at the clock; 0 is never. Of all pools
/// of the process, because a future that is dropped does not know its own.
static GIVEN_UP: AtomicU64 = AtomicU64::new(0);
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now() -> u64 {
    u64::try_from(BEGIN.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Somebody waits for an answer; dropped before it came, they gave up on it.
pub(super) struct Waiting(bool);

impl Waiting {
    pub fn begin() -> Waiting {
        Waiting(true)
    }

    pub fn answered(mut self) {
        self.0 = false;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.0 {
            GIVEN_UP.store(now(), Ordering::Relaxed);
        }
    }
}

/// Sees to it that a pool takes back only what answers.
pub(super) fn let_go_of_the_silent(options: PoolOptions<Postgres>) -> PoolOptions<Postgres> {
    options.after_release(|connection, _| {
        Box::pin(async move {
            let given_up = GIVEN_UP.load(Ordering::Relaxed);
            let is_suspect = given_up > 0 && u128::from(now() - given_up.min(now())) < SUSPICION.as_millis();
            // A transaction that was dropped has its ROLLBACK still to be sent.
            if !is_suspect && !connection.should_flush() {
                return Ok(true);
            }
            match tokio::time::timeout(ANSWER, connection.ping()).await {
                Ok(answer) => answer.map(|()| true),
                // As an error it is closed without a word, which nobody would hear.
                Err(_late) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
            }
        })
    })
}
