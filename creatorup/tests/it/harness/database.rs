//! A database for a test.

use sea_orm::{ConnectionTrait, Database, Statement};
use tempfile::TempDir;
use uuid::Uuid;

/// A database of its own: a file, or a database on the server of `TEST_POSTGRES_URL`; and a directory beside it.
pub struct TestDatabase {
    pub url: String,
    pub directory: TempDir,
}

impl TestDatabase {
    pub async fn new() -> TestDatabase {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let url = match std::env::var("TEST_POSTGRES_URL") {
            Ok(server) => {
                let name = format!("creatorup_test_{}", Uuid::now_v7().simple());
                let connection = Database::connect(&server).await.expect("TEST_POSTGRES_URL answers");
                connection.execute_unprepared(&format!("CREATE DATABASE {name}")).await.expect("a database");
                connection.close().await.expect("closed");
                let (base, _) = server.rsplit_once('/').expect("TEST_POSTGRES_URL names a database");
                format!("{base}/{name}")
            }
            Err(_) => format!("sqlite://{}?mode=rwc", directory.path().join("creatorup.db").display()),
        };
        TestDatabase { url, directory }
    }

    /// The first column of the only row, as an integer.
    pub async fn count(&self, sql: &str) -> i64 {
        let mut options = sea_orm::ConnectOptions::new(&self.url);
        options.max_connections(1).sqlx_logging(false);
        let connection = Database::connect(options).await.expect("the database opens");
        let statement = Statement::from_string(connection.get_database_backend(), sql);
        let row = connection.query_one_raw(statement).await.expect(sql).expect("a row");
        let count = row.try_get_by_index::<i64>(0).or_else(|_| row.try_get_by_index::<i32>(0).map(i64::from));
        connection.close().await.expect("closed");
        count.expect("an integer")
    }
}
