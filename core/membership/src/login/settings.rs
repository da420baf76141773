//! What log-in is told at start, section `[login]`.

use heyuan_contract::OrgUnitId;
use heyuan_kernel::Error;
use heyuan_kernel::config::Secret;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Longest name of an app, in bytes.
const NAME_BYTES_MAX: usize = 40;
/// Sooner nobody has answered, later nobody waits any more.
const TIMEOUT_MS: RangeInclusive<u64> = 100..=60_000;
/// Codes that may go out in a day are a sum of money; more is a mistake.
const DAY_MAX: u32 = 10_000_000;

/// The `login` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoginSettings {
    /// How long WeChat and the provider of codes may take to answer; a person waits for it.
    pub timeout_ms: u64,
    /// Where the codes of mini-programs are exchanged.
    pub wechat_url: String,
    /// Where codes for phones are posted to be sent; without it there is no log-in by phone.
    pub sms_url: Option<String>,
    /// What goes there as `Authorization: Bearer`.
    pub sms_secret: Option<Secret>,
    /// Codes sent to one number in a day.
    pub sms_phone_day_max: u32,
    /// Codes sent for one API key in a day: an app that is abused spends no more.
    pub sms_key_day_max: u32,
    /// Codes sent in a day in all.
    pub sms_day_max: u32,
    /// The apps that members log in to, by name. A name is what events and joins spell behind `openid@`.
    pub apps: BTreeMap<String, AppSettings>,
}

/// How an app lets people in, beyond codes sent to phones, which every app may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppKind {
    /// A WeChat mini-program.
    Wechat,
    /// By phone codes alone.
    Phone,
}

/// The `login.apps.NAME` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppSettings {
    /// How it lets people in.
    pub kind: AppKind,
    /// The mini-program's appid.
    pub appid: Option<String>,
    /// The mini-program's secret.
    pub secret: Option<Secret>,
    /// The unit that it is the app of: whoever joins through it joins there, and a key must reach it.
    pub unit: OrgUnitId,
}

impl Default for LoginSettings {
    fn default() -> LoginSettings {
        LoginSettings {
            timeout_ms: 5_000,
            wechat_url: "https://api.weixin.qq.com".to_owned(),
            sms_url: None,
            sms_secret: None,
            sms_phone_day_max: 10,
            sms_key_day_max: 5_000,
            sms_day_max: 20_000,
            apps: BTreeMap::new(),
        }
    }
}

impl LoginSettings {
    /// Refuses what can't work.
    ///
    /// # Errors
    /// `Setting` with the key.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |key: &str, why: &str| Err(Error::Setting { key: format!("login.{key}"), why: why.to_owned() });
        let is_url = |url: &str| url.starts_with("https://") || url.starts_with("http://");
        if !TIMEOUT_MS.contains(&self.timeout_ms) {
            return refuse("timeout_ms", "it must lie between 100 and 60000");
        }
        if !is_url(&self.wechat_url) {
            return refuse("wechat_url", "expected an address that begins with https:// or http://");
        }
        if self.sms_url.as_deref().is_some_and(|url| !is_url(url)) {
            return refuse("sms_url", "expected an address that begins with https:// or http://");
        }
        let bounds =
            [("sms_phone_day_max", self.sms_phone_day_max), ("sms_key_day_max", self.sms_key_day_max), ("sms_day_max", self.sms_day_max)];
        for (key, value) in bounds {
            if !(1..=DAY_MAX).contains(&value) {
                return refuse(key, "it must lie between 1 and 10000000");
            }
        }
        for (name, app) in &self.apps {
            let letters = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if name.is_empty() || name.len() > NAME_BYTES_MAX || !letters {
                return refuse("apps", "an app's name has 1 to 40 characters of a-z 0-9 -");
            }
            let whole = app.appid.as_ref().is_some_and(|appid| !appid.is_empty()) && app.secret.is_some();
            if app.kind == AppKind::Wechat && !whole {
                return refuse(&format!("apps.{name}"), "an app of kind wechat has an appid and a secret");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wechat(secret: Option<&str>) -> AppSettings {
        let unit = OrgUnitId::new("mall-1").expect("an id");
        AppSettings { kind: AppKind::Wechat, appid: Some("wx1".into()), secret: secret.map(Secret::new), unit }
    }

    fn of(name: &str, app: AppSettings) -> LoginSettings {
        LoginSettings { apps: BTreeMap::from([(name.to_owned(), app)]), ..LoginSettings::default() }
    }

    #[test]
    fn what_can_not_work_is_refused_and_named() {
        let phone = AppSettings { kind: AppKind::Phone, appid: None, ..wechat(None) };
        for (settings, expected) in [
            (LoginSettings::default(), None),
            (of("mall-1", wechat(Some("s"))), None),
            (of("till", phone), None),
            (of("mall", wechat(None)), Some("setting login.apps.mall: ")),
            (of("Mall 1", wechat(Some("s"))), Some("setting login.apps: ")),
            (LoginSettings { wechat_url: "api.weixin.qq.com".into(), ..LoginSettings::default() }, Some("setting login.wechat_url: ")),
            (LoginSettings { sms_url: Some("sms".into()), ..LoginSettings::default() }, Some("setting login.sms_url: ")),
            (LoginSettings { sms_day_max: 0, ..LoginSettings::default() }, Some("setting login.sms_day_max: ")),
            (LoginSettings { timeout_ms: 0, ..LoginSettings::default() }, Some("setting login.timeout_ms: ")),
        ] {
            let words = settings.check().err().map(|error| error.to_string());
            let named = words.as_deref().zip(expected).is_some_and(|(words, expected)| words.starts_with(expected));
            assert!(named || words.is_none() && expected.is_none(), "{words:?} for {expected:?}");
        }
    }
}
