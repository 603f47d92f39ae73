//! The directories that a cluster can be in.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
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
        assert!(cluster.lent_capability().is_some());
        assert_eq!(set("CapEff:").count_ones(), 1, "{status}");
        assert_eq!(set("CapEff:"), set("CapPrm:"));
        assert_eq!(set("NoNewPrivs:"), 1);
    } else {
        assert!(cluster.lent_capability().is_none());
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
fn the_server_has_no_capability_if_its_account_may_enter_its_directory() {
    let place = Place::new();
    let cluster = place.open();
    assert!(cluster.lent_capability().is_none());
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
    assert_eq!(fs::metadata(&socket_dir).unwrap().permissions().mode() & 0o777, 0o700);
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
