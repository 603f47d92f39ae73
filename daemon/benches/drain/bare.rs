//! A PostgreSQL for the comparison, and a client that only COPYs.

use forebay_cluster::{TestCluster, TestOptions};
use forebay_pgwire::{Config, Connection, SearchPath};
use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};
use tempfile::TempDir;

const COLUMNS: &str = "partition_id, seq, created_at, id, trace_id, transaction_key, transaction_id, payload";

/// Bytes that one call sends.
const CHUNK_BYTES: usize = 256 << 10;

/// The server. Its settings keep its own checkpoints from falling into a round.
pub(crate) struct Server {
    cluster: TestCluster,
}

impl Server {
    pub(crate) fn start() -> Self {
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let settings = vec![
            setting("shared_buffers", "2GB"),
            setting("max_wal_size", "16GB"),
            setting("checkpoint_timeout", "1h"),
            setting("autovacuum", "off"),
            // Costs two reads of the clock for each write and sync of its log.
            setting("track_wal_io_timing", "on"),
        ];
        let options = TestOptions { fsync: true, settings, ..TestOptions::default() };
        Self { cluster: TestCluster::start_with(options).unwrap() }
    }

    /// Creates an empty database, once all earlier writes are on the disk. Returns its URL.
    pub(crate) fn fresh_database(&self, name: &str) -> String {
        self.cluster.psql(&format!("DROP DATABASE IF EXISTS {name}")).unwrap();
        self.cluster.psql(&format!("CREATE DATABASE {name}")).unwrap();
        self.cluster.psql("CHECKPOINT").unwrap();
        self.url(name)
    }

    /// Process id of the server.
    pub(crate) fn postmaster(&self) -> u32 {
        self.cluster.cluster().postmaster_pid().unwrap() as u32
    }

    /// The numbers in a statement's result, which are separated by spaces.
    pub(crate) fn figures(&self, sql: &str) -> Vec<f64> {
        let text = self.cluster.psql(sql).unwrap();
        text.split_whitespace().map(|figure| figure.parse().unwrap()).collect()
    }

    /// The URL of a database.
    pub(crate) fn url(&self, name: &str) -> String {
        let url = self.cluster.url();
        let (path, query) =
            url.split_once('?').map_or((url.as_str(), String::new()), |(path, query)| (path, format!("?{query}")));
        let base = path.rsplit_once('/').unwrap().0;
        format!("{base}/{name}{query}")
    }
}

/// Runs statements in a database, one after the other. Returns the first column of the last one's rows.
pub(crate) fn run(url: &str, statements: &[&str]) -> Vec<String> {
    on_connection(url, async |mut conn| {
        let mut column = Vec::new();
        for sql in statements {
            let results = conn.simple(sql).await.unwrap();
            let rows = results.last().map(|result| result.rows.clone()).unwrap_or_default();
            column = rows
                .iter()
                .filter_map(|row| row.raw(0).unwrap().map(|text| String::from_utf8_lossy(text).into_owned()))
                .collect();
        }
        column
    })
}

/// The rows that a run of the drain stored, in its batches.
pub(crate) struct Batches {
    dir: TempDir,
    files: Vec<PathBuf>,
    pub(crate) rows: u64,
}

impl Batches {
    /// Reads them from a database that the drain has filled. The rows of one transaction are a batch.
    pub(crate) fn of(url: &str) -> Self {
        let batches = run(
            url,
            &["SELECT xmin || ' ' || count(*) FROM forebay.messages GROUP BY xmin ORDER BY xmin::text::bigint"],
        );
        // The server writes the files, under another account.
        let dir = crate::backlog::scratch();
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let public = std::env::temp_dir();
        let mut files = Vec::new();
        let mut rows = 0;
        for (index, batch) in batches.iter().enumerate() {
            let (xmin, count) = batch.split_once(' ').unwrap();
            rows += count.parse::<u64>().unwrap();
            let written = public.join(format!("forebay-bench-{}-{index}", std::process::id()));
            let sql = format!(
                "COPY (SELECT {COLUMNS} FROM forebay.messages WHERE xmin = '{xmin}' ORDER BY partition_id, seq) \
                 TO '{}' (FORMAT BINARY)",
                written.display()
            );
            run(url, &[&sql]);
            let file = dir.path().join(index.to_string());
            fs::copy(&written, &file).unwrap();
            fs::remove_file(&written).unwrap();
            files.push(file);
        }
        Self { dir, files, rows }
    }

    pub(crate) fn count(&self) -> usize {
        self.files.len()
    }

    /// COPYs them into the same table of an empty database, one transaction for each batch. Returns how long that took.
    pub(crate) fn copy_into(&self, url: &str) -> Duration {
        assert!(self.dir.path().exists());
        let data: Vec<Vec<u8>> = self.files.iter().map(|file| fs::read(file).unwrap()).collect();
        let schema = forebay::postgres::schema::print("forebay");
        run(url, &[&schema]);
        let sql = format!("COPY forebay.messages ({COLUMNS}) FROM STDIN (FORMAT BINARY)");
        on_connection(url, async |mut conn| {
            let begun = Instant::now();
            for batch in &data {
                let mut copy = conn.copy_in(&sql).await.unwrap();
                for chunk in batch.chunks(CHUNK_BYTES) {
                    copy.write(chunk).await.unwrap();
                }
                copy.finish().await.unwrap();
            }
            begun.elapsed()
        })
    }
}

/// When the drain of a database began: when it created the partitions.
pub(crate) fn drain_began(url: &str) -> SystemTime {
    let sql = "SELECT extract(epoch FROM min(created_at)) FROM forebay.partitions";
    let seconds: f64 = run(url, &[sql])[0].parse().unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)
}

fn on_connection<T>(url: &str, work: impl AsyncFnOnce(Connection) -> T) -> T {
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap();
    runtime.block_on(async {
        let conn = Connection::connect(&Config::from_url(url).unwrap(), SearchPath::Inherited).await.unwrap();
        work(conn).await
    })
}
