//! Live matching: what some observations change, computed outside the transaction and checked inside it.
//!
//! Only components that the observations touch are read and resolved again, by the same pure function that a replay of everything
//! would use. That is enough because an identifier's being shared is judged by its own neighbours alone, and shared identifiers part
//! components: nothing beyond them can change.

use super::change;
use super::identifier::{Identifier, Kind};
use super::resolve::{Edge, Node, Resolution, customer_of_root, resolve};
use super::rules::Rules;
use super::sealing::Sealing;
use super::store::{self, Row, Seen, StoredEdge};
use crate::pipeline::IdentityChange;
use heyuan_contract::{AnchorId, Cause, CustomerId, OrgUnitId, Timestamp};
use heyuan_kernel::{Error, Kernel, Personal, Tx, sql};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Identifiers read for one batch: a bound on memory; a component is at most `component_max` unless a mistake made it larger.
const LOADED_MAX: usize = 50_000;
/// A last sighting, of a node or of a pair, is moved when it is older than this, so that not every event writes both again.
const LAST_SEEN_STEP_MS: i64 = 6 * 3_600_000;

/// Identifiers that were seen together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sighting {
    pub identifiers: Vec<Identifier>,
    /// The own time, in milliseconds.
    pub at: i64,
    pub unit: Option<OrgUnitId>,
    /// The key or wing that says so.
    pub source: String,
}

/// What a batch of sightings changes.
#[derive(Default)]
pub(crate) struct Plan {
    /// For every sighting the nodes of its identifiers, strongest first; empty when all of them are suppressed.
    pub seen: Vec<Vec<AnchorId>>,
    /// Anchors whose customer changes.
    pub changes: Vec<IdentityChange>,
    rows: HashMap<AnchorId, Row>,
    fresh: HashSet<AnchorId>,
    dirty: BTreeSet<AnchorId>,
    /// Seen again, and nothing else: nobody decides on that, so it moves no revision and makes no other plan start again.
    later: BTreeSet<AnchorId>,
    edges: BTreeMap<(AnchorId, AnchorId), Seen>,
    units: BTreeSet<(AnchorId, OrgUnitId)>,
    expected: BTreeMap<AnchorId, i64>,
    /// Personal values of new identifiers; the pipeline adds those of properties.
    pub sealing: Sealing,
}

/// The keyed mark that an erased identifier leaves: of another key than the look-up hash.
pub(crate) fn suppression_mark(kernel: &Kernel, hash: &[u8]) -> [u8; 16] {
    let mut mark = [0; 16];
    mark.copy_from_slice(&kernel.keys.lookup().derive("heyuan/v1/suppression").mac(&[hash])[..16]);
    mark
}

/// The hash by which a value is found.
pub(crate) fn hash_of(kernel: &Kernel, identifier: &Identifier) -> Option<[u8; 16]> {
    match identifier {
        Identifier::Value { kind, app, value } => Some(kernel.vault.lookup_hash(&Identifier::hashed_kind(*kind, app.as_deref()), value)),
        Identifier::Anchor(_) => None,
    }
}

impl Plan {
    /// Reads what is needed and decides.
    pub(crate) async fn make<C: sql::Connection>(conn: &C, kernel: &Kernel, rules: &Rules, sightings: &[Sighting]) -> Result<Plan, Error> {
        let mut plan = Plan::default();
        let found = plan.find(conn, kernel, sightings).await?;
        let mut touched = plan.see(rules, sightings, &found);
        plan.judge_edges(conn, &mut touched).await?;
        plan.match_components(conn, rules, touched, &[]).await?;
        plan.seal_new(kernel, &found);
        plan.sort_by_strength();
        plan.units = change::unknown_units(conn, std::mem::take(&mut plan.units)).await?;
        Ok(plan)
    }

    /// Only looks up whom sightings are of that were taken in before.
    pub(crate) async fn look_up<C: sql::Connection>(conn: &C, kernel: &Kernel, sightings: &[Sighting]) -> Result<Plan, Error> {
        let mut plan = Plan::default();
        let found = plan.find(conn, kernel, sightings).await?;
        for sighting in sightings {
            let known = sighting.identifiers.iter().filter_map(|identifier| plan.known(&found, identifier));
            let mut ids: Vec<AnchorId> = Vec::with_capacity(sighting.identifiers.len());
            known.for_each(|id| ids.extend((!ids.contains(&id)).then_some(id)));
            plan.seen.push(ids);
        }
        plan.sort_by_strength();
        Ok(plan)
    }

    /// Decides again about the components of some identifiers, without new observations: after evidence was taken back.
    pub(crate) async fn remake<C: sql::Connection>(
        conn: &C,
        rules: &Rules,
        anchors: &[AnchorId],
        retracted: &[(AnchorId, AnchorId)],
    ) -> Result<Plan, Error> {
        let mut plan = Plan::default();
        for row in store::nodes_by_id(conn, anchors).await? {
            plan.remember(row);
        }
        let touched = plan.rows.keys().cloned().collect();
        plan.match_components(conn, rules, touched, retracted).await?;
        Ok(plan)
    }

    /// Whether writing the plan would leave everything as it is.
    pub(crate) fn tells_nothing(&self) -> bool {
        self.dirty.is_empty() && self.later.is_empty() && self.edges.is_empty() && self.changes.is_empty() && self.units.is_empty()
    }

    /// The customers after the plan of all anchors that it looked at.
    pub(crate) fn customers(&self) -> impl Iterator<Item = (AnchorId, CustomerId)> {
        self.rows.iter().map(|(anchor, row)| (anchor.clone(), customer_of_root(&row.cluster)))
    }

    /// The node of an identifier that is there already.
    fn known(&self, found: &Found, identifier: &Identifier) -> Option<AnchorId> {
        match identifier {
            Identifier::Anchor(id) => self.rows.get(id).filter(|row| !row.erased).map(|row| row.node.id.clone()),
            Identifier::Value { .. } => found.by_hash.get(&found.hashes[identifier]).cloned(),
        }
    }

    fn remember(&mut self, row: Row) {
        let id = row.node.id.clone();
        if let std::collections::hash_map::Entry::Vacant(place) = self.rows.entry(id.clone()) {
            self.expected.insert(id, row.revision);
            place.insert(row);
        }
    }

    async fn find<C: sql::Connection>(&mut self, conn: &C, kernel: &Kernel, sightings: &[Sighting]) -> Result<Found, Error> {
        let mut hashes: HashMap<Identifier, [u8; 16]> = HashMap::new();
        let mut anchors: BTreeSet<AnchorId> = BTreeSet::new();
        for identifier in sightings.iter().flat_map(|sighting| &sighting.identifiers) {
            match identifier {
                Identifier::Anchor(id) => {
                    anchors.insert(id.clone());
                }
                Identifier::Value { .. } if !hashes.contains_key(identifier) => {
                    if let Some(hash) = hash_of(kernel, identifier) {
                        hashes.insert(identifier.clone(), hash);
                    }
                }
                Identifier::Value { .. } => {}
            }
        }
        let all: Vec<[u8; 16]> = hashes.values().copied().collect();
        let mut by_hash: HashMap<[u8; 16], AnchorId> = HashMap::with_capacity(all.len());
        for row in store::nodes_by_hash(conn, &all).await? {
            if let Some(Ok(hash)) = row.hash.as_deref().map(<[u8; 16]>::try_from) {
                by_hash.insert(hash, row.node.id.clone());
            }
            self.remember(row);
        }
        for row in store::nodes_by_id(conn, &anchors).await? {
            self.remember(row);
        }
        let missing: Vec<[u8; 16]> = all.iter().filter(|hash| !by_hash.contains_key(*hash)).copied().collect();
        let marks: HashMap<[u8; 16], [u8; 16]> = missing.iter().map(|hash| (*hash, suppression_mark(kernel, hash))).collect();
        let mark_list: Vec<[u8; 16]> = marks.values().copied().collect();
        let by_mark = store::suppressed(conn, &mark_list).await?;
        let suppressed = marks.iter().filter_map(|(hash, mark)| by_mark.get(mark.as_slice()).map(|at| (*hash, *at))).collect();
        Ok(Found { hashes, by_hash, suppressed })
    }

    /// Turns identifiers into nodes and pairs into edges; answers the nodes whose customers may change.
    fn see(&mut self, rules: &Rules, sightings: &[Sighting], found: &Found) -> BTreeSet<AnchorId> {
        let mut touched = BTreeSet::new();
        let mut made: HashMap<[u8; 16], AnchorId> = HashMap::new();
        for sighting in sightings {
            let mut ids: Vec<AnchorId> = Vec::with_capacity(sighting.identifiers.len());
            for identifier in &sighting.identifiers {
                let known = match (self.known(found, identifier), identifier) {
                    (None, Identifier::Value { kind, app, value }) => {
                        let hash = found.hashes[identifier];
                        let known = made.get(&hash).cloned();
                        if known.is_none() && found.suppressed.get(&hash).is_none_or(|until| sighting.at > *until) {
                            let id = self.new_node(rules, *kind, app.clone(), value, hash, sighting.at);
                            made.insert(hash, id.clone());
                            touched.insert(id.clone());
                            Some(id)
                        } else {
                            known
                        }
                    }
                    (known, _) => known,
                };
                if let Some(id) = known
                    && !ids.contains(&id)
                {
                    ids.push(id);
                }
            }
            self.note(sighting, &ids, &mut touched);
            self.seen.push(ids);
        }
        touched
    }

    fn new_node(&mut self, rules: &Rules, kind: Kind, app: Option<String>, value: &str, hash: [u8; 16], at: i64) -> AnchorId {
        // Ids grow with time, so that what is made together lies together in every index.
        let id: AnchorId = Kernel::new_id("anc");
        let node = Node { id: id.clone(), kind, app, blocked: rules.is_blocked(kind, value), shared: false, first_seen: at };
        let row = Row {
            node,
            hash: Some(hash.to_vec()),
            reference: None,
            oversized: false,
            last_seen: at,
            cluster: id.clone(),
            revision: 0,
            erased: false,
        };
        self.rows.insert(id.clone(), row);
        self.fresh.insert(id.clone());
        self.dirty.insert(id.clone());
        id
    }

    /// Notes when nodes were seen, where, and with whom.
    fn note(&mut self, sighting: &Sighting, ids: &[AnchorId], touched: &mut BTreeSet<AnchorId>) {
        for id in ids {
            let Some(row) = self.rows.get_mut(id) else { continue };
            if sighting.at < row.node.first_seen {
                row.node.first_seen = sighting.at;
                touched.insert(id.clone());
                self.dirty.insert(id.clone());
            }
            if sighting.at > row.last_seen + LAST_SEEN_STEP_MS {
                row.last_seen = sighting.at;
                self.later.insert(id.clone());
            }
            if let Some(unit) = &sighting.unit {
                self.units.insert((id.clone(), unit.clone()));
            }
        }
        for (place, one) in ids.iter().enumerate() {
            for other in &ids[place + 1..] {
                let pair = if one < other { (one.clone(), other.clone()) } else { (other.clone(), one.clone()) };
                let seen = self.edges.entry(pair).or_insert_with(|| Seen {
                    first: sighting.at,
                    last: sighting.at,
                    count: 0,
                    source: sighting.source.clone(),
                });
                seen.first = seen.first.min(sighting.at);
                seen.last = seen.last.max(sighting.at);
                seen.count += 1;
            }
        }
    }

    /// Finds which pairs are new evidence, or older than known; those that only were seen again just now are left as they are.
    async fn judge_edges<C: sql::Connection>(&mut self, conn: &C, touched: &mut BTreeSet<AnchorId>) -> Result<(), Error> {
        let known_nodes = |pair: &&(AnchorId, AnchorId)| !self.fresh.contains(&pair.0) && !self.fresh.contains(&pair.1);
        let pairs: Vec<(AnchorId, AnchorId)> = self.edges.keys().filter(known_nodes).cloned().collect();
        let stored: HashMap<(AnchorId, AnchorId), StoredEdge> =
            store::edges_between(conn, &pairs).await?.into_iter().map(|edge| ((edge.a.clone(), edge.b.clone()), edge)).collect();
        self.edges.retain(|pair, seen| {
            let Some(edge) = stored.get(pair) else {
                touched.extend([pair.0.clone(), pair.1.clone()]);
                return true;
            };
            let earlier = seen.first < edge.first_seen;
            if earlier && !edge.retracted {
                touched.extend([pair.0.clone(), pair.1.clone()]);
            }
            earlier || seen.last > edge.last_seen + LAST_SEEN_STEP_MS
        });
        Ok(())
    }

    /// Reads the components of what is touched and resolves them again.
    async fn match_components<C: sql::Connection>(
        &mut self,
        conn: &C,
        rules: &Rules,
        touched: BTreeSet<AnchorId>,
        retracted: &[(AnchorId, AnchorId)],
    ) -> Result<(), Error> {
        let unshare: HashSet<&AnchorId> = retracted.iter().flat_map(|(a, b)| [a, b]).collect();
        let mut edges: BTreeMap<(AnchorId, AnchorId), i64> = BTreeMap::new();
        let mut inside: BTreeSet<AnchorId> = BTreeSet::new();
        let mut frontier: BTreeSet<AnchorId> = touched;
        while !frontier.is_empty() && inside.len() < LOADED_MAX {
            // Shared and blocked identifiers are walls; those whose evidence was taken back are looked at afresh.
            let open: Vec<AnchorId> = frontier
                .into_iter()
                .filter(|id| self.rows.get(id).is_some_and(|row| unshare.contains(id) || !(row.node.shared || row.node.blocked)))
                .collect();
            inside.extend(open.iter().cloned());
            let stored: Vec<&AnchorId> = open.iter().filter(|id| !self.fresh.contains(*id)).collect();
            let mut next: BTreeSet<AnchorId> = BTreeSet::new();
            if !stored.is_empty() {
                for edge in store::edges_of(conn, stored).await? {
                    next.extend([edge.a.clone(), edge.b.clone()]);
                    edges.insert((edge.a, edge.b), edge.first_seen);
                }
            }
            let open: HashSet<&AnchorId> = open.iter().collect();
            for (a, b) in self.edges.keys().filter(|(a, b)| open.contains(a) || open.contains(b)) {
                next.extend([a.clone(), b.clone()]);
            }
            let unknown: Vec<&AnchorId> = next.iter().filter(|id| !self.rows.contains_key(*id)).collect();
            let rows = if unknown.is_empty() { Vec::new() } else { store::nodes_by_id(conn, unknown).await? };
            for row in rows {
                self.remember(row);
            }
            frontier = next
                .into_iter()
                .filter(|id| !inside.contains(id))
                .filter(|id| self.rows.get(id).is_some_and(|row| unshare.contains(id) || !(row.node.shared || row.node.blocked)))
                .collect();
        }
        if inside.is_empty() {
            return Ok(());
        }
        let dead = self.retracted_among(conn, retracted).await?;
        for (pair, seen) in &self.edges {
            if !dead.contains(pair) {
                let first = edges.entry(pair.clone()).or_insert(seen.first);
                *first = (*first).min(seen.first);
            }
        }
        edges.retain(|pair, _| !dead.contains(pair));
        let mut apart = store::cannot_links(conn, inside.iter()).await?;
        apart.extend(retracted.iter().cloned());
        self.resolve_again(rules, &inside, &unshare, edges, &apart);
        Ok(())
    }

    /// Pairs whose evidence does not count.
    async fn retracted_among<C: sql::Connection>(
        &self,
        conn: &C,
        retracted: &[(AnchorId, AnchorId)],
    ) -> Result<HashSet<(AnchorId, AnchorId)>, Error> {
        let known = |pair: &&(AnchorId, AnchorId)| !self.fresh.contains(&pair.0) && !self.fresh.contains(&pair.1);
        let pairs: Vec<(AnchorId, AnchorId)> = self.edges.keys().filter(known).cloned().collect();
        let stored = store::edges_between(conn, &pairs).await?;
        let mut dead: HashSet<(AnchorId, AnchorId)> =
            stored.into_iter().filter(|edge| edge.retracted).map(|edge| (edge.a, edge.b)).collect();
        dead.extend(retracted.iter().cloned());
        Ok(dead)
    }

    fn resolve_again(
        &mut self,
        rules: &Rules,
        inside: &BTreeSet<AnchorId>,
        unshare: &HashSet<&AnchorId>,
        edges: BTreeMap<(AnchorId, AnchorId), i64>,
        apart: &[(AnchorId, AnchorId)],
    ) {
        let mut members: BTreeSet<&AnchorId> = inside.iter().collect();
        members.extend(edges.keys().flat_map(|(a, b)| [a, b]));
        let nodes: Vec<Node> = members
            .iter()
            .filter_map(|id| self.rows.get(*id))
            .map(|row| Node { shared: row.node.shared && !unshare.contains(&row.node.id), ..row.node.clone() })
            .collect();
        let list: Vec<Edge> = edges.iter().map(|((a, b), first)| Edge { a: a.clone(), b: b.clone(), first_seen: *first }).collect();
        let resolution = resolve(&nodes, &list, apart, rules);
        self.take_over(inside, &resolution);
    }

    /// Compares with what is stored.
    fn take_over(&mut self, inside: &BTreeSet<AnchorId>, resolution: &Resolution) {
        let mut parts: HashMap<AnchorId, BTreeSet<AnchorId>> = HashMap::new();
        let mut moved: Vec<(AnchorId, AnchorId)> = Vec::new();
        for id in inside {
            let (Some(row), Some(root)) = (self.rows.get_mut(id), resolution.root.get(id)) else { continue };
            let (shared, oversized) = (resolution.shared.contains(id), resolution.oversized.contains(id));
            let before = std::mem::replace(&mut row.cluster, root.clone());
            parts.entry(before.clone()).or_default().insert(root.clone());
            if before != *root || row.node.shared != shared || row.oversized != oversized {
                self.dirty.insert(id.clone());
            }
            row.node.shared = shared;
            row.oversized = oversized;
            if before != *root || self.fresh.contains(id) {
                moved.push((id.clone(), before));
            }
        }
        for (anchor, before) in moved {
            let is_new = self.fresh.contains(&anchor);
            let cause = match parts.get(&before).map_or(0, BTreeSet::len) {
                _ if is_new => Cause::Event,
                0 | 1 => Cause::Merge,
                _ => Cause::Unmerge,
            };
            let after = customer_of_root(&self.rows[&anchor].cluster);
            self.changes.push(IdentityChange { anchor, before: (!is_new).then(|| customer_of_root(&before)), after, cause });
        }
    }

    /// Puts the values of new identifiers aside for the vault.
    fn seal_new(&mut self, kernel: &Kernel, found: &Found) {
        let by_hash: HashMap<[u8; 16], &Identifier> = found.hashes.iter().map(|(identifier, hash)| (*hash, identifier)).collect();
        for id in self.fresh.clone() {
            let Some(row) = self.rows.get_mut(&id) else { continue };
            let hash: Option<[u8; 16]> = row.hash.as_deref().and_then(|hash| hash.try_into().ok());
            if let Some(Identifier::Value { kind, value, .. }) = hash.and_then(|hash| by_hash.get(&hash)) {
                let class: Personal = kind.personal();
                self.sealing.found(&kernel.keys, &id);
                row.reference = self.sealing.value(&id, class, value).map(String::from);
            }
        }
    }

    fn sort_by_strength(&mut self) {
        let mut seen = std::mem::take(&mut self.seen);
        for ids in &mut seen {
            // A blocked value is the last choice: it stands for nobody. The sort is stable, so an app's own order decides ties.
            ids.sort_by_key(|id| self.rows.get(id).map(|row| (row.node.blocked, row.node.kind)));
        }
        self.seen = seen;
    }

    /// Writes everything, provided that nothing of what was decided on has changed: what is seen, the events of what changes, and the
    /// changes for the pipeline's next batch.
    pub(crate) async fn write(&self, tx: &Tx, rules: &Rules, now: Timestamp) -> Result<(), Error> {
        store::check_revisions(tx, &self.expected).await?;
        self.sealing.write(tx).await?;
        let rows: Vec<&Row> = self.dirty.iter().filter_map(|id| self.rows.get(id)).collect();
        store::put_nodes(tx, &rows).await?;
        let later = self.later.iter().filter(|id| !self.dirty.contains(*id)).filter_map(|id| self.rows.get(id));
        store::put_last_seen(tx, later).await?;
        store::put_edges(tx, &self.edges, rules.version).await?;
        change::put_units(tx, &self.units).await?;
        change::emit(tx, &self.changes, now).await?;
        change::leave_pending(tx, &self.changes).await
    }
}

/// Identifiers of a batch, looked up.
struct Found {
    hashes: HashMap<Identifier, [u8; 16]>,
    by_hash: HashMap<[u8; 16], AnchorId>,
    suppressed: HashMap<[u8; 16], i64>,
}
