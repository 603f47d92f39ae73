//! From the options to what rustls needs: files are read here.

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
use super::verify::{Scrutiny, Verifier};
use crate::error::{ConfigError, Error, TlsError};
use crate::options::{ChannelBinding, RootCert, SslMode, TlsOptions};

/// How connections of one configuration are encrypted.
#[derive(Clone)]
pub(crate) struct Plan {
    mode: SslMode,
    channel_binding: ChannelBinding,
    config: Arc<ClientConfig>,
}

/// A server to be reached by a plan.
#[derive(Clone)]
pub(crate) struct Target {
    plan: Plan,
    name: Option<ServerName<'static>>,
}

impl Plan {
    /// Reads the files that the options name; `None` if nothing is to be encrypted.
    pub(crate) fn load(options: &TlsOptions) -> Result<Option<Self>, ConfigError> {
        if options.mode == SslMode::Disable {
            return Ok(None);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            Verifier { scrutiny: scrutiny(options)?, algorithms: provider.signature_verification_algorithms };
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
        // Each connection has a configuration of its own, so there is nothing to go on with.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Some(Self { mode: options.mode, channel_binding: options.channel_binding, config: Arc::new(config) }))
    }

    /// For the server of this name or address.
    pub(crate) fn target(&self, host: &str) -> Result<Target, ConfigError> {
        let name = ServerName::try_from(host.to_owned()).ok();
        if name.is_none() && self.mode == SslMode::VerifyFull {
            return Err(ConfigError::Value { name: "host", reason: "is no name that a certificate can bear" });
        }
        Ok(Target { plan: self.clone(), name })
    }
}

impl Target {
    pub(crate) fn mode(&self) -> SslMode {
        self.plan.mode
    }

    /// Whether the connection may go on in the open where the server has no TLS.
    pub(crate) fn may_be_open(&self) -> bool {
        self.plan.mode <= SslMode::Prefer && self.plan.channel_binding != ChannelBinding::Require
    }

    /// Begins a conversation with the server at this address.
    pub(crate) fn begin(&self, address: IpAddr) -> Result<Tls, Error> {
        // A name that no certificate bears is not looked for in one: the address stands in, which is not sent.
        let name = self.name.clone().unwrap_or_else(|| ServerName::from(address));
        let session = ClientConnection::new(Arc::clone(&self.plan.config), name).map_err(TlsError::from)?;
        Ok(Tls::new(session))
    }
}

fn scrutiny(options: &TlsOptions) -> Result<Scrutiny, ConfigError> {
    let chain_only = match (options.mode, &options.root_cert) {
        (SslMode::VerifyFull, _) => false,
        (SslMode::VerifyCa, _) | (SslMode::Require, Some(_)) => true,
        _ => return Ok(Scrutiny::None),
    };
    let roots = match &options.root_cert {
        Some(RootCert::System) => system_roots()?,
        Some(RootCert::File(path)) => roots_of(path)?,
        None => return Err(ConfigError::RootCertMissing { mode: options.mode }),
    };
    Ok(if chain_only { Scrutiny::Chain(roots) } else { Scrutiny::ChainAndName(roots) })
}

fn system_roots() -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    // One that cannot be read is one that is not trusted; only without any is there nothing to go by.
    let (added, _unreadable) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        let reason = "the system has no root certificates; install them (ca-certificates) or name a file";
        return Err(ConfigError::Value { name: "sslrootcert", reason });
    }
    Ok(roots)
}

fn roots_of(path: &Path) -> Result<RootCertStore, ConfigError> {
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
        Ok(found) if found.is_empty() => Err(ConfigError::file(path, "holds no certificate in PEM")),
        Ok(found) => Ok(found),
        Err(error) => Err(ConfigError::file(path, error)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ConfigError> {
    let failed = |error: std::io::Error| ConfigError::file(path, error);
    let metadata = fs::metadata(path).map_err(failed)?;
    // As libpq has it: the owner's alone, or root's with its group.
    let others = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & others != 0 {
        let reason = format!("others may use this key (mode {:04o}); chmod 0600", metadata.mode() & 0o7777);
        return Err(ConfigError::file(path, reason));
    }
    let pem = fs::read(path).map_err(failed)?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| ConfigError::file(path, format!("no private key in PEM, or an encrypted one: {error}")))
}
