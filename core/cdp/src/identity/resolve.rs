//! Who is who, as a pure function of observations, retractions and rules.

use super::identifier::Kind;
use super::rules::Rules;
use heyuan_contract::{AnchorId, CustomerId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// An identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: AnchorId,
    /// Its type.
    pub kind: Kind,
    /// The app of an openid.
    pub app: Option<String>,
    /// Its value means nobody: it never matches.
    pub blocked: bool,
    /// Found to be shared before, with evidence that need not be given again.
    pub shared: bool,
    /// The earliest own time of an event that carried it, in milliseconds.
    pub first_seen: i64,
}

/// Two identifiers that were seen together; retracted evidence is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// One of them.
    pub a: AnchorId,
    /// The other.
    pub b: AnchorId,
    /// The earliest own time of an event that carried both, in milliseconds.
    pub first_seen: i64,
}

/// Who is who.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolution {
    /// For every node the earliest node of its customer.
    pub root: BTreeMap<AnchorId, AnchorId>,
    /// Identifiers that several people share.
    pub shared: BTreeSet<AnchorId>,
    /// Identifiers that hang together in numbers that only a mistake explains; each stays alone.
    pub oversized: BTreeSet<AnchorId>,
    /// Shareable identifiers on which people contradict each other: seen too seldom to be shared, they stay alone.
    pub contested: BTreeSet<AnchorId>,
}

/// The customer whose earliest node this is: the id shares the node's random part, so that it resolves through the node for ever.
pub fn customer_of_root(root: &AnchorId) -> CustomerId {
    let text = root.as_str();
    let part = text.strip_prefix("anc_").unwrap_or(text);
    CustomerId::new(format!("cus_{part}")).expect("a node's id with another prefix is a valid id")
}

/// The node through which a customer id resolves.
pub fn root_of_customer(customer: &CustomerId) -> Option<AnchorId> {
    AnchorId::new(format!("anc_{}", customer.as_str().strip_prefix("cus_")?)).ok()
}

/// Computes who is who. The answer depends on the sets alone, not on their order.
///
/// Blocked and shared identifiers are taken out first; components beyond the limit stay unmatched. What still hangs together is merged
/// along its edges: those between identifiers of one person's own before those of shareable ones (a device may be a family's or a
/// sales office's), strongest types first, then earliest. An edge that would give a customer more identifiers of a type than the rules
/// allow, or join what must not be linked, is passed over. A shareable identifier that alone holds together what the limits keep
/// apart belongs to none of them: it is left out, and the merging is done without it.
pub fn resolve(nodes: &[Node], edges: &[Edge], cannot_link: &[(AnchorId, AnchorId)], rules: &Rules) -> Resolution {
    let index: HashMap<&AnchorId, usize> = nodes.iter().enumerate().map(|(place, node)| (&node.id, place)).collect();
    let mut neighbours: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); nodes.len()];
    let mut known: Vec<(usize, usize, i64)> = Vec::with_capacity(edges.len());
    for edge in edges {
        if let (Some(&a), Some(&b)) = (index.get(&edge.a), index.get(&edge.b))
            && a != b
        {
            neighbours[a].insert(b);
            neighbours[b].insert(a);
            known.push((a, b, edge.first_seen));
        }
    }
    let shared: Vec<bool> = (0..nodes.len()).map(|place| is_shared(nodes, place, &neighbours[place], rules)).collect();
    let out = |place: usize| shared[place] || nodes[place].blocked;
    known.retain(|(a, b, _)| !out(*a) && !out(*b));

    let mut whole = Union::new(nodes.len());
    for (a, b, _) in &known {
        whole.join(*a, *b);
    }
    let mut size: HashMap<usize, u32> = HashMap::new();
    for place in 0..nodes.len() {
        *size.entry(whole.find(place)).or_default() += 1;
    }
    let oversized: Vec<bool> = (0..nodes.len()).map(|place| size[&whole.find(place)] > rules.component_max).collect();

    let mut order: Vec<(bool, u32, i64, &AnchorId, &AnchorId, usize, usize)> = known
        .iter()
        .filter(|(a, _, _)| !oversized[*a])
        .map(|(a, b, first_seen)| {
            let (low, high) = if nodes[*a].id <= nodes[*b].id { (*a, *b) } else { (*b, *a) };
            let by_shareable = rules.is_shareable(nodes[*a].kind) || rules.is_shareable(nodes[*b].kind);
            let strength = strength(nodes[*a].kind) + strength(nodes[*b].kind);
            (by_shareable, strength, *first_seen, &nodes[low].id, &nodes[high].id, *a, *b)
        })
        .collect();
    order.sort_unstable();
    let links: Vec<Link> = order.into_iter().map(|(by_shareable, _, _, _, _, a, b)| Link { a, b, by_shareable }).collect();
    let mut merged = Clusters::new(nodes, cannot_link, &index);
    let refused = merged.merge_all(&links, &HashSet::new(), rules);
    let contested = contested(nodes, &refused, &mut merged.union, rules);
    if !contested.is_empty() {
        merged = Clusters::new(nodes, cannot_link, &index);
        merged.merge_all(&links, &contested, rules);
    }
    let contested: Vec<bool> = (0..nodes.len()).map(|place| contested.contains(&place)).collect();
    answer(nodes, &mut merged.union, &shared, &oversized, &contested)
}

/// Two identifiers that were seen together, on their way to one customer.
#[derive(Clone, Copy)]
struct Link {
    a: usize,
    b: usize,
    /// One of them may be used by several people.
    by_shareable: bool,
}

/// Shareable identifiers that touch customers whom the limits keep apart, and whom nothing else ties: a third number that somebody
/// also told by name does not cost a person the device.
fn contested(nodes: &[Node], refused: &[Link], union: &mut Union, rules: &Rules) -> HashSet<usize> {
    let mut pair = |link: &Link| {
        let (a, b) = (union.find(link.a), union.find(link.b));
        (a.min(b), a.max(b))
    };
    let tied: HashSet<(usize, usize)> = refused.iter().filter(|link| !link.by_shareable).map(&mut pair).collect();
    let alone: Vec<&Link> = refused.iter().filter(|link| link.by_shareable && !tied.contains(&pair(link))).collect();
    alone.into_iter().flat_map(|link| [link.a, link.b]).filter(|place| rules.is_shareable(nodes[*place].kind)).collect()
}

fn answer(nodes: &[Node], union: &mut Union, shared: &[bool], oversized: &[bool], contested: &[bool]) -> Resolution {
    let mut earliest: HashMap<usize, usize> = HashMap::new();
    for place in 0..nodes.len() {
        let best = earliest.entry(union.find(place)).or_insert(place);
        if (nodes[place].first_seen, &nodes[place].id) < (nodes[*best].first_seen, &nodes[*best].id) {
            *best = place;
        }
    }
    let pick = |flags: &[bool]| nodes.iter().zip(flags).filter(|(_, flag)| **flag).map(|(node, _)| node.id.clone()).collect();
    Resolution {
        root: (0..nodes.len()).map(|place| (nodes[place].id.clone(), nodes[earliest[&union.find(place)]].id.clone())).collect(),
        shared: pick(shared),
        oversized: pick(oversized),
        contested: pick(contested),
    }
}

/// The place in the order of strength: 0 is the strongest.
fn strength(kind: Kind) -> u32 {
    Kind::ALL.iter().zip(0..).find(|(other, _)| **other == kind).map_or(u32::MAX, |(_, place)| place)
}

/// Whether an identifier belongs to several people: judged by what it met itself, so that it can be told without looking further.
fn is_shared(nodes: &[Node], place: usize, neighbours: &BTreeSet<usize>, rules: &Rules) -> bool {
    let node = &nodes[place];
    if node.shared || neighbours.len() > rules.neighbours_max as usize {
        return true;
    }
    let mut met: HashMap<(Kind, Option<&str>), u32> = HashMap::new();
    for other in neighbours.iter().map(|place| &nodes[*place]).filter(|other| !other.blocked) {
        *met.entry((other.kind, other.app.as_deref())).or_default() += 1;
    }
    rules
        .shares
        .iter()
        .filter(|rule| rule.kind == node.kind)
        .any(|rule| met.iter().any(|((kind, _), count)| *kind == rule.neighbour && *count > rule.most))
}

struct Union {
    parent: Vec<usize>,
}

impl Union {
    fn new(size: usize) -> Union {
        Union { parent: (0..size).collect() }
    }

    fn find(&mut self, place: usize) -> usize {
        let mut top = place;
        while self.parent[top] != top {
            self.parent[top] = self.parent[self.parent[top]];
            top = self.parent[top];
        }
        top
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.parent[a] = b;
    }
}

/// Growing customers with what they already hold.
struct Clusters {
    union: Union,
    held: Vec<HashMap<(Kind, Option<String>), u32>>,
    members: Vec<Vec<usize>>,
    apart: Vec<HashSet<usize>>,
}

impl Clusters {
    fn new(nodes: &[Node], cannot_link: &[(AnchorId, AnchorId)], index: &HashMap<&AnchorId, usize>) -> Clusters {
        let mut apart = vec![HashSet::new(); nodes.len()];
        for (a, b) in cannot_link {
            if let (Some(&a), Some(&b)) = (index.get(a), index.get(b)) {
                apart[a].insert(b);
                apart[b].insert(a);
            }
        }
        Clusters {
            union: Union::new(nodes.len()),
            held: nodes.iter().map(|node| HashMap::from([((node.kind, node.app.clone()), 1)])).collect(),
            members: (0..nodes.len()).map(|place| vec![place]).collect(),
            apart,
        }
    }

    /// Merges along links in their order, but for those of the identifiers left out; answers the links that the limits refuse.
    fn merge_all(&mut self, links: &[Link], left_out: &HashSet<usize>, rules: &Rules) -> Vec<Link> {
        let mut refused = Vec::new();
        for link in links.iter().filter(|link| !left_out.contains(&link.a) && !left_out.contains(&link.b)) {
            let (a, b) = (self.union.find(link.a), self.union.find(link.b));
            if a == b || self.are_kept_apart(a, b) {
                continue;
            }
            if self.fits(a, b, *link, rules) {
                self.merge(a, b);
            } else {
                refused.push(*link);
            }
        }
        refused
    }

    fn are_kept_apart(&self, a: usize, b: usize) -> bool {
        self.members[a].iter().any(|member| self.members[b].iter().any(|other| self.apart[*member].contains(other)))
    }

    fn fits(&self, a: usize, b: usize, link: Link, rules: &Rules) -> bool {
        self.held[a].iter().all(|(key, count)| {
            let other = self.held[b].get(key).copied().unwrap_or(0);
            let most = if link.by_shareable { rules.by_shareable_max(key.0) } else { rules.customer_max(key.0) };
            other == 0 || count + other <= most
        })
    }

    fn merge(&mut self, a: usize, b: usize) {
        let (small, large) = if self.members[a].len() < self.members[b].len() { (a, b) } else { (b, a) };
        self.union.parent[small] = large;
        let moved = std::mem::take(&mut self.members[small]);
        self.members[large].extend(moved);
        for (key, count) in std::mem::take(&mut self.held[small]) {
            *self.held[large].entry(key).or_default() += count;
        }
    }
}
