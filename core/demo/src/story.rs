//! One run: the world, its streams of chance and its files, told household by household.

use std::path::Path;

use crate::calendar::Calendar;
use crate::catalogue::Catalogue;
use crate::draw::{Draw, Purpose};
use crate::events::Teller;
use crate::faults::Faults;
use crate::media::Media;
use crate::money::Till;
use crate::numbers::Numbers;
use crate::output::Sorted;
use crate::people::People;
use crate::sales::Desk;
use crate::truth::Truth;
use crate::world::World;
use crate::{Config, Error, Manifest, Summary, living, search, shopping};

/// Text held back for sorting, for each file; beyond it runs go to disk. Together they bound the memory of a run.
const EVENTS_BUDGET_BYTES: usize = 48 << 20;
const TRANSACTIONS_BUDGET_BYTES: usize = 16 << 20;
const LEADS_BUDGET_BYTES: usize = 8 << 20;

pub(crate) struct Story<'w> {
    pub(crate) world: &'w World,
    pub(crate) calendar: &'w Calendar,
    pub(crate) catalogue: &'w Catalogue,
    /// Decides what people do.
    pub(crate) chance: Draw,
    pub(crate) numbers: Numbers,
    pub(crate) teller: Teller,
    pub(crate) till: Till,
    pub(crate) desk: Desk,
    pub(crate) media: Media,
    pub(crate) truth: Truth,
}

/// Tells the whole history into the files of `out`.
pub(crate) fn tell(config: &Config, out: &Path) -> Result<Summary, Error> {
    let calendar = Calendar::new(config)?;
    let (sorting, spend, truth) = (out.join(".sorting"), out.join("spend"), out.join("truth"));
    for folder in [&sorting, &spend, &truth] {
        std::fs::create_dir_all(folder).map_err(Error::writing(folder))?;
    }
    let world = World::new(config.seed, config.customers);
    let catalogue = Catalogue::new(config.seed);
    let faults = if config.faults { Some(Faults::create(config.seed, out)?) } else { None };
    let mut story = Story {
        world: &world,
        calendar: &calendar,
        catalogue: &catalogue,
        chance: Draw::new(config.seed, Purpose::Behaviour),
        numbers: Numbers::new(config.seed),
        teller: Teller::new(config.seed, Sorted::new(&sorting, "events", EVENTS_BUDGET_BYTES), &calendar),
        till: Till::new(config.seed, Sorted::new(&sorting, "transactions", TRANSACTIONS_BUDGET_BYTES), &calendar, faults),
        desk: Desk::new(config.seed, Sorted::new(&sorting, "leads", LEADS_BUDGET_BYTES), &calendar),
        media: Media::new(config.seed, &calendar),
        truth: Truth::create(&truth, &world)?,
    };
    let people = live(config, &mut story)?;
    let summary = finish(config, story, &people, out)?;
    std::fs::remove_dir_all(&sorting).map_err(Error::writing(&sorting))?;
    Ok(summary)
}

fn live(config: &Config, story: &mut Story<'_>) -> Result<People, Error> {
    let mut people = People::new(config.seed);
    let mut left = config.customers;
    while left > 0 {
        let mut recycled = Vec::new();
        let mut household = people.household(left, story.calendar, &mut story.numbers, &mut recycled);
        left -= household.adults.len() as u64;
        search::search(story, &mut household)?;
        shopping::shop(story, &mut household)?;
        living::live(story, &mut household)?;
        story.truth.household(&household, &recycled)?;
    }
    Ok(people)
}

fn finish(config: &Config, mut story: Story<'_>, people: &People, out: &Path) -> Result<Summary, Error> {
    let mut files = std::collections::BTreeMap::new();
    files.insert("org_units.json".to_owned(), crate::world::write_units(&out.join("org_units.json"))?);
    files.insert("catalogue.json".to_owned(), story.catalogue.write(&out.join("catalogue.json"))?);
    let mut spend_rows = 0;
    for (name, rows) in story.media.write_reports(&out.join("spend"), story.calendar)? {
        spend_rows += rows;
        files.insert(format!("spend/{name}"), rows);
    }
    if let Some(faults) = story.till.faults.take() {
        files.extend(faults.finish()?);
    }
    let summary = Summary {
        customers: config.customers,
        events_late: story.teller.late,
        events_resent: story.teller.resent,
        purchases: story.till.purchases,
        refunds: story.till.refunds,
        transactions_resent: story.till.resent,
        leads: story.desk.leads,
        visits: story.desk.visits,
        subscriptions: story.desk.subscriptions,
        contracts: story.desk.contracts,
        cancellations: story.desk.cancellations,
        spend_rows,
        clicks: story.media.clicks,
        spend_fen: story.media.spend_fen,
        families_sharing_phone: people.families_sharing_phone,
        recycled_numbers: people.recycled_numbers,
        relay_numbers: story.world.relay_numbers.len() as u64,
        tablets: story.world.tablets.iter().map(|tablets| tablets.len() as u64).sum(),
        households: story.truth.finish()?,
        events: story.teller.lines.finish(&out.join("events.ndjson"))?,
        transactions: story.till.lines.finish(&out.join("transactions.ndjson"))?,
        sales_records: story.desk.lines.finish(&out.join("leads.ndjson"))?,
    };
    files.insert("events.ndjson".to_owned(), summary.events);
    files.insert("transactions.ndjson".to_owned(), summary.transactions);
    files.insert("leads.ndjson".to_owned(), summary.sales_records);
    let manifest = Manifest { config, files };
    crate::output::write_document(&out.join("manifest.json"), &manifest)?;
    Ok(summary)
}
