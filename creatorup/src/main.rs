//! The `creatorup` command.

use std::process::ExitCode;

/// SQLite allocates through it as well, because the crate overrides `malloc`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    creatorup::command::main()
}
