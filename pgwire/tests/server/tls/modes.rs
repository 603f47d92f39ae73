//! What each `sslmode` accepts and refuses.

use forebay_pgwire::{
    CertificateProblem, Config, ConfigError, Connection, Error, Host, RootCert, SearchPath, SqlState, SslMode, TlsError,
};

use super::pki::Ca;
use super::server::{ADDRESS, OTHER_NAME, TlsServer, seen_as};
use crate::common::{SUPERUSER, TestServer, run};

const ALL: [SslMode; 6] =
    [SslMode::Disable, SslMode::Allow, SslMode::Prefer, SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull];

fn problem(result: Result<(String, bool), Error>) -> CertificateProblem {
    match result {
        Err(Error::Tls(TlsError::Certificate { problem, .. })) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_mode_connects_to_the_right_server_and_all_but_disable_are_encrypted() {
    let server = TlsServer::shared();
    run(async {
        for mode in ALL {
            let mut config = server.config("trusted");
            config.tls.mode = mode;
            let (role, encrypted) = seen_as(&config).await.unwrap();
            assert_eq!((role.as_str(), encrypted), ("trusted", mode != SslMode::Disable), "{mode}");
        }
    });
}

#[test]
fn a_root_that_the_certificate_does_not_lead_to_is_refused_by_whoever_has_one() {
    let server = TlsServer::shared();
    let stranger = server.files.put("stranger.pem", &Ca::new("an authority of the tests").pem());
    run(async {
        for mode in ALL {
            let mut config = server.config("trusted");
            config.tls.mode = mode;
            config.tls.root_cert = Some(RootCert::File(stranger.clone()));
            let result = seen_as(&config).await;
            if mode >= SslMode::Require {
                assert_eq!(problem(result), CertificateProblem::UnknownIssuer, "{mode}");
            } else {
                assert_eq!(result.unwrap().1, mode != SslMode::Disable, "{mode} does not verify it");
            }
        }
        let mut config = server.config("trusted");
        (config.tls.mode, config.tls.root_cert) = (SslMode::Require, None);
        assert!(seen_as(&config).await.unwrap().1, "encrypted with any server");
    });
}

#[test]
fn a_name_that_the_certificate_is_not_for_is_refused_by_verify_full_alone() {
    let server = TlsServer::shared();
    run(async {
        for mode in ALL {
            let mut config = server.config("trusted");
            config.tls.mode = mode;
            config.host = Host::Tcp(OTHER_NAME.to_owned());
            let result = seen_as(&config).await;
            if mode == SslMode::VerifyFull {
                assert_eq!(problem(result), CertificateProblem::WrongName);
            } else {
                assert_eq!(result.unwrap().0, "trusted", "{mode}");
            }
        }
    });
}

#[test]
fn a_certificate_for_a_name_is_good_for_that_name_and_not_for_the_address() {
    let server = TlsServer::start(|ca| ca.server(OTHER_NAME));
    run(async {
        let mut config = server.config("trusted");
        assert_eq!(problem(seen_as(&config).await), CertificateProblem::WrongName);
        config.host = Host::Tcp(OTHER_NAME.to_owned());
        assert!(seen_as(&config).await.unwrap().1);
    });
}

#[test]
fn an_authoritys_own_certificate_is_refused_as_a_servers() {
    let server = TlsServer::start(|ca| ca.own_identity(ADDRESS));
    run(async {
        for mode in [SslMode::VerifyCa, SslMode::VerifyFull] {
            let mut config = server.config("trusted");
            config.tls.mode = mode;
            assert_eq!(problem(seen_as(&config).await), CertificateProblem::Other);
        }
    });
}

#[test]
fn case_65_an_expired_certificate_is_refused_by_whoever_verifies() {
    let server = TlsServer::start(|ca| ca.expired_server(ADDRESS));
    run(async {
        for mode in [SslMode::VerifyCa, SslMode::VerifyFull] {
            let mut config = server.config("trusted");
            config.tls.mode = mode;
            assert_eq!(problem(seen_as(&config).await), CertificateProblem::Expired);
        }
    });
}

#[test]
fn case_65_a_server_that_refuses_tls_is_left_by_whoever_requires_it() {
    let server = TestServer::shared();
    let ca = Ca::new("nobody's");
    let files = super::pki::Files::new();
    let root = RootCert::File(files.put("ca.pem", &ca.pem()));
    run(async {
        for mode in ALL {
            let mut config = server.tcp_config(SUPERUSER, None);
            config.tls.mode = mode;
            config.tls.root_cert = Some(root.clone());
            match seen_as(&config).await {
                Ok((_, encrypted)) => assert!(mode < SslMode::Require && !encrypted, "{mode}"),
                Err(Error::Tls(TlsError::Refused { mode: said })) => assert!(mode >= SslMode::Require && said == mode),
                Err(error) => panic!("{mode}: {error}"),
            }
        }
    });
}

#[test]
fn a_server_that_insists_on_encryption_gets_it_or_says_so() {
    let server = TlsServer::shared();
    run(async {
        let mut config = server.config("only_encrypted");
        assert!(seen_as(&config).await.unwrap().1);
        config.tls.mode = SslMode::Prefer;
        assert!(seen_as(&config).await.unwrap().1);
        config.tls.mode = SslMode::Disable;
        let error = Connection::connect(&config, SearchPath::Inherited).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(SqlState::INVALID_AUTHORIZATION), "{error}");
    });
}

#[test]
fn the_mode_means_nothing_on_a_unix_socket() {
    let server = TlsServer::shared();
    run(async {
        for mode in ALL {
            let mut config = server.config("trusted");
            config.host = Host::Unix(server.cluster.socket_dir());
            (config.tls.mode, config.tls.root_cert) = (mode, None);
            assert!(!seen_as(&config).await.unwrap().1, "{mode}");
        }
    });
}

#[test]
fn the_systems_roots_do_not_vouch_for_a_private_authority() {
    let server = TlsServer::shared();
    run(async {
        let mut config = server.config("trusted");
        config.tls.root_cert = Some(RootCert::System);
        match seen_as(&config).await {
            Err(Error::Tls(TlsError::Certificate { problem: CertificateProblem::UnknownIssuer, .. })) => {}
            // A system without root certificates.
            Err(Error::Config(ConfigError::Value { name: "sslrootcert", .. })) => {}
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let server = TlsServer::shared();
    let refused = |change: &dyn Fn(&mut Config)| {
        let mut config = server.config("trusted");
        change(&mut config);
        match run(Connection::connect(&config, SearchPath::Inherited)) {
            Err(Error::Config(ConfigError::File { path, reason })) => (path, reason),
            other => panic!("{other:?}"),
        }
    };
    let (path, _) = refused(&|config| config.tls.root_cert = Some(RootCert::File("/no/such/ca.pem".into())));
    assert_eq!(path.to_str(), Some("/no/such/ca.pem"));
    let empty = server.files.put("empty.pem", "no certificate\n");
    let (path, reason) = refused(&|config| config.tls.root_cert = Some(RootCert::File(empty.clone())));
    assert!(path == empty && reason.contains("no certificate"), "{reason}");

    let client = server.ca.client("trusted");
    let cert = server.files.put("exposed.crt", &client.cert_pem);
    let key = server.files.put("exposed.key", &client.key_pem);
    let with_key = |config: &mut Config| {
        (config.tls.cert, config.tls.key) = (Some(cert.clone()), Some(key.clone()));
    };
    let chmod = |mode| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    chmod(0o644);
    let (path, reason) = refused(&with_key);
    assert!(path == key && reason.contains("0644"), "{reason}");
    std::fs::write(&key, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n").unwrap();
    chmod(0o600);
    let (path, reason) = refused(&with_key);
    assert!(path == key && reason.contains("encrypted"), "{reason}");
}
