//! The TLS settings of connections: from the options and their files to a configuration of rustls.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::Tls;
use super::verify::{Verification, Verifier};
use crate::error::{ConfigError, Error, TlsError};
use crate::options::{ChannelBinding, RootCert, SslMode, TlsOptions};

/// How the connections of one configuration are encrypted.
#[derive(Clone)]
pub(crate) struct TlsSettings {
    mode: SslMode,
    channel_binding: ChannelBinding,
    config: Arc<ClientConfig>,
}

/// The TLS settings for one host.
#[derive(Clone)]
pub(crate) struct HostTls {
    settings: TlsSettings,
    /// `None` if a certificate cannot have the host's name.
    name: Option<ServerName<'static>>,
}

impl TlsSettings {
    /// Reads the files that the options name. `None` if connections are not to be encrypted.
    pub(crate) fn load(options: &TlsOptions) -> Result<Option<Self>, ConfigError> {
        if options.mode == SslMode::Disable {
            return Ok(None);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            Verifier { verification: verification(options)?, algorithms: provider.signature_verification_algorithms };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|_| ConfigError::Value { name: "sslmode", reason: "this build has no cipher for TLS" })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match (&options.cert, &options.key) {
            (Some(cert), Some(key)) => {
                let chain = certificates(cert)?;
                builder
                    .with_client_auth_cert(chain, private_key(key)?)
                    .map_err(|error| ConfigError::file(key, error))?
            }
            _ => builder.with_no_client_auth(),
        };
        // Each connection has its own configuration, so it cannot resume the TLS session of another one.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Some(Self { mode: options.mode, channel_binding: options.channel_binding, config: Arc::new(config) }))
    }

    /// The settings for the host of this name or address.
    pub(crate) fn for_host(&self, host: &str) -> Result<HostTls, ConfigError> {
        // Without verification of the name, the host may have a name that no certificate can have.
        let name = ServerName::try_from(host.to_owned()).ok();
        if name.is_none() && self.mode == SslMode::VerifyFull {
            return Err(ConfigError::Value { name: "host", reason: "is not a name that a certificate can have" });
        }
        Ok(HostTls { settings: self.clone(), name })
    }
}

impl HostTls {
    pub(crate) fn mode(&self) -> SslMode {
        self.settings.mode
    }

    /// Whether the connection may continue without encryption if the server has no TLS.
    pub(crate) fn may_be_open(&self) -> bool {
        self.settings.mode <= SslMode::Prefer && self.settings.channel_binding != ChannelBinding::Require
    }

    /// Starts a TLS connection to the host at this address.
    pub(crate) fn start(&self, address: IpAddr) -> Result<Tls, Error> {
        // The address replaces a name that no certificate can have. It is not sent to the server.
        let name = self.name.clone().unwrap_or_else(|| ServerName::from(address));
        let session = ClientConnection::new(Arc::clone(&self.settings.config), name).map_err(TlsError::from)?;
        Ok(Tls::new(session))
    }
}

fn verification(options: &TlsOptions) -> Result<Verification, ConfigError> {
    let chain_only = match (options.mode, &options.root_cert) {
        (SslMode::VerifyFull, _) => false,
        (SslMode::VerifyCa, _) | (SslMode::Require, Some(_)) => true,
        _ => return Ok(Verification::None),
    };
    let roots = match &options.root_cert {
        Some(RootCert::System) => system_roots()?,
        Some(RootCert::File(path)) => read_roots(path)?,
        None => return Err(ConfigError::RootCertMissing { mode: options.mode }),
    };
    Ok(if chain_only { Verification::Chain(roots) } else { Verification::ChainAndName(roots) })
}

fn system_roots() -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    // A certificate that cannot be parsed is not trusted. That is an error only if there is no other one.
    let (added, _ignored) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        let reason = "the system has no root certificates; install them (ca-certificates) or name a file";
        return Err(ConfigError::Value { name: "sslrootcert", reason });
    }
    Ok(roots)
}

fn read_roots(path: &Path) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| ConfigError::file(path, error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let pem = fs::read(path).map_err(|error| ConfigError::file(path, error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(ConfigError::file(path, "contains no certificate in PEM")),
        Ok(found) => Ok(found),
        Err(error) => Err(ConfigError::file(path, error)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ConfigError> {
    let failed = |error: std::io::Error| ConfigError::file(path, error);
    let metadata = fs::metadata(path).map_err(failed)?;
    // The same rule as libpq's: access for the owner only, and for the group if root owns the file.
    let others = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & others != 0 {
        let reason = format!("others may use this key (mode {:04o}); chmod 0600", metadata.mode() & 0o7777);
        return Err(ConfigError::file(path, reason));
    }
    let pem = fs::read(path).map_err(failed)?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| ConfigError::file(path, format!("contains no unencrypted private key in PEM: {error}")))
}
