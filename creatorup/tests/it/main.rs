//! CreatorUp as others meet it: the real process, over real sockets, beside a hub that the test scripts.

mod bad_input;
mod batch;
mod contract;
mod harness;
mod membership;
mod outage;
mod process;
mod user_sync;
mod verify;
mod video;
