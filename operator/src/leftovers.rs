//! What could not be removed at a tenant's end is tried again until it is gone.

use crate::context::Context;
use crate::crd::DatabaseServer;
use crate::kind::Kind;
use crate::master::{Master, Record};
use crate::name::{self, RECORD};
use crate::observe::master;
use crate::perform::{end_on_server, put_master};
use crate::world::MasterSeen;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// How often leftovers are tried.
const PAUSE: Duration = Duration::from_secs(60);

/// Who holds data while what is left of it is dealt with; no tenant's id.
pub(crate) const HOLDER: &str = "leftovers";

/// Tries for ever.
pub(crate) async fn run(context: Arc<Context>) {
    loop {
        let mut leftovers = context.kubernetes.live.mentioning(&context.config.namespace, Kind::ConfigMap, "leftover");
        leftovers.retain(|record| record["metadata"]["labels"][RECORD] == "leftover");
        context.kubernetes.metrics.leftovers.set(i64::try_from(leftovers.len()).unwrap_or(i64::MAX));
        for record in &leftovers {
            if let Err(words) = try_again(&context, record).await {
                tracing::warn!(data.id = record["data"]["dataId"].as_str().unwrap_or_default(), "a leftover is still there: {words}");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn try_again(context: &Context, record: &Value) -> Result<(), String> {
    let text = |field: &str| record["data"][field].as_str().unwrap_or_default();
    let data_id = text("dataId");
    match master(context, data_id).await.map_err(|error| error.to_string())? {
        MasterSeen::There(master) => match standing(&master.record, text("holder")) {
            Standing::Left => deal_with(context, text("server"), *master, text("remove") == "true").await?,
            Standing::Ending => return Ok(()),
            Standing::Adopted => {}
        },
        MasterSeen::Damaged(words) => return Err(words),
        MasterSeen::Missing => {}
    }
    let object_name = record["metadata"]["name"].as_str().unwrap_or_default();
    context.kubernetes.remove(Kind::ConfigMap, Some(&context.config.namespace), object_name).await.map_err(|error| error.to_string())
}

/// How data stands of which something was left on its server.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// Nobody has it but what is left.
    Left,
    /// The tenant that left it is not quite gone.
    Ending,
    /// Another tenant has it whole.
    Adopted,
}

fn standing(record: &Record, tenant: &str) -> Standing {
    match record.holder.as_deref() {
        None if record.leftover => Standing::Left,
        // Tried before, by a process that came to its end.
        Some(HOLDER) => Standing::Left,
        Some(holder) if record.leftover || holder == tenant => Standing::Ending,
        _ => Standing::Adopted,
    }
}

/// Ends what is left. Meanwhile the data is held, so that nobody adopts what is being taken away.
async fn deal_with(context: &Context, server: &str, mut master: Master, removing: bool) -> Result<(), String> {
    let server: DatabaseServer = serde_json::from_str(server).map_err(|error| error.to_string())?;
    let data_id = master.record.data_id.clone();
    master.record.holder = Some(HOLDER.to_owned());
    let held = put_master(context, master).await.map_err(|failure| failure.message)?;
    let ended = end_on_server(context, &server, &held, removing).await.map_err(|failure| failure.message);
    if ended.is_ok() && removing {
        let name = name::master_secret(&data_id);
        let removed = context.kubernetes.remove_secret(&context.config.namespace, &name, held.version.clone()).await;
        context.forget_master(&data_id);
        return removed.map_err(|error| error.to_string());
    }
    // Retained data may be adopted now; so may what could not be removed, until it is tried again.
    let mut free = held;
    (free.record.holder, free.record.leftover) = (None, ended.is_err());
    put_master(context, free).await.map_err(|failure| failure.message)?;
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::Home;
    use jiff::Timestamp;

    #[test]
    fn only_what_nobody_has_is_dealt_with() {
        let made = Master::make("data", "jade", "tenant-uid", Home::External, Timestamp::now());
        let record = |holder: Option<&str>, leftover: bool| {
            let mut record = made.record.clone();
            (record.holder, record.leftover) = (holder.map(str::to_owned), leftover);
            record
        };
        for (holder, leftover, stands) in [
            // The record is written, the keys do not say so yet.
            (Some("tenant-uid"), false, Standing::Ending),
            // The tenant waits for its namespace.
            (Some("tenant-uid"), true, Standing::Ending),
            (None, true, Standing::Left),
            // A process died over it.
            (Some(HOLDER), true, Standing::Left),
            // Adopted, and retained again by who adopted it.
            (Some("another-uid"), false, Standing::Adopted),
            (None, false, Standing::Adopted),
        ] {
            assert_eq!(standing(&record(holder, leftover), "tenant-uid"), stands, "{holder:?}, leftover {leftover}");
        }
    }
}
