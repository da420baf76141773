//! Members of one customer: customers that became one may have a member each, linked and never poured together.

use crate::customers::Identifier;
use crate::error::Error;
use crate::facade::Membership;
use crate::member::{self, MemberRow};
use heyuan_contract::{AnchorId, MemberId};
use heyuan_kernel::Actor;
use heyuan_kernel::error::codes as kernel_codes;

/// Members of one customer that are looked at; people with more are one in a million.
const LINKED_MAX: u64 = 51;

impl Membership {
    /// The member that counts for the customer behind an anchor: the first that joined, when customers with a member each became one.
    pub(crate) async fn member_behind(&self, anchor: &AnchorId) -> Result<Option<MemberRow>, Error> {
        // Also where the anchor has a member of its own: that of another anchor of the customer may have joined before.
        member::find_by_anchors(self.kernel().db.near(), &self.anchors_behind(anchor).await?).await
    }

    /// The member that counts for the customer behind the first of these anchors that has one. An anchor whose person was erased just now
    /// has none.
    pub(crate) async fn member_among(&self, anchors: &[AnchorId]) -> Result<Option<MemberRow>, Error> {
        for anchor in anchors {
            match self.member_behind(anchor).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(Error::Refused(problem)) if problem.code() == kernel_codes::ERASED => {}
                Err(other) => return Err(other),
            }
        }
        Ok(None)
    }

    /// All members of the customer behind an anchor that have not left, the first that joined first.
    pub(crate) async fn members_behind(&self, anchor: &AnchorId) -> Result<Vec<MemberRow>, Error> {
        member::all_by_anchors(self.kernel().db.near(), &self.anchors_behind(anchor).await?, LINKED_MAX).await
    }

    /// The members that identifiers lead to, and those that they led to before they left; nobody where nothing is known of them. Nothing is
    /// recorded.
    pub(crate) async fn members_ever_behind(&self, identifiers: &[Identifier]) -> Result<Vec<MemberId>, Error> {
        let mut anchors = Vec::new();
        for anchor in self.customers().find_anchors(identifiers).await? {
            match self.anchors_behind(&anchor).await {
                Err(Error::Refused(problem)) if problem.code() == kernel_codes::ERASED => {}
                other => anchors.extend(other?),
            }
        }
        anchors.sort_unstable();
        anchors.dedup();
        let conn = self.kernel().db.near();
        let now = member::all_by_anchors(conn, &anchors, LINKED_MAX).await?;
        let mut ever = member::find_ever(conn, &anchors, LINKED_MAX).await?;
        ever.extend(now.into_iter().map(|member| member.id));
        ever.sort_unstable();
        ever.dedup();
        Ok(ever)
    }

    /// Every anchor of the customer behind one of them, in order.
    pub(crate) async fn anchors_behind(&self, anchor: &AnchorId) -> Result<Vec<AnchorId>, Error> {
        let customer = self.customers().customer_of(anchor).await?;
        let mut anchors = self.customers().anchors_of(&customer).await?;
        anchors.push(anchor.clone());
        anchors.sort_unstable();
        anchors.dedup();
        Ok(anchors)
    }

    /// The other members of a member's customer that have not left, the first that joined first, as far as the actor reaches.
    pub(crate) async fn linked_to(&self, actor: &Actor, row: &MemberRow) -> Result<Vec<MemberId>, Error> {
        let found = self.linked_rows(row).await?;
        Ok(found.into_iter().filter(|other| actor.reach().covers(&other.unit)).map(|other| other.id).collect())
    }

    /// The same, whoever asks.
    pub(crate) async fn linked_rows(&self, row: &MemberRow) -> Result<Vec<MemberRow>, Error> {
        let Some(anchor) = &row.anchor else { return Ok(Vec::new()) };
        let anchors = match self.anchors_behind(anchor).await {
            // Erased, and membership has not heard of it yet.
            Err(Error::Refused(problem)) if problem.code() == kernel_codes::ERASED => return Ok(Vec::new()),
            other => other?,
        };
        let mut found = member::all_by_anchors(self.kernel().db.near(), &anchors, LINKED_MAX).await?;
        found.retain(|other| other.id != row.id);
        Ok(found)
    }
}
