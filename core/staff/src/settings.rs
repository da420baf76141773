//! What staff's log-in is told at start, section `[staff]`.

use heyuan_contract::OrgUnitId;
use heyuan_kernel::config::Secret;
use heyuan_kernel::{Error, Scope};
use reqwest::Url;
use serde::Deserialize;
use std::ops::RangeInclusive;

/// Longest text of a setting, in bytes.
const TEXT_BYTES_MAX: usize = 200;
/// Sooner nobody has answered, later nobody waits any more.
const TIMEOUT_MS: RangeInclusive<u64> = 100..=60_000;
/// Roles of one group; more is a mistake.
const GRANTS_MAX: usize = 200;
/// What a role may give. `ingest` is for apps and `operator` for the operator: both act without a person.
const GIVEN: [Scope; 4] = [Scope::Admin, Scope::App, Scope::Reveal, Scope::Import];

/// The `staff` section. Without an issuer nobody logs in this way.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StaffSettings {
    /// The provider, as its tokens spell it (`iss`); below it lies `/.well-known/openid-configuration`.
    pub issuer: Option<String>,
    /// What the provider calls us.
    pub client_id: Option<String>,
    /// What we show to the provider.
    pub client_secret: Option<Secret>,
    /// The console's page that the provider sends people back to.
    pub redirect_url: Option<String>,
    /// What the provider is asked for, `openid` among it, parted by spaces.
    pub ask_for: String,
    /// The claim that holds a person's roles: its name, or names parted by dots where it lies inside others.
    pub roles_claim: String,
    /// Where that claim stands.
    pub roles_from: RolesFrom,
    /// How long the provider may take to answer; a person waits for it.
    pub timeout_ms: u64,
    /// What roles give, the widest first: the first one that a person has decides the unit, and others of the same unit add their scopes.
    pub grants: Vec<Grant>,
}

/// Where the provider says which roles a person has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolesFrom {
    /// In the ID token.
    IdToken,
    /// At its userinfo endpoint, which is asked once at each log-in.
    Userinfo,
}

/// The `[[staff.grants]]` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The role as the claim spells it.
    pub role: String,
    /// `admin`, `app`, `reveal`, `import`.
    pub scopes: Vec<String>,
    /// Where; the whole group when left out.
    pub unit: Option<OrgUnitId>,
}

impl Default for StaffSettings {
    fn default() -> StaffSettings {
        StaffSettings {
            issuer: None,
            client_id: None,
            client_secret: None,
            redirect_url: None,
            ask_for: "openid".to_owned(),
            roles_claim: "groups".to_owned(),
            roles_from: RolesFrom::IdToken,
            timeout_ms: 5_000,
            grants: Vec::new(),
        }
    }
}

/// Settings that can work.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: Secret,
    pub(crate) redirect_url: String,
    pub(crate) ask_for: String,
    pub(crate) roles_claim: String,
    pub(crate) roles_from: RolesFrom,
    pub(crate) timeout_ms: u64,
    grants: Vec<Given>,
}

#[derive(Debug, Clone)]
struct Given {
    role: String,
    scopes: Vec<Scope>,
    unit: Option<OrgUnitId>,
}

/// What a person's roles give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) scopes: Vec<Scope>,
    pub(crate) unit: Option<OrgUnitId>,
}

impl Checked {
    /// What somebody with these roles may do; `None` when none of them is in the settings.
    pub(crate) fn rights(&self, roles: &[String]) -> Option<Rights> {
        let mut had = self.grants.iter().filter(|grant| roles.contains(&grant.role));
        let first = had.next()?;
        let same_unit = had.filter(|grant| grant.unit == first.unit);
        let mut scopes: Vec<Scope> = first.scopes.iter().chain(same_unit.flat_map(|grant| &grant.scopes)).copied().collect();
        scopes.sort_unstable();
        scopes.dedup();
        Some(Rights { scopes, unit: first.unit.clone() })
    }
}

fn refuse(key: &str, why: &str) -> Error {
    Error::Setting { key: format!("staff.{key}"), why: why.to_owned() }
}

impl StaffSettings {
    /// Settings that can work, or none where no provider is named.
    ///
    /// # Errors
    /// `Setting` with the key.
    pub(crate) fn checked(&self) -> Result<Option<Checked>, Error> {
        let Some(issuer) = &self.issuer else {
            let told = self.client_id.is_some() || self.client_secret.is_some() || self.redirect_url.is_some() || !self.grants.is_empty();
            return if told { Err(refuse("issuer", "name the provider, or leave the whole section out")) } else { Ok(None) };
        };
        let issuer = checked_address("issuer", issuer)?;
        if issuer.query().is_some() {
            return Err(refuse("issuer", "a provider's name has no query"));
        }
        checked_address("redirect_url", self.redirect_url.as_deref().unwrap_or_default())?;
        if !TIMEOUT_MS.contains(&self.timeout_ms) {
            return Err(refuse("timeout_ms", "it must lie between 100 and 60000"));
        }
        if !self.ask_for.split(' ').any(|word| word == "openid") || !is_text(&self.ask_for) {
            return Err(refuse("ask_for", "expected words parted by spaces, openid among them"));
        }
        if !is_text(&self.roles_claim) {
            return Err(refuse("roles_claim", "expected the name of a claim"));
        }
        let client_secret = self.client_secret.clone().filter(|secret| !secret.text().is_empty());
        Ok(Some(Checked {
            issuer: self.issuer.clone().unwrap_or_default(),
            client_id: self
                .client_id
                .clone()
                .filter(|id| is_text(id))
                .ok_or_else(|| refuse("client_id", "expected the provider's name for us"))?,
            client_secret: client_secret.ok_or_else(|| refuse("client_secret", "expected the secret that the provider gave us"))?,
            redirect_url: self.redirect_url.clone().unwrap_or_default(),
            ask_for: self.ask_for.clone(),
            roles_claim: self.roles_claim.clone(),
            roles_from: self.roles_from,
            timeout_ms: self.timeout_ms,
            grants: self.given()?,
        }))
    }

    fn given(&self) -> Result<Vec<Given>, Error> {
        if self.grants.is_empty() || self.grants.len() > GRANTS_MAX {
            return Err(refuse("grants", "expected 1 to 200 roles; without one nobody may do anything"));
        }
        let read = |(place, grant): (usize, &Grant)| {
            let key = |name: &str| format!("grants[{place}].{name}");
            if !is_text(&grant.role) {
                return Err(refuse(&key("role"), "expected a role as the claim spells it"));
            }
            let scope = |text: &String| Scope::parse(text).filter(|scope| GIVEN.contains(scope));
            let scopes: Option<Vec<Scope>> = grant.scopes.iter().map(scope).collect();
            let scopes = scopes.filter(|scopes| !scopes.is_empty());
            let scopes = scopes.ok_or_else(|| refuse(&key("scopes"), "expected at least one of admin, app, reveal, import"))?;
            Ok(Given { role: grant.role.clone(), scopes, unit: grant.unit.clone() })
        };
        self.grants.iter().enumerate().map(read).collect()
    }
}

fn is_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)
}

/// An address that nobody reads along the way to: https, or this very machine.
pub(crate) fn is_guarded(url: &Url) -> bool {
    let at_home = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    url.scheme() == "https" && url.has_host() || url.scheme() == "http" && at_home
}

fn checked_address(key: &str, text: &str) -> Result<Url, Error> {
    let fits = text.len() <= TEXT_BYTES_MAX;
    let url = Url::parse(text).ok().filter(|url| fits && is_guarded(url) && url.fragment().is_none() && url.username().is_empty());
    url.ok_or_else(|| refuse(key, "expected an address that begins with https:// (or http:// on this very machine), without a fragment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut StaffSettings);

    fn grant(role: &str, scopes: &[&str], unit: Option<&str>) -> Grant {
        let unit = unit.map(|unit| OrgUnitId::new(unit).expect("an id"));
        Grant { role: role.to_owned(), scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(), unit }
    }

    fn whole() -> StaffSettings {
        StaffSettings {
            issuer: Some("https://login.example.com/group".into()),
            client_id: Some("heyuan".into()),
            client_secret: Some(Secret::new("s")),
            redirect_url: Some("https://console.example.com/back".into()),
            grants: vec![grant("admins", &["admin"], None)],
            ..StaffSettings::default()
        }
    }

    #[test]
    fn what_can_not_work_is_refused_and_named() {
        assert!(StaffSettings::default().checked().expect("nobody logs in").is_none());
        assert!(whole().checked().expect("it can work").is_some());
        let changed = |change: Change| {
            let mut settings = whole();
            change(&mut settings);
            settings.checked().err().map(|error| error.to_string()).unwrap_or_default()
        };
        let cases: [(Change, &str); 15] = [
            (|s| s.issuer = None, "issuer"),
            (|s| s.issuer = Some("http://login.example.com".into()), "issuer"),
            (|s| s.issuer = Some("https://login.example.com/?a=1".into()), "issuer"),
            (|s| s.issuer = Some("login".into()), "issuer"),
            (|s| s.client_id = None, "client_id"),
            (|s| s.client_secret = Some(Secret::new("")), "client_secret"),
            (|s| s.redirect_url = None, "redirect_url"),
            (|s| s.redirect_url = Some("https://console.example.com/#x".into()), "redirect_url"),
            (|s| s.timeout_ms = 0, "timeout_ms"),
            (|s| s.ask_for = "profile".into(), "ask_for"),
            (|s| s.roles_claim = String::new(), "roles_claim"),
            (|s| s.grants.clear(), "grants"),
            (|s| s.grants[0].scopes.clear(), "grants[0].scopes"),
            (|s| s.grants.push(grant("apps", &["ingest"], None)), "grants[1].scopes"),
            (|s| s.grants.push(grant("robots", &["admin", "operator"], None)), "grants[1].scopes"),
        ];
        for (change, key) in cases {
            let said = changed(change);
            assert!(said.starts_with(&format!("setting staff.{key}: ")), "{said:?} for {key}");
        }
    }

    #[test]
    fn the_first_role_decides_the_unit_and_roles_of_one_unit_add_up() {
        let settings = StaffSettings {
            grants: vec![
                grant("admins", &["admin"], None),
                grant("desk", &["app"], Some("mall-1")),
                grant("care", &["reveal"], Some("mall-1")),
                grant("hotel", &["app", "admin"], Some("hotel-1")),
                grant("data", &["import"], None),
            ],
            ..whole()
        };
        let checked = settings.checked().expect("it can work").expect("it is set up");
        for (roles, expected) in [
            (&["admins"][..], Some((vec![Scope::Admin], None))),
            (&["desk"], Some((vec![Scope::App], Some("mall-1")))),
            (&["care", "desk", "nothing"], Some((vec![Scope::App, Scope::Reveal], Some("mall-1")))),
            (&["hotel", "desk"], Some((vec![Scope::App], Some("mall-1")))),
            (&["hotel", "admins", "data"], Some((vec![Scope::Admin, Scope::Import], None))),
            (&["Admins"], None),
            (&[], None),
        ] {
            let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
            let rights = checked.rights(&roles).map(|rights| (rights.scopes, rights.unit.map(|unit| unit.to_string())));
            assert_eq!(rights, expected.map(|(scopes, unit)| (scopes, unit.map(str::to_owned))), "{roles:?}");
        }
    }
}
