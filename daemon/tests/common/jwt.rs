//! JWTs signed with a shared secret, and the file from which the daemon reads the secret.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Has the minimum length for HS256.
pub const SECRET: &str = "the secret of these tests, of enough bytes";

/// A file in `dir` that holds [`SECRET`] and that only its owner can read.
pub fn secret_file(dir: &Path) -> PathBuf {
    let path = dir.join("secret");
    fs::write(&path, SECRET).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// Ten minutes from now, in seconds since 1970.
pub fn soon() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 600
}

/// A JWT with these claims.
pub fn signed(claims: &Value, secret: &str) -> String {
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encoded(r#"{"alg":"HS256","typ":"JWT"}"#), encoded(&claims.to_string()));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let signature = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// A JWT signed with [`SECRET`] that permits pushes as `sub`.
pub fn pusher(sub: &Value) -> String {
    signed(&json!({"exp": soon(), "scope": "push", "sub": sub}), SECRET)
}
