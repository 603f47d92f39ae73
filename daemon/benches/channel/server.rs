//! A PostgreSQL with one table, and what asks it.

use forebay::{
    postgres::{
        channel::{Channel, ChannelOptions},
        schema::owner::SchemaSettings,
    },
    rt,
};
use forebay_cluster::{TestCluster, TestOptions};
use forebay_pgwire::{Config, Connection};
use std::{
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

/// Rows of the table: it fits the server's memory.
pub(crate) const ROWS: i64 = 100_000;

/// More than any request takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    cluster: TestCluster,
}

impl Server {
    pub(crate) fn start() -> Self {
        let settings = vec![("autovacuum".to_owned(), "off".to_owned())];
        let cluster =
            TestCluster::start_with(TestOptions { fsync: false, settings, ..TestOptions::default() }).unwrap();
        let rows = format!(
            "CREATE TABLE items (id bigint PRIMARY KEY, payload text NOT NULL); \
             INSERT INTO items SELECT n, 'payload ' || n FROM generate_series(1, {ROWS}) n; VACUUM ANALYZE items"
        );
        for sql in rows.split("; ") {
            cluster.psql(sql).unwrap();
        }
        Self { cluster }
    }

    pub(crate) fn url(&self) -> String {
        self.cluster.url()
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.cluster.cluster().binaries().path(name)
    }

    /// Runs `work` with a channel, in a runtime of its own.
    pub(crate) fn with_channel<T>(&self, work: impl AsyncFnOnce(Channel) -> T) -> T {
        let config = self.config();
        rt::runtime(64).unwrap().block_on(async {
            work(Channel::open(ChannelOptions {
                target: Arc::new(move || Some(config.clone())),
                schema: SchemaSettings::own("forebay"),
                application_name: "channel",
                connect_timeout: PATIENCE,
                statement_timeout: PATIENCE,
            }))
            .await
        })
    }

    /// Runs `work` with a channel and a connection of its own, in one runtime.
    pub(crate) fn with_both<T>(&self, work: impl AsyncFnOnce(Channel, Connection) -> T) -> T {
        let config = self.config();
        self.with_channel(async |channel| {
            // As the channel makes it.
            let connected =
                forebay::postgres::connect::connect(&config, &SchemaSettings::own("forebay"), PATIENCE).await;
            work(channel, connected.unwrap()).await
        })
    }

    fn config(&self) -> Config {
        Config::from_url(&self.url()).unwrap()
    }
}

/// The statement that is measured.
pub(crate) fn select() -> Rc<str> {
    "SELECT payload FROM public.items WHERE id = $1".into()
}

/// When a request has to be answered.
pub(crate) fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// Numbers of rows in no order.
pub(crate) struct Ids(u64);

impl Ids {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as i64 % ROWS + 1
    }
}
