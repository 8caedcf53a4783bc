//! What the services of every server stand behind: the [`gate`], with the server's [`Reception`], the errors'
//! [`status`](status()), and what all messages are made of, as the model has it ([`convert`]). Handlers are each server's
//! own.

pub mod convert;
pub mod gate;
mod reception;
mod status;

pub use gate::{BearerToken, Gate};
pub use reception::{Rank, Reception};
pub use status::status;
