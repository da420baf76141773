//! What a tenant has stored, read past it: every value of every table, for tests of what must not be there.

use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, Statement, TransactionTrait};

use crate::TestDatabase;

/// One value of one row, as it is stored; what is no bytes on PostgreSQL, as its text.
#[derive(Clone, Debug)]
pub struct StoredValue {
    pub table: String,
    pub column: String,
    pub bytes: Vec<u8>,
}

impl TestDatabase {
    /// Every value that isn't null, of every table of the tenant.
    pub async fn stored(&self) -> Vec<StoredValue> {
        let connection = self.tenants_own().await;
        let backend = connection.get_database_backend();
        let columns = match backend {
            DbBackend::Postgres => {
                "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' \
                 ORDER BY table_name, ordinal_position"
            }
            _ => {
                "SELECT t.name, c.name, c.type FROM sqlite_master t JOIN pragma_table_info(t.name) c WHERE t.type = 'table' \
                 ORDER BY t.name, c.cid"
            }
        };
        let columns = connection.query_all_raw(Statement::from_string(backend, columns)).await.expect("the tables can be listed");
        let mut found = Vec::new();
        for row in columns {
            let text = |place: usize| row.try_get_by_index::<String>(place).expect("a table and its columns have names");
            let (table, column, kind) = (text(0), text(1), text(2));
            let value = match (backend, kind.as_str()) {
                (DbBackend::Postgres, "bytea") => format!("\"{column}\""),
                (DbBackend::Postgres, _) => format!("convert_to(\"{column}\"::text, 'UTF8')"),
                _ => format!("CAST(\"{column}\" AS BLOB)"),
            };
            let question = format!("SELECT {value} FROM \"{table}\" WHERE \"{column}\" IS NOT NULL");
            let rows = connection.query_all_raw(Statement::from_string(backend, question)).await.expect("a table can be read");
            let values = rows.iter().map(|row| row.try_get_by_index::<Vec<u8>>(0).expect("a value is bytes"));
            found.extend(values.map(|bytes| StoredValue { table: table.clone(), column: column.clone(), bytes }));
        }
        connection.close().await.expect("an idle connection closes");
        found
    }

    /// What a question that answers one whole number answers: `SELECT count(*) FROM …`.
    pub async fn count(&self, question: &str) -> i64 {
        let connection = self.tenants_own().await;
        let statement = Statement::from_string(connection.get_database_backend(), question);
        let row = connection.query_one_raw(statement).await.unwrap_or_else(|error| panic!("{question}: {error}"));
        let count = row.expect("a count has a row").try_get_by_index(0).expect("a count is a whole number");
        connection.close().await.expect("an idle connection closes");
        count
    }

    /// Runs statements on the tenant's database, past the tenant: as an administrator of it would.
    pub async fn execute(&self, statements: &str) {
        let connection = self.opened("rw").await;
        connection.execute_unprepared(statements).await.unwrap_or_else(|error| panic!("{statements}: {error}"));
        connection.close().await.expect("an idle connection closes");
    }

    /// Runs a statement in a transaction that stays open, with its locks, until it is given up by [`Held::release`].
    pub async fn hold(&self, statement: &str) -> Held {
        let transaction = self.opened("rw").await.begin().await.expect("a transaction begins");
        transaction.execute_unprepared(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        Held(transaction)
    }

    /// The database that the tenant itself uses, which only reads are made on.
    async fn tenants_own(&self) -> DatabaseConnection {
        self.opened("ro").await
    }

    async fn opened(&self, mode: &str) -> DatabaseConnection {
        let file = || format!("sqlite://{}/heyuan.db?mode={mode}", self.data_dir().display());
        let mut options = ConnectOptions::new(self.database_url().map_or_else(file, str::to_owned));
        options.max_connections(1).sqlx_logging(false);
        Database::connect(options).await.expect("the tenant's database can be read")
    }
}

/// An open transaction of [`TestDatabase::hold`].
#[derive(Debug)]
pub struct Held(DatabaseTransaction);

impl Held {
    /// Gives its locks up.
    pub async fn release(self) {
        self.0.rollback().await.expect("a transaction can be given up");
    }
}
