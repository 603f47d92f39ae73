//! TLS to PostgreSQL: the connection is encrypted and the server's identity is verified. Errors that an operator must
//! fix are reported as such.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
// The tests of the client use all of it.
#[allow(dead_code)]
#[path = "../../pgwire/tests/server/tls/pki.rs"]
mod pki;

use common::{Client, Daemon, data_dir, proxy::Proxy, rows, stage::payload_texts, wait_until};
use forebay_cluster::{TestCluster, TestOptions};
use pki::{Ca, Files, Identity};
use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

/// The address in the server's certificate. `localhost` reaches the same server by another name.
const ADDRESS: &str = "127.0.0.1";

/// A server that accepts only encrypted connections over TCP.
fn start_server(identity: Identity) -> TestCluster {
    let file = |name: &str, content: String| (name.to_owned(), content.into_bytes());
    let settings = [("ssl", "on"), ("ssl_cert_file", "test.crt"), ("ssl_key_file", "test.key")];
    let hba = ["local all all trust", "hostssl all all 127.0.0.1/32 trust", "host all all 127.0.0.1/32 reject"];
    let options = TestOptions {
        fsync: false,
        tcp: true,
        hba_lines: hba.map(str::to_owned).to_vec(),
        files: vec![file("test.crt", identity.cert_pem), file("test.key", identity.key_pem)],
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
    };
    TestCluster::start_with(options).unwrap()
}

fn url(host: &str, port: u16, root: &Path) -> String {
    format!("postgres://forebay@{host}:{port}/forebay?sslmode=verify-full&sslrootcert={}", root.display())
}

/// A daemon, and the messages pushed to it.
struct Pushed {
    daemon: Daemon,
    client: Client,
    count: u64,
}

impl Pushed {
    fn to(daemon: Daemon) -> Self {
        let client = daemon.connect();
        Self { daemon, client, count: 0 }
    }

    /// Sends a plain push of the next message and returns its status.
    fn push(&mut self) -> String {
        let response = self.client.push(&json!({"items": [{"queue": "tls", "payload": self.count}]})).unwrap();
        assert_eq!(response.status, 201);
        self.count += 1;
        response.json()[0]["status"].as_str().unwrap().to_owned()
    }

    /// Waits until the drain pauses for a reason that an operator must fix. Checks that it is logged once, with these
    /// words, and that pushes continue.
    fn check_refused(&mut self, words: &str) {
        wait_until("it is told", || {
            let log = self.daemon.log();
            let told = |line: &&str| line.contains("ERROR") && line.contains("code=\"postgres_refuses\"");
            let told = log.lines().filter(told).filter(|line| line.contains(words)).count();
            assert!(told <= 1, "not at every attempt: {log}");
            told == 1
        });
        assert_eq!(self.daemon.buffers()["dbHealthy"], false);
        assert_eq!(self.client.get("/ready").unwrap().status, 200);
        (0..5).for_each(|_| assert_eq!(self.push(), "buffered"));
        assert_eq!(self.daemon.figure("failed"), 0);
    }

    /// Checks that all messages arrive in order.
    fn check(&mut self, cluster: &TestCluster) {
        self.daemon.wait_until_drained();
        assert_eq!(self.push(), "queued");
        let expected: Vec<String> = (0..self.count).map(|n| n.to_string()).collect();
        assert_eq!(payload_texts(&self.daemon, cluster, "tls", expected.len()), expected);
    }
}

fn own_sessions(cluster: &TestCluster, columns: &str) -> Vec<Vec<String>> {
    let sql = "FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE application_name = 'forebay'";
    rows(cluster, &format!("SELECT {columns} {sql}"))
}

#[test]
fn case_60_a_certificate_that_leads_elsewhere_pauses_the_drain_until_it_is_mended_and_the_way_is_encrypted() {
    let (ca, files) = (Ca::new("an authority of the tests"), Files::new());
    let cluster = start_server(ca.server(ADDRESS));
    let root = files.put("root.pem", &Ca::new("a stranger").pem());
    let pass_file = files.put("pass", "*:*:*:*:secret\n");
    fs::set_permissions(&pass_file, fs::Permissions::from_mode(0o644)).unwrap();
    let dir = data_dir();
    let url = format!("{}&passfile={}", url(ADDRESS, cluster.port(), &root), pass_file.display());
    let args = ["--cores", "1", "--commit-wait-ms", "30000"];
    let mut pushed = Pushed::to(Daemon::start(dir.path(), &url, &args));
    pushed.check_refused("does not lead to a root certificate of ours");
    fs::write(&root, ca.pem()).unwrap();
    pushed.check(&cluster);
    assert_eq!(own_sessions(&cluster, "ssl, host(client_addr)"), [["t", ADDRESS]]);
    // The same for a running daemon: the file is deleted, then the session ends.
    fs::remove_file(&root).unwrap();
    assert_eq!(own_sessions(&cluster, "pg_terminate_backend(pid)"), [["t"]]);
    pushed.check_refused(root.to_str().unwrap());
    fs::write(&root, ca.pem()).unwrap();
    pushed.check(&cluster);
    let log = pushed.daemon.log();
    assert_eq!(log.matches("others may read it").count(), 1, "once for all sessions: {log}");
    assert!(!log.contains("secret"));
}

#[test]
fn case_60_a_server_of_another_name_or_whose_time_is_over_or_without_tls_pauses_the_drain() {
    let (ca, files) = (Ca::new("an authority of the tests"), Files::new());
    let root = files.put("root.pem", &ca.pem());
    let check = |url: &str, words: &str| {
        let dir = data_dir();
        let mut pushed = Pushed::to(Daemon::start(dir.path(), url, &["--cores", "1"]));
        pushed.check_refused(words);
    };
    let cluster = start_server(ca.server(ADDRESS));
    check(&url("localhost", cluster.port(), &root), "not valid for name");
    // The proxy reports that it has no TLS.
    let proxy = Proxy::start(&cluster);
    check(&proxy.url().replace("sslmode=disable", "sslmode=require"), "the server has no TLS");
    let expired = start_server(ca.expired_server(ADDRESS));
    check(&url(ADDRESS, expired.port(), &root), "expired");
}

#[test]
fn case_65_a_server_that_has_no_version_or_cipher_in_common_pauses_the_drain_until_it_is_mended() {
    let (ca, files) = (Ca::new("an authority of the tests"), Files::new());
    let root = files.put("root.pem", &ca.pem());
    let cluster = start_server(ca.server(ADDRESS));
    let set = |settings: &[(&str, &str)]| {
        // One statement each: ALTER SYSTEM is not allowed in a transaction.
        for (name, value) in settings {
            cluster.psql(&format!("ALTER SYSTEM SET {name} = '{value}'")).unwrap();
        }
        cluster.psql("SELECT pg_reload_conf()").unwrap();
        for (name, value) in settings {
            wait_until("it is set", || rows(&cluster, &format!("SELECT current_setting('{name}')")) == [[*value]]);
        }
    };
    let end_session = || assert_eq!(own_sessions(&cluster, "pg_terminate_backend(pid)"), [["t"]]);
    let (dir, url) = (data_dir(), url(ADDRESS, cluster.port(), &root));
    let mut pushed = Pushed::to(Daemon::start(dir.path(), &url, &["--cores", "1"]));
    pushed.check(&cluster);
    // TLS 1.2 with a key exchange without forward secrecy.
    set(&[("ssl_max_protocol_version", "TLSv1.2"), ("ssl_ciphers", "AES128-SHA256")]);
    end_session();
    pushed.check_refused("no TLS that both have: HandshakeFailure");
    set(&[("ssl_ciphers", "HIGH")]);
    pushed.check(&cluster);
    set(&[("ssl_min_protocol_version", "TLSv1"), ("ssl_max_protocol_version", "TLSv1.1")]);
    end_session();
    pushed.check_refused("no TLS that both have: ProtocolVersion");
    set(&[("ssl_max_protocol_version", "TLSv1.3")]);
    pushed.check(&cluster);
}

#[test]
fn over_tcp_postgresql_looks_by_itself_whether_the_daemon_is_still_there() {
    let (ca, files) = (Ca::new("an authority of the tests"), Files::new());
    let cluster = start_server(ca.server(ADDRESS));
    let root = files.put("root.pem", &ca.pem());
    let dir = data_dir();
    let mut pushed = Pushed::to(Daemon::start(dir.path(), &url(ADDRESS, cluster.port(), &root), &["--cores", "1"]));
    pushed.check(&cluster);
    // PostgreSQL shows the settings of the socket itself.
    let look = "CREATE TABLE public.seen (name text, setting text); \
                CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN \
                INSERT INTO public.seen SELECT name, setting FROM pg_settings WHERE name LIKE 'tcp%'; RETURN NULL; END$$; \
                CREATE TRIGGER look AFTER INSERT ON forebay.messages FOR EACH STATEMENT EXECUTE FUNCTION look()";
    cluster.psql(look).unwrap();
    pushed.check(&cluster);
    let expected = [
        ["tcp_keepalives_count", "4"],
        ["tcp_keepalives_idle", "10"],
        ["tcp_keepalives_interval", "5"],
        ["tcp_user_timeout", "30000"],
    ];
    assert_eq!(rows(&cluster, "SELECT DISTINCT name, setting FROM seen ORDER BY name"), expected);
}
