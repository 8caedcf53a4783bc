//! The event queue: what a worker promises, on a real store, with handlers the test holds.

mod admin;
mod command;
mod days;
mod ends;
mod history;
mod hubs;
mod shop;
mod store;
mod worker;
