//! The truth: who is who and what caused what, apart from everything that the group's systems deliver.

use std::path::Path;

use serde::Serialize;

use crate::Error;
use crate::output::Lines;
use crate::people::{Household, Structure};
use crate::person::{Identifier, Person};
use crate::sales::{Contract, Lead};
use crate::search::{Quest, Step};
use crate::stamp::Stamp;
use crate::world::{PROJECTS, World};

#[derive(Serialize)]
struct Customer<'a> {
    person: u64,
    household: u64,
    role: &'static str,
    name: &'a str,
    gender: &'static str,
    age: i64,
    /// Known to no system by more than an anonymous id.
    stranger: bool,
    shares_phone: bool,
    identifiers: Vec<Value<'a>>,
}

#[derive(Serialize)]
struct Value<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Stamp>,
    /// Some file of the output shows it.
    observed: bool,
}

#[derive(Serialize)]
struct Home<'a> {
    household: u64,
    people: Vec<u64>,
    structure: Structure,
    children: usize,
    city: &'static str,
    annual_income_fen: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    community: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    search: Option<&'a Wanted>,
}

/// What a household looks for: the need that drives dwell times and contracts.
#[derive(Serialize)]
struct Wanted {
    need_per_mille: u64,
    affordable_per_mille: u64,
    project: &'static str,
    layout: &'static str,
}

#[derive(Serialize)]
struct Shared<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    value: &'a str,
    /// `tablet`, `relay`, `family` or `recycled`.
    reason: &'static str,
}

#[derive(Serialize)]
struct Cause<'a> {
    contract_id: &'a str,
    household: u64,
    lead_id: &'a str,
    lead_source: &'static str,
    signed_at: Stamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled_at: Option<Stamp>,
    amount_fen: i64,
    path: &'a [Step],
}

pub(crate) struct Truth {
    customers: Lines,
    households: Lines,
    shared: Lines,
    causes: Lines,
    search: Option<Wanted>,
}

impl Truth {
    pub(crate) fn create(folder: &Path, world: &World) -> Result<Self, Error> {
        let mut shared = Lines::create(&folder.join("shared_identifiers.ndjson"))?;
        for tablet in world.tablets.iter().flatten() {
            shared.write(&Shared { kind: "device", value: &tablet.anonymous_id, reason: "tablet" })?;
        }
        for value in &world.relay_numbers {
            shared.write(&Shared { kind: "phone", value, reason: "relay" })?;
        }
        Ok(Self {
            customers: Lines::create(&folder.join("customers.ndjson"))?,
            households: Lines::create(&folder.join("households.ndjson"))?,
            shared,
            causes: Lines::create(&folder.join("causes.ndjson"))?,
            search: None,
        })
    }

    /// Remembers what the household looks for whose life is being told.
    pub(crate) fn note_quest(&mut self, quest: &Quest) {
        let project = &PROJECTS[quest.project];
        self.search = Some(Wanted {
            need_per_mille: quest.need,
            affordable_per_mille: quest.afford,
            project: project.unit,
            layout: project.homes[quest.home].code,
        });
    }

    pub(crate) fn cause(&mut self, household: u64, contract: &Contract, lead: &Lead, path: &[Step]) -> Result<(), Error> {
        self.causes.write(&Cause {
            contract_id: &contract.id,
            household,
            lead_id: &lead.id,
            lead_source: lead.form,
            signed_at: Stamp::utc(contract.at),
            cancelled_at: contract.cancelled_at.map(Stamp::utc),
            amount_fen: contract.amount_fen,
            path,
        })
    }

    /// A household whose life is told.
    pub(crate) fn household(&mut self, household: &Household, recycled: &[String]) -> Result<(), Error> {
        for person in &household.adults {
            self.customers.write(&customer(person, household.number))?;
        }
        for value in recycled {
            self.shared.write(&Shared { kind: "phone", value, reason: "recycled" })?;
        }
        let sharing = household.adults.iter().find(|person| person.shares_phone);
        if let Some(phone) = sharing.and_then(|person| person.identifiers.iter().find(|known| known.kind == "phone")) {
            self.shared.write(&Shared { kind: "phone", value: &phone.value, reason: "family" })?;
        }
        self.households.write(&Home {
            household: household.number,
            people: household.adults.iter().map(|person| person.number).collect(),
            structure: household.structure,
            children: household.children,
            city: crate::world::CITIES[household.city],
            annual_income_fen: household.annual_income_fen,
            community: household.community.map(|(unit, _)| unit),
            search: self.search.as_ref(),
        })?;
        self.search = None;
        Ok(())
    }

    /// Closes the files; gives the number of households.
    pub(crate) fn finish(self) -> Result<u64, Error> {
        self.customers.finish()?;
        self.shared.finish()?;
        self.causes.finish()?;
        self.households.finish()
    }
}

fn customer(person: &Person, household: u64) -> Customer<'_> {
    let mut identifiers: Vec<Value<'_>> = person.identifiers.iter().map(value).collect();
    for device in &person.devices {
        for id in std::iter::once(&device.anonymous_id).chain(&device.device_id) {
            let observed = device.observed.get();
            identifiers.push(Value { kind: "device", value: id, app: None, from: None, until: None, observed });
        }
    }
    Customer {
        person: person.number,
        household,
        role: person.role,
        name: &person.name,
        gender: if person.female { "female" } else { "male" },
        age: person.age,
        stranger: person.stranger,
        shares_phone: person.shares_phone,
        identifiers,
    }
}

fn value(known: &Identifier) -> Value<'_> {
    Value {
        kind: known.kind,
        value: &known.value,
        app: known.app,
        from: known.from.map(Stamp::utc),
        until: known.until.map(Stamp::utc),
        observed: known.observed.get(),
    }
}
