//! The facade and what it stands on.

use crate::Settings;
use crate::error::Error;
use crate::gateway::Client;
use crate::reaction::Grants;
use crate::tasks::{Expiry, Gateway, Inbox};
use futures::future::BoxFuture;
use heyuan_contract::{MemberId, OrderId, OrgUnitId};
use heyuan_kernel::error::codes;
use heyuan_kernel::processor::Task;
use heyuan_kernel::pump::Reaction;
use heyuan_kernel::secret::Key;
use heyuan_kernel::{Actor, Kernel, Problem, Scope};
use heyuan_ledger::Ledger;
use std::sync::Arc;

/// What the mall must know of members; implemented where the wings are wired.
pub trait Members: Send + Sync {
    /// Whether there is such a member.
    fn exists<'a>(&'a self, member: &'a MemberId) -> BoxFuture<'a, Result<bool, Problem>>;

    /// Sets points of a member aside for an order, and answers the hold. The same again is the same hold while it stands.
    fn set_aside<'a>(&'a self, actor: &'a Actor, wanted: &'a PointsWanted) -> BoxFuture<'a, Result<String, Problem>>;

    /// Sets the points of a hold free; one that has ended stays ended.
    fn set_free<'a>(&'a self, member: &'a MemberId, hold: &'a str) -> BoxFuture<'a, Result<(), Problem>>;
}

/// Points to set aside for an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointsWanted {
    /// Whose.
    pub member: MemberId,
    /// How many; above zero.
    pub points: i64,
    /// The unit that sells, whose line gets their cost at the clearing.
    pub unit: OrgUnitId,
    /// The same for every try of the same order, another for any other.
    pub name: String,
    /// The order of this try.
    pub order: OrderId,
    /// For how long they are set aside, unless the order ends before.
    pub minutes: i64,
}

/// The mall; cheap to clone.
#[derive(Clone)]
pub struct Mall {
    pub(crate) kernel: Kernel,
    pub(crate) members: Arc<dyn Members>,
    pub(crate) ledger: Ledger,
    pub(crate) settings: Arc<Settings>,
    pub(crate) client: Client,
    /// Seals the codes of vouchers.
    pub(crate) code_key: Key,
}

impl Mall {
    /// A mall on migrated tables.
    pub fn new(kernel: Kernel, members: Arc<dyn Members>, settings: Settings) -> Mall {
        let code_key = kernel.keys.lookup().derive("mall/voucher-code");
        let client = Client::new(&settings);
        let ledger = Ledger::new(kernel.clone());
        Mall { kernel, members, ledger, settings: Arc::new(settings), client, code_key }
    }

    /// What the mall does when others' facts arrive.
    pub fn reactions(&self) -> Vec<Arc<dyn Reaction>> {
        vec![Arc::new(Grants::new(self.clone()))]
    }

    /// What the processor does for the mall: free the stock of unpaid orders, apply what waits in the inbox, ask for refunds.
    pub fn tasks(&self) -> Vec<Arc<dyn Task>> {
        vec![Arc::new(Expiry::new(self.clone())), Arc::new(Inbox::new(self.clone())), Arc::new(Gateway::new(self.clone()))]
    }

    /// Members see what is sold; so do keys of apps and administrators.
    pub(crate) async fn require_shopper(&self, actor: &Actor) -> Result<(), Error> {
        match actor.as_member() {
            // A token can't be called back; the membership that it speaks for can be over.
            Some(member) if !self.members.exists(member).await? => {
                Err(Problem::new(codes::FORBIDDEN, "the membership that this token speaks for has ended").into())
            }
            Some(_) => Ok(()),
            None => Ok(actor.require_any(&[Scope::App, Scope::Admin])?),
        }
    }
}
