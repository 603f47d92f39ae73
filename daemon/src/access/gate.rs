//! What protects the daemon from its clients: tokens, TLS, and the origins of web pages.

use super::{Access, AccessError, OriginCheck};
use crate::{
    config::Config,
    http::cors::Origins,
    tls::{Tls, TlsError},
};

/// Why the gate does not open.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// Tokens or keys.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The daemon's gate, shared by all cores.
#[derive(Debug)]
pub struct Gate {
    /// Tokens and keys.
    pub access: Access,
    /// TLS, if it is configured.
    pub tls: Option<Tls>,
    /// Origins of web pages that may send requests.
    pub origins: Origins,
    /// Tells requests of other web pages.
    pub origin_check: OriginCheck,
}

impl Gate {
    /// Reads all files that the settings name, and warns if tokens can be read on the network.
    ///
    /// # Errors
    /// [`GateError`].
    pub fn open(config: &Config) -> Result<Self, GateError> {
        let access = Access::open(&config.access)?;
        let tls = config.tls.as_ref().map(Tls::open).transpose()?;
        if !config.listen.ip().is_loopback() && access.is_on() && tls.is_none() {
            tracing::warn!(address = %config.listen, "tokens can be read on the network: there is no TLS (--tls-cert)");
        }
        let origins = Origins::new(&config.cors_origins);
        let machine = rustix::system::uname();
        let origin_check = OriginCheck::new(&config.hosts, &machine.nodename().to_string_lossy(), origins.clone());
        Ok(Self { access, tls, origins, origin_check })
    }

    /// Reads all files again. An error is logged, and what the file said before stays valid.
    pub fn reload(&self) {
        self.access.reload();
        if let Some(tls) = &self.tls {
            tls.reload();
        }
    }
}
