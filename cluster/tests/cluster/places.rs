//! The directories that a cluster can be in.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::support::{Place, psql, stop, we_are_root};
use forebay_cluster::{Cluster, ClusterError, MAX_SOCKET_PATH_BYTES};

#[test]
fn the_server_has_a_capability_if_only_root_may_enter_its_directory() {
    let place = Place::new();
    let private = place.path().join("private");
    DirBuilder::new().mode(0o700).create(&private).unwrap();
    let mut config = place.config();
    config.data_dir = private.join("data/postgres");
    let cluster = Cluster::open(config).unwrap();
    let status = psql(&cluster, "SELECT pg_read_file('/proc/self/status')");
    let set = |name: &str| {
        let hex = status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        u64::from_str_radix(hex, 16).unwrap()
    };
    if we_are_root() {
        assert!(cluster.has_lent_capability());
        assert_eq!(set("CapEff:").count_ones(), 1, "{status}");
        assert_eq!(set("CapEff:"), set("CapPrm:"));
        assert_eq!(set("NoNewPrivs:"), 1);
    } else {
        assert!(!cluster.has_lent_capability());
        assert_eq!(set("CapEff:"), 0);
    }
    psql(&cluster, "CREATE TABLE kept AS SELECT 1 AS n; CHECKPOINT");
    cluster.kill9().unwrap();
    cluster.start().unwrap();
    assert_eq!(psql(&cluster, "SELECT n FROM kept"), "1");
    stop(&cluster);
    assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o700, "the mode is unchanged");
}

#[test]
fn a_fifo_or_a_link_in_place_of_the_pid_file_is_an_error_and_nobody_waits_for_it() {
    let place = Place::new();
    let cluster = place.open();
    stop(&cluster);
    let pid_file = place.cluster_dir().join("pgdata/postmaster.pid");
    let precious = place.path().join("precious");
    fs::write(&precious, "1\n/x\n").unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pid_file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let owner = fs::metadata(place.cluster_dir().join("pgdata")).unwrap();
    std::os::unix::fs::chown(&pid_file, Some(owner.uid()), Some(owner.gid())).unwrap();
    let error = Cluster::open(place.config()).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    fs::remove_file(&pid_file).unwrap();
    std::os::unix::fs::symlink(&precious, &pid_file).unwrap();
    let error = Cluster::open(place.config()).unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "1\n/x\n");
    fs::remove_file(&pid_file).unwrap();
}

#[test]
fn no_link_is_followed_in_place_of_a_file_of_the_cluster() {
    for name in ["server.log", "start.lock", "run", "pgdata"] {
        let place = Place::new();
        fs::create_dir(place.cluster_dir()).unwrap();
        let outside = place.path().join("outside");
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(outside.join("made"), place.cluster_dir().join(name)).unwrap();
        let error = Cluster::open(place.config()).unwrap_err();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{name}: {error}");
    }
    for name in ["forebay.conf", "forebay.new", "pg_hba.conf", "server.log.1"] {
        let place = Place::new();
        fs::create_dir(place.cluster_dir()).unwrap();
        let outside = place.path().join("outside");
        fs::write(&outside, "kept").unwrap();
        std::os::unix::fs::symlink(&outside, place.cluster_dir().join(name)).unwrap();
        let cluster = place.open();
        assert_eq!(fs::read_to_string(&outside).unwrap(), "kept", "{name}");
        stop(&cluster);
    }
}

#[test]
fn the_server_has_no_capability_if_its_account_may_enter_its_directory() {
    let place = Place::new();
    let cluster = place.open();
    assert!(!cluster.has_lent_capability());
    let status = psql(&cluster, "SELECT pg_read_file('/proc/self/status')");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    stop(&cluster);
}

#[test]
fn the_socket_is_in_a_private_directory_elsewhere_if_its_path_would_be_too_long() {
    let place = Place::new();
    let mut config = place.config();
    config.data_dir = place.path().join("d".repeat(MAX_SOCKET_PATH_BYTES));
    let cluster = Cluster::open(config.clone()).unwrap();
    let socket_dir = cluster.socket_dir();
    assert!(!socket_dir.starts_with(place.path()));
    assert_eq!(fs::metadata(&socket_dir).unwrap().permissions().mode() & 0o7777, crate::support::socket_dir_mode());
    assert_eq!(psql(&cluster, "SELECT 1"), "1");
    let adopted = Cluster::open(config.clone()).unwrap();
    assert_eq!(adopted.postmaster_pid(), cluster.postmaster_pid());
    stop(&cluster);

    fs::remove_dir_all(&socket_dir).unwrap();
    cluster.start().unwrap();
    assert_eq!(psql(&cluster, "SELECT 1"), "1");
    stop(&cluster);

    fs::set_permissions(&socket_dir, fs::Permissions::from_mode(0o777)).unwrap();
    let error = cluster.start().unwrap_err();
    assert!(matches!(error, ClusterError::UnsafeSocketDir { .. }), "{error}");
    fs::remove_dir_all(&socket_dir).unwrap();
}

#[test]
fn a_path_with_quotes_spaces_and_backslashes_works() {
    let place = Place::new();
    let mut config = place.config();
    config.data_dir = place.path().join(r#"it's "a"\ %41 é"#);
    let cluster = Cluster::open(config).unwrap();
    assert!(cluster.socket_dir().starts_with(place.path()));
    assert_eq!(psql(&cluster, "SELECT 1"), "1");
    stop(&cluster);
}

#[test]
fn a_path_with_a_comma_works() {
    let place = Place::new();
    let mut config = place.config();
    config.data_dir = place.path().join("one, two");
    let cluster = Cluster::open(config).unwrap();
    assert_eq!(psql(&cluster, "SELECT 1"), "1");
    stop(&cluster);
    fs::remove_dir_all(cluster.socket_dir()).unwrap();
}

#[test]
fn a_relative_path_works_from_anywhere() {
    let place = Place::new();
    let mut config = place.config();
    let up = std::env::current_dir().unwrap().components().skip(1).map(|_| "../").collect::<String>();
    config.data_dir = Path::new(&up).join(place.cluster_dir().strip_prefix("/").unwrap());
    assert!(config.data_dir.is_relative());
    let cluster = Cluster::open(config).unwrap();
    assert_eq!(psql(&cluster, "SELECT 1"), "1");
    assert!(cluster.socket_dir().is_absolute());
    stop(&cluster);
}
