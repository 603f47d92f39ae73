//! Where a session looks for names, and what it sets before its first statement.

use crate::common::with_server;
use forebay_pgwire::{Connection, SearchPath, TargetSession};

#[test]
fn the_chosen_search_path_wins_over_role_database_and_options() {
    with_server(|server| async move {
        let mut admin = server.connect().await;
        admin
            .simple("CREATE ROLE led_astray LOGIN; CREATE SCHEMA trap; GRANT USAGE ON SCHEMA trap TO led_astray")
            .await
            .unwrap();
        admin.simple("CREATE FUNCTION trap.now() RETURNS text LANGUAGE sql AS $$SELECT 'planted'$$").await.unwrap();
        admin.simple("ALTER ROLE led_astray SET search_path = trap, pg_catalog").await.unwrap();
        let by_role = server.unix_config("led_astray", None);
        let mut by_options = by_role.clone();
        by_options.options.push(("search_path".to_owned(), "trap, pg_catalog".to_owned()));
        for config in [by_role, by_options] {
            let mut open = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
            let text = "SELECT now()::text";
            assert_eq!(open.query_once(text, &[]).await.unwrap()[0].get_str(0).unwrap(), "planted");
            let mut fixed = Connection::connect(&config, SearchPath::System).await.unwrap();
            let rows = fixed.query_once("SELECT current_setting('search_path'), now()::text", &[]).await.unwrap();
            assert_eq!(rows[0].get_str(0).unwrap(), "pg_catalog, pg_temp");
            assert_ne!(rows[0].get_str(1).unwrap(), "planted");
            // Also after a transaction that fails.
            fixed.simple("BEGIN; SELECT 1 / 0").await.unwrap_err();
            fixed.simple("ROLLBACK").await.unwrap();
            let rows = fixed.query_once("SELECT current_setting('search_path')", &[]).await.unwrap();
            assert_eq!(rows[0].get_str(0).unwrap(), "pg_catalog, pg_temp");
        }
        admin.simple("DROP SCHEMA trap CASCADE; DROP ROLE led_astray").await.unwrap();
    });
}

#[test]
fn the_session_s_settings_win_over_the_options_and_hold_before_the_kind_of_session_is_judged() {
    with_server(|server| async move {
        let mut config = server.unix_config("trusted", None);
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        config.options = vec![setting("lock_timeout", "1s"), setting("default_transaction_read_only", "on")];
        config.session_settings = vec![
            setting("lock_timeout", "7s"),
            setting("default_transaction_read_only", "off"),
            setting("standard_conforming_strings", "off"),
            setting("of_nobody.text", r"a 'quoted' \ value"),
        ];
        config.target_session = TargetSession::ReadWrite;
        let mut conn = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
        let sql = "SELECT current_setting('lock_timeout'), current_setting('of_nobody.text')";
        let rows = conn.query_once(sql, &[]).await.unwrap();
        assert_eq!(rows[0].get_str(0).unwrap(), "7s");
        assert_eq!(rows[0].get_str(1).unwrap(), r"a 'quoted' \ value");
    });
}

#[test]
fn a_setting_that_the_server_refuses_refuses_the_connection() {
    with_server(|server| async move {
        let mut config = server.config();
        config.session_settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
        let error = Connection::connect(&config, SearchPath::System).await.unwrap_err();
        assert_eq!(error.sqlstate().unwrap().as_str(), "42704");
    });
}
