//! Programs of others that a test runs, and that not every machine has.

use std::process::{Command, Stdio};

/// Whether a program is there. Where it is not, the test that needs it says so and ends, which nobody sees, because
/// what a passing test prints is not shown. `TEST_REQUIRE` names programs, separated by commas, that must be there.
pub fn have(program: &str) -> bool {
    let version = if program.starts_with("ff") { "-version" } else { "--version" };
    let mut command = Command::new(program);
    command.arg(version).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let there = command.status().is_ok_and(|status| status.success());
    if !there {
        skipped(program, &format!("{program} is not on PATH"));
    }
    there
}

/// Says why a test is not run that needs a program, and fails where that program is required.
pub fn skipped(program: &str, reason: &str) {
    let required = std::env::var("TEST_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name.trim() == program), "TEST_REQUIRE names {program}, but {reason}");
    eprintln!("skipped: {reason}");
}
