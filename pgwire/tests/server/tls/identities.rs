//! The client's identity: passwords with each method over each kind of connection, and client certificates.

use forebay_pgwire::{
    AuthError, ChannelBinding, Config, Connection, Error, Host, SearchPath, SqlClass, SslMode, TlsError,
};

use super::pki::Ca;
use super::server::{ADDRESS, TlsServer, seen_as};
use crate::common::{PASSWORD, run};

const ROLES_WITH_PASSWORD: [&str; 3] = ["by_cleartext", "by_md5", "by_scram"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Unix,
    Open,
    Tls,
}

fn config(server: &TlsServer, role: &str, way: Way) -> Config {
    let mut config = server.config_with_password(role);
    match way {
        Way::Unix => config.host = Host::Unix(server.cluster.socket_dir()),
        Way::Open => config.tls.mode = SslMode::Disable,
        Way::Tls => {}
    }
    config
}

#[test]
fn each_method_logs_in_on_each_way_but_clear_text_in_the_open() {
    let server = TlsServer::shared();
    run(async {
        for role in ROLES_WITH_PASSWORD {
            for way in [Way::Unix, Way::Open, Way::Tls] {
                let result = seen_as(&config(&server, role, way)).await;
                if (role, way) == ("by_cleartext", Way::Open) {
                    let refused = matches!(result, Err(Error::Auth(AuthError::CleartextInTheOpen)));
                    assert!(refused, "{result:?}");
                } else {
                    assert_eq!(result.unwrap(), (role.to_owned(), way == Way::Tls), "{role} {way:?}");
                }
            }
        }
    });
}

#[test]
fn case_65_a_wrong_password_is_28p01_on_each_way_and_a_missing_one_is_told_from_it() {
    let server = TlsServer::shared();
    run(async {
        for role in ROLES_WITH_PASSWORD {
            for way in [Way::Unix, Way::Open, Way::Tls] {
                if (role, way) == ("by_cleartext", Way::Open) {
                    continue;
                }
                let mut config = config(&server, role, way);
                config.password = Some("wrong".to_owned());
                let error = Connection::connect(&config, SearchPath::Inherited).await.unwrap_err();
                let said = error.sqlstate().map(|state| state.to_string());
                assert_eq!(said.as_deref(), Some("28P01"), "{role} {way:?}: {error}");
                config.password = None;
                let error = Connection::connect(&config, SearchPath::Inherited).await.unwrap_err();
                assert!(matches!(error, Error::Auth(AuthError::PasswordMissing)), "{role} {way:?}: {error}");
            }
        }
    });
}

/// The settings for the role with its certificate.
fn with_certificate(server: &TlsServer, role: &str, ca: &Ca, named: &str) -> Config {
    let identity = ca.client(named);
    let mut config = server.config_with_password(role);
    config.tls.cert = Some(server.files.put(&format!("{role}-{named}.crt"), &identity.cert_pem));
    config.tls.key = Some(server.files.put(&format!("{role}-{named}.key"), &identity.key_pem));
    config
}

#[test]
fn a_certificate_logs_in_the_role_it_is_for_and_no_other() {
    let server = TlsServer::shared();
    run(async {
        for role in ["by_cert", "by_scram_and_cert"] {
            let config = with_certificate(&server, role, &server.ca, role);
            assert_eq!(seen_as(&config).await.unwrap(), (role.to_owned(), true));

            let another = with_certificate(&server, role, &server.ca, "somebody_else");
            let error = Connection::connect(&another, SearchPath::Inherited).await.unwrap_err();
            assert_eq!(error.sqlstate().unwrap().class(), SqlClass::INVALID_AUTHORIZATION, "{error}");

            let without = server.config_with_password(role);
            let error = Connection::connect(&without, SearchPath::Inherited).await.unwrap_err();
            assert_eq!(error.sqlstate().unwrap().class(), SqlClass::INVALID_AUTHORIZATION, "{error}");
        }
        let mut wrong = with_certificate(&server, "by_scram_and_cert", &server.ca, "by_scram_and_cert");
        wrong.password = Some("wrong".to_owned());
        let error = Connection::connect(&wrong, SearchPath::Inherited).await.unwrap_err();
        assert_eq!(error.sqlstate().unwrap().class(), SqlClass::INVALID_AUTHORIZATION, "{error}");
    });
}

#[test]
fn both_versions_of_tls_carry_certificates_and_bound_passwords() {
    for (version, settings) in
        [("TLSv1.3", [("ssl_min_protocol_version", "TLSv1.3")]), ("TLSv1.2", [("ssl_max_protocol_version", "TLSv1.2")])]
    {
        let ca = Ca::new("an authority of the tests");
        let server = TlsServer::start_with(ca, |ca| ca.server(ADDRESS), &settings);
        run(async {
            for role in ["by_cert", "by_scram_and_cert"] {
                let mut config = with_certificate(&server, role, &server.ca, role);
                if role == "by_scram_and_cert" {
                    config.tls.channel_binding = ChannelBinding::Require;
                }
                let mut conn = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
                let sql = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
                let rows = conn.query_once(sql, &[]).await.unwrap();
                assert_eq!(rows[0].get_str(0).unwrap(), version);
            }
            let stranger = with_certificate(&server, "by_cert", &Ca::new("a stranger"), "by_cert");
            let error = Connection::connect(&stranger, SearchPath::Inherited).await.unwrap_err();
            assert!(matches!(error, Error::Tls(TlsError::Alert { of_certificate: true, .. })), "{version}: {error}");
        });
    }
}

#[test]
fn a_certificate_of_another_authority_is_refused_by_the_server_with_an_alert() {
    let server = TlsServer::shared();
    let stranger = Ca::new("a stranger");
    run(async {
        let config = with_certificate(&server, "by_cert", &stranger, "by_cert");
        let error = Connection::connect(&config, SearchPath::Inherited).await.unwrap_err();
        assert!(matches!(error, Error::Tls(TlsError::Alert { of_certificate: true, .. })), "{error}");
    });
}

#[test]
fn a_key_that_is_not_the_certificates_is_found_before_connecting() {
    let server = TlsServer::shared();
    run(async {
        let mut config = with_certificate(&server, "by_cert", &server.ca, "by_cert");
        config.tls.key = Some(server.files.put("other.key", &server.ca.client("by_cert").key_pem));
        let error = Connection::connect(&config, SearchPath::Inherited).await.unwrap_err();
        assert!(matches!(error, Error::Config(_)) && error.to_string().contains("other.key"), "{error}");
    });
}

#[test]
fn the_password_is_found_in_the_file_of_passwords() {
    let server = TlsServer::shared();
    let line = |password: &str| format!("127.0.0.1:{}:*:by_scram:{password}\n", server.cluster.port());
    let escaped = PASSWORD.replace('\\', r"\\").replace(':', r"\:");
    let file = server.files.put("pgpass", &line(&escaped));
    run(async {
        let mut config = server.config("by_scram");
        config.passfile = Some(file.clone());
        assert_eq!(seen_as(&config).await.unwrap().0, "by_scram");
        config.password = Some("wrong".to_owned());
        assert!(seen_as(&config).await.is_err(), "a configured password takes precedence over the file");

        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        config.password = None;
        let error = Connection::connect(&config, SearchPath::Inherited).await.unwrap_err();
        assert!(matches!(error, Error::Auth(AuthError::PassFileIgnored(_))), "{error}");
        assert!(error.to_string().contains("chmod 0600"), "{error}");
        config.user = "trusted".to_owned();
        let conn = Connection::connect(&config, SearchPath::Inherited).await.unwrap();
        assert!(conn.pass_file_warning().is_some(), "reported also if no password was needed");
    });
}
