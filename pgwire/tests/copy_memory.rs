//! The memory that a large COPY needs. The test has its own process, because it measures the memory of the process.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of tests fails as a test does: by a panic")]

mod common;

use forebay_cluster::{TestCluster, TestOptions};
use forebay_pgwire::{Config, Connection, Host, SearchPath, SslMode};

/// The size of the COPY, in bytes.
const TOTAL_BYTES: u64 = 1 << 30;

/// How much the process may grow during the COPY, in bytes.
const GROWTH_MAX_BYTES: u64 = 16 << 20;

/// The size of a row, in bytes.
const ROW_BYTES: usize = 256 * 1024;

/// A value in `/proc/self/status`, in bytes.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches(|letter: char| !letter.is_ascii_digit()).parse::<u64>().unwrap() * 1024
}

/// Sends rows that a trigger discards. Returns by how many bytes the process has grown.
async fn growth_of_copying(config: &Config) -> u64 {
    let mut conn = Connection::connect(config, SearchPath::Inherited).await.unwrap();
    conn.simple(
        "CREATE TEMP TABLE t (s text);
         CREATE FUNCTION pg_temp.forget() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM set_config('my.bytes',
                (current_setting('my.bytes')::bigint + octet_length(NEW.s) + 1)::text, false); RETURN NULL; END $$;
         CREATE TRIGGER forget BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION pg_temp.forget();
         SET my.bytes = 0",
    )
    .await
    .unwrap();
    let mut row = vec![b'x'; ROW_BYTES];
    row[ROW_BYTES - 1] = b'\n';
    // This resets the peak of the memory, VmHWM.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS:");
    let mut copy = conn.copy_in("COPY t FROM STDIN").await.unwrap();
    for _ in 0..TOTAL_BYTES / ROW_BYTES as u64 {
        copy.write(&row).await.unwrap();
    }
    copy.finish().await.unwrap();
    let growth = memory("VmHWM:").saturating_sub(before);
    let arrived = conn.simple("SHOW my.bytes").await.unwrap();
    assert_eq!(arrived[0].rows[0].get_str(0).unwrap(), TOTAL_BYTES.to_string(), "all of it arrived");
    growth
}

/// A server with a certificate that is not verified, and the settings to reach it.
fn encrypted() -> (TestCluster, Config) {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(["h".to_owned()]).unwrap().self_signed(&key).unwrap();
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let options = TestOptions {
        fsync: false,
        tcp: true,
        hba_lines: vec!["hostssl all all 127.0.0.1/32 trust".to_owned()],
        files: vec![
            ("test.crt".to_owned(), cert.pem().into_bytes()),
            ("test.key".to_owned(), key.serialize_pem().into_bytes()),
        ],
        settings: vec![setting("ssl", "on"), setting("ssl_cert_file", "test.crt"), setting("ssl_key_file", "test.key")],
    };
    let cluster = TestCluster::start_with(options).unwrap();
    let mut config = Config::new(Host::Tcp("127.0.0.1".to_owned()), common::SUPERUSER);
    (config.port, config.tls.mode) = (cluster.port(), SslMode::Require);
    (cluster, config)
}

#[test]
fn a_copy_of_a_gibibyte_passes_through_16_mebibytes_of_memory() {
    let (_cluster, over_tls) = encrypted();
    common::with_server(|server| async move {
        drop(server.connect().await);
        for config in [server.config(), server.tcp_config(common::SUPERUSER, None), over_tls] {
            let growth = growth_of_copying(&config).await;
            assert!(growth < GROWTH_MAX_BYTES, "{config:?}: grew by {growth} bytes");
        }
    });
}
