//! Settings of who may do what, and of TLS.

use super::{Config, ConfigError, args::ServeArgs};
use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

/// How far clocks may differ by which tokens are judged, where nothing else is said.
const JWT_LEEWAY_DEFAULT: Duration = Duration::from_secs(60);

/// How far at most: a token that expired a day ago is not one whose clock is wrong.
const JWT_LEEWAY_MAX: Duration = Duration::from_secs(24 * 3600);

/// The environment's variable of the shared secret: what is secret has no flag, which others would see.
pub const JWT_SECRET_VARIABLE: &str = "FOREBAY_JWT_SECRET";

/// Bytes that are not printed.
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

/// Who may do what.
#[derive(Clone, Debug, Default)]
pub struct AccessConfig {
    /// File of bearer tokens.
    pub tokens_file: Option<PathBuf>,
    /// JSON Web Tokens, where there is a key for them.
    pub jwt: Option<JwtConfig>,
}

impl AccessConfig {
    /// Whether anybody needs a token.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.tokens_file.is_some() || self.jwt.is_some()
    }
}

/// Which JSON Web Tokens are taken.
#[derive(Clone, Debug, Default)]
pub struct JwtConfig {
    /// Shared secret for HS256, from the environment.
    pub secret: Option<Secret>,
    /// File of the shared secret.
    pub secret_file: Option<PathBuf>,
    /// File of public keys (JWKS).
    pub jwks_file: Option<PathBuf>,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `aud` must be, or hold.
    pub audience: Option<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
}

/// TLS of the daemon's own port.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// File of the certificate, those that vouch for it behind it.
    pub cert: PathBuf,
    /// File of its key.
    pub key: PathBuf,
    /// File of the certificates of which one must vouch for each client's.
    pub client_ca: Option<PathBuf>,
}

/// Settings of this page, of one source.
macro_rules! setting {
    ($args:ident, $file:ident, $name:ident) => {
        $args.$name.clone().or($file.$name.clone())
    };
}

/// Resolves who may do what.
///
/// # Errors
/// [`ConfigError`] for what does not go together.
pub(super) fn access(
    args: &ServeArgs,
    file: &ServeArgs,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<AccessConfig, ConfigError> {
    let fail = |what: &str| Err(ConfigError(what.to_owned()));
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
        return fail("FOREBAY_JWT_SECRET and --jwt-secret-file exclude each other");
    }
    if jwt.leeway > JWT_LEEWAY_MAX {
        return fail("--jwt-leeway must be at most a day");
    }
    let has_key = jwt.secret.is_some() || jwt.secret_file.is_some() || jwt.jwks_file.is_some();
    if !has_key && (jwt.issuer.is_some() || jwt.audience.is_some()) {
        return fail(
            "--jwt-issuer and --jwt-audience say which JWTs are taken, and there is no key for any: give --jwks-file, \
             --jwt-secret-file or FOREBAY_JWT_SECRET",
        );
    }
    Ok(AccessConfig { tokens_file: setting!(args, file, tokens_file), jwt: has_key.then_some(jwt) })
}

/// Resolves TLS.
///
/// # Errors
/// [`ConfigError`] for one without the other.
pub(super) fn tls(args: &ServeArgs, file: &ServeArgs) -> Result<Option<TlsConfig>, ConfigError> {
    let client_ca = setting!(args, file, tls_client_ca);
    match (setting!(args, file, tls_cert), setting!(args, file, tls_key)) {
        (Some(cert), Some(key)) => Ok(Some(TlsConfig { cert, key, client_ca })),
        (None, None) if client_ca.is_none() => Ok(None),
        _ => Err(ConfigError("TLS needs --tls-cert and --tls-key, both".to_owned())),
    }
}

/// Refuses an address that strangers may reach, unless something keeps them out.
///
/// # Errors
/// [`ConfigError`], with the ways out.
pub(super) fn check_reach(
    listen: SocketAddr,
    insecure: bool,
    access: &AccessConfig,
    tls: Option<&TlsConfig>,
) -> Result<(), ConfigError> {
    let has_control = access.is_on() || tls.is_some_and(|tls| tls.client_ca.is_some());
    if listen.ip().is_loopback() || insecure || has_control {
        return Ok(());
    }
    Err(ConfigError(format!(
        "{listen} is not a loopback address: anybody who reaches it could push. Give --tokens-file (forebay token new makes \
         tokens), JWTs (--jwks-file, --jwt-secret-file) or client certificates (--tls-client-ca); or say --insecure if the \
         network around it is trusted"
    )))
}

/// The settings of this page that are set, each with its value as TOML. The shared secret is none of them.
pub(super) fn lines(config: &Config) -> Vec<(&'static str, String)> {
    let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let path = |path: &PathBuf| text(&path.to_string_lossy());
    let mut lines = Vec::new();
    let mut line = |name, value: Option<String>| lines.extend(value.map(|value| (name, value)));
    line("tokens-file", config.access.tokens_file.as_ref().map(path));
    if let Some(jwt) = &config.access.jwt {
        line("jwt-secret-file", jwt.secret_file.as_ref().map(path));
        line("jwks-file", jwt.jwks_file.as_ref().map(path));
        line("jwt-issuer", jwt.issuer.as_deref().map(text));
        line("jwt-audience", jwt.audience.as_deref().map(text));
        line("jwt-leeway", Some(text(&humantime::format_duration(jwt.leeway).to_string())));
    }
    if let Some(tls) = &config.tls {
        line("tls-cert", Some(path(&tls.cert)));
        line("tls-key", Some(path(&tls.key)));
        line("tls-client-ca", tls.client_ca.as_ref().map(path));
    }
    if !config.cors_origins.is_empty() {
        let origins: Vec<String> = config.cors_origins.iter().map(|origin| text(origin)).collect();
        line("cors-origin", Some(format!("[{}]", origins.join(", "))));
    }
    lines
}
