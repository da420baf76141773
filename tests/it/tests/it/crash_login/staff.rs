//! A browser of somebody who works for the group: log-ins at the provider, refreshes, log-outs here, everywhere and there.

use heyuan_harness::Answer;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::{Gone, Ground, Heard, Person};

/// What somebody does next with a browser.
#[derive(Clone, Copy)]
pub(super) enum Step {
    LogIn,
    Refresh,
    LogOut,
    LogOutEverywhere,
    /// Logs out at the provider, which tells the tenant.
    LogOutThere,
}

pub(super) const STORY: &[Step] = &[
    Step::LogIn,
    Step::Refresh,
    Step::Refresh,
    Step::LogOut,
    Step::LogIn,
    Step::LogIn,
    Step::LogOutEverywhere,
    Step::LogIn,
    Step::LogOutThere,
    Step::LogIn,
    Step::Refresh,
];

impl Person {
    pub(super) async fn staff_goes_on(&mut self, ground: &Ground) -> Result<Heard, Gone> {
        match STORY[self.next] {
            Step::LogIn => self.log_staff_in(ground).await,
            Step::Refresh => self.refresh_staff(ground).await,
            Step::LogOut => self.log_staff_out(ground).await,
            Step::LogOutEverywhere => self.log_staff_out_everywhere(ground).await,
            Step::LogOutThere => self.log_staff_out_there(ground).await,
        }
    }

    /// Begins a log-in, and brings back what the provider sends this person's browser back with. Nothing is lost with a log-in that was begun.
    async fn way_back(&mut self, ground: &Ground) -> Result<Value, Gone> {
        ground.play(Method::PUT, &format!("/oidc/people/{}", self.name), &json!({ "groups": ["desk"] })).await.expect_status(204);
        let begun = self.ask(|| ground.stranger.request(Method::POST, "/v1/staff/log-ins")).await?.expect(201);
        let address = format!("{}&login_hint={}", begun["address"].as_str().expect("an address"), self.name);
        let sent = Answer::of(ground.http.get(address)).await;
        let back = Url::parse(sent.header("location").expect("the provider sends the browser back")).expect("an address");
        let of = |name: &str| back.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned());
        Ok(json!({ "ticket": begun["ticket"], "state": of("state"), "code": of("code"), "iss": of("iss") }))
    }

    /// The state was used where the session was opened, else the code by the exchange alone; in both cases a fresh log-in is begun.
    async fn log_staff_in(&mut self, ground: &Ground) -> Result<Heard, Gone> {
        if self.proof.is_null() {
            self.proof = self.way_back(ground).await?;
            // What was asked for so far used nothing up.
            self.unanswered = false;
        }
        let proof = self.proof.clone();
        let answer = self.ask(|| ground.stranger.request(Method::POST, "/v1/staff/log-ins:finish").json(&proof)).await?;
        let refusals = ["staff_state_refused", "staff_code_refused"];
        let Some(session) = self.hear_log_in(&answer, &refusals) else { return Ok(Heard::Again) };
        self.own.push(session);
        Ok(Heard::Done)
    }

    /// A spent refresh token is never answered again: who lost an answer is logged out, and so is whoever else has the token.
    async fn refresh_staff(&mut self, ground: &Ground) -> Result<Heard, Gone> {
        self.set_aside();
        let Some(refresh) = self.aside.first().map(|session| session.refresh.clone()) else { return Ok(Heard::Done) };
        let body = json!({ "refresh_token": refresh });
        let answer = self.ask(|| ground.stranger.request(Method::POST, "/v1/staff/sessions:refresh").json(&body)).await?;
        if answer.status == 400 {
            assert!(self.unanswered && answer.problem(400) == "refresh_refused", "{}: {}", self.name, answer.text());
            return Ok(Heard::TheyAreOver);
        }
        self.aside[0].renew(&answer.expect(200));
        Ok(Heard::TheyLast)
    }

    async fn log_staff_out(&mut self, ground: &Ground) -> Result<Heard, Gone> {
        self.set_aside();
        let Some(refresh) = self.aside.first().map(|session| session.refresh.clone()) else { return Ok(Heard::Done) };
        let body = json!({ "refresh_token": refresh });
        let answer = self.ask(|| ground.stranger.request(Method::POST, "/v1/staff/sessions:revoke").json(&body)).await?;
        answer.expect_status(204);
        Ok(Heard::TheyAreOver)
    }

    async fn log_staff_out_everywhere(&mut self, ground: &Ground) -> Result<Heard, Gone> {
        self.set_aside();
        let path = format!("/v1/staff/{}/sessions", self.aside[0].holder);
        let answer = self.ask(|| ground.admin.request(Method::DELETE, &path)).await?;
        let is_done = answer.status == 204 || self.unanswered && answer.status == 404;
        assert!(is_done, "{}: {} {}", self.name, answer.status, answer.text());
        Ok(Heard::TheyAreOver)
    }

    async fn log_staff_out_there(&mut self, ground: &Ground) -> Result<Heard, Gone> {
        self.set_aside();
        let body = json!({ "url": format!("{}/v1/staff/log-outs", ground.url), "of": "person" });
        let path = format!("/oidc/people/{}:log-out", self.name);
        let told = self.ask(|| ground.simulated(Method::POST, &path, &body)).await?;
        if told.status == 502 {
            return Err(Gone);
        }
        let said = told.expect(200);
        if said["status"] == 503 {
            return Ok(Heard::Again);
        }
        assert_eq!(said["status"], 200, "{}: {said}", self.name);
        Ok(Heard::TheyAreOver)
    }
}
