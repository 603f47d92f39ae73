//! Several hosts, and the required kind of session.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use forebay_cluster::{TestCluster, TestOptions};
use forebay_pgwire::{Config, Connection, Endpoint, Error, Host, SearchPath, SqlState, TargetSession};

use crate::answers::proxy;
use crate::common::{SUPERUSER, TestServer, run, with_server};

fn endpoint(host: Host, port: u16) -> Endpoint {
    Endpoint { host, port }
}

fn tcp(port: u16) -> Endpoint {
    endpoint(Host::Tcp("127.0.0.1".to_owned()), port)
}

/// The server, after some other hosts.
fn behind(others: impl IntoIterator<Item = Endpoint>, server: &TestServer) -> Config {
    let mut places: Vec<Endpoint> = others.into_iter().collect();
    places.push(endpoint(Host::Unix(server.socket_dir()), server.port));
    let first = places.remove(0);
    let mut config = server.config();
    (config.host, config.port, config.more_hosts) = (first.host, first.port, places);
    config
}

/// A port that nobody listens on.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_host_that_is_not_there_or_silent_is_passed_over() {
    with_server(|server| async move {
        let absent = endpoint(Host::Unix("/no/such/directory".into()), 1);
        let config = behind([tcp(closed_port()), absent], &server);
        Connection::connect(&config, SearchPath::Inherited).await.unwrap();

        // This host accepts the connection and sends nothing. It gets its share of the time.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = behind([tcp(silent.local_addr().unwrap().port())], &server);
        config.connect_timeout = Some(Duration::from_secs(4));
        let began = Instant::now();
        Connection::connect(&config, SearchPath::Inherited).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(2));
    });
}

#[test]
fn a_host_that_refuses_us_is_the_last() {
    with_server(|server| async move {
        let mut config = behind([endpoint(Host::Unix(server.socket_dir()), server.port)], &server);
        config.user = "barred".to_owned();
        let error = Connection::connect(&config, SearchPath::Inherited).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::INVALID_AUTHORIZATION), "{error}");
    });
}

#[test]
fn when_no_host_is_there_the_last_ones_failure_is_told() {
    with_server(|server| async move {
        let mut config = behind([], &server);
        config.more_hosts = vec![endpoint(Host::Unix("/no/such/directory".into()), 7)];
        (config.host, config.port) = (Host::Tcp("127.0.0.1".to_owned()), closed_port());
        let error = Connection::connect(&config, SearchPath::Inherited).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/directory/.s.PGSQL.7"), "{error}");
    });
}

/// Connects to a session of this kind. Returns whether its server is in recovery, and whether it is read-only.
async fn shown(config: &Config, wanted: TargetSession) -> Result<(bool, bool), Error> {
    let mut config = config.clone();
    config.target_session = wanted;
    let mut conn = Connection::connect(&config, SearchPath::Inherited).await?;
    let results = conn.simple("SELECT pg_is_in_recovery(); SHOW transaction_read_only").await?;
    let text = |place: usize| results[place].rows[0].get_str(0).map(str::to_owned);
    Ok((text(0)? == "t", text(1)? == "on"))
}

/// Hides the parameters that servers before PostgreSQL 14 do not report.
fn before_14(mut bytes: Vec<u8>) -> Vec<u8> {
    for name in [&b"in_hot_standby\0"[..], b"default_transaction_read_only\0"] {
        let place = bytes.windows(name.len()).position(|window| window == name);
        place.into_iter().for_each(|place| bytes[place] = b'?');
    }
    bytes
}

#[test]
fn the_server_of_the_kind_that_is_wanted_is_found_among_others() {
    let start = |settings: &[(&str, &str)], files: &[&str]| {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let files = files.iter().map(|name| ((*name).to_owned(), Vec::new())).collect();
        TestCluster::start_with(TestOptions { fsync: false, settings, files, ..TestOptions::default() }).unwrap()
    };
    let read_only = start(&[("default_transaction_read_only", "on")], &[]);
    let standby = start(&[], &["standby.signal"]);
    let place = |cluster: &TestCluster| endpoint(Host::Unix(cluster.socket_dir()), cluster.port());
    let server = TestServer::shared();
    run(async {
        let config = behind([place(&standby), place(&read_only)], &server);
        assert_eq!(shown(&config, TargetSession::Any).await.unwrap(), (true, true), "the first");
        assert_eq!(shown(&config, TargetSession::Standby).await.unwrap(), (true, true));
        assert_eq!(shown(&config, TargetSession::Primary).await.unwrap(), (false, true), "it is one, if read-only");
        assert_eq!(shown(&config, TargetSession::ReadWrite).await.unwrap(), (false, false));
        let config = behind([], &server);
        for wanted in [TargetSession::Standby, TargetSession::ReadOnly] {
            let error = shown(&config, wanted).await.unwrap_err();
            assert!(matches!(error, Error::TargetSessionMismatch { wanted: said, .. } if said == wanted), "{error}");
        }
    });
}

#[test]
fn a_server_that_does_not_report_its_kind_is_asked() {
    with_server(|server| async move {
        for (wanted, given) in [
            (TargetSession::Primary, true),
            (TargetSession::ReadWrite, true),
            (TargetSession::Standby, false),
            (TargetSession::ReadOnly, false),
        ] {
            let (config, thread) = proxy(&server, usize::MAX, before_14);
            match shown(&config, wanted).await {
                Ok(kind) => assert!(given && kind == (false, false), "{wanted}"),
                Err(Error::TargetSessionMismatch { .. }) => assert!(!given, "{wanted}"),
                Err(error) => panic!("{wanted}: {error}"),
            }
            thread.join().unwrap();
        }
    });
}

#[test]
fn an_address_of_several_hosts_is_connected_to_as_it_says() {
    with_server(|server| async move {
        let dir = server.socket_dir().display().to_string().replace('/', "%2F");
        let (closed, port) = (closed_port(), server.port);
        let url =
            format!("postgres://{SUPERUSER}@127.0.0.1:{closed},{dir}:{port}/postgres?target_session_attrs=read-write");
        let mut conn = Connection::connect(&Config::from_url(&url).unwrap(), SearchPath::Inherited).await.unwrap();
        conn.simple("SELECT 1").await.unwrap();
    });
}

#[test]
fn a_name_that_does_not_exist_is_a_connect_error_that_names_it() {
    let mut config = Config::new(Host::Tcp("no-such-host.invalid".to_owned()), "u");
    config.connect_timeout = Some(Duration::from_secs(30));
    let error = run(Connection::connect(&config, SearchPath::Inherited)).unwrap_err();
    match error {
        Error::Connect { address, .. } => assert_eq!(address, "no-such-host.invalid:5432"),
        // Without a name server, the resolver may be slow.
        Error::Timeout { .. } => {}
        other => panic!("{other}"),
    }
}
