//! History as the lake has it: files and what has not got there yet, in one snapshot.

use super::fill::{EventPages, History};
use crate::event::Known;
use crate::event_type::EventTypes;
use crate::history::known_of;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use heyuan_contract::{AnchorId, Timestamp};
use heyuan_kernel::Problem;
use heyuan_lake::{EventRow, Lake, Scan, ScanOrder};

/// Events of a customer read at a time.
const PAGE_EVENTS: usize = 10_000;
/// Most events of one customer: beyond it the answer would be about a machine.
const EVENTS_MAX: usize = 200_000;

/// The past of a tenant.
#[derive(Clone)]
pub struct LakeHistory {
    lake: Lake,
    types: EventTypes,
}

impl LakeHistory {
    /// Over a lake that knows its tail, and the event types by which its rows are read.
    pub fn new(lake: Lake, types: EventTypes) -> LakeHistory {
        LakeHistory { lake, types }
    }
}

fn known(types: &EventTypes, rows: &[EventRow]) -> Result<Vec<Known>, Problem> {
    let types = types.types();
    rows.iter().map(|row| known_of(row, &types).map_err(Problem::from)).collect()
}

impl History for LakeHistory {
    fn events<'a>(&'a self, names: &'a [String], after: i64, until: i64) -> BoxFuture<'a, Result<EventPages, Problem>> {
        async move {
            let scan = Scan {
                position_max: until,
                occurred_from: Timestamp::MIN.ms(),
                occurred_until: Timestamp::MAX.ms(),
                names: names.to_vec(),
                order: ScanOrder::Position,
            };
            let types = self.types.clone();
            let pages = self.lake.scan(scan).await.map_err(Problem::from)?.map(move |rows| {
                let rows: Vec<EventRow> = rows.map_err(Problem::from)?.into_iter().filter(|row| row.position > after).collect();
                known(&types, &rows)
            });
            Ok(pages.boxed())
        }
        .boxed()
    }

    fn events_of<'a>(&'a self, anchors: &'a [AnchorId], until: i64) -> BoxFuture<'a, Result<Vec<Known>, Problem>> {
        async move {
            let anchors: Vec<String> = anchors.iter().map(AnchorId::to_string).collect();
            let mut events = Vec::new();
            let mut before = until.saturating_add(1);
            while events.len() < EVENTS_MAX {
                let rows = self.lake.events_of(&anchors, Some(before), PAGE_EVENTS).await.map_err(Problem::from)?;
                let Some(oldest) = rows.last().map(|row| row.position) else { break };
                before = oldest;
                events.extend(known(&self.types, &rows)?);
            }
            Ok(events)
        }
        .boxed()
    }
}
