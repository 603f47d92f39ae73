//! The role that clients use, in new clusters and in those of earlier releases.

use crate::support::{Place, psql, stop};
use forebay_cluster::{Cluster, ClusterConfig};

const ROLES: &str = "SELECT rolname, rolsuper FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1";

/// Who owns what in the database, apart from what every database has.
const OWNERS: &str = "SELECT DISTINCT o.owner::regrole FROM (
    SELECT nspowner FROM pg_namespace WHERE nspname = 'app'
    UNION ALL SELECT relowner FROM pg_class WHERE relnamespace = 'app'::regnamespace
    UNION ALL SELECT proowner FROM pg_proc WHERE pronamespace = 'app'::regnamespace
    UNION ALL SELECT typowner FROM pg_type WHERE typnamespace = 'app'::regnamespace
    UNION ALL SELECT datdba FROM pg_database WHERE datname = 'forebay') o (owner)";

/// As an earlier release left it: the role of clients is the superuser of `initdb`.
fn earlier_release(place: &Place) -> Cluster {
    let cluster = place.open();
    assert_eq!(psql(&cluster, ROLES), "forebay|t");
    psql(
        &cluster,
        "CREATE SCHEMA app; SET search_path = app; CREATE TYPE mood AS ENUM ('good'); CREATE DOMAIN small AS int;
         CREATE TYPE pair AS (a int, b int); CREATE TABLE parted (n serial, id int GENERATED ALWAYS AS IDENTITY, m mood)
             PARTITION BY RANGE (n);
         CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (1000); CREATE SEQUENCE alone;
         CREATE VIEW seen AS TABLE parted; CREATE MATERIALIZED VIEW stored AS TABLE parted; CREATE INDEX ON parted (m);
         CREATE FUNCTION one(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE PROCEDURE two() LANGUAGE sql AS 'SELECT 2';
         INSERT INTO parted (m) VALUES ('good')",
    );
    assert_eq!(psql(&cluster, OWNERS), "forebay");
    cluster
}

fn config(place: &Place) -> ClusterConfig {
    ClusterConfig { superuser: "postgres".to_owned(), ..place.config() }
}

#[test]
fn the_role_of_a_new_cluster_owns_its_database_and_is_no_superuser() {
    let place = Place::new();
    let cluster = Cluster::open(config(&place)).unwrap();
    assert_eq!(psql(&cluster, ROLES), "forebay|f\npostgres|t");
    assert_eq!(psql(&cluster, "SELECT current_user, current_database()"), "forebay|forebay");
    psql(&cluster, "CREATE SCHEMA app; CREATE TABLE app.t (n int); CREATE TABLE public.t (n int)");
    assert_eq!(psql(&cluster, OWNERS), "forebay");
    stop(&cluster);
}

#[test]
fn in_a_cluster_of_an_earlier_release_the_role_stops_being_superuser_and_keeps_what_it_owns() {
    for runs in [true, false] {
        let place = Place::new();
        let before = earlier_release(&place);
        if !runs {
            stop(&before);
        }
        for _ in 0..2 {
            let cluster = Cluster::open(config(&place)).unwrap();
            assert_eq!(psql(&cluster, ROLES), "forebay|f\npostgres|t");
            assert_eq!(psql(&cluster, OWNERS), "forebay");
        }
        let cluster = Cluster::open(config(&place)).unwrap();
        psql(
            &cluster,
            "INSERT INTO app.parted (m) VALUES ('good'); ALTER TABLE app.parted ADD COLUMN x int; DROP TYPE app.pair",
        );
        assert_eq!(psql(&cluster, "SELECT count(*) FROM app.seen"), "2");
        stop(&cluster);
    }
}

#[test]
fn a_role_that_has_the_superuser_s_name_already_keeps_it() {
    let place = Place::new();
    let before = earlier_release(&place);
    psql(&before, "CREATE ROLE postgres LOGIN");
    let cluster = Cluster::open(config(&place)).unwrap();
    assert_eq!(psql(&cluster, ROLES), "forebay|f\nforebay_superuser|t\npostgres|f");
    assert_eq!(psql(&cluster, OWNERS), "forebay");
    stop(&cluster);
}
