//! Plugins as their `Plugin` objects wish them: fetched, checked, approved and put in force, or why not.

use super::source::{self, Sources};
use crate::settings::PluginSettings;
use crate::usage::Usage;
use crate::wiring::check_activation;
use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, HttpResponse, delete, put, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use heyuan_cdp::know::Know;
use heyuan_kernel::error::ProblemBody;
use heyuan_kernel::http::{Authenticated, parse_json, read_body};
use heyuan_kernel::plugin::{Claim, MODULE_BYTES_MAX, Mode, PluginKind, Plugins, Standing, Version, Wish};
use heyuan_kernel::problems::{Missing, Stranger};
use heyuan_kernel::{Actor, Problem, Scope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A module in base64, and what stands around it.
const BODY_BYTES_MAX: usize = MODULE_BYTES_MAX / 3 * 4 + (256 << 10);
/// Where in the order a plugin of the operator's runs.
const PRIORITY: i64 = 100;
/// Digits of a digest.
const DIGEST_DIGITS: usize = 64;

/// A plugin as the operator sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PluginStatus {
    name: String,
    /// `tagger` or `benefit`.
    kind: &'static str,
    /// `sha256:` and the digits of the version that counts or is wished for; empty before there is one.
    digest: String,
    /// `active`, `shadow`, `checked`, `quarantined` or `retired`.
    state: &'static str,
    /// `operator` or `api`.
    managed_by: &'static str,
    /// That of the object; where the API manages it, how often it was activated.
    generation: i64,
    /// 99 of 100 of the last calls in this process used no more fuel.
    fuel_p99: u64,
    /// Calls, or rows of a batch, that failed since this process began.
    errors: u64,
    /// Why it is not as it should be; empty where it is.
    message: String,
}

impl PluginStatus {
    pub(super) fn of(standing: Standing, usage: &Usage) -> PluginStatus {
        let used = standing.digest.as_deref().map(|digest| usage.of(digest)).unwrap_or_default();
        PluginStatus {
            kind: spelled(standing.kind),
            digest: standing.digest.map(|digest| format!("sha256:{digest}")).unwrap_or_default(),
            state: standing.state,
            managed_by: if standing.by_operator { "operator" } else { "api" },
            generation: standing.generation,
            fuel_p99: used.fuel_p99,
            errors: used.errors,
            message: standing.message,
            name: standing.name,
        }
    }
}

/// The spelling in the operator's objects.
fn spelled(kind: PluginKind) -> &'static str {
    match kind {
        PluginKind::Tagger => "tagger",
        PluginKind::BenefitRule => "benefit",
    }
}

/// What the plugin does, in the spelling of the operator's objects.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum WishedKind {
    Tagger,
    Benefit,
}

impl From<WishedKind> for PluginKind {
    fn from(kind: WishedKind) -> Self {
        match kind {
            WishedKind::Tagger => PluginKind::Tagger,
            WishedKind::Benefit => PluginKind::BenefitRule,
        }
    }
}

/// Where the module is: its bytes, or an address with the digest of what must be there.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WishedSource {
    /// The module in base64.
    bytes: Option<String>,
    /// An https address on one of `url_hosts`.
    url: Option<String>,
    /// `sha256:` and 64 hex digits; with `url` alone.
    digest: Option<String>,
}

/// How a plugin should be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PutPlugin {
    kind: WishedKind,
    source: WishedSource,
    /// Everything that it may read.
    #[schema(max_items = 512)]
    approved: Vec<String>,
    mode: Mode,
    /// The generation of the object; it only grows.
    #[schema(minimum = 0)]
    generation: i64,
    /// Hosts that a module may be fetched from.
    #[serde(default)]
    url_hosts: Vec<String>,
}

/// A body that may hold a module.
struct Wished(PutPlugin);

impl FromRequest for Wished {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = payload.take();
        async move { parse_json(&read_body(payload, BODY_BYTES_MAX).await?).map(Wished) }.boxed_local()
    }
}

/// What wishes are carried out with.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub(crate) plugins: Plugins,
    pub(crate) know: Know,
    pub(crate) settings: PluginSettings,
    pub(crate) usage: std::sync::Arc<Usage>,
}

impl Workshop {
    pub(super) async fn statuses(&self, actor: &Actor) -> Result<Vec<PluginStatus>, Problem> {
        let standings = self.plugins.standings(actor).await?;
        Ok(standings.into_iter().map(|standing| PluginStatus::of(standing, &self.usage)).collect())
    }

    async fn status(&self, actor: &Actor, name: &str) -> Result<PluginStatus, Problem> {
        Ok(PluginStatus::of(self.plugins.standing(actor, name).await?, &self.usage))
    }

    /// Makes it so. What was reached before a refusal stays, and the wish says why it is not more.
    async fn carry_out(&self, actor: &Actor, wish: &Wish, source: &WishedSource, url_hosts: &[String]) -> Result<(), Problem> {
        // The register's doors are for administrators; the operator was let in by its own.
        let acting = Actor::system("operator");
        let module = self.module(source, url_hosts).await?;
        let version = self.plugins.upload(&acting, &wish.name, module).await?;
        if version.kind != wish.kind {
            let detail = format!("the object says {}, and the module is a {}", spelled(wish.kind), spelled(version.kind));
            return Err(Problem::invalid("kind", detail));
        }
        self.plugins.note_wish(wish, Some(&version.digest), "").await?;
        let is_active = self.plugins.standing(actor, &wish.name).await?.state == "active";
        match wish.mode {
            Mode::Active if is_active => {}
            Mode::Active => self.activate(&acting, wish, &version).await?,
            Mode::Shadow | Mode::Disabled => self.plugins.take_out(&acting, &wish.name).await?,
        }
        self.plugins.approve(&acting, &wish.name, &wish.approved).await?;
        Ok(())
    }

    async fn activate(&self, acting: &Actor, wish: &Wish, version: &Version) -> Result<(), Problem> {
        check_activation(&self.plugins, &self.know, &wish.name, &version.digest).await?;
        let approve: Vec<String> = version.reads.iter().filter(|value| wish.approved.contains(value)).cloned().collect();
        self.plugins.activate(acting, &wish.name, &version.digest, PRIORITY, &approve).await?;
        Ok(())
    }

    async fn module(&self, source: &WishedSource, url_hosts: &[String]) -> Result<Vec<u8>, Problem> {
        match (&source.bytes, &source.url, &source.digest) {
            (Some(bytes), None, None) => STANDARD.decode(bytes).map_err(|_| Problem::invalid("source.bytes", "expected base64")),
            (None, Some(url), Some(digest)) => {
                let digest = digest.strip_prefix("sha256:").filter(|digits| is_digest(digits));
                let digest = digest.ok_or_else(|| Problem::invalid("source.digest", "expected sha256: and 64 hex digits in lower case"))?;
                // A version never changes, so that what is here is not asked for again.
                if let Some(module) = self.plugins.module(digest).await? {
                    return Ok(module);
                }
                let from = Sources { hosts: url_hosts, loopback: self.settings.source_loopback };
                source::fetch(url, digest, from).await
            }
            _ => Err(Problem::invalid("source", "expected bytes, or url and digest")),
        }
    }
}

fn words_of(problem: &Problem) -> String {
    let body = problem.body();
    format!("{}: {}", body.code, body.detail)
}

fn is_digest(digits: &str) -> bool {
    digits.len() == DIGEST_DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
}

#[utoipa::path(tag = "Operator", summary = "Have a plugin as its object wishes", security(("operator" = [])), request_body = PutPlugin,
    params(("name" = String, Path, description = "The plugin's name: 1 to 63 characters of a-z 0-9 -")),
    responses((status = 200, body = PluginStatus), (status = 400, body = ProblemBody, content_type = "application/problem+json",
            description = "`invalid_plugin`, `plugin_source_refused`, `plugin_digest_mismatch`, or a wrong field"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json",
            description = "`managed_by_api`, `approval_needed`, or an older generation than the known one"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json", description = "`plugin_source_unreachable`"),
        Stranger))]
#[put("/v1/operator/plugins/{name}")]
pub(super) async fn put_plugin(
    Authenticated(actor): Authenticated,
    workshop: web::Data<Workshop>,
    name: web::Path<String>,
    body: Wished,
) -> Result<web::Json<PluginStatus>, Problem> {
    actor.require(Scope::Operator)?;
    let PutPlugin { kind, source, approved, mode, generation, url_hosts } = body.0;
    let wish = Wish { name: name.into_inner(), kind: kind.into(), approved, mode, generation };
    if workshop.plugins.claim(&actor, &wish).await? == Claim::Granted {
        let done = workshop.carry_out(&actor, &wish, &source, &url_hosts).await;
        let message = done.as_ref().err().map(words_of).unwrap_or_default();
        workshop.plugins.note_wish(&wish, None, &message).await?;
        done?;
    }
    workshop.status(&actor, &wish.name).await.map(web::Json)
}

#[utoipa::path(tag = "Operator", summary = "Take a plugin of the operator's out of service and free its name", security(("operator" = [])),
    params(("name" = String, Path, description = "The plugin's name")),
    responses((status = 204), Stranger, Missing))]
#[delete("/v1/operator/plugins/{name}")]
pub(super) async fn delete_plugin(
    Authenticated(actor): Authenticated,
    workshop: web::Data<Workshop>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    actor.require(Scope::Operator)?;
    workshop.plugins.release(&actor, &name).await?;
    Ok(HttpResponse::NoContent().finish())
}
