//! What could not be removed at a tenant's end is tried again until it is gone.

use crate::context::Context;
use crate::crd::DatabaseServer;
use crate::kind::Kind;
use crate::name::{self, RECORD};
use crate::observe::master;
use crate::perform::end_on_server;
use crate::world::MasterSeen;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// How often leftovers are tried.
const PAUSE: Duration = Duration::from_secs(60);

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
    let (data_id, removing) = (text("dataId"), text("remove") == "true");
    let seen = master(context, data_id).await.map_err(|error| error.to_string())?;
    if let MasterSeen::There(master) = seen {
        // Whoever adopted the data meanwhile has it whole.
        if master.record.holder.is_none() {
            let server: DatabaseServer = serde_json::from_str(text("server")).map_err(|error| error.to_string())?;
            end_on_server(context, &server, &master, removing).await.map_err(|failure| failure.message)?;
            if removing {
                let removed = context
                    .kubernetes
                    .remove_secret(&context.config.namespace, &name::master_secret(data_id), master.version.clone())
                    .await;
                context.forget_master(data_id);
                removed.map_err(|error| error.to_string())?;
            }
        }
    }
    let object_name = record["metadata"]["name"].as_str().unwrap_or_default();
    context.kubernetes.remove(Kind::ConfigMap, Some(&context.config.namespace), object_name).await.map_err(|error| error.to_string())
}
