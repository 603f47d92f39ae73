//! A PostgreSQL server with TLS.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

use forebay_cluster::{TestCluster, TestOptions};
use forebay_pgwire::{Config, Connection, Error, Host, RootCert, SearchPath, SslMode};

use super::pki::{Ca, Files, Identity};
use crate::common::{PASSWORD, ROLES_SQL, SUPERUSER};

/// The address in the server's certificate. `localhost` is the same server under a name that the certificate lacks.
pub(crate) const ADDRESS: &str = "127.0.0.1";
pub(crate) const OTHER_NAME: &str = "localhost";

/// Every authentication method over TLS, and a few without TLS.
const HBA: &str = "
local all by_scram scram-sha-256
local all by_cleartext password
local all by_md5 md5
local all all trust
hostssl all by_cert 127.0.0.1/32 cert
hostssl all by_scram_and_cert 127.0.0.1/32 scram-sha-256 clientcert=verify-full
host all by_scram 127.0.0.1/32 scram-sha-256
host all by_cleartext 127.0.0.1/32 password
host all by_md5 127.0.0.1/32 md5
hostnossl all by_cert,by_scram_and_cert,only_encrypted 127.0.0.1/32 reject
host all all 127.0.0.1/32 trust
";

const MORE_ROLES_SQL: &str = "
    CREATE ROLE by_cert LOGIN;
    CREATE ROLE only_encrypted LOGIN;
    SET password_encryption = 'scram-sha-256';
    CREATE ROLE by_scram_and_cert LOGIN PASSWORD :'password';
";

/// The server, its certificate authority, and the files of a client.
pub(crate) struct TlsServer {
    pub(crate) cluster: TestCluster,
    pub(crate) ca: Ca,
    pub(crate) files: Files,
    root: PathBuf,
}

static CURRENT: Mutex<Weak<TlsServer>> = Mutex::new(Weak::new());

impl TlsServer {
    /// The server that all running tests share.
    pub(crate) fn shared() -> Arc<Self> {
        let mut current = CURRENT.lock().unwrap();
        current.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start(|ca| ca.server(ADDRESS)));
            *current = Arc::downgrade(&server);
            server
        })
    }

    /// A server with a certificate from `identity`.
    pub(crate) fn start(identity: impl FnOnce(&Ca) -> Identity) -> Self {
        Self::start_under(Ca::new("an authority of the tests"), identity)
    }

    /// The same with this authority.
    pub(crate) fn start_under(ca: Ca, identity: impl FnOnce(&Ca) -> Identity) -> Self {
        Self::start_with(ca, identity, &[])
    }

    /// The same with further settings.
    pub(crate) fn start_with(ca: Ca, identity: impl FnOnce(&Ca) -> Identity, more_settings: &[(&str, &str)]) -> Self {
        let identity = identity(&ca);
        let file = |name: &str, content: String| (name.to_owned(), content.into_bytes());
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let options = TestOptions {
            fsync: false,
            tcp: true,
            hba_lines: HBA.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect(),
            files: vec![
                file("test.crt", identity.cert_pem),
                file("test.key", identity.key_pem),
                file("test-ca.crt", ca.pem()),
            ],
            settings: [
                ("ssl", "on"),
                ("ssl_cert_file", "test.crt"),
                ("ssl_key_file", "test.key"),
                ("ssl_ca_file", "test-ca.crt"),
            ]
            .iter()
            .chain(more_settings)
            .map(|(name, value)| setting(name, value))
            .collect(),
        };
        let cluster = TestCluster::start_with(options).unwrap();
        let password = format!("'{}'", PASSWORD.replace('\'', "''"));
        cluster.psql(&format!("{ROLES_SQL}{MORE_ROLES_SQL}").replace(":'password'", &password)).unwrap();
        let files = Files::new();
        let root = files.put("ca.pem", &ca.pem());
        Self { cluster, ca, files, root }
    }

    /// The settings for the role over TCP, with `verify-full`.
    pub(crate) fn config(&self, role: &str) -> Config {
        let mut config = Config::new(Host::Tcp(ADDRESS.to_owned()), role);
        config.port = self.cluster.port();
        config.database = Some(SUPERUSER.to_owned());
        config.tls.mode = SslMode::VerifyFull;
        config.tls.root_cert = Some(RootCert::File(self.root.clone()));
        config
    }

    pub(crate) fn config_with_password(&self, role: &str) -> Config {
        let mut config = self.config(role);
        config.password = Some(PASSWORD.to_owned());
        config
    }
}

/// The role of the session, and whether it is encrypted, according to the server.
pub(crate) async fn seen_as(config: &Config) -> Result<(String, bool), Error> {
    let mut conn = Connection::connect(config, SearchPath::Inherited).await?;
    let sql = "SELECT current_user::text, coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)";
    let row = conn.query_once(sql, &[]).await?.remove(0);
    let encrypted = row.get_bool(1)?;
    assert_eq!(conn.is_encrypted(), encrypted, "both sides agree");
    Ok((row.get_str(0)?.to_owned(), encrypted))
}
