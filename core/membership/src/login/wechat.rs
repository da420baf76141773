//! WeChat: the code of a mini-program's log-in becomes an openid, and that of its phone button a number.

use super::phone_code::mainland;
use super::settings::LoginSettings;
use crate::error::codes;
use heyuan_kernel::config::Secret;
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::outbound::{self, Answer, away, busy};
use heyuan_kernel::text::is_line;
use heyuan_kernel::{Clock, Problem};
use reqwest::{Client, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Who is asked, in words.
const WHO: &str = "WeChat";
/// Longest code that is passed on, and longest id that is taken, in bytes.
const TEXT_BYTES_MAX: usize = 128;
/// A server's token is asked for anew this long before it runs out.
const TOKEN_SPARE_MS: i64 = 300_000;
/// How long the caller of somebody who asks too often waits.
const FREQUENCY_S: u32 = 60;

/// A mini-program, as WeChat knows it.
pub(super) struct MiniProgram<'a> {
    pub(super) name: &'a str,
    pub(super) appid: &'a str,
    pub(super) secret: &'a Secret,
}

/// Who logged in to a mini-program. There is no session key here: nobody needs it, and it is dropped with the answer.
pub(super) struct Openids {
    pub(super) openid: String,
    pub(super) unionid: Option<String>,
}

/// The way to WeChat.
pub(super) struct WeChat {
    url: String,
    http: Client,
    clock: Clock,
    /// Tokens of our server by app, and until when they are good.
    tokens: Mutex<HashMap<String, (String, i64)>>,
}

#[derive(Deserialize)]
struct SessionAnswer {
    openid: Option<String>,
    unionid: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: i64,
}

#[derive(Deserialize)]
struct PhoneAnswer {
    phone_info: PhoneInfo,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PhoneInfo {
    pure_phone_number: String,
    country_code: serde_json::Value,
}

#[derive(Deserialize)]
struct Errcode {
    #[serde(default)]
    errcode: i64,
}

impl WeChat {
    pub(super) fn new(settings: &LoginSettings, clock: Clock) -> WeChat {
        let (url, http) = (settings.wechat_url.trim_end_matches('/').to_owned(), outbound::client(settings.timeout_ms));
        WeChat { url, http, clock, tokens: Mutex::default() }
    }

    /// Exchanges the code of `wx.login`, which WeChat does once.
    pub(super) async fn openids(&self, app: &MiniProgram<'_>, code: &str) -> Result<Openids, Problem> {
        check_code("wechat.code", code)?;
        let query = [("appid", app.appid), ("secret", app.secret.text()), ("js_code", code), ("grant_type", "authorization_code")];
        let request = self.http.get(self.address("sns/jscode2session", &query)?);
        let answer = outbound::send(WHO, request).await.map_err(|failure| away(WHO, failure))?;
        let answer: SessionAnswer = understood(&answer).map_err(|refusal| refusal.problem(app.name, "wechat.code"))?;
        let fits = |id: &String| is_line(id, TEXT_BYTES_MAX);
        let openid = answer.openid.filter(fits).ok_or_else(|| unreadable(app.name))?;
        Ok(Openids { openid, unionid: answer.unionid.filter(fits) })
    }

    /// Exchanges the code of the phone button, which WeChat does once.
    pub(super) async fn phone(&self, app: &MiniProgram<'_>, code: &str) -> Result<String, Problem> {
        let field = "wechat.phone_code";
        check_code(field, code)?;
        let mut asked = self.ask_phone(app, code).await?;
        if asked.as_ref().is_err_and(Refusal::is_about_the_token) {
            self.tokens().remove(app.name);
            asked = self.ask_phone(app, code).await?;
        }
        let answer = asked.map_err(|refusal| refusal.problem(app.name, field))?.phone_info;
        let country = answer.country_code.as_str().map_or_else(|| answer.country_code.to_string(), str::to_owned);
        let number = if country == "86" { mainland(&answer.pure_phone_number) } else { None };
        number.ok_or_else(|| Problem::invalid(field, "expected a mobile number of mainland China; log in without it"))
    }

    async fn ask_phone(&self, app: &MiniProgram<'_>, code: &str) -> Result<Result<PhoneAnswer, Refusal>, Problem> {
        let token = self.server_token(app).await?;
        let address = self.address("wxa/business/getuserphonenumber", &[("access_token", &token)])?;
        let request = self.http.post(address).json(&json!({ "code": code }));
        let answer = outbound::send(WHO, request).await.map_err(|failure| away(WHO, failure))?;
        Ok(understood(&answer))
    }

    /// The token with which our server asks. WeChat's stable one, which it gives to every replica alike.
    async fn server_token(&self, app: &MiniProgram<'_>) -> Result<String, Problem> {
        let now = self.clock.now().ms();
        if let Some((token, until)) = self.tokens().get(app.name)
            && now < *until
        {
            return Ok(token.clone());
        }
        let body = json!({ "grant_type": "client_credential", "appid": app.appid, "secret": app.secret.text() });
        let request = self.http.post(self.address("cgi-bin/stable_token", &[])?).json(&body);
        let answer = outbound::send(WHO, request).await.map_err(|failure| away(WHO, failure))?;
        let answer: TokenAnswer = understood(&answer).map_err(|refusal| refusal.problem(app.name, "app"))?;
        let until = now.saturating_add(answer.expires_in.clamp(0, 86_400) * 1000 - TOKEN_SPARE_MS);
        self.tokens().insert(app.name.to_owned(), (answer.access_token.clone(), until));
        Ok(answer.access_token)
    }

    fn address(&self, path: &str, query: &[(&str, &str)]) -> Result<Url, Problem> {
        let address = Url::parse_with_params(&format!("{}/{path}", self.url), query);
        address.map_err(|_| busy(WHO, "the setting login.wechat_url is no address"))
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, HashMap<String, (String, i64)>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_code(field: &str, code: &str) -> Result<(), Problem> {
    if code.is_empty() || code.len() > TEXT_BYTES_MAX || !code.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Problem::invalid(
            field,
            format!("expected the code that WeChat gave to the mini-program, 1 to {TEXT_BYTES_MAX} characters"),
        ));
    }
    Ok(())
}

/// Why WeChat gives no answer that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// One of WeChat's codes.
    Code(i64),
    /// A status that is none of its answers, or a body that is none.
    Unreadable,
}

fn understood<T: DeserializeOwned>(answer: &Answer) -> Result<T, Refusal> {
    if answer.status != 200 {
        return Err(Refusal::Unreadable);
    }
    // WeChat answers a refusal with 200 as well.
    match serde_json::from_slice::<Errcode>(&answer.body) {
        Ok(Errcode { errcode: 0 }) => serde_json::from_slice(&answer.body).map_err(|_| Refusal::Unreadable),
        Ok(Errcode { errcode }) => Err(Refusal::Code(errcode)),
        Err(_) => Err(Refusal::Unreadable),
    }
}

fn unreadable(app: &str) -> Problem {
    Refusal::Unreadable.problem(app, "wechat.code")
}

impl Refusal {
    /// Whether our server's own token is the matter.
    fn is_about_the_token(&self) -> bool {
        matches!(self, Refusal::Code(40001 | 40014 | 42001))
    }

    /// What the caller hears; the code that was sent is never repeated.
    fn problem(self, app: &str, field: &str) -> Problem {
        match self {
            // Not known or expired; used before; missing; of a user whom WeChat itself shuts out.
            Refusal::Code(40029 | 40163 | 41008 | 40226) => {
                let words = "WeChat does not take the code (any more); ask for a fresh one and log in with that";
                Problem::new(codes::LOGIN_CODE_REFUSED, words).field(field)
            }
            Refusal::Code(-1) => busy(WHO, "it is busy"),
            Refusal::Code(45011) => {
                Problem::new(kernel_codes::LIMITED, "WeChat is asked too often for this person; try again later").retry_after_s(FREQUENCY_S)
            }
            Refusal::Code(errcode) => {
                tracing::error!(app, errcode, "WeChat refuses us; look at the app's appid and secret in the settings");
                busy(WHO, "it refuses this app, whose owner has to look at the log")
            }
            Refusal::Unreadable => {
                tracing::warn!(app, "WeChat answered what can't be read");
                busy(WHO, "its answer can't be read")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_of_wechat_means_one_thing() {
        for (status, body, expected) in [
            (200, r#"{"openid":"o1","session_key":"k"}"#, None),
            (200, r#"{"openid":"o1","errcode":0,"errmsg":"ok","unionid":"u"}"#, None),
            (200, r#"{"errcode":40029,"errmsg":"invalid code"}"#, Some(("login_code_refused", None))),
            (200, r#"{"errcode":40163,"errmsg":"code been used"}"#, Some(("login_code_refused", None))),
            (200, r#"{"errcode":40226,"errmsg":"code blocked"}"#, Some(("login_code_refused", None))),
            (200, r#"{"errcode":45011,"errmsg":"api minute-quota reach limit"}"#, Some(("limited", Some("60")))),
            (200, r#"{"errcode":-1,"errmsg":"system error"}"#, Some(("unavailable", Some("2")))),
            (200, r#"{"errcode":40013,"errmsg":"invalid appid"}"#, Some(("unavailable", Some("2")))),
            (200, r#"{"errcode":40125,"errmsg":"invalid appsecret"}"#, Some(("unavailable", Some("2")))),
            (200, "<html>", Some(("unavailable", Some("2")))),
            (500, r#"{"openid":"o1"}"#, Some(("unavailable", Some("2")))),
        ] {
            let read: Result<SessionAnswer, Refusal> = understood(&Answer { status, body: body.as_bytes().to_vec() });
            let heard = read.err().map(|refusal| refusal.problem("mall", "wechat.code"));
            let found = heard.as_ref().map(|problem| {
                let answer = actix_web::ResponseError::error_response(problem);
                let after = answer.headers().get("Retry-After").and_then(|value| value.to_str().ok().map(str::to_owned));
                (problem.code().code, after)
            });
            assert_eq!(found.as_ref().map(|(code, after)| (*code, after.as_deref())), expected, "{status} {body}");
        }
    }
}
