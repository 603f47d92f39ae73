//! A PostgreSQL server of the tests' own: made in a temporary directory, stopped and removed with the last user.

use std::future::Future;
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use forebay_pgwire::{Config, Connection, Host};

/// Password of each role that has one.
pub(crate) const PASSWORD: &str = "it's \"p:a@s/s\" €";

/// Roles by how they have to log in; `postgres` is trusted, and is a superuser.
const ROLES_SQL: &str = "
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

/// Longest time a test may take: a hang is a failure, not a wait.
const TEST_LIMIT: Duration = Duration::from_secs(120);

pub(crate) struct TestServer {
    dir: tempfile::TempDir,
    postmaster: Child,
    pub(crate) port: u16,
}

static CURRENT: Mutex<Weak<TestServer>> = Mutex::new(Weak::new());

impl TestServer {
    /// The server that the tests running now share.
    pub(crate) fn shared() -> Arc<Self> {
        let mut current = CURRENT.lock().unwrap();
        current.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *current = Arc::downgrade(&server);
            server
        })
    }

    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        if let Some((uid, gid)) = server_account() {
            chown(dir.path(), Some(uid), Some(gid)).unwrap();
        }
        let data = dir.path().join("data");
        let initdb = tool("initdb")
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
        std::fs::write(data.join("pg_hba.conf"), HBA).unwrap();

        let port = free_port();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let postmaster = tool("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])
            .args(["-c", &format!("unix_socket_directories={}", dir.path().display())])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { dir, postmaster, port };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&self) {
        let give_up = Instant::now() + Duration::from_secs(60);
        while !self.psql(ROLES_SQL) {
            assert!(Instant::now() < give_up, "the server does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn psql(&self, sql: &str) -> bool {
        let mut psql = tool("psql")
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", &format!("password={PASSWORD}")])
            .args(["-h", &self.socket_dir().display().to_string(), "-p", &self.port.to_string()])
            .args(["-U", "postgres", "-d", "postgres", "--single-transaction", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // psql that could not connect has closed its end already, which its exit code tells as well.
        let _told_by_exit_code = psql.stdin.take().unwrap().write_all(sql.as_bytes());
        psql.wait().unwrap().success()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    /// The superuser over the unix socket.
    pub(crate) fn config(&self) -> Config {
        self.unix_config("postgres", None)
    }

    pub(crate) fn unix_config(&self, user: &str, password: Option<&str>) -> Config {
        self.configure(Host::Unix(self.socket_dir().to_owned()), user, password)
    }

    pub(crate) fn tcp_config(&self, user: &str, password: Option<&str>) -> Config {
        self.configure(Host::Tcp("127.0.0.1".to_owned()), user, password)
    }

    fn configure(&self, host: Host, user: &str, password: Option<&str>) -> Config {
        let mut config = Config::new(host, user);
        config.port = self.port;
        config.database = Some("postgres".to_owned());
        config.password = password.map(str::to_owned);
        config
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::connect(&self.config()).await.unwrap()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.postmaster);
        // SIGINT is PostgreSQL's fast shutdown. It fails only if the server is gone already.
        let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let give_up = Instant::now() + Duration::from_secs(20);
        while matches!(self.postmaster.try_wait(), Ok(None)) {
            if Instant::now() > give_up {
                let _gone_already = self.postmaster.kill();
                let _nothing_more_to_do = self.postmaster.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Runs a test in a runtime of its own, on the shared server.
pub(crate) fn with_server<F: Future<Output = ()>>(test: impl FnOnce(Arc<TestServer>) -> F) {
    let server = TestServer::shared();
    run(test(server));
}

/// Runs a future in a runtime of its own.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().expect("io_uring");
    runtime.block_on(async { monoio::time::timeout(TEST_LIMIT, future).await.expect("the test hangs") })
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A command of PostgreSQL, run as the account that may run a server.
fn tool(name: &str) -> Command {
    let mut command = Command::new(tool_path(name));
    if let Some((uid, gid)) = server_account() {
        command.uid(uid).gid(gid);
    }
    // Whatever the developer has set for psql must not lead elsewhere; and the directory must be one the account sees.
    for variable in ["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGOPTIONS", "PGSERVICE"] {
        command.env_remove(variable);
    }
    command.current_dir("/").env("LC_ALL", "C");
    command
}

/// On Debian and its kin the server's commands are not on the PATH, but in a directory for each version.
fn tool_path(name: &str) -> PathBuf {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    dirs.sort();
    dirs.reverse();
    dirs.extend(std::env::split_paths(&on_path));
    let found = dirs.iter().map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} of PostgreSQL is not installed"))
}

/// PostgreSQL refuses to run as root; then it runs as `postgres`.
fn server_account() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("postgres:")).expect("an account 'postgres'");
    let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
    Some((fields.next().unwrap(), fields.next().unwrap()))
}
