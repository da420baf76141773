//! What the group's apps know of their users: by which verified identifiers a till's customer can become a member.

use super::records::each_line;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

/// Openids sent with one request to join; an app more tells nothing new.
const OPENIDS_MAX: usize = 6;

/// An identifier on a record.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Known {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) value: String,
    pub(crate) app: Option<String>,
}

/// Somebody who can join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    /// The same for every record of this person.
    pub(crate) key: String,
    pub(crate) identifiers: Vec<Known>,
}

#[derive(Debug, Default)]
struct User {
    phone: Option<String>,
    /// Value and app.
    openids: Vec<(String, String)>,
}

/// The users of all apps, from what they told when they logged in. Grows with the number of users, not with that of events.
#[derive(Debug, Default)]
pub(crate) struct Users {
    users: HashMap<String, User>,
    /// Who uses a number; `None` when several do: a family, or a number with a second owner.
    phones: HashMap<String, Option<String>>,
    openids: HashMap<String, String>,
    plates: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    message: Message<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    #[serde(borrow)]
    user_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    traits: Option<Traits<'a>>,
    #[serde(borrow)]
    context: Context<'a>,
}

#[derive(Deserialize)]
struct Traits<'a> {
    #[serde(borrow)]
    phone: Option<Cow<'a, str>>,
    #[serde(borrow)]
    openid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    plate: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Context<'a> {
    #[serde(borrow)]
    app: Named<'a>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

impl Users {
    /// Reads the log-ins among the events.
    ///
    /// # Errors
    /// A file that can't be read.
    pub(crate) fn read(events: &Path) -> anyhow::Result<Users> {
        let mut users = Users::default();
        each_line(events, |line| {
            if line.contains("\"type\":\"identify\"") {
                users.learn(&serde_json::from_str::<Row<'_>>(line)?.message);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(users)
    }

    fn learn(&mut self, message: &Message<'_>) {
        let (Some(id), Some(traits)) = (&message.user_id, &message.traits) else { return };
        let user = self.users.entry(id.to_string()).or_default();
        if let Some(phone) = &traits.phone {
            user.phone = Some(phone.to_string());
            let owner = self.phones.entry(phone.to_string()).or_insert_with(|| Some(id.to_string()));
            if owner.as_deref().is_some_and(|owner| owner != id.as_ref()) {
                *owner = None;
            }
        }
        if let Some(openid) = &traits.openid {
            let pair = (openid.to_string(), message.context.app.name.to_string());
            if user.openids.len() < OPENIDS_MAX && !user.openids.contains(&pair) {
                self.openids.insert(pair.0.clone(), id.to_string());
                user.openids.push(pair);
            }
        }
        if let Some(plate) = &traits.plate {
            self.plates.insert(plate.to_string(), id.to_string());
        }
    }

    /// The person behind what a till knows; `None` when no app ever met the car or the card.
    pub(crate) fn person(&self, known: &[Known]) -> Option<Person> {
        let value = |kind: &str| known.iter().find(|one| one.kind == kind).map(|one| one.value.as_str());
        let by_phone = || value("phone").and_then(|phone| self.phones.get(phone)).and_then(Option::as_deref);
        let user = value("member")
            .filter(|id| self.users.contains_key(*id))
            .or_else(|| value("openid").and_then(|openid| self.openids.get(openid)).map(String::as_str))
            .or_else(by_phone)
            .or_else(|| value("plate").and_then(|plate| self.plates.get(plate)).map(String::as_str));
        if let Some(person) = user.and_then(|id| self.verified(id)) {
            return Some(person);
        }
        let own: Vec<Known> = known.iter().filter(|one| ["phone", "openid"].contains(&one.kind.as_str())).cloned().collect();
        let first = own.first()?;
        Some(Person { key: format!("{}:{}", first.kind, first.value), identifiers: own })
    }

    /// What an app has verified of a user. A number that several use says too little beside a WeChat log-in.
    fn verified(&self, id: &str) -> Option<Person> {
        let user = self.users.get(id)?;
        let known = |kind: &str, value: &str, app: Option<&str>| Known { kind: kind.into(), value: value.into(), app: app.map(Into::into) };
        let mut identifiers: Vec<Known> = user.openids.iter().map(|(value, app)| known("openid", value, Some(app))).collect();
        if let Some(phone) = &user.phone
            && (identifiers.is_empty() || self.phones.get(phone).is_some_and(Option::is_some))
        {
            identifiers.push(known("phone", phone, None));
        }
        (!identifiers.is_empty()).then(|| Person { key: id.to_owned(), identifiers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(lines: &[&str]) -> Users {
        let mut users = Users::default();
        for line in lines {
            users.learn(&serde_json::from_str::<Row<'_>>(line).expect("a log-in").message);
        }
        users
    }

    fn known(kind: &str, value: &str) -> Known {
        Known { kind: kind.into(), value: value.into(), app: None }
    }

    #[test]
    fn tills_find_users_by_whatever_they_know() {
        let users = learnt(&[
            r#"{"message":{"userId":"hm1","traits":{"phone":"131","openid":"oA","plate":"浙A1"},"context":{"app":{"name":"wx-mall"}}}}"#,
            r#"{"message":{"userId":"hm2","traits":{"phone":"132"},"context":{"app":{"name":"heyuan-app"}}}}"#,
            r#"{"message":{"userId":"hm3","traits":{"phone":"132"},"context":{"app":{"name":"heyuan-app"}}}}"#,
            r#"{"message":{"traits":{"phone":"170"},"context":{"app":{"name":"home-web"}}}}"#,
        ]);
        for (given, key, kinds) in [
            (known("member", "hm1"), Some("hm1"), vec!["openid", "phone"]),
            (known("plate", "浙A1"), Some("hm1"), vec!["openid", "phone"]),
            (known("openid", "oA"), Some("hm1"), vec!["openid", "phone"]),
            (known("phone", "131"), Some("hm1"), vec!["openid", "phone"]),
            // Shared by two: the number stands for itself.
            (known("phone", "132"), Some("phone:132"), vec!["phone"]),
            (known("member", "hm2"), Some("hm2"), vec!["phone"]),
            (known("phone", "139"), Some("phone:139"), vec!["phone"]),
            (known("plate", "川B2"), None, vec![]),
        ] {
            let person = users.person(std::slice::from_ref(&given));
            assert_eq!(person.as_ref().map(|person| person.key.as_str()), key, "{given:?}");
            let found: Vec<String> = person.map(|person| person.identifiers.into_iter().map(|one| one.kind).collect()).unwrap_or_default();
            assert_eq!(found, kinds, "{given:?}");
        }
    }
}
