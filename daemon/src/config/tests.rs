use super::{args::ServeArgs, *};
use clap::Parser;

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: ServeArgs,
}

fn parse(args: &[&str]) -> ServeArgs {
    Cli::try_parse_from([&["serve"], args].concat()).unwrap().args
}

fn with_file(content: &str, args: &[&str]) -> Result<Config, ConfigError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    let mut args = parse(args);
    args.config = Some(file.path().to_path_buf());
    args.postgres.get_or_insert_with(|| "embedded".to_owned());
    Config::resolve(args)
}

#[test]
fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
    let config = with_file("flush-ms = 7\nflush-max = 9\nwal-max-bytes = \"2GiB\"", &["--flush-ms", "8"]).unwrap();
    assert_eq!((config.flush_ms, config.flush_max), (8, 9));
    assert_eq!(config.wal_max_bytes, Some(2 << 30));
    assert_eq!(config.sync, Sync::Direct);
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_nearest_one() {
    let error = with_file("flush_ms = 7", &[]).unwrap_err().to_string();
    assert!(error.contains("\"flush_ms\"") && error.contains("is \"flush-ms\" meant?"), "{error}");
}

#[test]
fn a_value_of_another_type_is_an_error() {
    assert!(with_file("flush-ms = \"soon\"", &[]).is_err());
    assert!(with_file("sync = \"never\"", &[]).is_err());
}

#[test]
fn an_open_address_must_be_called_insecure() {
    let error = with_file("", &["--listen", "0.0.0.0:6632"]).unwrap_err().to_string();
    assert!(error.contains("--insecure"), "{error}");
    assert!(with_file("", &["--listen", "0.0.0.0:6632", "--insecure"]).is_ok());
    assert!(with_file("", &["--listen", "[::1]:6632"]).is_ok());
}

#[test]
fn what_is_printed_can_be_read_back_and_hides_the_password() {
    let url = "postgres://me:s3cret@127.0.0.1:5433/db";
    let printed = with_file("", &["--postgres", url, "--cores", "2"]).unwrap().print().unwrap();
    assert!(!printed.contains("s3cret"), "{printed}");
    assert!(with_file(&printed, &["--postgres", "embedded"]).is_ok(), "{printed}");
}

#[test]
fn libpq_variables_name_the_server_when_nothing_else_does() {
    let variables = |name: &str| match name {
        "PGHOST" => Some("/run/pg".to_owned()),
        "PGPORT" => Some("5433".to_owned()),
        "PGUSER" => Some("me".to_owned()),
        "PGSSLMODE" => Some("require".to_owned()),
        _ => None,
    };
    let config = libpq_env::config(variables).unwrap().unwrap();
    assert_eq!((config.host, config.port), (forebay_pgwire::Host::Unix("/run/pg".into()), 5433));
    assert_eq!((config.user.as_str(), config.tls.mode), ("me", forebay_pgwire::SslMode::Require));
    assert!(libpq_env::config(|_| None).unwrap().is_none());
    let mode_alone = |name: &str| (name == "PGSSLMODE").then(|| "require".to_owned());
    assert!(libpq_env::config(mode_alone).unwrap().is_none(), "it says how, and not where");
    assert!(libpq_env::config(|name| (name == "PGPORT").then(|| "x".to_owned())).is_err());
}

#[test]
fn every_sync_method_is_read_by_the_name_that_is_printed() {
    for method in ["direct", "fdatasync", "none", "auto"] {
        let by_flag = with_file("", &["--sync", method]).unwrap();
        let by_file = with_file(&format!("sync = \"{method}\""), &[]).unwrap();
        assert_eq!((by_flag.sync, by_flag.sync.name()), (by_file.sync, method));
        assert!(by_flag.print().unwrap().contains(&format!("sync = \"{method}\"\n")));
    }
}
