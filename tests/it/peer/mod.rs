//! Others on the network, as a test scripts them: servers on real sockets that answer well, badly, slowly or not at
//! all, and remember what they were asked.
//!
//! [`HttpPeer`] is a provider's API or the receiver of a webhook, [`SmtpPeer`] a mail server.

mod http;
mod smtp;
mod wire;

pub use http::{Asked, HttpPeer, Reply};
pub use smtp::{Begins, MAIL_PASSWORD, MAIL_USER, Manners, SmtpPeer, Stall};
pub use wire::{OwnTls, keep, listen};
