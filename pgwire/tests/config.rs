//! Settings from URLs and from the environment.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of tests fails as a test does: by a panic")]

use std::path::PathBuf;
use std::time::Duration;

use forebay_pgwire::{
    ChannelBinding, Config, ConfigError, DEFAULT_CONNECT_TIMEOUT, DEFAULT_SOCKET_DIR, Error, Host, RootCert, SslMode,
    TargetSession, TcpOptions, TlsOptions,
};

fn tcp(name: &str) -> Host {
    Host::Tcp(name.to_owned())
}

fn unix(dir: &str) -> Host {
    Host::Unix(PathBuf::from(dir))
}

fn refusal(url: &str) -> ConfigError {
    match Config::from_url(url) {
        Err(Error::Config(error)) => error,
        other => panic!("{url}: {other:?}"),
    }
}

#[test]
fn a_full_address_is_read_part_by_part() {
    let config = Config::from_url(
        "postgresql://us%65r:p%40ss%3Aword@db.example:6543/my%20db?connect_timeout=5&application_name=a%26b&sslmode=disable",
    )
    .unwrap();
    assert_eq!((config.host, config.port), (tcp("db.example"), 6543));
    assert_eq!((config.user.as_str(), config.password.as_deref()), ("user", Some("p@ss:word")));
    assert_eq!((config.database.as_deref(), config.application_name.as_deref()), (Some("my db"), Some("a&b")));
    assert_eq!(config.connect_timeout, Some(Duration::from_secs(5)));
}

#[test]
fn what_an_address_leaves_out_has_its_default() {
    let config = Config::from_url("postgres://me@").unwrap();
    assert_eq!(config, Config::new(unix(DEFAULT_SOCKET_DIR), "me"));
    assert_eq!((config.port, config.connect_timeout), (5432, Some(DEFAULT_CONNECT_TIMEOUT)));
    let error = Config::from_url("postgres:///db").unwrap().validate().unwrap_err();
    assert!(matches!(error, Error::Config(ConfigError::UserMissing)), "{error}");
}

#[test]
fn hosts_are_names_addresses_and_socket_directories() {
    for (url, host, port) in [
        ("postgres://u@h", tcp("h"), 5432),
        ("postgres://u@h:1", tcp("h"), 1),
        ("postgres://u@127.0.0.1:65535/", tcp("127.0.0.1"), 65535),
        ("postgres://u@[::1]:5433/db", tcp("::1"), 5433),
        ("postgres://u@[::1]", tcp("::1"), 5432),
        ("postgres://u@%2Frun%2Fsock/db", unix("/run/sock"), 5432),
        ("postgres://u@%2Frun%2Fsock:7/db", unix("/run/sock"), 7),
        ("postgres://u@/db?host=/run/sock&port=8", unix("/run/sock"), 8),
        ("postgres://u@/db?host=%2Frun%2Fs%20k", unix("/run/s k"), 5432),
        ("postgres://u@ignored/db?host=real", tcp("real"), 5432),
        ("postgres://u:p@ss@h/db", tcp("h"), 5432),
    ] {
        let config = Config::from_url(url).unwrap();
        assert_eq!((config.host, config.port), (host, port), "{url}");
        assert_eq!(config.user, "u", "{url}");
    }
}

#[test]
fn parameters_may_say_what_the_address_can() {
    let config = Config::from_url("postgres://h?user=u&password=p%20p&dbname=d&connect_timeout=0").unwrap();
    assert_eq!((config.user.as_str(), config.password.as_deref()), ("u", Some("p p")));
    assert_eq!((config.database.as_deref(), config.connect_timeout), (Some("d"), None));
}

#[test]
fn an_address_that_cannot_be_read_is_refused_with_the_reason() {
    assert_eq!(refusal("mysql://u@h"), ConfigError::Scheme);
    assert_eq!(refusal("h=x"), ConfigError::Scheme);
    let unknown = |name: &str| ConfigError::UnknownParameter { name: name.to_owned() };
    assert_eq!(refusal("postgres://u@h?sslrotcert=x"), unknown("sslrotcert"));
    assert_eq!(refusal("postgres://u@h?service=x"), unknown("service"));
    for (url, wrong) in [
        ("postgres://u@h:0", "port"),
        ("postgres://u@h:65536", "port"),
        ("postgres://u@h:x", "port"),
        ("postgres://u@h?port=", "port"),
        ("postgres://u@[::1", "host"),
        ("postgres://u@[::1]x", "host"),
        ("postgres://u@a,b?port=1,2,3", "port"),
        ("postgres://u@a:1,b:x", "port"),
        ("postgres://u@h?channel_binding=maybe", "channel_binding"),
        ("postgres://u@h?target_session_attrs=prefer-standby", "target_session_attrs"),
        ("postgres://u@h?keepalives=2", "keepalives"),
        ("postgres://u@h?keepalives_idle=-1", "keepalives_idle"),
        ("postgres://u@h?tcp_user_timeout=1s", "tcp_user_timeout"),
        ("postgres://u@h?gssencmode=require", "gssencmode"),
        ("postgres://u%@h", "user"),
        ("postgres://u%4@h", "user"),
        ("postgres://u%zz@h", "user"),
        ("postgres://u%00@h", "user"),
        ("postgres://u:%ff@h", "password"),
        ("postgres://u@h?connect_timeout=soon", "connect_timeout"),
        ("postgres://u@h?connect_timeout=-1", "connect_timeout"),
        ("postgres://u@h?sslmode=maybe", "sslmode"),
    ] {
        let error = refusal(url);
        assert!(matches!(error, ConfigError::Value { name, .. } if name == wrong), "{url}: {error:?}");
    }
}

#[test]
fn what_tls_has_to_be_is_read_from_the_address() {
    for (mode, expected) in [
        ("disable", SslMode::Disable),
        ("allow", SslMode::Allow),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ] {
        let config = Config::from_url(&format!("postgres://u@h?sslmode={mode}&sslrootcert=/ca.pem")).unwrap();
        assert_eq!((config.tls.mode, expected.word()), (expected, mode));
        config.validate().unwrap();
    }
    let config = Config::from_url(
        "postgres://u@h?sslmode=verify-full&sslrootcert=/a%20b.pem&sslcert=c.pem&sslkey=k.pem&channel_binding=require",
    )
    .unwrap();
    let expected = TlsOptions {
        mode: SslMode::VerifyFull,
        root_cert: Some(RootCert::File("/a b.pem".into())),
        cert: Some("c.pem".into()),
        key: Some("k.pem".into()),
        channel_binding: ChannelBinding::Require,
    };
    assert_eq!(config.tls, expected);
    let system = Config::from_url("postgres://u@h?sslrootcert=system").unwrap();
    assert_eq!(system.tls.mode, SslMode::VerifyFull, "the system's roots vouch for names only");
}

#[test]
fn tls_that_cannot_come_about_is_refused_before_connecting() {
    let refused = |url: &str| match Config::from_url(url).unwrap().validate() {
        Err(Error::Config(error)) => error,
        other => panic!("{url}: {other:?}"),
    };
    let missing = refused("postgres://u@h?sslmode=verify-ca");
    assert_eq!(missing, ConfigError::RootCertMissing { mode: SslMode::VerifyCa });
    assert!(missing.to_string().contains("sslrootcert"), "{missing}");
    for url in ["postgres://u@h?sslmode=require&sslrootcert=system", "postgres://u@h?sslcert=c.pem"] {
        assert!(matches!(refused(url), ConfigError::Value { .. }));
    }
    for ignored in ["postgres://u@%2Frun?sslmode=verify-full", "postgres://u@h?sslmode=disable&sslcert=c.pem"] {
        Config::from_url(ignored).unwrap().validate().unwrap();
    }
}

#[test]
fn several_hosts_have_a_port_each_or_one_for_all() {
    let places = |url: &str| {
        let config = Config::from_url(url).unwrap();
        let first = (config.host, config.port);
        let more = config.more_hosts.into_iter().map(|endpoint| (endpoint.host, endpoint.port));
        std::iter::once(first).chain(more).collect::<Vec<_>>()
    };
    let both = vec![(tcp("a"), 1), (tcp("b"), 5432)];
    assert_eq!(places("postgres://u@a:1,b/d"), both);
    assert_eq!(places("postgres://u@/d?host=a,b&port=1,"), both);
    assert_eq!(places("postgres://u@a,b:7,[::1]:8"), [(tcp("a"), 5432), (tcp("b"), 7), (tcp("::1"), 8)]);
    assert_eq!(places("postgres://u@/d?host=a,/run/x&port=9"), [(tcp("a"), 9), (unix("/run/x"), 9)]);
    let config = Config::from_url("postgres://u@a,b?target_session_attrs=read-write").unwrap();
    assert_eq!(config.target_session, TargetSession::ReadWrite);
}

#[test]
fn what_tcp_does_in_silence_is_read_from_the_address() {
    let usual = Config::from_url("postgres://u@h").unwrap().tcp;
    assert_eq!(usual, TcpOptions::default());
    let set = Config::from_url(
        "postgres://u@h?keepalives=1&keepalives_idle=5&keepalives_interval=0&keepalives_count=2&tcp_user_timeout=1500",
    );
    let expected = TcpOptions {
        keepalives: true,
        keepalives_idle: Some(Duration::from_secs(5)),
        keepalives_interval: None,
        keepalives_count: Some(2),
        user_timeout: Some(Duration::from_millis(1500)),
    };
    assert_eq!(set.unwrap().tcp, expected);
    assert!(!Config::from_url("postgres://u@h?keepalives=0").unwrap().tcp.keepalives);
}

#[test]
fn all_that_is_shown_can_be_read_again() {
    let url = "postgres://u@a:1,%2Frun%2Fx:2/d?application_name=n&connect_timeout=3&sslmode=verify-full\
               &sslrootcert=%2Fca.pem&sslcert=c.pem&sslkey=k.pem&channel_binding=require&passfile=p\
               &target_session_attrs=read-write&keepalives=0&keepalives_idle=0&keepalives_interval=7\
               &keepalives_count=0&tcp_user_timeout=0";
    let config = Config::from_url(url).unwrap();
    assert_eq!(config.masked_url(), url);
    assert_eq!(Config::from_url(&config.masked_url()).unwrap(), config);
}

#[test]
fn a_password_is_never_shown() {
    let config = Config::from_url("postgres://u:hunter2@%2Fa%20b:7/d?application_name=x&connect_timeout=3").unwrap();
    assert_eq!(config.masked_url(), "postgres://u:***@%2Fa%20b:7/d?application_name=x&connect_timeout=3");
    assert!(!format!("{config:?}").contains("hunter2"));
    let open = Config::from_url("postgres://u@[::1]").unwrap();
    assert_eq!(open.masked_url(), "postgres://u@[::1]:5432?connect_timeout=10");
    let again = Config::from_url(&open.masked_url()).unwrap();
    assert_eq!(again, open, "what is shown can be read");
}

#[test]
fn settings_that_cannot_work_are_found_before_connecting() {
    let mut config = Config::new(tcp("h"), "u");
    config.validate().unwrap();
    config.port = 0;
    assert!(config.validate().is_err());
    for host in [tcp(""), tcp("a,b"), unix("relative")] {
        assert!(Config::new(host, "u").validate().is_err());
    }
}

/// A function that looks up these variables.
fn variables<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
    |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

#[test]
fn libpqs_variables_say_what_the_address_can() {
    let set = [
        ("PGHOST", "a,b"),
        ("PGPORT", "1,2"),
        ("PGUSER", "u"),
        ("PGPASSWORD", "p"),
        ("PGPASSFILE", "/pass"),
        ("PGDATABASE", "d"),
        ("PGAPPNAME", "n"),
        ("PGCONNECT_TIMEOUT", "3"),
        ("PGOPTIONS", "-c a=b"),
        ("PGSSLMODE", "verify-ca"),
        ("PGSSLROOTCERT", "/ca.pem"),
        ("PGSSLCERT", "/c.pem"),
        ("PGSSLKEY", "/k.pem"),
        ("PGCHANNELBINDING", "require"),
        ("PGTARGETSESSIONATTRS", "primary"),
    ];
    let url = "postgres://u:p@a:1,b:2/d?passfile=/pass&application_name=n&connect_timeout=3&options=-c%20a=b\
               &sslmode=verify-ca&sslrootcert=/ca.pem&sslcert=/c.pem&sslkey=/k.pem&channel_binding=require\
               &target_session_attrs=primary";
    assert_eq!(Config::from_env(variables(&set)).unwrap(), Config::from_url(url).unwrap());
}

#[test]
fn an_address_goes_before_the_variables_and_they_before_the_defaults() {
    let set = [("PGHOST", "elsewhere"), ("PGSSLMODE", "require"), ("PGPASSWORD", "p"), ("PGPORT", "")];
    let config = Config::from_url_and_env("postgres://u@h/d?connect_timeout=7", variables(&set)).unwrap();
    assert_eq!((config.host, config.port), (tcp("h"), 5432));
    assert_eq!((config.tls.mode, config.password.as_deref()), (SslMode::Require, Some("p")));
    let config = Config::from_env(variables(&[])).unwrap();
    assert_eq!(config.host, unix(DEFAULT_SOCKET_DIR));
    assert!(!config.user.is_empty(), "the account's name");
}

#[test]
fn a_variable_that_cannot_be_read_or_heeded_is_an_error_that_names_it() {
    let refused = |name, value| match Config::from_env(variables(&[(name, value)])) {
        Err(Error::Config(error)) => error,
        other => panic!("{name}: {other:?}"),
    };
    for (name, value) in [("PGPORT", "x"), ("PGSSLMODE", "on"), ("PGCONNECT_TIMEOUT", "soon")] {
        assert!(matches!(refused(name, value), ConfigError::Value { name: blamed, .. } if blamed == name));
    }
    for name in ["PGSERVICE", "PGHOSTADDR", "PGREQUIREAUTH", "PGSSLCRL"] {
        assert_eq!(refused(name, "x"), ConfigError::VariableNotSupported { name });
    }
}

#[test]
fn files_below_the_home_directory_are_taken_where_they_are_there_and_nothing_else_is_named() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    let read = |url: &str| {
        let set = [("HOME", home.path().to_str().unwrap())];
        Config::from_url_and_env(url, variables(&set)).unwrap()
    };
    let bare = read("postgres://u@h");
    assert_eq!(bare.passfile, Some(path(".pgpass")));
    assert_eq!(bare.tls, TlsOptions::default());
    std::fs::create_dir(path(".postgresql")).unwrap();
    for name in ["root.crt", "postgresql.crt", "postgresql.key"] {
        std::fs::write(path(".postgresql").join(name), "").unwrap();
    }
    let full = read("postgres://u@h?sslmode=require&passfile=/mine");
    assert_eq!(full.passfile, Some("/mine".into()));
    assert_eq!(full.tls.root_cert, Some(RootCert::File(path(".postgresql/root.crt"))));
    assert_eq!(full.tls.cert, Some(path(".postgresql/postgresql.crt")));
    assert_eq!(full.tls.key, Some(path(".postgresql/postgresql.key")));
    let named = read("postgres://u@h?sslmode=require&sslrootcert=/ca.pem");
    assert_eq!(named.tls.root_cert, Some(RootCert::File("/ca.pem".into())));
}
