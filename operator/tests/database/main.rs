//! Databases and roles of tenants on real servers, as the operator makes them and as tenants use them.

mod cluster;
mod crash;
mod cut;
mod isolation;
mod provisioning;
mod refusal;
mod rotation;

use cluster::Cluster;
use heyuan_operator::database::{DataNames, Error, Limits, Login, Server, provision};
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgConnection;
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs each case on both servers.
macro_rules! on_both {
    ($($case:ident)*) => {
        mod on_debian {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&crate::cluster::DEBIAN).await;
            })*
        }

        mod on_wheel {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&crate::cluster::WHEEL).await;
            })*
        }
    };
}
pub(crate) use on_both;

/// What a tenant may have in these tests.
pub(crate) const LIMITS: Limits = Limits { connections: 7 };

static TENANTS: AtomicU32 = AtomicU32::new(0);

/// A tenant's data that nobody else uses.
pub(crate) struct Tenant {
    pub(crate) names: DataNames,
    pub(crate) proof: String,
    pub(crate) password: SecretString,
}

impl Tenant {
    /// One of which no server knows anything.
    pub(crate) fn fresh() -> Tenant {
        let data_id = format!("test{:012}", TENANTS.fetch_add(1, Ordering::Relaxed));
        let names = DataNames::of(&data_id).expect("the id fits");
        let password = SecretString::from(format!("password-of-{data_id}"));
        Tenant { names, proof: format!("nonce-of-{data_id}"), password }
    }

    /// One whose database is there, with log-in A open.
    pub(crate) async fn made(cluster: &Cluster) -> Tenant {
        let tenant = Tenant::fresh();
        tenant.provision(&cluster.server()).await.expect("the database is made");
        tenant
    }

    /// Makes it, with log-in A open.
    pub(crate) async fn provision(&self, server: &Server) -> Result<(), Error> {
        provision(server, &self.names, &self.proof, Login::A, &self.password, LIMITS).await.map(|_| ())
    }

    /// A session of the tenant in its own database.
    pub(crate) async fn session(&self, cluster: &Cluster, login: Login) -> Result<PgConnection, sqlx::Error> {
        self.session_with(cluster, login, &self.password).await
    }

    /// A session with some password.
    pub(crate) async fn session_with(&self, cluster: &Cluster, login: Login, password: &SecretString) -> Result<PgConnection, sqlx::Error> {
        cluster.connect(self.names.login(login), password.expose_secret(), self.names.database()).await
    }

    /// Everything that the server's catalogs say of it, with its id left out so that two tenants can be compared.
    pub(crate) async fn catalogs(&self, cluster: &Cluster) -> Vec<String> {
        let (name, proof) = (self.names.database(), &self.proof);
        let id = name.trim_start_matches("heyuan_");
        let statement = format!(
            "SELECT replace(replace(line, encode(sha256('{proof}'), 'hex'), 'HASH'), '{id}', 'ID') COLLATE \"C\" FROM (
             SELECT concat_ws(' ', 'role', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,
                 rolbypassrls, rolconnlimit, left(rolpassword, 18), shobj_description(oid, 'pg_authid'),
                 (SELECT array_agg(line ORDER BY line) FROM pg_db_role_setting, unnest(setconfig) AS line WHERE setrole = r.oid)) AS line
                 FROM pg_authid r WHERE rolname LIKE '{name}%'
             UNION ALL SELECT concat_ws(' ', 'member', roleid::regrole, member::regrole, grantor::regrole, admin_option,
                 to_jsonb(m) ->> 'inherit_option', to_jsonb(m) ->> 'set_option') FROM pg_auth_members m
                 WHERE roleid::regrole::text LIKE '{name}%' OR member::regrole::text LIKE '{name}%'
             UNION ALL SELECT concat_ws(' ', 'database', datname, datdba::regrole, datallowconn, datconnlimit, datacl,
                 pg_encoding_to_char(encoding), shobj_description(oid, 'pg_database')) FROM pg_database WHERE datname LIKE '{name}%'
             ) AS lines ORDER BY 1"
        );
        cluster.look(&statement).await
    }
}

/// The code with which a server refused something.
pub(crate) fn code<T>(answer: Result<T, sqlx::Error>) -> String {
    match answer {
        Ok(_) => "done".to_owned(),
        Err(sqlx::Error::Database(answer)) => answer.code().map(|code| code.into_owned()).unwrap_or_default(),
        Err(other) => other.to_string(),
    }
}
