//! The event queue: what a worker promises, on a real store, with handlers the test holds.

mod days;
mod history;
mod shop;
mod worker;
