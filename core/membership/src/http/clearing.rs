//! Clearing over HTTP.

use crate::clearing::{Clearing, ClearingCentre, ClearingLine, ClearingState, MatrixCell};
use crate::facade::Membership;
use actix_web::{get, web};
use heyuan_kernel::Problem;
use heyuan_kernel::http::Authenticated;
use heyuan_kernel::problems::{Invalid, Unwelcome};
use serde::Serialize;
use utoipa::ToSchema;

/// The clearing of a month between the lines and the points centre.
#[derive(Serialize, ToSchema)]
pub(super) struct ClearingBody {
    /// The month.
    #[schema(examples("2026-11"))]
    period: String,
    /// `open`, `closing` or `closed`.
    state: &'static str,
    /// Every line.
    lines: Vec<ClearingLineBody>,
    /// Points spent, by issuer and spender.
    matrix: Vec<ClearingCellBody>,
    /// The points centre's own side.
    centre: ClearingCentreBody,
}

/// The points centre's month.
#[derive(Serialize, ToSchema)]
struct ClearingCentreBody {
    /// Points that paid what members owed for points taken back after they had been spent.
    recovered_points: i64,
    /// Their cost, which the centre keeps.
    recovered_fen: i64,
    /// What the centre gets from the lines in sum; with a minus, what it owes them.
    net_fen: i64,
}

impl From<ClearingCentre> for ClearingCentreBody {
    fn from(centre: ClearingCentre) -> ClearingCentreBody {
        ClearingCentreBody { recovered_points: centre.recovered_points, recovered_fen: centre.recovered_fen, net_fen: centre.net_fen }
    }
}

/// One line's month: points, and their cost in fen.
#[derive(Serialize, ToSchema)]
pub(super) struct ClearingLineBody {
    /// The business line.
    line: String,
    /// Points that it issued.
    issued_points: i64,
    /// Their cost: the line owes it.
    issued_fen: i64,
    /// Points of its that were taken back.
    refunded_points: i64,
    /// Their cost: the line gets it.
    refunded_fen: i64,
    /// Points of its that expired.
    expired_points: i64,
    /// Their cost: the line gets it.
    expired_fen: i64,
    /// Points of its that were taken over as opening balances.
    opened_points: i64,
    /// Their cost: the line owes it.
    opened_fen: i64,
    /// Points of its that members forfeited by leaving.
    forfeited_points: i64,
    /// Their cost: the line gets it.
    forfeited_fen: i64,
    /// Points of its that people granted, less those that they took.
    adjusted_points: i64,
    /// Their cost: the line owes it, or with a minus gets it.
    adjusted_fen: i64,
    /// Points of any line that were spent with it, less those given back.
    spent_points: i64,
    /// Their cost: the line gets it.
    spent_fen: i64,
    /// Corrections of earlier months that count in this one: what the line gets, or with a minus owes.
    corrected_fen: i64,
    /// What the line gets in sum; with a minus, what it owes.
    net_fen: i64,
}

impl From<ClearingLine> for ClearingLineBody {
    fn from(line: ClearingLine) -> ClearingLineBody {
        ClearingLineBody {
            line: line.line.to_string(),
            issued_points: line.issued_points,
            issued_fen: line.issued_fen,
            refunded_points: line.refunded_points,
            refunded_fen: line.refunded_fen,
            expired_points: line.expired_points,
            expired_fen: line.expired_fen,
            opened_points: line.opened_points,
            opened_fen: line.opened_fen,
            forfeited_points: line.forfeited_points,
            forfeited_fen: line.forfeited_fen,
            adjusted_points: line.adjusted_points,
            adjusted_fen: line.adjusted_fen,
            spent_points: line.spent_points,
            spent_fen: line.spent_fen,
            corrected_fen: line.corrected_fen,
            net_fen: line.net_fen,
        }
    }
}

/// Points of one line spent with another.
#[derive(Serialize, ToSchema)]
struct ClearingCellBody {
    /// Who stands for them.
    issuer: String,
    /// Where they were spent.
    spender: String,
    /// How many.
    points: i64,
    /// Their cost.
    fen: i64,
}

impl From<MatrixCell> for ClearingCellBody {
    fn from(cell: MatrixCell) -> ClearingCellBody {
        ClearingCellBody { issuer: cell.issuer.to_string(), spender: cell.spender.to_string(), points: cell.points, fen: cell.fen }
    }
}

impl From<Clearing> for ClearingBody {
    fn from(clearing: Clearing) -> ClearingBody {
        ClearingBody {
            period: clearing.period,
            state: match clearing.state {
                ClearingState::Open => "open",
                ClearingState::Closing => "closing",
                ClearingState::Closed => "closed",
            },
            lines: clearing.lines.into_iter().map(ClearingLineBody::from).collect(),
            matrix: clearing.matrix.into_iter().map(ClearingCellBody::from).collect(),
            centre: clearing.centre.into(),
        }
    }
}

/// Reads the clearing of a month: as it stands, or as it was closed.
#[utoipa::path(
    tag = "membership", summary = "Read a clearing", security(("key" = [])),
    params(("period" = String, Path, description = "A month such as 2026-11")),
    responses(
        (status = 200, body = ClearingBody),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/clearing/{period}")]
pub(super) async fn get_clearing(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    period: web::Path<String>,
) -> Result<web::Json<ClearingBody>, Problem> {
    Ok(web::Json(membership.clearing(&actor, &period).await?.into()))
}
