//! SCRAM bound to the server's certificate.

use forebay_pgwire::{AuthError, ChannelBinding, Connection, Error, Host, SearchPath, SslMode};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

use super::middle::terminate;
use super::pki::Ca;
use super::server::{ADDRESS, TlsServer, seen_as};
use crate::common::run;

const BOTH: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";

#[test]
fn scram_is_bound_by_the_hash_of_the_certificates_own_signature() {
    // Ed25519 has no hash function, so binding is impossible.
    for (algorithm, can_be_bound) in
        [(&PKCS_ECDSA_P256_SHA256, true), (&PKCS_ECDSA_P384_SHA384, true), (&PKCS_ED25519, false)]
    {
        let ca = Ca::signing_with("an authority of the tests", algorithm);
        let server = TlsServer::start_under(ca, |ca| ca.server(ADDRESS));
        run(async {
            let mut config = server.config_with_password("by_scram");
            for binding in [ChannelBinding::Disable, ChannelBinding::Prefer, ChannelBinding::Require] {
                config.tls.channel_binding = binding;
                match seen_as(&config).await {
                    Ok(seen) => assert_eq!(seen, ("by_scram".to_owned(), true)),
                    Err(Error::Auth(AuthError::NotBound)) => {
                        assert!(!can_be_bound && binding == ChannelBinding::Require);
                    }
                    Err(error) => panic!("{algorithm:?} {binding}: {error}"),
                }
            }
        });
    }
}

#[test]
fn whoever_requires_binding_is_not_let_in_in_another_way() {
    let server = TlsServer::shared();
    run(async {
        for role in ["by_cleartext", "by_md5", "trusted"] {
            let mut config = server.config_with_password(role);
            config.tls.channel_binding = ChannelBinding::Require;
            let error = Connection::connect(&config, SearchPath::Inherited).await.unwrap_err();
            assert!(matches!(error, Error::Auth(AuthError::NotBound)), "{role}: {error}");
        }
        let mut config = server.config_with_password("by_scram");
        config.tls.channel_binding = ChannelBinding::Require;
        config.tls.mode = SslMode::Disable;
        let error = Connection::connect(&config, SearchPath::Inherited).await.unwrap_err();
        assert!(matches!(error, Error::Auth(AuthError::NotBound)), "{error}");
        config.host = Host::Unix(server.cluster.socket_dir());
        let error = Connection::connect(&config, SearchPath::Inherited).await.unwrap_err();
        assert!(matches!(error, Error::Auth(AuthError::NotBound)), "{error}");
    });
}

#[test]
fn somebody_between_who_passes_the_proof_on_is_refused_by_the_server() {
    let server = TlsServer::shared();
    let relayed = |binding| {
        // The attacker's certificate is even valid: `require` does not verify it, and an authority can be deceived.
        let middle = terminate(&server.ca.server(ADDRESS), server.cluster.port(), |bytes| bytes);
        let mut config = server.config_with_password("by_scram");
        (config.port, config.tls.channel_binding) = (middle.port, binding);
        let result = run(seen_as(&config));
        middle.saw();
        result
    };
    assert_eq!(relayed(ChannelBinding::Disable).unwrap().0, "by_scram", "the relay as such works");
    for binding in [ChannelBinding::Prefer, ChannelBinding::Require] {
        let error = relayed(binding).unwrap_err();
        assert!(error.sqlstate().is_some(), "the server reports it: {error}");
    }
}

#[test]
fn somebody_between_who_takes_the_offer_to_bind_away_is_found() {
    let server = TlsServer::shared();
    let stripped = |binding| {
        let strip = |bytes: Vec<u8>| match bytes.windows(BOTH.len()).position(|window| window == BOTH) {
            None => bytes,
            // The whole message: tag, length, kind, one mechanism.
            Some(_) => [&b"R\0\0\0\x17\0\0\0\x0a"[..], b"SCRAM-SHA-256\0\0"].concat(),
        };
        let middle = terminate(&server.ca.server(ADDRESS), server.cluster.port(), strip);
        let mut config = server.config_with_password("by_scram");
        (config.port, config.tls.channel_binding) = (middle.port, binding);
        let result = run(seen_as(&config));
        middle.saw();
        result
    };
    assert_eq!(stripped(ChannelBinding::Disable).unwrap().0, "by_scram", "the rewritten offer as such works");
    // The client says that it could have bound, so the server knows that its offer was removed.
    let error = stripped(ChannelBinding::Prefer).unwrap_err();
    assert!(error.to_string().contains("channel binding"), "{error}");
    let error = stripped(ChannelBinding::Require).unwrap_err();
    assert!(matches!(error, Error::Auth(AuthError::NotBound)), "{error}");
}
