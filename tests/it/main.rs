//! The hub as its users meet it: through the typed client, HTTP, gRPC and the command, over real sockets, on a real
//! database.
//!
//! The suite runs on SQLite; with `TEST_POSTGRES_URL` (a superuser's URL of a running server) every hub gets a
//! database of its own there instead. A file per capability; a test's name is the sentence it holds.

mod harness;
#[allow(dead_code, unused_imports)] // not every test uses every trick of theirs
mod peer;

mod accounts;
mod analytics;
mod bad_input;
mod contract;
mod crash;
mod devops;
mod faces;
mod hostile;
mod integrations;
mod log;
mod r#loop;
mod membership;
mod node;
mod policy;
mod queue;
mod silence;
mod sources;
mod store;
mod tidy;
mod usage;
mod user_sync;
mod users;
mod webhooks;
