//! The group's tree of units, which scopes permissions, lists and reports.

use crate::database::Database;
use crate::error::{Error, Problem, codes};
use crate::sql;
use futures::FutureExt;
use heyuan_contract::{Line, OrgUnitId, UnitKind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, RwLock};

/// Units of one tenant; a group with more is not what one process is for.
pub const UNITS_MAX: usize = 10_000;

/// A node of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrgUnit {
    /// The group's own code.
    pub id: OrgUnitId,
    /// `None` for the root, the group.
    pub parent: Option<OrgUnitId>,
    /// The name people know.
    pub name: String,
    /// What it is.
    pub kind: UnitKind,
    /// Its business line; `None` for group and city companies.
    pub line: Option<Line>,
}

/// The tree as of one moment.
#[derive(Debug, Default)]
pub struct Tree {
    units: BTreeMap<OrgUnitId, OrgUnit>,
    children: BTreeMap<OrgUnitId, Vec<OrgUnitId>>,
}

impl Tree {
    fn new(list: Vec<OrgUnit>) -> Tree {
        let mut tree = Tree::default();
        for unit in list {
            if let Some(parent) = &unit.parent {
                tree.children.entry(parent.clone()).or_default().push(unit.id.clone());
            }
            tree.units.insert(unit.id.clone(), unit);
        }
        tree
    }

    /// A unit by its id.
    pub fn get(&self, id: &OrgUnitId) -> Option<&OrgUnit> {
        self.units.get(id)
    }

    /// Every unit, by id.
    pub fn units(&self) -> impl Iterator<Item = &OrgUnit> {
        self.units.values()
    }

    /// A unit and everything below it.
    pub fn subtree(&self, root: &OrgUnitId) -> HashSet<OrgUnitId> {
        let mut found = HashSet::new();
        let mut open = vec![root.clone()];
        while let Some(id) = open.pop() {
            if found.insert(id.clone()) {
                open.extend(self.children.get(&id).into_iter().flatten().cloned());
            }
        }
        found
    }
}

/// The tree, kept in memory and read again after a change.
#[derive(Clone)]
pub struct Org {
    db: Database,
    tree: Arc<RwLock<Arc<Tree>>>,
}

impl Org {
    /// Reads the tree.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Corrupt`].
    pub async fn load(db: Database) -> Result<Org, Error> {
        let tree = read(&db).await?;
        Ok(Org { db, tree: Arc::new(RwLock::new(Arc::new(tree))) })
    }

    /// The tree as last read.
    pub fn tree(&self) -> Arc<Tree> {
        self.tree.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Reads the tree again: another process may have changed it.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Corrupt`].
    pub async fn refresh(&self) -> Result<(), Error> {
        let tree = read(&self.db).await?;
        *self.tree.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(tree);
        Ok(())
    }

    /// The unit, or a problem that names the field. One that is not known is looked for in the database: another process may have added it
    /// a moment ago.
    ///
    /// # Errors
    /// `invalid_request` when there is no such unit; the database's.
    pub async fn require(&self, field: &str, id: &OrgUnitId) -> Result<OrgUnit, Error> {
        if self.tree().get(id).is_none() {
            self.refresh().await?;
        }
        let missing = || Problem::invalid(field, format!("there is no org unit {id}; list them at /v1/org-units"));
        Ok(self.tree().get(id).cloned().ok_or_else(missing)?)
    }

    /// Adds units or changes their names; a unit never changes its parent, kind or line, since records are scoped by them.
    ///
    /// # Errors
    /// `invalid_request` for an unknown parent or a second root, `conflict` for a changed parent, kind or line.
    pub async fn put(&self, list: Vec<OrgUnit>) -> Result<(), Error> {
        self.insert(list, "UPDATE SET name = excluded.name").await
    }

    /// Adds units; one that is there stays as it is.
    ///
    /// # Errors
    /// As [`Org::put`].
    pub async fn add(&self, list: Vec<OrgUnit>) -> Result<(), Error> {
        self.insert(list, "NOTHING").await
    }

    async fn insert(&self, list: Vec<OrgUnit>, where_present: &'static str) -> Result<(), Error> {
        self.refresh().await?;
        check(&self.tree(), &list)?;
        self.db
            .write("put org units", move |tx| {
                let list = list.clone();
                async move {
                    let text = format!(
                        "INSERT INTO kernel_org_unit (id, parent, name, kind, line) VALUES ($1, $2, $3, $4, $5)
                         ON CONFLICT (id) DO {where_present}"
                    );
                    for unit in list {
                        let values = [
                            unit.id.as_str().into(),
                            unit.parent.as_ref().map(|id| id.as_str().to_owned()).into(),
                            unit.name.into(),
                            unit.kind.as_str().into(),
                            unit.line.map(|line| line.as_str().to_owned()).into(),
                        ];
                        sql::execute(tx.conn(), &text, values).await?;
                    }
                    Ok::<(), Error>(())
                }
                .boxed()
            })
            .await?;
        self.refresh().await
    }
}

fn check(tree: &Tree, list: &[OrgUnit]) -> Result<(), Problem> {
    if tree.units.len() + list.len() > UNITS_MAX {
        return Err(Problem::invalid("units", format!("a tenant has at most {UNITS_MAX} units")));
    }
    let mut known: HashSet<&OrgUnitId> = tree.units.keys().collect();
    let mut root = tree.units.values().find(|unit| unit.parent.is_none()).map(|unit| &unit.id);
    for (index, unit) in list.iter().enumerate() {
        let at = |name: &str| format!("units[{index}].{name}");
        if unit.name.is_empty() || unit.name.len() > 200 {
            return Err(Problem::invalid(&at("name"), "a name has 1 to 200 bytes"));
        }
        match &unit.parent {
            Some(parent) if !known.contains(parent) => {
                return Err(Problem::invalid(&at("parent"), format!("there is no unit {parent}; parents come before their children")));
            }
            None if root.is_some_and(|root| root != &unit.id) => {
                return Err(Problem::invalid(&at("parent"), "there is one root, the group; every other unit names its parent"));
            }
            None => root = Some(&unit.id),
            Some(_) => {}
        }
        if let Some(old) = tree.get(&unit.id)
            && (old.parent != unit.parent || old.kind != unit.kind || old.line != unit.line)
        {
            return Err(Problem::new(codes::CONFLICT, format!("unit {} can't change its parent, kind or line", unit.id)).field(at("id")));
        }
        known.insert(&unit.id);
    }
    Ok(())
}

async fn read(db: &Database) -> Result<Tree, Error> {
    let rows = sql::all(db.reader(), "SELECT id, parent, name, kind, line FROM kernel_org_unit ORDER BY id", []).await?;
    let corrupt = |why: String| Error::Corrupt { what: "org unit", why };
    let mut list = Vec::with_capacity(rows.len());
    for row in &rows {
        let id: String = sql::get(row, "id")?;
        let parent: Option<String> = sql::get(row, "parent")?;
        let kind: String = sql::get(row, "kind")?;
        let line: Option<String> = sql::get(row, "line")?;
        list.push(OrgUnit {
            id: OrgUnitId::new(id).map_err(|e| corrupt(e.to_string()))?,
            parent: parent.map(OrgUnitId::new).transpose().map_err(|e| corrupt(e.to_string()))?,
            name: sql::get(row, "name")?,
            kind: UnitKind::parse(&kind).ok_or_else(|| corrupt(format!("kind {kind}")))?,
            line: line.map(|text| Line::parse(&text).ok_or_else(|| corrupt(format!("line {text}")))).transpose()?,
        });
    }
    Ok(Tree::new(list))
}
