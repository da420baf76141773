//! What a server has of a tenant's data, read under its lock, and proved to be ours before anything is changed.

use super::error::{Error, Right};
use super::names::{DataNames, Literal, Login, Name};
use super::session::Session;
use sqlx::postgres::PgRow;

/// The connection limit by which PostgreSQL marks a database whose removal broke off: nobody can connect, all that is left is to drop it.
const HALF_DROPPED: i32 = -2;

/// What a server has of a tenant's data. All of it is ours.
#[derive(Debug)]
pub(super) struct State {
    pub(super) owner: Option<Role>,
    pub(super) database: Option<Found>,
    a: Option<Role>,
    b: Option<Role>,
}

/// One of the roles.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) can_log_in: bool,
    /// Most sessions at once; -1 for no limit.
    pub(super) connections_max: i32,
    /// It can do no more than a tenant should: no CREATEDB, no CREATEROLE; and it has the rights of its roles.
    pub(super) is_plain: bool,
    /// It may act as the owner role.
    pub(super) is_member: bool,
    /// The operator has its rights for now.
    pub(super) is_borrowed: bool,
    /// What its sessions start with, as `name=value`.
    pub(super) settings: Vec<String>,
}

/// The database.
#[derive(Debug)]
pub(super) struct Found {
    /// Comment, rights and connections are as they should be.
    pub(super) is_finished: bool,
    /// It was being dropped.
    pub(super) is_half_dropped: bool,
}

impl State {
    /// Reads it; an [`Error::Foreign`] where something has a name of ours without the mark.
    pub(super) async fn read(session: &mut Session<'_>, names: &DataNames, mark: &Literal) -> Result<State, Error> {
        let owner = Role::read(session, names, &names.owner, mark).await?;
        let a = Role::read(session, names, names.role(Login::A), mark).await?;
        let b = Role::read(session, names, names.role(Login::B), mark).await?;
        let database = Found::read(session, names, mark, owner.is_some()).await?;
        Ok(State { owner, database, a, b })
    }

    /// One of the logins.
    pub(super) fn login(&self, login: Login) -> Option<&Role> {
        match login {
            Login::A => self.a.as_ref(),
            Login::B => self.b.as_ref(),
        }
    }

    /// The logins that are there.
    pub(super) fn logins(&self) -> impl Iterator<Item = Login> {
        Login::BOTH.into_iter().filter(|login| self.login(*login).is_some())
    }
}

impl Role {
    async fn read(session: &mut Session<'_>, names: &DataNames, role: &Name, mark: &Literal) -> Result<Option<Role>, Error> {
        // Before 16 a membership was one thing; since then its parts are given one by one, and who made a role may only administer it.
        let (acts, borrowed) = if session.is_confined() {
            ("m.inherit_option AND m.set_option", "m.inherit_option OR m.set_option")
        } else {
            ("TRUE", "TRUE")
        };
        let statement = format!(
            "SELECT r.rolcanlogin, r.rolconnlimit, shobj_description(r.oid, 'pg_authid') AS mark,
                 r.rolinherit AND NOT r.rolcreatedb AND NOT r.rolcreaterole AS is_plain, coalesce(r.rolconfig, '{{}}') AS settings,
                 EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles o ON o.oid = m.roleid
                     WHERE m.member = r.oid AND o.rolname = $2 AND {acts}) AS is_member,
                 EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member
                     WHERE m.roleid = r.oid AND u.rolname = current_user AND ({borrowed})) AS is_borrowed
             FROM pg_roles r WHERE r.rolname = $1"
        );
        let rows = session.rows(format!("look for role {}", role.as_str()), statement, &[role.as_str(), names.owner()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        if !is_marked(session, row, mark)? {
            return Err(foreign(session, "role", role));
        }
        Ok(Some(Role {
            can_log_in: session.value(row, "rolcanlogin")?,
            connections_max: session.value(row, "rolconnlimit")?,
            is_plain: session.value(row, "is_plain")?,
            is_member: session.value(row, "is_member")?,
            is_borrowed: session.value(row, "is_borrowed")?,
            settings: session.value(row, "settings")?,
        }))
    }
}

impl Found {
    /// A database is ours by the mark, or by its owner where it was made and not finished: the owner role is proved, and a database
    /// without a comment that admits nobody is what we leave when we are broken off between making it and marking it.
    async fn read(session: &mut Session<'_>, names: &DataNames, mark: &Literal, is_owner_ours: bool) -> Result<Option<Found>, Error> {
        const STATEMENT: &str = "SELECT d.datallowconn, d.datconnlimit, pg_get_userbyid(d.datdba)::text AS owner,
                 shobj_description(d.oid, 'pg_database') AS mark, has_database_privilege('public', d.oid, 'CONNECT')
                     OR has_database_privilege('public', d.oid, 'TEMPORARY') OR has_database_privilege('public', d.oid, 'CREATE') AS is_public
             FROM pg_database d WHERE d.datname = $1";
        let what = format!("look for database {}", names.database());
        let rows = session.rows(what, STATEMENT.to_owned(), &[names.database()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let owner: String = session.value(row, "owner")?;
        let admits: bool = session.value(row, "datallowconn")?;
        let is_marked = is_marked(session, row, mark)?;
        let is_unfinished = session.value::<Option<String>>(row, "mark")?.is_none() && !admits;
        if !is_owner_ours || owner != names.owner() || !(is_marked || is_unfinished) {
            return Err(foreign(session, "database", &names.database));
        }
        Ok(Some(Found {
            is_finished: is_marked && admits && !session.value::<bool>(row, "is_public")?,
            is_half_dropped: session.value::<i32>(row, "datconnlimit")? == HALF_DROPPED,
        }))
    }
}

/// Whether the server lets the operator make roles and databases.
pub(super) async fn must_have_rights(session: &mut Session<'_>) -> Result<(), Error> {
    const STATEMENT: &str = "SELECT rolcreaterole OR rolsuper AS roles, rolcreatedb OR rolsuper AS databases
         FROM pg_roles WHERE rolname = current_user";
    let rows = session.rows("look at its own rights", STATEMENT.to_owned(), &[]).await?;
    for row in &rows {
        for (column, what, right) in [("roles", "make roles", Right::CreateRole), ("databases", "make databases", Right::CreateDatabase)] {
            if !session.value::<bool>(row, column)? {
                return Err(super::error::Attempt::new(what, right).lacking(session.server));
            }
        }
    }
    Ok(())
}

fn is_marked(session: &Session<'_>, row: &PgRow, mark: &Literal) -> Result<bool, Error> {
    Ok(session.value::<Option<String>>(row, "mark")?.as_deref() == Some(mark.as_str()))
}

fn foreign(session: &Session<'_>, what: &'static str, name: &Name) -> Error {
    Error::Foreign { server: session.server.to_string(), what, name: name.as_str().to_owned() }
}
