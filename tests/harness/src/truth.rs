//! The truth of a generated demo group, and how well customers agree with it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{Caller, concurrently};

/// An identifier as the group's apps send it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrueIdentifier {
    /// As the API spells it; the group's own member ids are what its apps send as `userId`.
    pub kind: String,
    pub value: String,
    /// Of an openid.
    pub app: Option<String>,
}

/// Who is who in a folder that `heyuan demo generate` filled.
#[derive(Debug)]
pub struct Truth {
    folder: PathBuf,
    /// Whose each identifier is: one person's; several persons' (a family's phone, a number with a second owner); nobody's (a sales
    /// office's tablet, a platform's relay number).
    owners: BTreeMap<TrueIdentifier, BTreeSet<u64>>,
    households: HashMap<u64, u64>,
}

/// How a partition of identifiers into customers agrees with the truth.
///
/// What is counted are unordered pairs of different identifiers (phones, openids, unionids, user ids, devices, e-mail addresses,
/// plates) that the tenant met. A pair is *true* if one person owns both; what several persons share makes true pairs with the
/// identifiers of each of them, and what is nobody's makes none, so that a tablet within a customer costs precision. A pair is *found*
/// if both are one customer's. No customer can find all true pairs of a shared identifier: taking it out costs recall, by
/// design. People who never say who they are count as well, with each of their devices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    pub identifiers: usize,
    /// Found pairs that are true, over found pairs.
    pub precision: f64,
    /// Found pairs that are true, over true pairs.
    pub recall: f64,
    /// Identifiers of the largest customer.
    pub largest: usize,
    /// Customers whose identifiers no single household can own.
    pub beyond_household: usize,
}

impl Truth {
    /// Reads `truth/` of a generated folder.
    pub fn read(folder: &Path) -> Self {
        let (mut owners, mut households) = (BTreeMap::<_, BTreeSet<u64>>::new(), HashMap::new());
        for customer in lines(&folder.join("truth/customers.ndjson")) {
            let number = |name: &str| customer[name].as_u64().expect("people and households have numbers");
            households.insert(number("person"), number("household"));
            for known in list(&customer["identifiers"]) {
                owners.entry(identifier(&known["type"], &known["value"], &known["app"])).or_default().insert(number("person"));
            }
        }
        for shared in lines(&folder.join("truth/shared_identifiers.ndjson")) {
            owners.entry(identifier(&shared["type"], &shared["value"], &Value::Null)).or_default();
        }
        Self { folder: folder.to_owned(), owners, households }
    }

    /// Every identifier, also those that no file shows.
    pub fn identifiers(&self) -> impl Iterator<Item = &TrueIdentifier> {
        self.owners.keys()
    }

    /// Asks a tenant for each identifier, `at_once` on the wire, and answers which customer each one is; what no app or till ever
    /// delivered is unknown to the tenant and left out.
    pub async fn met(&self, app: &Caller, at_once: usize) -> BTreeMap<TrueIdentifier, String> {
        let known: Vec<_> = self.identifiers().collect();
        let answers = concurrently(known.len(), at_once, |place| {
            let (app, one) = (app.clone(), known[place]);
            async move {
                let answer = app.post("/v1/customers:search", &json!({ "type": one.kind, "value": one.value, "app": one.app })).await;
                (answer.status != 404).then(|| answer.expect(200)["id"].as_str().expect("a customer has an id").to_owned())
            }
        })
        .await;
        known.into_iter().zip(answers).filter_map(|(one, customer)| Some((one.clone(), customer?))).collect()
    }

    /// Judges customers, given by a name for each identifier that the tenant met.
    pub fn judge(&self, customers: &BTreeMap<TrueIdentifier, String>) -> Agreement {
        let nobody = BTreeSet::new();
        let mut members: BTreeMap<&str, Vec<&BTreeSet<u64>>> = BTreeMap::new();
        for (identifier, customer) in customers {
            members.entry(customer).or_default().push(self.owners.get(identifier).unwrap_or(&nobody));
        }
        let all: Vec<&BTreeSet<u64>> = members.values().flatten().copied().collect();
        let found: usize = members.values().map(|list| list.len() * (list.len() - 1) / 2).sum();
        let both: usize = members.values().map(|list| true_pairs(list)).sum();
        Agreement {
            identifiers: customers.len(),
            precision: share(both, found),
            recall: share(both, true_pairs(&all)),
            largest: members.values().map(Vec::len).max().unwrap_or(0),
            beyond_household: members.values().filter(|list| !self.is_of_one_household(list)).count(),
        }
    }

    fn is_of_one_household(&self, owners: &[&BTreeSet<u64>]) -> bool {
        let houses = |people: &BTreeSet<u64>| people.iter().map(|person| self.households[person]).collect::<BTreeSet<u64>>();
        let owned = owners.iter().filter(|people| !people.is_empty()).map(|people| houses(people));
        owned.reduce(|common, next| common.intersection(&next).copied().collect()).is_none_or(|common| !common.is_empty())
    }

    /// What plain union-find makes of the same events: whatever was seen together is one customer.
    pub fn union_find(&self) -> BTreeMap<TrueIdentifier, String> {
        let (mut places, mut parents) = (BTreeMap::new(), Vec::new());
        for event in lines(&self.folder.join("events.ndjson")) {
            let mut first = None;
            for identifier in carried(&event["message"]) {
                let place = *places.entry(identifier).or_insert_with(|| {
                    parents.push(parents.len());
                    parents.len() - 1
                });
                let (left, right) = (root(&mut parents, *first.get_or_insert(place)), root(&mut parents, place));
                parents[left] = right;
            }
        }
        places.into_iter().map(|(identifier, place)| (identifier, root(&mut parents, place).to_string())).collect()
    }
}

/// Pairs that have an owner in common. What one person alone owns is counted by person; what several own is rare, and compared.
fn true_pairs(owners: &[&BTreeSet<u64>]) -> usize {
    let mut alone: HashMap<u64, usize> = HashMap::new();
    for people in owners.iter().filter(|people| people.len() == 1) {
        *alone.entry(*people.first().expect("one person")).or_default() += 1;
    }
    let shared: Vec<&BTreeSet<u64>> = owners.iter().filter(|people| people.len() > 1).copied().collect();
    let among_shared = |place: usize| shared[place + 1..].iter().filter(|other| !other.is_disjoint(shared[place])).count();
    alone.values().map(|count| count * (count - 1) / 2).sum::<usize>()
        + shared.iter().flat_map(|people| people.iter()).filter_map(|person| alone.get(person)).sum::<usize>()
        + (0..shared.len()).map(among_shared).sum::<usize>()
}

#[expect(clippy::cast_precision_loss, reason = "counts of pairs are far below 2^52")]
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

fn root(parents: &mut [usize], mut place: usize) -> usize {
    while parents[place] != place {
        parents[place] = parents[parents[place]];
        place = parents[place];
    }
    place
}

/// The identifiers of a Segment message of the demo group.
fn carried(message: &Value) -> BTreeSet<TrueIdentifier> {
    let (context, traits, none) = (&message["context"], &message["traits"], Value::Null);
    let app = &context["app"]["name"];
    let mut found = vec![("member", &message["userId"], &none), ("device", &message["anonymousId"], &none)];
    found.push(("device", &context["device"]["id"], &none));
    found.extend(["phone", "unionid", "email", "plate"].map(|kind| (kind, &traits[kind], &none)));
    found.push(("openid", &traits["openid"], app));
    for external in list(&context["externalIds"]) {
        found.push((external["type"].as_str().expect("an external id has a type"), &external["id"], &external["app"]));
    }
    let told = found.into_iter().filter(|(_, value, _)| value.is_string());
    told.map(|(kind, value, app)| identifier(&Value::from(kind), value, app)).collect()
}

fn identifier(kind: &Value, value: &Value, app: &Value) -> TrueIdentifier {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kind = text(kind).expect("an identifier has a type");
    let kind = if kind == "member" { "user".to_owned() } else { kind };
    TrueIdentifier { kind, value: text(value).expect("an identifier has a value"), app: text(app) }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn lines(path: &Path) -> impl Iterator<Item = Value> {
    let name = path.display().to_string();
    let file = File::open(path).unwrap_or_else(|error| panic!("{name} can't be opened: {error}"));
    BufReader::new(file).lines().map(move |line| {
        let line = line.unwrap_or_else(|error| panic!("{name} can't be read: {error}"));
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{name}: {error}"))
    })
}
