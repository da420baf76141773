//! The facade: what membership stands on, and what it is given at start.

use crate::books;
use crate::clock::{Clockwork, Housekeeping};
use crate::customers::Customers;
use crate::desk::Desks;
use crate::earn::EarnRules;
use crate::error::Error;
use crate::member::corrupt;
use crate::policy::Remembered;
use crate::reaction;
use crate::rule::BenefitRules;
use crate::tier::TierPolicy;
use crate::vouchers::Vouchers;
use futures::FutureExt;
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::keys::Credentials;
use heyuan_kernel::plugin::Plugins;
use heyuan_kernel::processor::Task;
use heyuan_kernel::pump::Reaction;
use heyuan_kernel::{Actor, Kernel, Reach, Scope, Tx, sql};
use heyuan_ledger::{Ledger, Period};
use std::sync::Arc;

/// Months before the first start in which facts may still count: as far back as their own time may lie. Older ones count in the first.
const HISTORY_MONTHS: i64 = 60;

/// Refuses all but an admin key of the whole group, in words that name what needs one.
pub(crate) fn require_group(actor: &Actor, words: &str) -> Result<(), Error> {
    actor.require(Scope::Admin)?;
    if *actor.reach() == Reach::Everything { Ok(()) } else { Err(Error::refused(kernel_codes::FORBIDDEN, words)) }
}

/// One membership for all lines. Cheap to clone.
#[derive(Clone)]
pub struct Membership {
    parts: Arc<Parts>,
}

struct Parts {
    kernel: Kernel,
    ledger: Ledger,
    credentials: Credentials,
    plugins: Plugins,
    customers: Arc<dyn Customers>,
    rules: Arc<dyn BenefitRules>,
    vouchers: Arc<dyn Vouchers>,
    remembered: Remembered,
    desks: Desks,
}

impl Membership {
    /// Membership over the book, the register of plugins, and the answers that it needs from others.
    pub fn new(
        kernel: Kernel,
        ledger: Ledger,
        credentials: Credentials,
        plugins: Plugins,
        customers: Arc<dyn Customers>,
        rules: Arc<dyn BenefitRules>,
        vouchers: Arc<dyn Vouchers>,
    ) -> Membership {
        let (remembered, desks) = (Remembered::default(), Desks::default());
        Membership { parts: Arc::new(Parts { kernel, ledger, credentials, plugins, customers, rules, vouchers, remembered, desks }) }
    }

    /// Opens the book of points, for history as well, and the lines' accounts, and writes the first earn rules and the first tier policy,
    /// where they are missing. Called at start, before the first request.
    ///
    /// # Errors
    /// The database's.
    pub async fn prepare(&self) -> Result<(), Error> {
        let membership = self.clone();
        self.kernel()
            .db
            .write("prepare membership", move |tx| {
                let membership = membership.clone();
                async move {
                    membership.open_book(tx).await?;
                    membership.ledger().open(tx, &books::standing_accounts()).await?;
                    membership.write_version(tx, &EarnRules::first()).await?;
                    membership.write_version(tx, &TierPolicy::first()).await
                }
                .boxed()
            })
            .await?;
        let striped: Vec<String> = books::standing_accounts().iter().map(|account| account.id().to_owned()).collect();
        Ok(self.ledger().remember_striped(&striped).await?)
    }

    /// Opens the book of points. A release before this one kept what is closed in a table of its own; that is taken over once and read no
    /// more.
    async fn open_book(&self, tx: &Tx) -> Result<(), Error> {
        if self.ledger().has_book(tx, books::POINTS).await? {
            return Ok(());
        }
        let row = sql::one(tx.conn(), "SELECT closed_through FROM membership_book WHERE name = 'points'", []).await?;
        let closed: i64 = row.map_or(Ok(0), |row| sql::get(&row, "closed_through"))?;
        let month = Period::of(&self.kernel().zone, self.kernel().clock.now());
        let opens_at = month.months_back(HISTORY_MONTHS);
        self.ledger().open_book(tx, books::POINTS, opens_at, Period::from_number(closed)).await?;
        Ok(())
    }

    /// Every version of the earn rules, the newest last.
    pub(crate) async fn earn_rules<C: sql::Connection>(&self, conn: &C) -> Result<Vec<EarnRules>, Error> {
        let rows = sql::all(conn, "SELECT body FROM membership_earn_rules ORDER BY version", []).await?;
        let body = |row| Ok(serde_json::from_str(&sql::get::<String>(row, "body")?).map_err(|e| corrupt("earn rules", e))?);
        rows.iter().map(body).collect()
    }

    /// Every version of the tier policy, the newest last.
    pub(crate) async fn tier_policies<C: sql::Connection>(&self, conn: &C) -> Result<Arc<[TierPolicy]>, Error> {
        let rows = sql::all(conn, "SELECT body FROM membership_tier_policy ORDER BY version", []).await?;
        let body = |row: &sql::Row| -> Result<TierPolicy, Error> {
            Ok(serde_json::from_str(&sql::get::<String>(row, "body")?).map_err(|e| corrupt("tier policy", e))?)
        };
        rows.iter().map(body).collect()
    }

    /// What membership does about the facts of others.
    pub fn reactions(&self) -> Vec<Arc<dyn Reaction>> {
        reaction::all(self)
    }

    /// What turns because time passes: points expire, tiers are lost, what nobody needs goes.
    pub fn tasks(&self) -> Vec<Arc<dyn Task>> {
        vec![Arc::new(Clockwork::new(self.clone())), Arc::new(Housekeeping::new(self.clone()))]
    }

    pub(crate) fn kernel(&self) -> &Kernel {
        &self.parts.kernel
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.parts.ledger
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.parts.credentials
    }

    pub(crate) fn plugins(&self) -> &Plugins {
        &self.parts.plugins
    }

    pub(crate) fn customers(&self) -> &dyn Customers {
        self.parts.customers.as_ref()
    }

    pub(crate) fn remembered(&self) -> &Remembered {
        &self.parts.remembered
    }

    pub(crate) fn desks(&self) -> &Desks {
        &self.parts.desks
    }

    pub(crate) fn rules(&self) -> &dyn BenefitRules {
        self.parts.rules.as_ref()
    }

    pub(crate) fn vouchers(&self) -> &dyn Vouchers {
        self.parts.vouchers.as_ref()
    }
}
