//! TLS of the daemon's own port: who it is, whom it lets in, and sessions.
//!
//! rustls does the work, on `ring`, as it does towards PostgreSQL. TLS 1.2 and 1.3, HTTP/1.1 by ALPN; no early data, which can be
//! sent twice; what is resumed was begun under the same certificates.

mod session;

pub use session::TlsSession;

use crate::{config::TlsConfig, private_files::of_path};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

/// What is spoken below TLS.
const ALPN: &[u8] = b"http/1.1";

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
    /// What is wrong with them, in words.
    pub fn open(files: &TlsConfig) -> Result<Self, String> {
        Ok(Self { files: files.clone(), server: RwLock::new(Arc::new(load(files)?)) })
    }

    /// Reads them again, for connections to come. If something is wrong with them, they stay what they were.
    pub fn reload(&self) {
        match load(&self.files) {
            Ok(server) => {
                *self.server.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(server);
                tracing::info!("certificates were read again");
            }
            Err(error) => {
                tracing::error!(code = "tls_not_reloaded", %error, "certificates stay what they were");
            }
        }
    }

    /// The session of a client that has just connected.
    ///
    /// # Errors
    /// [`rustls::Error`]; it is out of memory.
    pub fn accept(&self) -> Result<TlsSession, rustls::Error> {
        let server = Arc::clone(&self.server.read().unwrap_or_else(PoisonError::into_inner));
        TlsSession::new(server)
    }
}

fn load(files: &TlsConfig) -> Result<ServerConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| of_path(&files.key, &error))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| error.to_string())?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => builder.with_client_cert_verifier(client_verifier(path, provider)?),
    };
    // It also finds a key that does not belong to the certificate.
    let mut server = builder.with_single_cert(chain, key).map_err(|error| of_path(&files.cert, &error))?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    Ok(server)
}

fn client_verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| of_path(path, &error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    verifier.build().map_err(|error| of_path(path, &error))
}

/// The certificates of a file, of which there is at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| of_path(path, &error))?.collect();
    let certificates = certificates.map_err(|error| of_path(path, &error))?;
    if certificates.is_empty() {
        return Err(of_path(path, &"there is no certificate in it"));
    }
    Ok(certificates)
}
