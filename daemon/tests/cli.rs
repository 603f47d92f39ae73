//! The command line: help, settings, refusals, the schema, and inspection of the log.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Daemon, NOWHERE, data_dir, forebay};
use forebay_cluster::TestCluster;
use serde_json::json;
use std::{
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    process::{Command, Output},
};

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_names_every_documented_flag_and_its_variable() {
    let help = forebay(&["serve", "--help"]);
    assert!(help.status.success());
    let help = stdout(&help);
    let names = [
        ("--config", "FOREBAY_CONFIG"),
        ("--listen", "FOREBAY_LISTEN"),
        ("--data-dir", "FOREBAY_DATA_DIR"),
        ("--postgres", "FOREBAY_POSTGRES"),
        ("--cores", "FOREBAY_CORES"),
        ("--sync", "FOREBAY_SYNC"),
        ("--wal-max-bytes", "FOREBAY_WAL_MAX_BYTES"),
        ("--retain-drained", "FOREBAY_RETAIN_DRAINED"),
        ("--flush-ms", "FOREBAY_FLUSH_MS"),
        ("--flush-max", "FOREBAY_FLUSH_MAX"),
        ("--auto-create-queues", "FOREBAY_AUTO_CREATE_QUEUES"),
        ("--commit-wait-ms", "FOREBAY_COMMIT_WAIT_MS"),
        ("--shutdown-grace", "FOREBAY_SHUTDOWN_GRACE"),
        ("--log", "FOREBAY_LOG"),
        ("--log-format", "FOREBAY_LOG_FORMAT"),
        ("--insecure", "FOREBAY_INSECURE"),
        ("--print-config", ""),
    ];
    for (flag, variable) in names {
        assert!(help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")), "{flag} is in the help");
        assert!(help.contains(variable), "{variable} is in the help");
    }
    for args in [&["--help"][..], &["--version"], &["wal", "verify", "--help"], &["schema", "print", "--help"]] {
        assert!(forebay(args).status.success(), "{args:?}");
    }
    assert_eq!(forebay(&[]).status.code(), Some(2));
}

#[test]
fn the_settings_are_printed_with_their_defaults_and_without_the_password() {
    let printed = forebay(&["serve", "--print-config"]);
    assert!(printed.status.success());
    let settings: toml::Table = stdout(&printed).parse().unwrap();
    let expected = [
        ("listen", "127.0.0.1:6632"),
        ("data-dir", "./forebay-data"),
        ("postgres", "embedded"),
        ("sync", "direct"),
        ("log", "info"),
    ];
    for (name, value) in expected {
        assert_eq!(settings[name].as_str(), Some(value), "{name}");
    }
    for (name, value) in [("flush-ms", 100), ("flush-max", 100), ("commit-wait-ms", 2000)] {
        assert_eq!(settings[name].as_integer(), Some(value), "{name}");
    }
    assert_eq!(settings["auto-create-queues"].as_bool(), Some(true));
    let url = "postgres://user:s3cret%21pass@db.example:5433/events?sslmode=disable";
    let printed = forebay(&["serve", "--print-config", "--postgres", url, "--cores", "3", "--wal-max-bytes", "1GiB"]);
    let text = stdout(&printed);
    assert!(printed.status.success() && !text.contains("s3cret"), "{text}");
    assert!(!stderr(&printed).contains("s3cret"));
    assert!(text.contains("db.example") && text.contains("user"), "{text}");
    let settings: toml::Table = text.parse().unwrap();
    assert_eq!((settings["cores"].as_integer(), settings["wal-max-bytes"].as_integer()), (Some(3), Some(1 << 30)));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let dir = data_dir();
    let file = dir.path().join("forebay.toml");
    std::fs::write(&file, "flush-ms = 1\nflush-max = 1\ncommit-wait-ms = 1\nsync = \"none\"\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.env_clear().env("FOREBAY_CONFIG", &file).env("FOREBAY_FLUSH_MAX", "2").env("FOREBAY_COMMIT_WAIT_MS", "2");
    command.env("DATABASE_URL", "postgres://somewhere/else");
    let output = command.args(["serve", "--print-config", "--commit-wait-ms", "3"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let settings: toml::Table = stdout(&output).parse().unwrap();
    let number = |name: &str| settings[name].as_integer().unwrap();
    assert_eq!((number("flush-ms"), number("flush-max"), number("commit-wait-ms")), (1, 2, 3));
    assert_eq!(settings["sync"].as_str(), Some("none"));
    assert!(settings["postgres"].as_str().unwrap().contains("somewhere"));
}

#[test]
fn what_there_is_not_is_refused_with_2_and_the_nearest_name() {
    let dir = data_dir();
    let file = dir.path().join("forebay.toml");
    std::fs::write(&file, "flush-mss = 5\n").unwrap();
    let file = file.to_str().unwrap();
    let cases: [(&[&str], &str); 8] = [
        (&["--lissten", "127.0.0.1:0"], "--listen"),
        (&["--config", file], "flush-ms"),
        (&["--sync", "sometimes"], "fdatasync"),
        (&["--cores", "0"], "--cores"),
        (&["--flush-ms", "soon"], "--flush-ms"),
        (&["--postgres", "mysql://x"], "postgres"),
        (&["--listen", "nowhere"], "--listen"),
        (&["--config", "/no/such/file"], "/no/such/file"),
    ];
    for (args, named) in cases {
        let output = forebay(&[&["serve", "--print-config"], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stdout(&output));
        assert!(stderr(&output).contains(named), "{args:?}: {}", stderr(&output));
    }
    let output = forebay(&["srve"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("serve"), "{}", stderr(&output));
}

#[test]
fn an_address_that_others_reach_is_refused_unless_said_out_loud() {
    let dir = data_dir();
    let data = dir.path().join("data");
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let output =
            forebay(&["serve", "--listen", address, "--data-dir", data.to_str().unwrap(), "--postgres", NOWHERE]);
        assert_eq!(output.status.code(), Some(2), "{address}");
        assert!(stderr(&output).contains("--insecure"), "{}", stderr(&output));
        assert!(!data.exists(), "refused before anything was made");
        let output = forebay(&["serve", "--print-config", "--listen", address, "--insecure"]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

#[test]
fn the_printed_schema_runs_cleanly_on_an_empty_database_and_is_the_one_that_migrate_makes() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    let printed = forebay(&["schema", "print"]);
    assert!(printed.status.success());
    // psql stops at the first error.
    cluster.psql(&stdout(&printed)).unwrap();
    let views =
        "SELECT table_schema, table_name FROM information_schema.views WHERE table_schema LIKE 'f%' ORDER BY 1, 2";
    assert_eq!(common::rows(&cluster, views), [["forebay", "dead_letters_log"], ["forebay", "message_log"]]);
    let migrate = |args: &[&str]| {
        let output = forebay(&[&["schema", "migrate", "--postgres", &cluster.url()], args].concat());
        assert!(output.status.success(), "{}", stderr(&output));
    };
    // A second migration has nothing to do.
    migrate(&[]);
    migrate(&[]);
}

#[test]
fn migrate_makes_what_print_prints_and_may_be_run_again() {
    let cluster = TestCluster::start_without_fsync().unwrap();
    for schema in ["forebay", "Other one"] {
        for _ in 0..2 {
            let output = forebay(&["schema", "migrate", "--postgres", &cluster.url(), "--schema", schema]);
            assert!(output.status.success(), "{}", stderr(&output));
        }
    }
    let printed = forebay(&["schema", "print", "--schema", "printed"]);
    cluster.psql(&stdout(&printed)).unwrap();
    let columns = |schema: &str| {
        let sql = format!(
            "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns \
             WHERE table_schema = '{schema}' ORDER BY table_name, ordinal_position"
        );
        common::rows(&cluster, &sql)
    };
    assert!(columns("forebay").len() > 30);
    assert_eq!(columns("forebay"), columns("printed"));
    assert_eq!(columns("forebay"), columns("Other one"));
    let nowhere = forebay(&["schema", "migrate", "--postgres", NOWHERE]);
    assert_eq!(nowhere.status.code(), Some(5), "{}", stderr(&nowhere));
}

fn verify(data_dir: &Path) -> Output {
    forebay(&["wal", "verify", "--data-dir", data_dir.to_str().unwrap()])
}

#[test]
fn wal_verify_finds_a_sound_log_sound_and_names_the_segment_and_offset_of_a_flipped_byte() {
    let dir = data_dir();
    let args = ["--cores", "1", "--wal-segment-bytes", "1MiB", "--wal-max-bytes", "64MiB"];
    let daemon = Daemon::start(dir.path(), NOWHERE, &args);
    let mut client = daemon.connect();
    for n in 0..100 {
        let body = json!({"items": [{"queue": "q", "payload": {"n": n, "fill": "x".repeat(30_000)}}], "qos0": true});
        assert_eq!(client.push(&body).unwrap().status, 201);
        if n % 20 == 10 {
            // The log of a running daemon grows, and it is sound.
            let output = verify(daemon.data_dir());
            assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
        }
    }
    assert!(daemon.terminate().success());
    let output = verify(dir.path());
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("100 records"), "{}", stdout(&output));

    let segment = dir.path().join("wal/lane-00/0000000002.seg");
    let at = 500_000;
    let mut file = std::fs::File::options().read(true).write(true).open(&segment).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 4]).unwrap();
    let before = std::fs::read(&segment).unwrap();
    let output = verify(dir.path());
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let finding = text.lines().find(|line| line.contains("not verify") || line.contains("no frames")).unwrap();
    // A record's position is its segment and the offset of its frame, shortly before the flipped byte.
    let number_after = |word: &str| -> Option<u64> {
        let mut words = finding.split([' ', ':', ',']);
        words.find(|found| *found == word).and_then(|_| words.next()?.parse().ok())
    };
    assert_eq!(number_after("segment"), Some(2), "{finding}");
    let offset = number_after("offset").unwrap();
    assert!(offset <= at && offset + 40_000 > at, "{finding}");
    assert!(std::fs::read(&segment).unwrap() == before, "looking changes nothing");
    assert_eq!(verify(&dir.path().join("nothing")).status.code(), Some(2));
}
