//! Log-ins.

use forebay_pgwire::{AuthError, Config, Connection, Error, SearchPath, SqlClass, SqlState, TransactionStatus};

use crate::common::{PASSWORD, SUPERUSER, with_server};

const ROLES_WITH_PASSWORD: [&str; 3] = ["by_cleartext", "by_md5", "by_scram"];

async fn current_user(config: &Config) -> String {
    let mut conn = Connection::connect(config, SearchPath::Inherited).await.unwrap();
    let rows = conn.query_once("SELECT current_user::text", &[]).await.unwrap();
    rows[0].get_str(0).unwrap().to_owned()
}

#[test]
fn every_method_logs_in_with_the_right_password_over_unix_and_tcp() {
    with_server(|server| async move {
        for role in ROLES_WITH_PASSWORD {
            assert_eq!(current_user(&server.unix_config(role, Some(PASSWORD))).await, role);
            // This server has no TLS. `tls::identities` tests a password in clear.
            if role != "by_cleartext" {
                assert_eq!(current_user(&server.tcp_config(role, Some(PASSWORD))).await, role);
            }
        }
        assert_eq!(current_user(&server.unix_config("trusted", None)).await, "trusted");
        assert_eq!(current_user(&server.tcp_config("trusted", None)).await, "trusted");
    });
}

#[test]
fn a_wrong_password_is_28p01_with_every_method() {
    with_server(|server| async move {
        for role in ROLES_WITH_PASSWORD {
            let error =
                Connection::connect(&server.unix_config(role, Some("wrong")), SearchPath::Inherited).await.unwrap_err();
            assert_eq!(error.sqlstate(), Some(SqlState::INVALID_PASSWORD), "{role}: {error}");
            assert_eq!(error.sqlstate().unwrap().class(), SqlClass::INVALID_AUTHORIZATION);
            assert!(error.ends_connection());
        }
    });
}

#[test]
fn a_missing_password_is_told_from_a_wrong_one() {
    with_server(|server| async move {
        for role in ROLES_WITH_PASSWORD {
            let error = Connection::connect(&server.unix_config(role, None), SearchPath::Inherited).await.unwrap_err();
            assert!(matches!(error, Error::Auth(AuthError::PasswordMissing)), "{role}: {error}");
        }
    });
}

#[test]
fn a_role_or_database_that_is_not_let_in_gives_the_servers_code() {
    with_server(|server| async move {
        let error = Connection::connect(&server.unix_config("barred", None), SearchPath::Inherited).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::INVALID_AUTHORIZATION), "{error}");
        let mut config = server.config();
        config.database = Some("no such database".to_owned());
        let error = Connection::connect(&config, SearchPath::Inherited).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::INVALID_CATALOG_NAME), "{error}");
    });
}

#[test]
fn a_url_with_everything_encoded_logs_in_and_sets_what_it_says() {
    with_server(|server| async move {
        let dir = server.socket_dir().display().to_string().replace('/', "%2F");
        let password = "it%27s%20%22p%3Aa%40s%2Fs%22%20%E2%82%AC";
        let url = format!(
            "postgres://by_scram:{password}@{dir}:{}/postgres?application_name=a%20b&sslmode=prefer\
             &options=-c%20lock_timeout%3D1234",
            server.port
        );
        let mut config = Config::from_url(&url).unwrap();
        config.options.push(("statement_timeout".to_owned(), "4321ms".to_owned()));
        let mut conn = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
        let shown = conn.simple("SHOW application_name; SHOW lock_timeout; SHOW statement_timeout").await.unwrap();
        let shown: Vec<&str> = shown.iter().map(|result| result.rows[0].get_str(0).unwrap()).collect();
        assert_eq!(shown, ["a b", "1234ms", "4321ms"]);
    });
}

#[test]
fn a_fresh_connection_knows_its_server_and_is_idle() {
    with_server(|server| async move {
        let mut conn = server.connect().await;
        assert!(!conn.is_broken());
        assert_eq!(conn.transaction_status(), TransactionStatus::Idle);
        assert_eq!(conn.parameter("client_encoding"), Some("UTF8"));
        assert!(conn.parameter("server_version").is_some_and(|version| version.starts_with(char::is_numeric)));
        assert_eq!(conn.parameter("no_such_parameter"), None);
        let rows = conn.query_once("SELECT pg_backend_pid()", &[]).await.unwrap();
        assert_eq!(conn.process_id(), Some(rows[0].get_i32(0).unwrap()));
        conn.simple("SET application_name = 'renamed'").await.unwrap();
        assert_eq!(conn.parameter("application_name"), Some("renamed"), "kept up to date");
    });
}

#[test]
fn a_host_name_is_looked_up_and_its_addresses_tried_in_turn() {
    with_server(|server| async move {
        // `localhost` may be ::1 first, where the server does not listen.
        let mut config = server.tcp_config(SUPERUSER, None);
        config.host = forebay_pgwire::Host::Tcp("localhost".to_owned());
        let mut conn = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
        conn.simple("SELECT 1").await.unwrap();
    });
}
