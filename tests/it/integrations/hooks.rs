//! Webhooks the hub sends: what a receiver is told, and what becomes of a delivery that is not received.

mod changed;
mod crash;
mod desk;
mod manage;
mod rules;
mod signed;
mod unruly;
