//! CreatorUp's schema: its own tables, and beside them those of the queue, which every server of the house has.

mod m20240201_000001_create_creatorup;
mod m20240202_000001_add_queue;

use sea_orm_migration::prelude::*;

/// The migrations, oldest first.
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20240201_000001_create_creatorup::Migration), Box::new(m20240202_000001_add_queue::Migration)]
    }
}
