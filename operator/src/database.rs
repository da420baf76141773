//! PostgreSQL for tenants: the database and the roles of a tenant's data on a server that several tenants share.
//!
//! It owns, per data id, one database, the role that owns it and never logs in, and two roles as which the tenant logs in, one after the
//! other; they start as the owner, so that whatever one makes is the other's too. Each carries a mark of a nonce that only the operator
//! keeps: what has one of the names without the mark is foreign, and nothing is changed. The mark keeps names from being mistaken; who may
//! make roles on the server can read and copy it.
//!
//! Every function may be broken off at any statement and called again; it reads under the data's advisory lock and does what is missing.
//! The operator itself needs no superuser (docs/operator.sql): it borrows a role's rights where PostgreSQL wants them and gives them back.
//! Passwords reach a server as SCRAM verifiers only. It must be reached directly: a pooler that shares sessions breaks the lock.
//!
//! Tenants see each other's role and database names in the catalogs that a server shares, and nothing else of each other. A tenant owns its
//! database, so it can change the comment there and make it foreign: then nothing is changed or removed until a person puts it back.

mod error;
mod names;
mod session;
mod state;

pub use error::Error;
pub use names::{DataNames, Login};

use crate::crd::SslMode;
use error::Right;
use names::{Literal, Name, PREFIX};
use secrecy::{ExposeSecret, SecretString};
use session::{Session, VERSION_CONFINED};
use state::{Role, State, must_have_rights};
use std::collections::BTreeMap;
use std::fmt;

/// Fewest characters of a tenant's password.
const PASSWORD_CHARS_MIN: usize = 16;
/// Most characters of a tenant's password.
const PASSWORD_CHARS_MAX: usize = 128;
/// Most connections of one tenant: what a server can be told.
const CONNECTIONS_MAX: u32 = 10_000;

/// What a tenant's sessions start with beside their role. Heyuan's own processes set the same; this is for whoever uses the log-in
/// otherwise, so that a forgotten transaction holds up no reader of the outbox on the whole server.
const SETTINGS: [(&str, &str); 2] = [("statement_timeout", "60000"), ("idle_in_transaction_session_timeout", "10000")];

/// A server, and as whom the operator works there.
#[derive(Debug, Clone)]
pub struct Server {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How connections are encrypted.
    pub ssl_mode: SslMode,
    /// Certificates (PEM) of the authority that signs the server's; those of the public web where there are none.
    pub ca_bundle: Option<String>,
    /// The role of docs/operator.sql.
    pub username: String,
    /// Its password.
    pub password: SecretString,
    /// The database that statements about other databases are sent to; the same for all operators of a server, since locks lie in it.
    pub maintenance_database: String,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How far a tenant may go on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most sessions of each of its two log-ins.
    pub connections: u32,
}

impl Limits {
    fn must_fit(self) -> Result<(), Error> {
        let fits = (1..=CONNECTIONS_MAX).contains(&self.connections);
        if fits { Ok(()) } else { Err(Error::Invalid("a tenant has 1 to 10,000 connections")) }
    }
}

/// What a server is, and what was found there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its version, as 160004.
    pub version_num: u32,
    /// Whether the database was made just now and is empty: retained data that is adopted should have been there.
    pub is_database_new: bool,
}

impl ServerFacts {
    /// Whether a role with CREATEROLE stays within the roles that it made, as from 16 on. Before, the operator's role is nearly a
    /// superuser.
    pub const fn confines_creators(self) -> bool {
        self.version_num >= VERSION_CONFINED
    }
}

/// The connections of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Sum of the limits of all tenants' log-ins that may log in; a rotation counts twice while it lasts.
    pub promised: i64,
    /// What the class lets tenants have.
    pub connections_max: i64,
    /// What the server lets ordinary roles have.
    pub server_max: i64,
    /// What was promised to each, by database.
    by_database: BTreeMap<String, i64>,
}

impl Budget {
    /// Whether this tenant may be promised so many, in place of what it has been promised already.
    pub fn fits(&self, names: &DataNames, connections: u32) -> bool {
        let others = self.promised - self.by_database.get(names.database()).copied().unwrap_or_default();
        others + i64::from(connections) <= self.connections_max.min(self.server_max)
    }
}

/// Makes database and roles, or makes them what they should be, and lets the tenant in as `active`. What is there is kept, and so this is
/// also how retained data is adopted. The other log-in is closed for new sessions: not to be called while a rotation is under way.
pub async fn provision(
    server: &Server,
    names: &DataNames,
    proof: &str,
    active: Login,
    password: &SecretString,
    limits: Limits,
) -> Result<ServerFacts, Error> {
    let mark = names.mark(proof)?;
    let verifier = verifier(password)?;
    limits.must_fit()?;
    let mut session = Session::locked(server, names).await?;
    must_have_rights(&mut session).await?;
    let state = State::read(&mut session, names, &mark).await?;
    if state.database.as_ref().is_some_and(|found| found.is_half_dropped) {
        return Err(Error::HalfDropped { server: server.to_string(), name: names.database().to_owned() });
    }
    if state.owner.is_none() {
        let owner = &names.owner;
        let statements = format!("CREATE ROLE {owner} NOLOGIN; COMMENT ON ROLE {owner} IS {mark}");
        session.run(format!("make role {}", owner.as_str()), Right::CreateRole, statements).await?;
    }
    for login in Login::BOTH {
        settle_login(&mut session, names, &mark, login, state.login(login), limits).await?;
    }
    settle_database(&mut session, names, &mark, &state).await?;
    if state.login(active.other()).is_some_and(|idle| idle.can_log_in) {
        shut(&mut session, names.role(active.other())).await?;
    }
    admit(&mut session, names.role(active), &verifier).await?;
    let facts = ServerFacts { version_num: session.version_num, is_database_new: state.database.is_none() };
    session.close().await;
    Ok(facts)
}

/// Gives a log-in a new password and lets it in, beside the other one.
pub async fn open_login(server: &Server, names: &DataNames, proof: &str, login: Login, password: &SecretString) -> Result<(), Error> {
    let mark = names.mark(proof)?;
    let verifier = verifier(password)?;
    let mut session = Session::locked(server, names).await?;
    let state = State::read(&mut session, names, &mark).await?;
    if state.login(login).is_none() {
        return Err(Error::Missing { server: server.to_string(), what: "role", name: names.login(login).to_owned() });
    }
    admit(&mut session, names.role(login), &verifier).await?;
    session.close().await;
    Ok(())
}

/// Lets each log-in have so many sessions from now on; those that are open stay. Writes nothing where it is so already, and answers
/// whether it wrote.
pub async fn limit(server: &Server, names: &DataNames, proof: &str, limits: Limits) -> Result<bool, Error> {
    let mark = names.mark(proof)?;
    limits.must_fit()?;
    let mut session = Session::locked(server, names).await?;
    let state = State::read(&mut session, names, &mark).await?;
    let mut wrote = false;
    for login in Login::BOTH {
        let Some(found) = state.login(login) else {
            return Err(Error::Missing { server: server.to_string(), what: "role", name: names.login(login).to_owned() });
        };
        if i64::from(found.connections_max) == i64::from(limits.connections) {
            continue;
        }
        let role = names.role(login);
        let right = Right::Administer(role.as_str().to_owned());
        let statement = format!("ALTER ROLE {role} CONNECTION LIMIT {}", limits.connections);
        session.run(format!("limit the sessions of {}", role.as_str()), right, statement).await?;
        wrote = true;
    }
    session.close().await;
    Ok(wrote)
}

/// Sessions that a log-in has.
pub async fn sessions(server: &Server, names: &DataNames, login: Login) -> Result<i64, Error> {
    let mut session = Session::open(server).await?;
    let sessions = session.count_sessions(names.role(login)).await?;
    session.close().await;
    Ok(sessions)
}

/// Lets nobody in as this log-in any more, takes its password, ends the sessions that are left and answers how many there were.
pub async fn close_login(server: &Server, names: &DataNames, proof: &str, login: Login) -> Result<i64, Error> {
    let mark = names.mark(proof)?;
    let mut session = Session::locked(server, names).await?;
    let state = State::read(&mut session, names, &mark).await?;
    let mut ended = 0;
    if state.login(login).is_some() {
        shut(&mut session, names.role(login)).await?;
        ended = session.end_sessions(names.role(login)).await?;
    }
    session.close().await;
    Ok(ended)
}

/// Keeps the data and lets nobody in: both log-ins are closed and their sessions ended. What is not there is fine.
pub async fn retain(server: &Server, names: &DataNames, proof: &str) -> Result<(), Error> {
    let mark = names.mark(proof)?;
    let mut session = Session::locked(server, names).await?;
    let state = State::read(&mut session, names, &mark).await?;
    shut_all(&mut session, names, &state).await?;
    if state.owner.as_ref().is_some_and(|owner| owner.is_borrowed) {
        give_back(&mut session, names).await?;
    }
    session.close().await;
    Ok(())
}

/// Removes database and roles for good. What is not there is fine; what is foreign stays, and then so does all the rest.
pub async fn remove(server: &Server, names: &DataNames, proof: &str) -> Result<(), Error> {
    let mark = names.mark(proof)?;
    let mut session = Session::locked(server, names).await?;
    let state = State::read(&mut session, names, &mark).await?;
    shut_all(&mut session, names, &state).await?;
    if state.database.is_some() {
        borrow(&mut session, names).await?;
        let what = format!("drop database {}", names.database());
        session.run(what, Right::EndSessions, format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", names.database)).await?;
    }
    let mut roles: Vec<String> = state.logins().map(|login| names.role(login).to_string()).collect();
    if state.owner.is_some() {
        roles.push(names.owner.to_string());
    }
    if !roles.is_empty() {
        let what = format!("drop the roles of {}", names.database());
        session.run(what, Right::Administer(names.owner().to_owned()), format!("DROP ROLE {}", roles.join(", "))).await?;
    }
    session.close().await;
    Ok(())
}

/// What tenants have been promised of a server's connections.
pub async fn budget(server: &Server, connections_max: u32) -> Result<Budget, Error> {
    const MOST: &str = "SELECT sum(CASE name WHEN 'max_connections' THEN setting::bigint ELSE -setting::bigint END)::bigint AS server_max
         FROM pg_settings WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')";
    let promised = format!(
        "SELECT left(rolname, -2) AS database, sum(CASE WHEN rolconnlimit < 0 THEN $1::text::bigint ELSE rolconnlimit END)::bigint AS promised
         FROM pg_roles WHERE rolcanlogin AND rolname ~ '^{PREFIX}[a-z0-9]{{16}}_[ab]$'
             AND shobj_description(oid, 'pg_authid') ~ ('^heyuan:' || substr(rolname, 8, 16) || ':[0-9a-f]{{64}}$')
         GROUP BY 1"
    );
    let mut session = Session::open(server).await?;
    let what = "count the connections that tenants were promised";
    let most = session.rows(what, MOST.to_owned(), &[]).await?;
    let server_max: i64 = most.first().map_or(Ok(0), |row| session.value(row, "server_max"))?;
    let rows = session.rows(what, promised, &[&server_max.to_string()]).await?;
    let by_database = rows
        .iter()
        .map(|row| Ok((session.value(row, "database")?, session.value(row, "promised")?)))
        .collect::<Result<BTreeMap<String, i64>, Error>>()?;
    session.close().await;
    Ok(Budget { promised: by_database.values().sum(), connections_max: i64::from(connections_max), server_max, by_database })
}

/// Makes a login, closed, or makes it what it should be; whether it is open is not decided here.
async fn settle_login(
    session: &mut Session<'_>,
    names: &DataNames,
    mark: &Literal,
    login: Login,
    found: Option<&Role>,
    limits: Limits,
) -> Result<(), Error> {
    let (owner, role) = (&names.owner, names.role(login));
    let mut statements = Vec::new();
    let is_new = found.is_none();
    if is_new {
        statements.push(format!("CREATE ROLE {role} NOLOGIN INHERIT CONNECTION LIMIT {}", limits.connections));
        statements.push(format!("COMMENT ON ROLE {role} IS {mark}"));
    }
    if found.is_some_and(|found| !found.is_plain || i64::from(found.connections_max) != i64::from(limits.connections)) {
        statements.push(format!("ALTER ROLE {role} INHERIT NOCREATEDB NOCREATEROLE CONNECTION LIMIT {}", limits.connections));
    }
    if !found.is_some_and(|found| found.is_member) {
        let how = if session.is_confined() { " WITH INHERIT TRUE, SET TRUE" } else { "" };
        statements.push(format!("GRANT {owner} TO {role}{how}"));
    }
    for (setting, value) in [("role", names.owner())].into_iter().chain(SETTINGS) {
        if !found.is_some_and(|found| found.settings.iter().any(|line| *line == format!("{setting}={value}"))) {
            statements.push(format!("ALTER ROLE {role} SET {setting} = '{value}'"));
        }
    }
    if found.is_some_and(|found| found.is_borrowed) {
        statements.push(format!("REVOKE {role} FROM CURRENT_USER"));
    }
    if statements.is_empty() {
        return Ok(());
    }
    let right = if is_new { Right::CreateRole } else { Right::Administer(role.as_str().to_owned()) };
    session.run(format!("make role {}", role.as_str()), right, statements.join("; ")).await
}

/// Makes the database, or makes it what it should be. Nobody can connect before PUBLIC has lost its rights.
async fn settle_database(session: &mut Session<'_>, names: &DataNames, mark: &Literal, state: &State) -> Result<(), Error> {
    let database = &names.database;
    let is_lent = state.owner.as_ref().is_some_and(|owner| owner.is_borrowed);
    if state.database.as_ref().is_some_and(|found| found.is_finished) && !is_lent {
        return Ok(());
    }
    borrow(session, names).await?;
    let mut made = Ok(());
    if state.database.is_none() {
        let statement =
            format!("CREATE DATABASE {database} OWNER {} TEMPLATE template0 ENCODING 'UTF8' ALLOW_CONNECTIONS false", names.owner);
        made = session.run(format!("make database {}", names.database()), Right::CreateDatabase, statement).await;
    }
    if made.is_ok() {
        let statements = format!(
            "COMMENT ON DATABASE {database} IS {mark}; REVOKE ALL ON DATABASE {database} FROM PUBLIC;
             ALTER DATABASE {database} ALLOW_CONNECTIONS true"
        );
        let right = Right::Administer(names.owner().to_owned());
        made = session.run(format!("close database {} to strangers", names.database()), right, statements).await;
    }
    // Given back also where something failed; the first failure is the one to tell of.
    let given_back = give_back(session, names).await;
    made.and(given_back)
}

async fn borrow(session: &mut Session<'_>, names: &DataNames) -> Result<(), Error> {
    let owner = &names.owner;
    let statement = session.borrow(owner);
    session.run(format!("borrow the rights of {}", owner.as_str()), Right::Administer(owner.as_str().to_owned()), statement).await
}

async fn give_back(session: &mut Session<'_>, names: &DataNames) -> Result<(), Error> {
    let owner = &names.owner;
    let right = Right::Administer(owner.as_str().to_owned());
    session.run(format!("give back the rights of {}", owner.as_str()), right, format!("REVOKE {owner} FROM CURRENT_USER")).await
}

/// Lets a role in with this verifier.
async fn admit(session: &mut Session<'_>, role: &Name, verifier: &Literal) -> Result<(), Error> {
    let right = Right::Administer(role.as_str().to_owned());
    session.run(format!("open {}", role.as_str()), right, format!("ALTER ROLE {role} LOGIN PASSWORD {verifier}")).await
}

/// Lets nobody in as this role any more; sessions stay.
async fn shut(session: &mut Session<'_>, role: &Name) -> Result<(), Error> {
    let right = Right::Administer(role.as_str().to_owned());
    session.run(format!("close {}", role.as_str()), right, format!("ALTER ROLE {role} NOLOGIN PASSWORD NULL")).await
}

/// Lets nobody in any more, and ends all sessions.
async fn shut_all(session: &mut Session<'_>, names: &DataNames, state: &State) -> Result<(), Error> {
    for login in state.logins() {
        shut(session, names.role(login)).await?;
        session.end_sessions(names.role(login)).await?;
    }
    Ok(())
}

/// What the server compares a password with (RFC 5802); the password can't be computed from it.
fn verifier(password: &SecretString) -> Result<Literal, Error> {
    let password = password.expose_secret();
    let fits = (PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX).contains(&password.len()) && password.bytes().all(|byte| byte.is_ascii_graphic());
    if !fits {
        return Err(Error::Invalid("a tenant's password has 16 to 128 printable ASCII characters and no space"));
    }
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    Literal::checked(verifier).ok_or(Error::Invalid("a verifier has base64, digits and dollars only"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_the_smaller_of_two() {
        let names = DataNames::of("0123456789abcdef").expect("the id fits");
        for (own, others, connections_max, server_max, wanted, fits) in [
            (0, 0, 10, 100, 10, true),
            (0, 0, 10, 100, 11, false),
            (0, 95, 500, 97, 2, true),
            (0, 95, 500, 97, 3, false),
            (0, 600, 500, 1000, 1, false),
            (10, 0, 10, 100, 10, true),
            (5, 5, 10, 100, 5, true),
            (5, 5, 10, 100, 6, false),
        ] {
            let by_database = BTreeMap::from([(names.database().to_owned(), own), ("heyuan_another".to_owned(), others)]);
            let budget = Budget { promised: own + others, connections_max, server_max, by_database };
            assert_eq!(budget.fits(&names, wanted), fits, "{wanted} of {budget:?}");
        }
    }

    #[test]
    fn nothing_shows_a_password() {
        let server = Server {
            host: "db".to_owned(),
            port: 5432,
            ssl_mode: SslMode::Prefer,
            ca_bundle: None,
            username: "heyuan_operator".to_owned(),
            password: SecretString::from("not to be seen"),
            maintenance_database: "postgres".to_owned(),
        };
        assert!(!format!("{server:?} {server}").contains("not to be seen"));
        let verifier = verifier(&SecretString::from("sixteen-or-more-characters")).expect("the password fits");
        assert!(verifier.as_str().starts_with("SCRAM-SHA-256$4096:") && !verifier.as_str().contains("sixteen"));
        for refused in ["short", "with a space in it", "with-an-umlaut-ä-in-it"] {
            assert!(super::verifier(&SecretString::from(refused)).is_err(), "{refused}");
        }
    }
}
