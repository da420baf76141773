//! `heyuan-operator explain TENANT`: what the operator sees of a tenant, what it wants, and what it waits for.

use crate::cli::print;
use crate::crd::{Tenant, TenantClass};
use crate::decide::{reason_named, resolve};
use crate::kubernetes;
use anyhow::Context;
use clap::Args;
use kube::{Api, ResourceExt};
use std::fmt::Write;
use std::sync::Arc;

/// How long the API server may be silent, in seconds, until somebody who waits is told so.
const SILENCE_SECONDS: u32 = 10;

/// Whom to explain.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExplainOptions {
    /// Name of the tenant
    tenant: String,
}

/// Explains a tenant to whoever may read it.
///
/// # Errors
/// No such tenant, or no way to the API server.
pub(crate) async fn explain(options: ExplainOptions) -> anyhow::Result<()> {
    let client = kubernetes::connect(SILENCE_SECONDS).await?;
    let tenant = Api::<Tenant>::all(client.clone())
        .get(&options.tenant)
        .await
        .with_context(|| format!("could not read tenant {}", options.tenant))?;
    let class = Api::<TenantClass>::all(client).get_opt(&tenant.spec.class).await.context("could not read the tenant's class")?;
    print(&explanation(&tenant, class.map(Arc::new).as_ref())?);
    Ok(())
}

/// The explanation as text.
fn explanation(tenant: &Tenant, class: Option<&Arc<TenantClass>>) -> anyhow::Result<String> {
    let status = tenant.status.clone().unwrap_or_default();
    let mut text = String::new();
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    writeln!(text, "Tenant {} ({})", tenant.name_any(), tenant.spec.display_name)?;
    writeln!(text, "  state      {}", or_none(status.state))?;
    if let Some(why) = &status.why {
        writeln!(text, "  why        {why}")?;
    }
    writeln!(text, "  url        {}", or_none(status.url))?;
    writeln!(
        text,
        "  release    {}{}",
        or_none(status.release),
        status.target.map(|target| format!(", on the way to {target}")).unwrap_or_default()
    )?;
    writeln!(text, "  data       {} in namespace {}", or_none(status.data_id), or_none(status.namespace))?;
    writeln!(text, "Wants")?;
    match class.map(|class| resolve(tenant, class)) {
        None => writeln!(text, "  nothing that can be resolved: there is no TenantClass {}", tenant.spec.class)?,
        Some(Err((reason, words))) => writeln!(text, "  nothing that can be resolved: {words} ({reason})")?,
        Some(Ok(resolved)) => {
            writeln!(text, "  release {} as {}", resolved.release.name, resolved.release.image)?;
            writeln!(
                text,
                "  {} to {} processes of size {}, a volume of {}",
                resolved.replicas.fewest(),
                resolved.replicas.most(),
                resolved.size.name,
                resolved.volume_size
            )?;
            if let Some(server) = &resolved.server {
                writeln!(text, "  a database on server {} at {}:{}", server.name, server.host, server.port)?;
            }
        }
    }
    if tenant.metadata.generation != status.observed_generation {
        writeln!(text, "The operator has not yet looked at generation {} of the spec.", tenant.metadata.generation.unwrap_or_default())?;
    }
    writeln!(text, "Parts")?;
    for condition in &status.conditions {
        writeln!(text, "  {:<19} {:<5} {}: {}", condition.type_, condition.status, condition.reason, condition.message)?;
        if let Some(reason) = reason_named(&condition.reason).filter(|reason| !reason.explained().next.is_empty()) {
            writeln!(text, "  {:<25} next: {}", "", reason.explained().next)?;
            writeln!(text, "  {:<25} more: docs/operator.md#{}", "", reason.anchor())?;
        }
    }
    Ok(text)
}
