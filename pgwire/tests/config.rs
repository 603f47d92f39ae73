//! Addresses of servers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of tests fails as a test does: by a panic")]

use std::path::PathBuf;
use std::time::Duration;

use forebay_pgwire::{Config, ConfigError, DEFAULT_CONNECT_TIMEOUT, DEFAULT_SOCKET_DIR, Error, Host};

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
    assert_eq!(refusal("postgres://u@h?target_session_attrs=any"), unknown("target_session_attrs"));
    for (url, wrong) in [
        ("postgres://u@h:0", "port"),
        ("postgres://u@h:65536", "port"),
        ("postgres://u@h:x", "port"),
        ("postgres://u@h?port=", "port"),
        ("postgres://u@[::1", "host"),
        ("postgres://u@[::1]x", "host"),
        ("postgres://u@a,b", "host"),
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
fn tls_that_is_asked_for_is_refused_and_not_forgotten() {
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = refusal(&format!("postgres://u@h?sslmode={mode}"));
        assert_eq!(error, ConfigError::TlsNotSupported { mode: mode.to_owned() });
        assert!(error.to_string().contains("not supported yet"));
    }
    for mode in ["disable", "allow", "prefer"] {
        assert!(Config::from_url(&format!("postgres://u@h?sslmode={mode}")).is_ok());
    }
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
