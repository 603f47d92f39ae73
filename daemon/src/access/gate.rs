//! All that stands between a client and the daemon: tokens, TLS, and which web pages may ask.

use super::Access;
use crate::http::cors::Origins;
use crate::{config::Config, tls::Tls};

/// The daemon's gate, shared by all cores.
#[derive(Debug)]
pub struct Gate {
    /// Who may do what.
    pub access: Access,
    /// TLS, if it is spoken.
    pub tls: Option<Tls>,
    /// Web pages that may ask.
    pub origins: Origins,
}

impl Gate {
    /// Reads all files that the settings name, and warns of what can be listened to.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn open(config: &Config) -> Result<Self, String> {
        let access = Access::open(&config.access)?;
        let tls = config.tls.as_ref().map(Tls::open).transpose()?;
        if !config.listen.ip().is_loopback() && access.is_on() && tls.is_none() {
            tracing::warn!(address = %config.listen, "tokens can be read on their way: there is no TLS (--tls-cert)");
        }
        Ok(Self { access, tls, origins: Origins::new(&config.cors_origins) })
    }

    /// Reads all files again. What is wrong with one of them is logged, and what it says stays what it was.
    pub fn reload(&self) {
        self.access.reload();
        if let Some(tls) = &self.tls {
            tls.reload();
        }
    }
}
