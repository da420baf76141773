//! What membership needs to know of the mall's vouchers; answered by the mall, wired by the server.

use futures::future::BoxFuture;
use heyuan_contract::{OrgUnitId, ProductId};
use heyuan_kernel::Problem;

/// The mall's vouchers.
pub trait Vouchers: Send + Sync {
    /// The unit at whose counters a product is redeemed; nothing for one that is not there or is no voucher. Neither ever changes once the
    /// product is there.
    fn unit_of<'a>(&'a self, product: &'a ProductId) -> BoxFuture<'a, Result<Option<OrgUnitId>, Problem>>;
}
