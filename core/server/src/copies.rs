//! The one copy of the embedded database's file that is kept from before an upgrade: made before steps, put back where one fails, and
//! removed when the upgrade is known to be good. While it lies there no step is made that the release before can't serve on.

use anyhow::{Context, bail, ensure};
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sea_orm::sqlx::{self, Connection};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The file itself.
const FILE: &str = "heyuan.db";
/// A copy's name begins so; the release follows that it was made before.
const BEFORE: &str = "heyuan.db.before-";
/// A copy that is being written.
const UNFINISHED: &str = "heyuan.db.copying";
/// What SQLite keeps beside a file.
const BESIDE: [&str; 2] = ["-wal", "-shm"];
/// Longest name of a release, in characters.
const RELEASE_CHARS_MAX: usize = 63;

/// The copies of a data folder.
#[derive(Debug, Clone)]
pub(crate) struct Copies(PathBuf);

/// A release's name as part of a file's.
#[derive(Debug, Clone)]
pub(crate) struct ForRelease(String);

impl std::str::FromStr for ForRelease {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ForRelease, Self::Err> {
        let fits = text.len() <= RELEASE_CHARS_MAX
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-+._".contains(c));
        if fits { Ok(ForRelease(text.to_owned())) } else { Err("a release is letters, digits and - + . _, at most 63 of them") }
    }
}

impl Copies {
    /// Of a folder, which need not be there.
    pub(crate) fn of(data: &Path) -> Copies {
        Copies(data.to_owned())
    }

    /// The names of those that are there.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<io::Result<Vec<_>>>()?;
        Ok(names.into_iter().filter(|name| name.starts_with(BEFORE)).collect())
    }

    /// Makes the copy for a release; whatever copy was there before is replaced. Nobody may write meanwhile.
    ///
    /// # Errors
    /// No room, or a file that can't be read; then the copy that was there before still is.
    pub(crate) async fn make(&self, release: &ForRelease) -> anyhow::Result<()> {
        let (unfinished, copy) = (self.0.join(UNFINISHED), self.path(release));
        let others = self.names().context("could not look for copies")?;
        remove(&unfinished).context("could not remove an unfinished copy")?;
        let text = unfinished.to_str().context("the data folder's path is not text")?;
        let mut connection = self.connect().await?;
        let copied = sqlx::query("VACUUM INTO ?1").bind(text).execute(&mut connection).await;
        connection.close().await.context("could not close the database")?;
        if let Err(error) = copied {
            let _ = remove(&unfinished);
            return Err(error).context("could not copy the database");
        }
        File::open(&unfinished).and_then(|file| file.sync_all()).context("could not write the copy through to the disk")?;
        fs::rename(&unfinished, &copy).context("could not name the copy")?;
        for other in others.iter().map(|name| self.0.join(name)).filter(|other| *other != copy) {
            remove(&other).context("could not remove an older copy")?;
        }
        self.sync()
    }

    /// Puts the copy for a release in place of the database. Nobody may have the database open.
    ///
    /// # Errors
    /// There is no such copy, or a file can't be renamed; then both files are as they were.
    pub(crate) async fn put_back(&self, release: &ForRelease) -> anyhow::Result<()> {
        let (copy, file) = (self.path(release), self.0.join(FILE));
        ensure!(copy.is_file(), "there is no copy {}", copy.display());
        // What lies in the log goes into the file first, so that it is whole without the log at every moment. A file that is broken beyond
        // that is what the copy is for.
        if let Ok(mut connection) = self.connect().await {
            let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await;
            let _ = connection.close().await;
        }
        for end in BESIDE {
            remove(&self.0.join(format!("{FILE}{end}"))).context("could not remove the database's log")?;
        }
        fs::rename(&copy, &file).context("could not put the copy in place")?;
        self.sync()
    }

    /// Removes every copy; answers the names.
    pub(crate) fn remove_all(&self) -> anyhow::Result<Vec<String>> {
        let names = self.names().context("could not look for copies")?;
        for name in &names {
            remove(&self.0.join(name)).with_context(|| format!("could not remove the copy {name}"))?;
        }
        Ok(names)
    }

    fn path(&self, release: &ForRelease) -> PathBuf {
        self.0.join(format!("{BEFORE}{}", release.0))
    }

    async fn connect(&self) -> anyhow::Result<SqliteConnection> {
        let options = SqliteConnectOptions::new().filename(self.0.join(FILE));
        SqliteConnection::connect_with(&options).await.context("could not open the database")
    }

    fn sync(&self) -> anyhow::Result<()> {
        File::open(&self.0).and_then(|folder| folder.sync_all()).context("could not write the folder through to the disk")
    }
}

/// Removes a file; one that is not there is fine.
fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The embedded database's file, for which alone there are copies.
///
/// # Errors
/// The tenant is on PostgreSQL.
pub(crate) fn must_be_embedded(location: &heyuan_kernel::Location) -> anyhow::Result<&Path> {
    match location {
        heyuan_kernel::Location::Sqlite(file) => Ok(file),
        _ => bail!("--keep-copy is for the embedded database: of PostgreSQL there is no file to copy"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_names_a_file_and_no_path() {
        for (text, fits) in [
            ("0.2.0", true),
            ("v1.0-rc.1+5_x", true),
            ("", false),
            ("../x", false),
            (".hidden", false),
            ("a/b", false),
            ("a b", false),
            ("a".repeat(64).as_str(), false),
        ] {
            assert_eq!(text.parse::<ForRelease>().is_ok(), fits, "{text}");
        }
    }
}
