//! The walls between the rooms of the house, held by reading its sources.
//!
//! Each list of exceptions names a file and why it is one. A list may only shrink: an entry that is no longer needed
//! fails like a breach does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A source file: its path from the repository's root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// What the compiler sees: no line that is only a comment.
    fn code(&self) -> String {
        self.text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }

    /// Whether `word` is in the code, by itself and not as a part of another name.
    fn names(&self, word: &str) -> bool {
        let code = self.code();
        let part_of_name =
            |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
        code.match_indices(word).any(|(at, _)| {
            !part_of_name(code[..at].chars().next_back()) && !part_of_name(code[at + word.len()..].chars().next())
        })
    }

    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path == *place || (place.ends_with('/') && self.path.starts_with(place)))
    }

    fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }
}

/// The crates that make up servers: the two servers, and what both stand on.
const HOUSE: [&str; 3] = ["server/src/", "creatorup/src/", "service/src/"];

/// Every Rust file of those crates.
fn house() -> impl Iterator<Item = Source> {
    HOUSE.into_iter().flat_map(sources)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

/// Every Rust file of the repository, or those below a directory of it.
fn sources(below: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    directories.push(path);
                }
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
                found.push(Source { path, text });
            }
        }
    }
    found.retain(|source| source.path.starts_with(below));
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(!found.is_empty(), "nothing below {below}");
    found
}

/// Fails for each file of a server that names one of `words` outside `places`.
fn only_in(words: &[&str], places: &[&str]) {
    let breaches: Vec<String> = house()
        .filter(|source| !source.is_in(places))
        .flat_map(|source| {
            let named = words.iter().filter(|word| source.names(word));
            named.map(|word| format!("{} names {word}", source.path)).collect::<Vec<_>>()
        })
        .collect();
    assert!(breaches.is_empty(), "{breaches:#?}\nonly these may: {places:?}");
}

/// Compares what was found with the exceptions, which must all still be needed.
fn only_exceptions(found: BTreeSet<String>, exceptions: &[(&str, &str)]) {
    let listed: BTreeSet<String> = exceptions.iter().map(|(path, _why)| (*path).to_owned()).collect();
    let new: Vec<_> = found.difference(&listed).collect();
    assert!(new.is_empty(), "mend these rather than list them: {new:#?}");
    let stale: Vec<_> = listed.difference(&found).collect();
    assert!(stale.is_empty(), "take these off the list: {stale:#?}");
}

#[test]
fn only_the_doors_know_the_wire() {
    let words = ["upbridge_proto", "tonic", "tonic_types", "tonic_health", "tonic_reflection", "prost", "prost_types"];
    only_in(
        &words,
        &[
            "server/src/grpc/",
            "server/src/lib.rs",
            "creatorup/src/grpc/",
            "creatorup/src/hub/", // speaks the hub's contract
            "creatorup/src/lib.rs",
            "service/src/grpc/",
            "service/src/http/",
            "service/src/front.rs",
            "service/src/health.rs",
            "service/src/telemetry.rs", // counts calls by method and code
        ],
    );
}

#[test]
fn only_the_doors_know_the_http_server() {
    only_in(
        &["axum", "axum_server", "tower_http", "hyper"],
        &[
            "server/src/grpc/mod.rs", // hands the services out as a router
            "server/src/lib.rs",
            "creatorup/src/grpc/mod.rs",
            "creatorup/src/lib.rs",
            "service/src/http/",
            "service/src/grpc/gate.rs", // sits between the router and the services
            "service/src/front.rs",
            "service/src/health.rs",
            "service/src/serve.rs",
        ],
    );
}

#[test]
fn only_storage_knows_the_database() {
    only_in(
        &["sea_orm", "sea_query", "sqlx", "upbridge_migrations"],
        &[
            "server/src/storage/",
            "server/src/storage.rs",
            "server/src/main.rs",
            "creatorup/src/storage/",
            "creatorup/src/migration/",
            "creatorup/src/command.rs",
            "creatorup/src/lib.rs", // hands the migrations to the store
            "service/src/storage/",
        ],
    );
    // The command names the direction of a migration and nothing else.
    let main = sources("server/src/main.rs").remove(0);
    assert!(!["sea_orm", "sea_query", "sqlx"].iter().any(|word| main.names(word)));
}

#[test]
fn only_the_outward_door_calls_others() {
    only_in(&["reqwest"], &["service/src/delivery/"]);
    only_in(&["lettre", "tokio_rustls", "rustls_platform_verifier"], &["server/src/delivery/"]);
}

#[test]
fn only_one_room_calls_the_hub_and_one_starts_programs() {
    only_in(&["upbridge_client"], &["creatorup/src/hub/", "server/src/"]);
    only_in(&["tokio::process"], &["creatorup/src/video/child.rs", "server/src/command/demo/film.rs"]);
}

#[test]
fn only_the_configuration_reads_the_environment() {
    only_in(&["std::env", "dotenvy"], &["service/src/config.rs"]);
    only_in(
        &["gather"],
        &["service/src/config.rs", "server/src/config.rs", "server/src/config/", "creatorup/src/config.rs"],
    );
}

#[test]
fn tasks_are_started_where_they_are_also_ended() {
    only_in(
        &["tokio::spawn", "TaskTracker"],
        &[
            "server/src/lib.rs",
            "creatorup/src/lib.rs",
            "service/src/queue/worker.rs",
            "service/src/storage/pool.rs", // looks after a pool until that is dropped
            "service/src/serve.rs",        // waits for signals as long as the process lives
        ],
    );
}

#[test]
fn one_file_asks_which_database_it_is() {
    const EXCEPTIONS: &[(&str, &str)] = &[
        ("migrations/src/lib.rs", "takes PostgreSQL's advisory lock, below the hub's own dialect"),
        ("migrations/src/table.rs", "writes the default of a time, which the two databases spell differently"),
    ];
    let all: Vec<Source> = house().chain(sources("migrations/")).collect();
    let found = all.iter().filter(|source| source.names("DbBackend") || source.names("DatabaseBackend"));
    let found = found.map(|source| source.path.clone()).filter(|path| path != "service/src/storage/dialect.rs");
    only_exceptions(found.collect(), EXCEPTIONS);
}

#[test]
fn every_room_looks_inward_only() {
    // A room, and the rooms it may not look into, in its own crate or in the one below it.
    let doors = ["crate::grpc", "crate::http", "crate::front", "crate::health", "crate::telemetry", "crate::config"];
    const MODEL: &[&str] =
        &["crate::storage", "crate::domain", "crate::queue", "tokio", "sea_orm", "tonic", "axum", "upbridge_proto"];
    /// Rooms that are doors themselves, or speak a contract as one does.
    const DOORS: [&str; 3] = ["service/src/http/", "service/src/grpc/", "creatorup/src/hub/"];
    const QUEUE: &[&str] = &["crate::delivery", "sea_orm", "tonic", "axum", "upbridge_proto"];
    let rooms: [(&str, &[&str]); 15] = [
        ("creatorup/src/model/", MODEL),
        ("creatorup/src/storage/", &["crate::domain", "crate::hub", "crate::video", "upbridge_service::queue"]),
        ("creatorup/src/domain/", &["sea_orm", "upbridge_service::delivery"]),
        ("creatorup/src/hub/", &["crate::storage", "crate::domain", "crate::video"]),
        ("creatorup/src/video/", &["crate::storage", "crate::domain", "crate::hub"]),
        ("server/src/model/", MODEL),
        ("server/src/storage", &["crate::domain", "crate::queue"]),
        ("server/src/domain/", &["crate::delivery"]),
        ("server/src/delivery/", &["crate::storage", "crate::domain", "crate::queue"]),
        ("service/src/model/", MODEL),
        ("service/src/storage/", &["crate::queue", "crate::delivery"]),
        ("service/src/queue/", QUEUE),
        ("service/src/delivery/", &["crate::storage", "crate::queue"]),
        ("service/src/http/", &["crate::storage", "crate::queue"]),
        ("service/src/grpc/", &["crate::storage", "crate::queue"]),
    ];
    let mut breaches = Vec::new();
    for (room, forbidden) in rooms {
        let doors = doors.iter().filter(|_| !DOORS.contains(&room));
        for word in forbidden.iter().chain(doors) {
            let below = word.replace("crate::", "upbridge_service::");
            let found = sources(room).into_iter().filter(|source| source.names(word) || source.names(&below));
            breaches.extend(found.map(|source| format!("{} names {word}", source.path)));
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn what_servers_stand_on_knows_none_of_them() {
    // Neither a server, nor a noun of one, nor which contract is served.
    let words = ["upbridge_server", "creatorup", "CREATORUP", "UPBRIDGE", "sync_events", "users", "Hub"];
    let breaches = sources("service/src/").into_iter().filter(|source| !source.is_test()).flat_map(|source| {
        let code = source.code().split("#[cfg(test)]").next().unwrap_or_default().to_owned();
        let source = Source { path: source.path, text: code };
        let named = words.into_iter().filter(|word| source.names(word));
        named.map(|word| format!("{} names {word}", source.path)).collect::<Vec<_>>()
    });
    let breaches: Vec<String> = breaches.collect();
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<_> = sources("").into_iter().filter(|source| !source.text.starts_with("//!")).collect();
    assert!(silent.is_empty(), "without a //! first: {:#?}", silent.iter().map(|one| &one.path).collect::<Vec<_>>());
}

#[test]
fn no_file_is_too_long_to_be_read() {
    const EXCEPTIONS: &[(&str, &str)] = &[];
    let long = sources("").into_iter().filter(|source| !source.is_test() && source.text.lines().count() > 500);
    only_exceptions(long.map(|source| source.path).collect(), EXCEPTIONS);
}

#[test]
fn nothing_is_left_to_be_done_later() {
    let words = [concat!("to", "do!"), concat!("unimple", "mented!"), concat!("db", "g!")];
    let found = sources("").into_iter().filter(|source| words.iter().any(|word| source.code().contains(word)));
    let found: Vec<_> = found.map(|source| source.path).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_test_waits_for_time_to_pass() {
    let word = concat!("sle", "ep(");
    let found = sources("tests/it/").into_iter().filter(|source| source.code().contains(word));
    let found: Vec<_> = found.map(|source| source.path).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_name_of_a_test_is_a_sentence() {
    let word = concat!("fn te", "st_");
    // A function that is no test may well be about one, such as the test of a connection.
    let names_one = |code: &str| {
        let lines: Vec<_> = code.lines().map(str::trim_start).collect();
        let is_test = |line: &str| line.starts_with("#[") && line.contains("test");
        lines.windows(2).any(|pair| is_test(pair[0]) && pair[1].contains(word))
    };
    let found = sources("").into_iter().filter(|source| names_one(&source.code()));
    let found: Vec<_> = found.map(|source| source.path).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_example_environment_lists_every_variable_that_is_read() {
    let config = sources("server/src/config").into_iter().chain(sources("creatorup/src/config"));
    let config = config.filter(|source| !source.is_test());
    let config: Vec<String> = config.map(|source| source.code()).collect();
    let code = config.iter().map(|code| code.split("#[cfg(test)]").next().unwrap()).collect::<String>();
    let is_name = |text: &&str| {
        text.len() > 2
            && text.starts_with(|letter: char| letter.is_ascii_uppercase())
            && !text.ends_with('_')
            && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    // Some are accepted because a shell may export them for clients, though no server reads them; the others are the
    // system's.
    const NOT_OURS: [&str; 3] = ["UPBRIDGE_URL", "PATH", "LD_LIBRARY_PATH"];
    let names: BTreeSet<&str> = code.split('"').filter(is_name).filter(|name| !NOT_OURS.contains(name)).collect();
    assert!(names.len() > 15 && names.contains("DATABASE_URL") && names.contains("CREATORUP_API_KEY"), "{names:?}");
    let example = std::fs::read_to_string(root().join(".env.example")).expect(".env.example");
    let assigned = |line: &str| Some(line.trim_start_matches('#').trim().split_once('=')?.0.trim_end().to_owned());
    let listed: BTreeSet<String> = example.lines().filter_map(assigned).collect();
    let missing: Vec<_> = names.into_iter().filter(|name| !listed.contains(*name)).collect();
    assert!(missing.is_empty(), "not in .env.example: {missing:?}");
}

#[test]
fn whoever_deploys_is_told_of_every_secret_that_production_requires() {
    let production = BTreeMap::from([("UPBRIDGE_ENV".to_owned(), "production".to_owned())]);
    let unused = Path::new("unused");
    let problems = upbridge_server::config::Config::read(&production, unused).expect_err("secrets are missing");
    let required = |problem: &String| problem.strip_suffix(" is required in production").map(str::to_owned);
    let required: Vec<String> = problems.list().iter().filter_map(required).collect();
    assert!(required.len() >= 4, "{problems}");
    for file in ["README.md", "deploy/Dockerfile", "deploy/upbridge.service"] {
        let text = std::fs::read_to_string(root().join(file)).expect(file);
        let missing: Vec<_> = required.iter().filter(|name| !text.contains(name.as_str())).collect();
        assert!(missing.is_empty(), "not in {file}: {missing:?}");
    }
}
