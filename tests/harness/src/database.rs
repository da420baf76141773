//! One test body, two databases: the embedded default and PostgreSQL.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::Postgres;

/// An empty place for one tenant: a data folder, and for PostgreSQL a database of its own. Clones share both.
#[derive(Clone, Debug)]
pub struct TestDatabase {
    data: Arc<TempDir>,
    url: Option<String>,
    url_file: Option<PathBuf>,
}

impl TestDatabase {
    /// The embedded default: a data folder and nothing else.
    pub fn sqlite() -> Self {
        let data = tempfile::Builder::new().prefix("heyuan-data-").tempdir().expect("the temporary folder is writable");
        Self { data: Arc::new(data), url: None, url_file: None }
    }

    /// A fresh database on the PostgreSQL that all tests of this process share.
    pub async fn postgres() -> Self {
        Self::on(Postgres::shared()).await
    }

    /// A fresh database on a given server, for a test that stops or pauses it.
    pub async fn on(server: &Postgres) -> Self {
        Self { url: Some(server.fresh_database().await), ..Self::sqlite() }
    }

    /// The same place, reached under another address: through a [`Proxy`](crate::Proxy), say.
    pub fn reached_at(&self, url: impl Into<String>) -> Self {
        Self { data: self.data.clone(), url: Some(url.into()), url_file: None }
    }

    /// The same place, whose URL the tenant reads from a file; the test itself goes on as it did.
    pub fn named_in(&self, file: impl Into<PathBuf>) -> Self {
        Self { url_file: Some(file.into()), ..self.clone() }
    }

    /// What `--database-url-file` gets instead of a URL.
    pub fn url_file(&self) -> Option<&Path> {
        self.url_file.as_deref()
    }

    /// What `--data` gets.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// What `--database-url` gets; none on SQLite.
    pub fn database_url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// A URL that sea-orm connects to: the PostgreSQL database, or a SQLite file in the data folder, made when missing.
    pub fn connection_url(&self) -> String {
        match &self.url {
            Some(url) => url.clone(),
            None => format!("sqlite://{}/test.sqlite?mode=rwc", self.data_dir().display()),
        }
    }

    pub fn is_postgres(&self) -> bool {
        self.url.is_some()
    }

    pub fn name(&self) -> &'static str {
        if self.is_postgres() { "PostgreSQL" } else { "SQLite" }
    }
}

/// Runs `test` on SQLite, then on PostgreSQL, each in an empty place; a failure's output names the one it was on.
pub async fn for_both_databases(test: impl AsyncFn(TestDatabase)) {
    for database in [TestDatabase::sqlite(), TestDatabase::postgres().await] {
        eprintln!("on {}", database.name());
        test(database).await;
    }
}
