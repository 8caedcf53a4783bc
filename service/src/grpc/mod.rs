//! What the services of every server stand behind: the [`gate`], with the server's [`Reception`], and the errors'
//! [`status`](status()). Handlers are each server's own.

pub mod gate;
mod reception;
mod status;

pub use gate::{BearerToken, Gate};
pub use reception::{Rank, Reception};
pub use status::status;
