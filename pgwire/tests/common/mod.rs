//! A PostgreSQL server for the tests. It lives in a temporary directory and is removed after its last user.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use forebay_cluster::{TestCluster, TestOptions};
use forebay_pgwire::{Config, Connection, Host, SearchPath};

/// The password of all roles that have one.
pub(crate) const PASSWORD: &str = "it's \"p:a@s/s\" €";

/// A superuser who logs in without a password, and the database of the same name.
pub(crate) const SUPERUSER: &str = "forebay";

/// Further roles, named after their authentication method.
pub(crate) const ROLES_SQL: &str = "
    CREATE ROLE trusted LOGIN;
    CREATE ROLE barred LOGIN;
    SET password_encryption = 'scram-sha-256';
    CREATE ROLE by_scram LOGIN PASSWORD :'password';
    CREATE ROLE by_cleartext LOGIN PASSWORD :'password';
    SET password_encryption = 'md5';
    CREATE ROLE by_md5 LOGIN PASSWORD :'password';
";

const HBA: &str = "
local all by_scram scram-sha-256
local all by_cleartext password
local all by_md5 md5
local all barred reject
local all all trust
host all by_scram 127.0.0.1/32 scram-sha-256
host all by_cleartext 127.0.0.1/32 password
host all by_md5 127.0.0.1/32 md5
host all all 127.0.0.1/32 trust
";

/// The longest time that a test may take. A test that hangs must fail.
const TEST_LIMIT: Duration = Duration::from_secs(120);

pub(crate) struct TestServer {
    cluster: TestCluster,
    pub(crate) port: u16,
}

static CURRENT: Mutex<Weak<TestServer>> = Mutex::new(Weak::new());

impl TestServer {
    /// The server that all running tests share.
    pub(crate) fn shared() -> Arc<Self> {
        let mut current = CURRENT.lock().unwrap();
        current.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *current = Arc::downgrade(&server);
            server
        })
    }

    fn start() -> Self {
        let hba_lines = HBA.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        let options = TestOptions { fsync: false, tcp: true, hba_lines, ..TestOptions::default() };
        let cluster = TestCluster::start_with(options).unwrap();
        let password = PASSWORD.replace('\'', "''");
        cluster.psql(&ROLES_SQL.replace(":'password'", &format!("'{password}'"))).unwrap();
        Self { port: cluster.port(), cluster }
    }

    pub(crate) fn socket_dir(&self) -> PathBuf {
        self.cluster.socket_dir()
    }

    /// The superuser over the unix socket.
    pub(crate) fn config(&self) -> Config {
        self.unix_config(SUPERUSER, None)
    }

    pub(crate) fn unix_config(&self, user: &str, password: Option<&str>) -> Config {
        self.configure(Host::Unix(self.socket_dir()), user, password)
    }

    pub(crate) fn tcp_config(&self, user: &str, password: Option<&str>) -> Config {
        self.configure(Host::Tcp("127.0.0.1".to_owned()), user, password)
    }

    fn configure(&self, host: Host, user: &str, password: Option<&str>) -> Config {
        let mut config = Config::new(host, user);
        config.port = self.port;
        config.database = Some(SUPERUSER.to_owned());
        config.password = password.map(str::to_owned);
        config
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::connect(&self.config(), SearchPath::Inherited).await.unwrap()
    }
}

/// Runs a test on the shared server, in its own runtime.
pub(crate) fn with_server<F: Future<Output = ()>>(test: impl FnOnce(Arc<TestServer>) -> F) {
    let server = TestServer::shared();
    run(test(server));
}

/// Runs a future in its own runtime.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().expect("io_uring");
    runtime.block_on(async { monoio::time::timeout(TEST_LIMIT, future).await.expect("the test hangs") })
}
