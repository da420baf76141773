//! A member's phone: mini-programs, codes, refreshes, a thief, log-outs.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Gone, Ground, Heard, Person, REPEAT_TIME, text};

/// What somebody does next with a phone.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// Logs in to a mini-program.
    WeChat(&'static str),
    Refresh,
    /// Sends the refresh token again that was spent last, as if its answer were lost.
    Repeat,
    /// Somebody else sends the one that was spent first.
    Replay,
    SendCode,
    ByPhone,
    LogOut,
    LogOutEverywhere,
}

pub(super) const STORY: &[Step] = &[
    Step::WeChat("mall"),
    Step::Refresh,
    Step::Repeat,
    Step::Refresh,
    Step::Replay,
    Step::WeChat("hotel"),
    Step::SendCode,
    Step::ByPhone,
    Step::LogOut,
    Step::WeChat("mall"),
    Step::LogOutEverywhere,
    Step::WeChat("mall"),
    Step::Refresh,
];

impl Person {
    pub(super) async fn member_goes_on(&mut self, ground: &Ground) -> Result<Heard, Gone> {
        match STORY[self.next] {
            Step::WeChat(app) => self.log_in_by_wechat(ground, app).await,
            Step::Refresh => self.refresh(ground).await,
            Step::Repeat => self.repeat(ground).await,
            Step::Replay => self.replay(ground).await,
            Step::SendCode => self.send_code(ground).await,
            Step::ByPhone => self.log_in_by_phone(ground).await,
            Step::LogOut => self.log_out(ground).await,
            Step::LogOutEverywhere => self.log_out_everywhere(ground).await,
        }
    }

    async fn log_in_by_wechat(&mut self, ground: &Ground, app: &str) -> Result<Heard, Gone> {
        if self.proof.is_null() {
            let asked = json!({ "appid": format!("wx{app}"), "person": self.name });
            let given = ground.play(Method::POST, "/wechat/login-codes", &asked).await.expect(200);
            self.proof = json!({ "app": app, "wechat": { "code": given["code"] }, "join": true });
        }
        let (key, proof) = (ground.key(app), self.proof.clone());
        let answer = self.ask(|| key.request(Method::POST, "/v1/sessions").json(&proof)).await?;
        let Some(session) = self.hear_log_in(&answer, &["login_code_refused"]) else { return Ok(Heard::Again) };
        self.own.push(session);
        Ok(Heard::Done)
    }

    /// A lost answer is given again. On a machine so slow that the minute for that has passed, the session is over.
    async fn refresh(&mut self, ground: &Ground) -> Result<Heard, Gone> {
        self.set_aside();
        let Some(refresh) = self.aside.first().map(|session| session.refresh.clone()) else { return Ok(Heard::Done) };
        let body = json!({ "refresh_token": refresh });
        let answer = self.ask(|| ground.mall.request(Method::POST, "/v1/sessions:refresh").json(&body)).await?;
        if answer.status == 400 {
            let too_late = self.unanswered && self.asked.is_some_and(|asked| asked.elapsed() >= REPEAT_TIME);
            assert!(too_late, "{}: {}", self.name, answer.text());
            return Ok(Heard::TheyAreOver);
        }
        self.aside[0].renew(&answer.expect(200));
        Ok(Heard::TheyLast)
    }

    async fn repeat(&mut self, ground: &Ground) -> Result<Heard, Gone> {
        self.set_aside();
        let Some(session) = self.aside.first().cloned() else { return Ok(Heard::Done) };
        let body = json!({ "refresh_token": session.spent.last() });
        let answer = self.ask(|| ground.mall.request(Method::POST, "/v1/sessions:refresh").json(&body)).await?;
        if answer.status == 400 {
            assert!(session.refreshed.elapsed() >= REPEAT_TIME, "{}: {}", self.name, answer.text());
            return Ok(Heard::TheyAreOver);
        }
        assert_eq!(text(&answer.expect(200), "refresh_token"), session.refresh, "the same next token");
        Ok(Heard::TheyLast)
    }

    async fn replay(&mut self, ground: &Ground) -> Result<Heard, Gone> {
        self.set_aside();
        let Some(first) = self.aside.first().map(|session| session.spent[0].clone()) else { return Ok(Heard::Done) };
        let body = json!({ "refresh_token": first });
        let answer = self.ask(|| ground.mall.request(Method::POST, "/v1/sessions:refresh").json(&body)).await?;
        assert_eq!(answer.problem(400), "refresh_refused", "{}", self.name);
        Ok(Heard::TheyAreOver)
    }

    /// A number gets one code a minute: where the answer was lost before the code went out, another number is taken.
    async fn send_code(&mut self, ground: &Ground) -> Result<Heard, Gone> {
        let body = json!({ "app": "mall", "phone": self.number });
        let answer = self.ask(|| ground.mall.request(Method::POST, "/v1/phone-codes").json(&body)).await?;
        if answer.status == 429 {
            assert!(self.unanswered, "{}: {}", self.name, answer.text());
            if self.shown(ground).await.is_none() {
                self.take_another_number(ground);
                return Ok(Heard::Again);
            }
        } else {
            answer.expect(202);
        }
        Ok(Heard::Done)
    }

    async fn shown(&self, ground: &Ground) -> Option<String> {
        let shown = ground.play(Method::GET, &format!("/sms/messages/{}", self.number), &Value::Null).await;
        (shown.status == 200).then(|| text(&shown.json(), "code"))
    }

    /// Another member, whose session lasts; or one whose code was used and whose answer was lost, who begins with another number.
    async fn log_in_by_phone(&mut self, ground: &Ground) -> Result<Heard, Gone> {
        if self.proof.is_null() {
            let code = self.shown(ground).await.expect("a code was sent");
            self.proof = json!({ "app": "mall", "phone": { "number": self.number, "code": code }, "join": true });
        }
        let proof = self.proof.clone();
        let answer = self.ask(|| ground.mall.request(Method::POST, "/v1/sessions").json(&proof)).await?;
        let Some(session) = self.hear_log_in(&answer, &["phone_code_refused"]) else {
            self.take_another_number(ground);
            self.next -= 1;
            return Ok(Heard::Again);
        };
        self.kept.push(session);
        Ok(Heard::Done)
    }

    async fn log_out(&mut self, ground: &Ground) -> Result<Heard, Gone> {
        self.set_aside();
        let body = json!({ "refresh_token": self.aside.first().map(|session| &session.refresh) });
        let answer = self.ask(|| ground.hotel.request(Method::POST, "/v1/sessions:revoke").json(&body)).await?;
        answer.expect_status(204);
        Ok(Heard::TheyAreOver)
    }

    async fn log_out_everywhere(&mut self, ground: &Ground) -> Result<Heard, Gone> {
        self.set_aside();
        let path = format!("/v1/members/{}/sessions", self.aside[0].holder);
        let answer = self.ask(|| ground.admin.request(Method::DELETE, &path)).await?;
        answer.expect_status(204);
        Ok(Heard::TheyAreOver)
    }
}
