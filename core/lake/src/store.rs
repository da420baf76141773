//! The object store under the lake: durable writes, reads by the engine, removal.

use crate::batch;
use crate::catalog::LakeFile;
use crate::place;
use crate::{Error, LakeConfig};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMillisecondType};
use datafusion::execution::object_store::ObjectStoreUrl;
use futures::TryStreamExt;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Where files lie below the store's root.
const FOLDER: &str = "events";
/// Where sorts that outgrow their memory lie; not part of the store.
const SPILL: &str = "spill";
/// Rows of a row group: small enough to skip a day or an anchor, large enough for a scan.
const ROW_GROUP_ROWS: usize = 65_536;
/// Values that a row group's Bloom filter is sized for at most; it folds to what is there.
const ROW_GROUP_VALUES: u64 = 65_536;

/// The files of the lake.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    objects: Arc<dyn ObjectStore>,
    local: LocalFileSystem,
    root: PathBuf,
    /// Paths that are being written and are not registered yet: the sweep leaves them alone.
    unregistered: Mutex<HashSet<String>>,
}

/// Keeps a path from the sweep until its file is registered or given up.
#[derive(Debug)]
pub(crate) struct Claim {
    store: Store,
    path: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.store.claims().remove(&self.path);
    }
}

impl Store {
    /// Opens the folder, made when it is not there.
    pub(crate) fn open(config: &LakeConfig) -> Result<Store, Error> {
        let root = config.dir.clone();
        let file = |doing| {
            let path = root.display().to_string();
            move |source| heyuan_kernel::Error::File { doing, path, source }
        };
        std::fs::create_dir_all(root.join(FOLDER)).map_err(file("make the folder"))?;
        let spill = root.join(SPILL);
        std::fs::create_dir_all(&spill).map_err(file("make the sort folder in"))?;
        clear_old_sorts(&spill, config.scan_ms_max).map_err(file("clear the sort folder in"))?;
        std::fs::File::open(&root).and_then(|folder| folder.sync_all()).map_err(file("sync the folder"))?;
        let local = LocalFileSystem::new_with_prefix(&root).map_err(|source| Error::Store {
            doing: "open",
            path: root.display().to_string(),
            source,
        })?;
        let inner = Inner { objects: Arc::new(local.clone()), local, root, unregistered: Mutex::default() };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// The address under which the engine knows the store.
    pub(crate) fn url() -> ObjectStoreUrl {
        ObjectStoreUrl::parse("lake://events").expect("a scheme and a host are a valid address")
    }

    pub(crate) fn objects(&self) -> Arc<dyn ObjectStore> {
        self.inner.objects.clone()
    }

    /// Where what does not fit into memory is sorted.
    pub(crate) fn spill(&self) -> PathBuf {
        self.inner.root.join(SPILL)
    }

    fn claims(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.inner.unregistered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Paths that are being written now.
    pub(crate) fn claimed(&self) -> HashSet<String> {
        self.claims().clone()
    }

    /// Begins a file under a fresh name.
    pub(crate) fn create(&self) -> Result<FileWriter, Error> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let path = format!("{FOLDER}/{id}.parquet");
        self.claims().insert(path.clone());
        let claim = Claim { store: self.clone(), path: path.clone() };
        let sink = BufWriter::new(self.objects(), Path::from(path.as_str()));
        let writer = AsyncArrowWriter::try_new(sink, batch::schema(), Some(properties())).map_err(Error::parquet("begin an event file"))?;
        let file = LakeFile {
            id,
            path,
            rows: 0,
            bytes: 0,
            position_min: i64::MAX,
            position_max: i64::MIN,
            occurred_min: i64::MAX,
            occurred_max: i64::MIN,
            month: None,
            bucket: None,
        };
        Ok(FileWriter { writer, file, claim })
    }

    /// Makes a written file survive a power cut: itself and its name. Object stores over a network do so by themselves.
    async fn settle(&self, path: &str) -> Result<(), Error> {
        let target = self.inner.local.path_to_filesystem(&Path::from(path)).map_err(|source| Error::Store {
            doing: "find",
            path: path.to_owned(),
            source,
        })?;
        let synced = tokio::task::spawn_blocking(move || {
            std::fs::File::open(&target)?.sync_all()?;
            target.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
        });
        let synced = synced.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        synced.map_err(|source| heyuan_kernel::Error::File { doing: "sync", path: path.to_owned(), source }.into())
    }

    /// Removes a file; one that is gone already is fine.
    pub(crate) async fn remove(&self, path: &str) -> Result<(), Error> {
        match self.inner.objects.delete(&Path::from(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(Error::Store { doing: "remove", path: path.to_owned(), source }),
        }
    }

    /// Every file on the store, registered or not.
    pub(crate) async fn list(&self) -> Result<Vec<ObjectMeta>, Error> {
        let listed = self.inner.objects.list(Some(&Path::from(FOLDER))).try_collect().await;
        listed.map_err(|source| Error::Store { doing: "list", path: FOLDER.to_owned(), source })
    }
}

/// Removes what killed processes left behind; no sort of a living one is that old.
fn clear_old_sorts(spill: &std::path::Path, scan_ms_max: u64) -> std::io::Result<()> {
    for entry in std::fs::read_dir(spill)? {
        let entry = entry?;
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if age > Duration::from_millis(scan_ms_max).saturating_mul(2) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// How files are written. Anchors and message ids get a Bloom filter: a customer's rows are few and spread over the days, and who
/// looks for one message wants one row.
fn properties() -> WriterProperties {
    let column = |name: &str| ColumnPath::new(vec![name.to_owned()]);
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    for name in ["anchor", "message_id"] {
        builder = builder
            .set_column_bloom_filter_enabled(column(name), true)
            .set_column_bloom_filter_fpp(column(name), 0.01)
            .set_column_bloom_filter_max_ndv(column(name), ROW_GROUP_VALUES);
    }
    for name in ["message_id", "properties", "sealed"] {
        builder =
            builder.set_column_statistics_enabled(column(name), EnabledStatistics::None).set_column_dictionary_enabled(column(name), false);
    }
    builder.build()
}

/// A file on its way; dropped, it leaves at most an unregistered file.
pub(crate) struct FileWriter {
    writer: AsyncArrowWriter<BufWriter>,
    file: LakeFile,
    claim: Claim,
}

/// A durable file that is not registered yet.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) file: LakeFile,
    /// Held until the file is registered or removed.
    _claim: Claim,
}

impl FileWriter {
    pub(crate) fn rows(&self) -> i64 {
        self.file.rows
    }

    /// Appends rows, which come in the order of files.
    pub(crate) async fn write(&mut self, rows: &RecordBatch) -> Result<(), Error> {
        let corrupt = || heyuan_kernel::Error::Corrupt { what: "event batch", why: "positions or times are missing".to_owned() };
        let positions = rows.column_by_name("position").and_then(|column| column.as_primitive_opt::<Int64Type>()).ok_or_else(corrupt)?;
        let times = rows.column_by_name("occurred_at");
        let times = times.and_then(|column| column.as_primitive_opt::<TimestampMillisecondType>()).ok_or_else(corrupt)?;
        for (position, time) in positions.values().iter().zip(times.values()) {
            self.file.position_min = self.file.position_min.min(*position);
            self.file.position_max = self.file.position_max.max(*position);
            self.file.occurred_min = self.file.occurred_min.min(*time);
            self.file.occurred_max = self.file.occurred_max.max(*time);
        }
        self.file.rows += i64::try_from(rows.num_rows()).unwrap_or(0);
        self.writer.write(rows).await.map_err(Error::parquet("write an event file"))
    }

    /// States that every row is of this part.
    pub(crate) fn of_part(&mut self, part: i32) {
        let (month, bucket) = place::of_part(part);
        self.file.month = Some(month.into());
        self.file.bucket = Some(bucket.into());
    }

    /// Ends the file and waits until it is durable.
    pub(crate) async fn finish(mut self) -> Result<Written, Error> {
        self.writer.finish().await.map_err(Error::parquet("finish an event file"))?;
        let store = self.claim.store.clone();
        store.settle(&self.file.path).await?;
        let head = store.objects().head(&Path::from(self.file.path.as_str())).await;
        let head = head.map_err(|source| Error::Store { doing: "look at", path: self.file.path.clone(), source })?;
        self.file.bytes = i64::try_from(head.size).unwrap_or(i64::MAX);
        Ok(Written { file: self.file, _claim: self.claim })
    }
}

/// The part of each row of a batch.
pub(crate) fn parts(rows: &RecordBatch) -> Result<&[i32], Error> {
    let column = rows.column_by_name("part").and_then(|column| column.as_primitive_opt::<Int32Type>());
    let missing = || heyuan_kernel::Error::Corrupt { what: "event batch", why: "the part is missing".to_owned() };
    Ok(column.ok_or_else(missing)?.values())
}
