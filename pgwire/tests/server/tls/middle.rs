//! An attacker between the client and the server.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use forebay_pgwire::{
    AuthError, Config, ConfigError, Connection, Error, ProtocolError, RootCert, SearchPath, SslMode, TlsError,
};

use super::pki::{Ca, Files};
use super::server::{ADDRESS, TlsServer, seen_as};
use crate::common::{PASSWORD, run};

/// The first bytes of a client: the length 8 and the code of the TLS request.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A listener for one client, with the thread that serves the client. The thread returns the bytes that it saw.
pub(crate) struct Middle<T> {
    pub(crate) port: u16,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Middle<T> {
    /// Accepts one client, reads its TLS request, and continues with `treat`.
    pub(crate) fn start(treat: impl FnOnce(TcpStream) -> T + Send + 'static) -> Self {
        let listener = TcpListener::bind((ADDRESS, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            // If the client hangs, the test must fail.
            client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let mut request = [0; 8];
            client.read_exact(&mut request).unwrap();
            assert_eq!(request, SSL_REQUEST);
            treat(client)
        });
        Self { port, thread }
    }

    /// The bytes that the attacker saw.
    pub(crate) fn saw(self) -> T {
        self.thread.join().unwrap()
    }
}

/// All further bytes of the client up to the end of the stream.
fn read_all(mut client: &TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // A reset ends the stream, too.
    drop(client.read_to_end(&mut said));
    said
}

/// Relays bytes in both directions until one side closes. Returns the client's bytes.
fn relay(client: TcpStream, server: TcpStream, said: &Mutex<Vec<u8>>) {
    std::thread::scope(|scope| {
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        scope.spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = from_client.read(&mut chunk) {
                said.lock().unwrap().extend_from_slice(&chunk[..length]);
                if to_server.write_all(&chunk[..length]).is_err() {
                    break;
                }
            }
            drop(to_server.shutdown(std::net::Shutdown::Both));
        });
        let (mut from_server, mut to_client) = (server, client);
        drop(std::io::copy(&mut from_server, &mut to_client));
        drop(to_client.shutdown(std::net::Shutdown::Both));
    });
}

fn holds(said: &[u8], text: &str) -> bool {
    said.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn case_65_a_man_in_the_middle_who_answers_n_gets_nothing_from_whoever_requires_tls() {
    let server = TlsServer::shared();
    for mode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
        let middle = Middle::start(|mut client| {
            client.write_all(b"N").unwrap();
            read_all(&client)
        });
        let mut config = server.config_with_password("by_cleartext");
        (config.port, config.tls.mode) = (middle.port, mode);
        let error = run(Connection::connect(&config, SearchPath::Inherited)).unwrap_err();
        assert!(matches!(error, Error::Tls(TlsError::Refused { mode: said }) if said == mode), "{error}");
        assert!(middle.saw().is_empty(), "not even the role");
    }
}

#[test]
fn case_65_a_man_in_the_middle_who_answers_n_to_prefer_never_sees_the_password() {
    let server = TlsServer::shared();
    for (role, gets_in) in [("by_cleartext", false), ("by_md5", true), ("by_scram", true)] {
        let upstream = server.cluster.port();
        let middle = Middle::start(move |mut client| {
            client.write_all(b"N").unwrap();
            let said = Mutex::new(Vec::new());
            relay(client, TcpStream::connect((ADDRESS, upstream)).unwrap(), &said);
            said.into_inner().unwrap()
        });
        let mut config = server.config_with_password(role);
        (config.port, config.tls.mode) = (middle.port, SslMode::Prefer);
        match run(seen_as(&config)) {
            Ok((_, encrypted)) => assert!(gets_in && !encrypted),
            Err(Error::Auth(AuthError::CleartextInTheOpen)) => assert!(!gets_in),
            Err(error) => panic!("{role}: {error}"),
        }
        let said = middle.saw();
        assert!(holds(&said, role), "the attacker sees the role");
        assert!(!holds(&said, PASSWORD), "{role}");
    }
}

#[test]
fn case_65_whoever_requires_binding_does_not_go_on_without_tls() {
    let server = TlsServer::shared();
    let middle = Middle::start(|mut client| {
        client.write_all(b"N").unwrap();
        read_all(&client)
    });
    let mut config = server.config_with_password("by_scram");
    (config.port, config.tls.mode) = (middle.port, SslMode::Prefer);
    config.tls.channel_binding = forebay_pgwire::ChannelBinding::Require;
    let error = run(Connection::connect(&config, SearchPath::Inherited)).unwrap_err();
    assert!(matches!(error, Error::Tls(TlsError::Refused { .. })), "{error}");
    assert!(middle.saw().is_empty());
}

/// An AuthenticationOk, which would make the client believe that it is logged in.
const AUTHENTICATION_OK: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 0];

#[test]
fn bytes_slipped_in_before_encryption_are_found_and_nothing_is_sent() {
    let server = TlsServer::shared();
    let answer_with = |bytes: Vec<u8>| {
        let middle = Middle::start(move |mut client| {
            client.write_all(&bytes).unwrap();
            read_all(&client)
        });
        let mut config = server.config_with_password("by_cleartext");
        (config.port, config.tls.mode) = (middle.port, SslMode::Prefer);
        let error = run(Connection::connect(&config, SearchPath::Inherited)).unwrap_err();
        (error, middle.saw())
    };
    for first in [b'S', b'N'] {
        let (error, said) = answer_with([&[first], &AUTHENTICATION_OK[..]].concat());
        assert!(matches!(error, Error::Tls(TlsError::BytesBeforeTls { bytes: 9 })), "{error}");
        assert!(said.is_empty());
    }
    let (error, said) = answer_with(b"HTTP/1.1 400 Bad Request\r\n".to_vec());
    assert!(matches!(error, Error::Tls(TlsError::BadAnswer { byte: b'H' })), "{error}");
    assert!(said.is_empty());
}

#[test]
fn bytes_slipped_in_a_moment_later_do_not_pass_for_tls() {
    let server = TlsServer::shared();
    let middle = Middle::start(|mut client| {
        client.write_all(b"S").unwrap();
        // The ClientHello has started, so the client has accepted the answer.
        let mut hello = [0; 1];
        client.read_exact(&mut hello).unwrap();
        client.write_all(&AUTHENTICATION_OK).unwrap();
        read_all(&client)
    });
    let mut config = server.config_with_password("by_cleartext");
    config.port = middle.port;
    let error = run(Connection::connect(&config, SearchPath::Inherited)).unwrap_err();
    assert!(matches!(error, Error::Tls(TlsError::Failed { .. })), "{error}");
    assert!(!holds(&middle.saw(), PASSWORD));
}

#[test]
fn a_server_that_has_no_time_for_tls_is_a_connect_error_and_its_words_are_not_read() {
    let server = TlsServer::shared();
    let middle = Middle::start(|mut client| {
        client.write_all(b"E\0\0\0\x1fSFATAL\0C28P01\0Mwrong\0\0").unwrap();
        read_all(&client)
    });
    let mut config = server.config("trusted");
    config.port = middle.port;
    let error = run(Connection::connect(&config, SearchPath::Inherited)).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }) && error.sqlstate().is_none(), "{error}");
    middle.saw();
}

#[test]
fn a_peer_that_falls_silent_or_leaves_during_the_handshake_ends_it_in_time() {
    let server = TlsServer::shared();
    let middle = Middle::start(|mut client| {
        client.write_all(b"S").unwrap();
        read_all(&client)
    });
    let mut config = server.config("trusted");
    (config.port, config.connect_timeout) = (middle.port, Some(Duration::from_millis(300)));
    let error = run(Connection::connect(&config, SearchPath::Inherited)).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    middle.saw();

    let middle = Middle::start(|mut client| client.write_all(b"S").unwrap());
    (config.port, config.connect_timeout) = (middle.port, None);
    let error = run(Connection::connect(&config, SearchPath::Inherited)).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    middle.saw();
}

/// Terminates the TLS of one client with another identity, and relays its bytes to the server over TLS. The server's
/// bytes pass through `rewrite`.
pub(crate) fn terminate(
    identity: &super::pki::Identity,
    upstream_port: u16,
    rewrite: impl Fn(Vec<u8>) -> Vec<u8> + Send + 'static,
) -> Middle<()> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let cert = CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
    let ours = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .unwrap();
    let theirs = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(provider)))
        .with_no_client_auth();
    Middle::start(move |mut client| {
        client.write_all(b"S").unwrap();
        let mut server = TcpStream::connect((ADDRESS, upstream_port)).unwrap();
        server.write_all(&SSL_REQUEST).unwrap();
        let mut answer = [0; 1];
        server.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"S");
        let tick = Some(Duration::from_millis(20));
        let to_client = rustls::ServerConnection::new(Arc::new(ours)).unwrap();
        let to_server = rustls::ClientConnection::new(Arc::new(theirs), ADDRESS.try_into().unwrap()).unwrap();
        client.set_read_timeout(tick).unwrap();
        server.set_read_timeout(tick).unwrap();
        let mut client = rustls::StreamOwned::new(to_client, client);
        let mut server = rustls::StreamOwned::new(to_server, server);
        while let (Ok(()), Ok(())) =
            (pass(&mut client, &mut server, |bytes| bytes), pass(&mut server, &mut client, &rewrite))
        {}
    })
}

/// Relays the bytes that arrive within a short time.
fn pass(from: &mut impl Read, to: &mut impl Write, rewrite: impl Fn(Vec<u8>) -> Vec<u8>) -> std::io::Result<()> {
    let mut chunk = vec![0; 16 * 1024];
    match from.read(&mut chunk) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(length) => {
            chunk.truncate(length);
            to.write_all(&rewrite(chunk))?;
            to.flush()
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A verifier that accepts every certificate.
#[derive(Debug)]
struct Gullible(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn case_65_a_man_in_the_middle_with_a_certificate_of_his_own_is_found_by_whoever_verifies() {
    let server = TlsServer::shared();
    let stranger = Ca::new("an authority of the tests");
    for mode in [SslMode::VerifyCa, SslMode::VerifyFull] {
        let middle = terminate(&stranger.server(ADDRESS), server.cluster.port(), |bytes| bytes);
        let mut config = server.config_with_password("by_cleartext");
        (config.port, config.tls.mode) = (middle.port, mode);
        let error = run(Connection::connect(&config, SearchPath::Inherited)).unwrap_err();
        assert!(matches!(error, Error::Tls(TlsError::Certificate { .. })), "{error}");
        middle.saw();
    }
}

#[test]
fn a_client_without_anything_to_verify_by_is_refused_and_not_let_through() {
    let files = Files::new();
    let mut config = Config::new(forebay_pgwire::Host::Tcp(ADDRESS.to_owned()), "u");
    config.tls.mode = SslMode::VerifyFull;
    let error = run(Connection::connect(&config, SearchPath::Inherited)).unwrap_err();
    assert!(matches!(error, Error::Config(ConfigError::RootCertMissing { .. })), "{error}");
    // A file without a valid certificate.
    config.tls.root_cert = Some(RootCert::File(files.put("junk", "-----BEGIN CERTIFICATE-----\nAAAA\n")));
    let error = run(Connection::connect(&config, SearchPath::Inherited)).unwrap_err();
    assert!(matches!(error, Error::Config(ConfigError::File { .. })), "{error}");
}

#[test]
fn a_server_that_talks_out_of_turn_under_tls_is_out_of_step() {
    let server = TlsServer::shared();
    // The server's first bytes are replaced by the end of a query that was never sent.
    let middle = terminate(&server.ca.server(ADDRESS), server.cluster.port(), |_| b"Z\0\0\0\x05I".to_vec());
    let mut config = server.config("trusted");
    config.port = middle.port;
    let error = run(Connection::connect(&config, SearchPath::Inherited)).unwrap_err();
    assert!(matches!(error, Error::Protocol(ProtocolError::Unexpected { .. })), "{error}");
    middle.saw();
}
