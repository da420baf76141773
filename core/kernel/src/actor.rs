//! Who acts: the scopes and the unit of a key, of somebody who works for the group, a member or the system itself.

use crate::error::{Problem, codes};
use heyuan_contract::{MemberId, OrgUnitId, StaffId};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Send events: what an app carries.
    Ingest,
    /// Act for members and lines: what a server of the tenant carries.
    App,
    /// Define, configure and report.
    Admin,
    /// See personal data unmasked; each look is audited.
    Reveal,
    /// Send history: no lower limit on own times.
    Import,
    /// What the operator may ask.
    Operator,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 6] = [Scope::Ingest, Scope::App, Scope::Admin, Scope::Reveal, Scope::Import, Scope::Operator];

    /// The spelling in commands and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Ingest => "ingest",
            Scope::App => "app",
            Scope::Admin => "admin",
            Scope::Reveal => "reveal",
            Scope::Import => "import",
            Scope::Operator => "operator",
        }
    }

    /// The scope with this spelling, if there is one.
    pub fn parse(text: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The units that an actor may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// The whole group.
    Everything,
    /// A unit and what is below it.
    Units(Arc<HashSet<OrgUnitId>>),
}

impl Reach {
    /// Whether a record of this unit is within reach.
    pub fn covers(&self, unit: &OrgUnitId) -> bool {
        match self {
            Reach::Everything => true,
            Reach::Units(units) => units.contains(unit),
        }
    }
}

/// Who acts, and how far that reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    name: String,
    scopes: Vec<Scope>,
    unit: Option<OrgUnitId>,
    reach: Reach,
    person: Option<Person>,
}

/// Who acts in person, with a token of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Person {
    Member(MemberId),
    Staff(StaffId),
}

impl Actor {
    /// The system itself: jobs and reactions.
    pub fn system(name: &'static str) -> Actor {
        Actor { name: format!("system:{name}"), scopes: Scope::ALL.to_vec(), unit: None, reach: Reach::Everything, person: None }
    }

    /// The Kubernetes operator, on the listener that is its alone: may do what operators do, and nothing else.
    pub fn operator() -> Actor {
        Actor { scopes: vec![Scope::Operator], ..Actor::system("operator") }
    }

    /// A key, with the units that its own unit covers.
    pub fn key(name: String, scopes: Vec<Scope>, unit: Option<OrgUnitId>, reach: Reach) -> Actor {
        Actor { name, scopes, unit, reach, person: None }
    }

    /// Somebody who works for the group: scopes and a unit as a key has them.
    pub fn staff(staff: StaffId, scopes: Vec<Scope>, unit: Option<OrgUnitId>, reach: Reach) -> Actor {
        Actor { name: format!("staff:{staff}"), scopes, unit, reach, person: Some(Person::Staff(staff)) }
    }

    /// A member with a token: may do what concerns this member alone.
    pub fn member(member: MemberId) -> Actor {
        let name = format!("member:{member}");
        Actor { name, scopes: Vec::new(), unit: None, reach: Reach::Everything, person: Some(Person::Member(member)) }
    }

    /// A name without personal data, for audit, idempotency and logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the system itself acts, and no key or member.
    pub fn is_system(&self) -> bool {
        self.name.starts_with("system:")
    }

    /// The key's unit; `None` for the whole group.
    pub fn unit(&self) -> Option<&OrgUnitId> {
        self.unit.as_ref()
    }

    /// The units whose records the actor sees.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The member that acts, when it is one.
    pub fn as_member(&self) -> Option<&MemberId> {
        match &self.person {
            Some(Person::Member(member)) => Some(member),
            _ => None,
        }
    }

    /// Whoever works for the group, when it is one of them that acts.
    pub fn as_staff(&self) -> Option<&StaffId> {
        match &self.person {
            Some(Person::Staff(staff)) => Some(staff),
            _ => None,
        }
    }

    /// Whether the actor has a scope.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Refuses an actor without the scope.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        self.require_any(&[scope])
    }

    /// Refuses an actor without any of the scopes.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn require_any(&self, scopes: &[Scope]) -> Result<(), Problem> {
        if scopes.iter().any(|scope| self.has(*scope)) {
            return Ok(());
        }
        let wanted: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        Err(Problem::new(codes::FORBIDDEN, format!("this needs a key of scope {}", wanted.join(" or "))))
    }

    /// Lets a key of the scope act for any member, and a member for itself alone.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn require_for_member(&self, scope: Scope, member: &MemberId) -> Result<(), Problem> {
        match self.as_member() {
            Some(own) if own == member => Ok(()),
            Some(_) => Err(Problem::new(codes::FORBIDDEN, "a member's token speaks for that member alone")),
            None => self.require(scope),
        }
    }

    /// Refuses a unit outside the actor's reach.
    ///
    /// # Errors
    /// `forbidden`, with the unit's id.
    pub fn require_unit(&self, unit: &OrgUnitId) -> Result<(), Problem> {
        if self.reach.covers(unit) {
            Ok(())
        } else {
            Err(Problem::new(codes::FORBIDDEN, format!("this key does not reach the unit {unit}")))
        }
    }
}
