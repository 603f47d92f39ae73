//! TLS of the daemon's own port: its certificate, the clients that it accepts, and the records of a connection.
//!
//! rustls does the work with `ring`, as it does towards PostgreSQL. Supported are TLS 1.2 and 1.3, and HTTP/1.1 by ALPN. There is
//! no early data, since an attacker can send that twice. A session is resumed only under the certificates that it began with.

mod session;

pub use session::{TlsSession, WHOLE_RECORD_BYTES_MAX};

use crate::{config::TlsConfig, private_files::AtPath};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

/// The protocol that the daemon offers within TLS (ALPN).
const ALPN: &[u8] = b"http/1.1";

/// What is wrong with a file of certificates or keys.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It is not read, or is no PEM.
    #[error(transparent)]
    Pem(#[from] pem::Error),
    /// It holds no certificate.
    #[error("there is no certificate in it")]
    Empty,
    /// TLS cannot use it; this includes a key that does not belong to the certificate.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// Clients cannot be verified with it.
    #[error(transparent)]
    Verifier(#[from] VerifierBuilderError),
}

/// Why TLS cannot be spoken as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is wrong.
    #[error(transparent)]
    File(#[from] AtPath<CertificateError>),
    /// The cryptography has none of the versions.
    #[error("TLS cannot be set up: {0}")]
    Versions(rustls::Error),
}

/// The daemon's side of TLS, for connections to come.
#[derive(Debug)]
pub struct Tls {
    files: TlsConfig,
    server: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads certificates and key.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn open(files: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self { files: files.clone(), server: RwLock::new(Arc::new(load(files)?)) })
    }

    /// Reads them again, for connections to come. If something is wrong with them, the old ones stay in use.
    pub fn reload(&self) {
        match load(&self.files) {
            Ok(server) => {
                *self.server.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(server);
                tracing::info!("certificates were read again");
            }
            Err(error) => {
                tracing::error!(code = "tls_not_reloaded", %error, "the old certificates stay in use");
            }
        }
    }

    /// Begins a session with a client that has just connected.
    ///
    /// # Errors
    /// [`rustls::Error`] when memory is short.
    pub fn accept(&self) -> Result<TlsSession, rustls::Error> {
        let server = Arc::clone(&self.server.read().unwrap_or_else(PoisonError::into_inner));
        TlsSession::new(server, self.files.client_ca.is_some())
    }
}

fn load(files: &TlsConfig) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&files.cert).map_err(AtPath::new(&files.cert))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(CertificateError::from);
    let key = key.map_err(AtPath::new(&files.key))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Versions)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => builder.with_client_cert_verifier(client_verifier(path, provider).map_err(AtPath::new(path))?),
    };
    let server = builder.with_single_cert(chain, key).map_err(CertificateError::from);
    let mut server = server.map_err(AtPath::new(&files.cert))?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    Ok(server)
}

fn client_verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
}

/// The certificates of a file, of which there is at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let certificates = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() { Err(CertificateError::Empty) } else { Ok(certificates) }
}
