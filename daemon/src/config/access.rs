//! Settings of access control and of TLS.

use super::{
    ConfigError, JWT_SECRET_VARIABLE,
    args::{ServeArgs, setting},
    printed,
};
use crate::limits::{JWT_LEEWAY_DEFAULT, JWT_LEEWAY_MAX};
use serde::Serialize;
use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

/// Bytes that must not be printed.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Tokens and keys.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AccessConfig {
    /// File of bearer tokens.
    #[serde(serialize_with = "printed::path_if_set")]
    pub tokens_file: Option<PathBuf>,
    /// JSON Web Tokens, if there is a key to check them.
    #[serde(flatten)]
    pub jwt: Option<JwtConfig>,
}

impl AccessConfig {
    /// Whether requests need a token.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.tokens_file.is_some() || self.jwt.is_some()
    }
}

/// Which JSON Web Tokens are accepted.
#[derive(Clone, Debug, Default, Serialize)]
pub struct JwtConfig {
    /// Shared secret for HS256, from the environment.
    #[serde(skip)]
    pub secret: Option<Secret>,
    /// File of the shared secret.
    #[serde(rename = "jwt-secret-file", serialize_with = "printed::path_if_set")]
    pub secret_file: Option<PathBuf>,
    /// File of public keys (JWKS).
    #[serde(rename = "jwks-file", serialize_with = "printed::path_if_set")]
    pub jwks_file: Option<PathBuf>,
    /// The `iss` that a token must have.
    #[serde(rename = "jwt-issuer")]
    pub issuer: Option<String>,
    /// The `aud` that a token must have, or list.
    #[serde(rename = "jwt-audience")]
    pub audience: Option<String>,
    /// How far the clocks of daemon and issuer may differ.
    #[serde(rename = "jwt-leeway", serialize_with = "printed::duration")]
    pub leeway: Duration,
}

/// TLS of the daemon's own port.
#[derive(Clone, Debug, Serialize)]
pub struct TlsConfig {
    /// File of the certificate chain, the daemon's own certificate first.
    #[serde(rename = "tls-cert", serialize_with = "printed::path")]
    pub cert: PathBuf,
    /// File of its key.
    #[serde(rename = "tls-key", serialize_with = "printed::path")]
    pub key: PathBuf,
    /// File of the authorities of which one must have issued each client's certificate.
    #[serde(rename = "tls-client-ca", serialize_with = "printed::path_if_set")]
    pub client_ca: Option<PathBuf>,
}

/// Resolves tokens and keys.
///
/// # Errors
/// [`ConfigError`] for settings that contradict each other.
pub(super) fn access(
    args: &ServeArgs,
    file: &ServeArgs,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<AccessConfig, ConfigError> {
    let jwt = JwtConfig {
        secret: environment(JWT_SECRET_VARIABLE)
            .filter(|secret| !secret.is_empty())
            .map(|secret| Secret(secret.into_bytes())),
        secret_file: setting!(args, file, jwt_secret_file),
        jwks_file: setting!(args, file, jwks_file),
        issuer: setting!(args, file, jwt_issuer),
        audience: setting!(args, file, jwt_audience),
        leeway: setting!(args, file, jwt_leeway).map_or(JWT_LEEWAY_DEFAULT, |leeway| leeway.0),
    };
    if jwt.secret.is_some() && jwt.secret_file.is_some() {
        return Err(ConfigError::JwtSecretTwice);
    }
    if jwt.leeway > JWT_LEEWAY_MAX {
        return Err(ConfigError::JwtLeeway);
    }
    let has_key = jwt.secret.is_some() || jwt.secret_file.is_some() || jwt.jwks_file.is_some();
    if !has_key && (jwt.issuer.is_some() || jwt.audience.is_some()) {
        return Err(ConfigError::JwtWithoutKey);
    }
    Ok(AccessConfig { tokens_file: setting!(args, file, tokens_file), jwt: has_key.then_some(jwt) })
}

/// Resolves TLS.
///
/// # Errors
/// [`ConfigError`] for a certificate without a key, or the other way round.
pub(super) fn tls(args: &ServeArgs, file: &ServeArgs) -> Result<Option<TlsConfig>, ConfigError> {
    let client_ca = setting!(args, file, tls_client_ca);
    match (setting!(args, file, tls_cert), setting!(args, file, tls_key)) {
        (Some(cert), Some(key)) => Ok(Some(TlsConfig { cert, key, client_ca })),
        (None, None) if client_ca.is_none() => Ok(None),
        _ => Err(ConfigError::TlsIncomplete),
    }
}

/// Refuses an address that strangers may reach, unless access is controlled.
///
/// # Errors
/// [`ConfigError::OpenAddress`].
pub(super) fn check_reach(
    listen: SocketAddr,
    insecure: bool,
    access: &AccessConfig,
    tls: Option<&TlsConfig>,
) -> Result<(), ConfigError> {
    let has_control = access.is_on() || tls.is_some_and(|tls| tls.client_ca.is_some());
    let is_guarded = listen.ip().is_loopback() || insecure || has_control;
    if is_guarded { Ok(()) } else { Err(ConfigError::OpenAddress(listen)) }
}
