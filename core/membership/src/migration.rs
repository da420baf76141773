//! Membership's migrations, under their own table.

use sea_orm_migration::prelude::*;

#[path = "migration/m20261122_000001_membership.rs"]
mod m20261122_000001_membership;
#[path = "migration/m20261127_000004_members.rs"]
mod m20261127_000004_members;
#[path = "migration/m20261127_000005_benefits.rs"]
mod m20261127_000005_benefits;
#[path = "migration/m20261127_000006_returns.rs"]
mod m20261127_000006_returns;
#[path = "migration/m20261127_000007_statements.rs"]
mod m20261127_000007_statements;
#[path = "migration/m20261127_000009_import.rs"]
mod m20261127_000009_import;
#[path = "migration/m20261127_000010_reconciliation.rs"]
mod m20261127_000010_reconciliation;
#[path = "migration/m20261129_000011_tiers.rs"]
mod m20261129_000011_tiers;
#[path = "migration/m20261129_000012_points_in_use.rs"]
mod m20261129_000012_points_in_use;
#[path = "migration/m20261129_000013_clearing.rs"]
mod m20261129_000013_clearing;
#[path = "migration/m20261129_000014_login.rs"]
mod m20261129_000014_login;
#[path = "migration/m20261129_000015_earning.rs"]
mod m20261129_000015_earning;
#[path = "migration/m20261129_000018_repeats.rs"]
mod m20261129_000018_repeats;
#[path = "migration/m20261130_000016_proofs.rs"]
mod m20261130_000016_proofs;
#[path = "migration/m20261130_000020_missed.rs"]
mod m20261130_000020_missed;
#[path = "migration/m20261130_000021_refund_hints.rs"]
mod m20261130_000021_refund_hints;
#[path = "migration/m20261130_000022_holds_of_orders.rs"]
mod m20261130_000022_holds_of_orders;
#[path = "migration/m20261130_000023_reservations.rs"]
mod m20261130_000023_reservations;

/// Membership's migrations.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261122_000001_membership::MIGRATION),
            Box::new(m20261127_000004_members::MIGRATION),
            Box::new(m20261127_000005_benefits::MIGRATION),
            Box::new(m20261127_000006_returns::MIGRATION),
            Box::new(m20261127_000007_statements::MIGRATION),
            Box::new(m20261127_000009_import::MIGRATION),
            Box::new(m20261127_000010_reconciliation::MIGRATION),
            Box::new(m20261129_000011_tiers::MIGRATION),
            Box::new(m20261129_000012_points_in_use::MIGRATION),
            Box::new(m20261129_000013_clearing::MIGRATION),
            Box::new(m20261129_000014_login::MIGRATION),
            Box::new(m20261129_000015_earning::MIGRATION),
            Box::new(m20261129_000018_repeats::MIGRATION),
            Box::new(m20261130_000016_proofs::MIGRATION),
            Box::new(m20261130_000020_missed::MIGRATION),
            Box::new(m20261130_000021_refund_hints::MIGRATION),
            Box::new(m20261130_000022_holds_of_orders::MIGRATION),
            Box::new(m20261130_000023_reservations::MIGRATION),
        ]
    }

    fn migration_table_name() -> DynIden {
        "membership_migration".into_iden()
    }
}

impl heyuan_kernel::migration::Steps for Migrator {}
