# What people type. `just` alone lists it.
default:
    @just --list --unsorted

# Start the hub
run *arguments:
    cargo run -- {{arguments}}

# Everything CI checks
check *sections:
    .ci/run {{sections}}

# Every test, on SQLite
test *arguments:
    cargo test --workspace {{arguments}}

# Both servers' suites on a private PostgreSQL server
test-postgres *arguments:
    .ci/with-postgres cargo test -p upbridge-server -p creatorup --test it {{arguments}}

# Write the golden files of both contracts anew
snapshots:
    UPDATE_SNAPSHOTS=1 cargo test -p upbridge-server -p creatorup --test it contract
    git diff --stat tests/it/snapshots creatorup/tests/it/snapshots

# Measure the hub against a bare server
bench *arguments:
    cargo build --release -p upbridge-server
    cargo run --release -p upbridge-bench -- {{arguments}}
