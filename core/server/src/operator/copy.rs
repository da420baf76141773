//! The copy of the embedded database from before an upgrade, which goes when the operator knows that the upgrade is good.

use crate::copies::Copies;
use actix_web::{delete, web};
use heyuan_kernel::error::{ProblemBody, codes};
use heyuan_kernel::http::Authenticated;
use heyuan_kernel::{Problem, Scope};
use serde::Serialize;
use utoipa::ToSchema;

/// What was there.
#[derive(Debug, Serialize, ToSchema)]
struct RemovedCopies {
    /// Names of the files that were removed; none where there was no copy.
    removed: Vec<String>,
}

#[utoipa::path(tag = "Operator", summary = "Remove the copy of the embedded database from before the last upgrade; again, it changes nothing",
    security(("operator" = [])),
    responses((status = 200, body = RemovedCopies), (status = 401, body = ProblemBody, content_type = "application/problem+json")))]
#[delete("/v1/operator/database-copy")]
pub(super) async fn delete_database_copy(
    Authenticated(actor): Authenticated,
    copies: web::Data<Copies>,
) -> Result<web::Json<RemovedCopies>, Problem> {
    actor.require(Scope::Operator)?;
    let copies = copies.into_inner();
    let removed = web::block(move || copies.remove_all()).await.map_err(|error| error.to_string());
    match removed.and_then(|removed| removed.map_err(|error| format!("{error:#}"))) {
        Ok(removed) => Ok(web::Json(RemovedCopies { removed })),
        Err(error) => {
            tracing::error!(error, "the copy of the database from before the upgrade can't be removed");
            Err(Problem::new(codes::UNAVAILABLE, "the copy can't be removed"))
        }
    }
}
