//! A daemon that speaks TLS, and its clients.

use super::{Daemon, NOWHERE, PATIENCE, data_dir};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::PathBuf,
    sync::Arc,
};

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Issues a certificate and its key, for a server on loopback or for a client.
    pub fn issue(&self, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        self.issue_for(vec!["localhost".to_owned(), "127.0.0.1".to_owned()], usage)
    }

    /// The same for these names.
    pub fn issue_for(&self, names: Vec<String>, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        roots
    }
}

/// A daemon with TLS.
pub struct Sealed {
    pub daemon: Daemon,
    pub cert: PathBuf,
    pub key: PathBuf,
    _dir: tempfile::TempDir,
}

impl Sealed {
    pub fn start(authority: &Authority, client_ca: Option<&Authority>) -> Self {
        Self::start_with(authority, client_ca, &[])
    }

    pub fn start_with(authority: &Authority, client_ca: Option<&Authority>, more: &[&str]) -> Self {
        let dir = data_dir();
        let [cert, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|name| dir.path().join(name));
        let (cert_pem, key_pem) = authority.issue(ExtendedKeyUsagePurpose::ServerAuth);
        fs::write(&cert, cert_pem).unwrap();
        fs::write(&key, key_pem).unwrap();
        let mut args = vec!["--cores", "1", "--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
        args.extend(more);
        if let Some(client_ca) = client_ca {
            fs::write(&ca, &client_ca.pem).unwrap();
            args.extend(["--tls-client-ca", ca.to_str().unwrap()]);
        }
        let daemon = Daemon::start(&dir.path().join("data"), NOWHERE, &args);
        Self { daemon, cert, key, _dir: dir }
    }

    pub fn connect(&self, roots: RootCertStore, identity: Option<(String, String)>) -> io::Result<Conversation> {
        let versions = [&rustls::version::TLS13];
        self.connect_by(&versions, roots, identity)
    }

    pub fn connect_by(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        roots: RootCertStore,
        identity: Option<(String, String)>,
    ) -> io::Result<Conversation> {
        let mut conversation = self.begin(versions, roots, identity)?;
        // With TLS 1.3 a client learns at its first read whether it was accepted.
        conversation.push(b"1")?;
        assert_eq!(conversation.0.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        Ok(conversation)
    }

    /// The TLS of a client that offers these protocols.
    pub fn client_with(&self, protocols: Vec<Vec<u8>>, roots: RootCertStore) -> ClientConnection {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols;
        ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).unwrap()
    }

    /// A connection whose handshake has not begun.
    pub fn begin(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        roots: RootCertStore,
        identity: Option<(String, String)>,
    ) -> io::Result<Conversation> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).unwrap();
        let stream = TcpStream::connect(self.daemon.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Conversation(StreamOwned::new(client, stream)))
    }
}

/// A client's connection under TLS.
pub struct Conversation(pub StreamOwned<ClientConnection, TcpStream>);

impl Conversation {
    /// Pushes, and returns the head and body of the reply.
    pub fn push(&mut self, payload: &[u8]) -> io::Result<String> {
        self.push_as("Host: t", payload)
    }

    /// The same with these header lines.
    pub fn push_as(&mut self, fields: &str, payload: &[u8]) -> io::Result<String> {
        let head = format!("POST /push/q HTTP/1.1\r\n{fields}\r\nContent-Length: {}\r\n\r\n", payload.len());
        self.0.write_all(&[head.as_bytes(), payload].concat())?;
        self.receive()
    }

    pub fn receive(&mut self) -> io::Result<String> {
        let mut text = String::new();
        loop {
            let mut buffer = [0; 4096];
            let length = self.0.read(&mut buffer)?;
            text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Every reply here is JSON that ends with a newline.
            if text.ends_with("}\n") {
                return Ok(text);
            }
        }
    }

    pub fn is_served(&mut self) -> bool {
        self.push(b"2").is_ok_and(|answer| answer.starts_with("HTTP/1.1 201 "))
    }
}
