//! A verified token lifts the check; what a browser adds by itself, and what is no token, does not.

use super::{
    STRANGERS, Target,
    common::{
        Daemon, NOWHERE, data_dir, forebay,
        jwt::{SECRET, secret_file, signed, soon},
    },
    is_probe, targets,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use forebay::http::Method;
use serde_json::json;

#[test]
fn a_verified_token_lifts_the_check_and_nothing_else_that_a_browser_sends_does() {
    let dir = data_dir();
    let tokens = dir.path().join("tokens.toml");
    let secret = secret_file(dir.path());
    let new_token = |scopes: &str| {
        let output = forebay(&["token", "new", "--tokens-file", tokens.to_str().unwrap(), "--scopes", scopes]);
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    let (admin, push) = (new_token("push,pop,admin"), new_token("push"));
    let jwt = |exp: u64| signed(&json!({"exp": exp, "role": "admin"}), SECRET);
    let args = ["--tokens-file", tokens.to_str().unwrap(), "--jwt-secret-file", secret.to_str().unwrap()];
    let fixed = ["--cores", "1", "--sync", "none"];
    let daemon = Daemon::start(&dir.path().join("data"), NOWHERE, &[&args[..], &fixed].concat());

    // "u:" and the token, as a browser sends a password that it remembers.
    let basic = format!("Authorization: Basic {}", STANDARD.encode(format!("u:{admin}")));
    let unverified = [
        "X: no token".to_owned(),
        "Authorization: Bearer fb_wrong".to_owned(),
        "Authorization: Bearer ".to_owned(),
        format!("Authorization: Bearer {}", jwt(1)),
        format!(
            "Authorization: Bearer {}",
            signed(&json!({"exp": soon(), "role": "admin"}), "of another issuer, 32 bytes")
        ),
        basic,
        format!("Cookie: token={admin}"),
    ];
    let verified = [
        format!("Authorization: Bearer {admin}"),
        format!("Authorization: {admin}"),
        format!("Authorization: Bearer {}", jwt(soon())),
    ];
    for target in targets().iter().filter(|target| !is_probe(&target.path)) {
        for stranger in &STRANGERS {
            let status = |field: &str| target.send(&daemon, stranger, &[field]).status;
            let what = |field: &str| format!("{} {} by {}, {field}", target.method.name(), target.path, stranger.name);
            for field in &unverified {
                assert_eq!(Some(status(field)), stranger.refusal.map(|(status, _)| status), "{}", what(field));
            }
            // PostgreSQL is away, and who may ask for dead letters waits for it.
            if target.path.contains("dead-letters") {
                // A token without the scope is told so, and not that the page is a stranger's.
                let response = target.send(&daemon, stranger, &[&format!("Authorization: Bearer {push}")]);
                let told = (response.status, response.code());
                assert_eq!(told, (403, "forbidden".to_owned()), "{} {}", target.path, stranger.name);
                continue;
            }
            for field in &verified {
                assert!(![401, 403, 421].contains(&status(field)), "{}", what(field));
            }
        }
    }
    let health = Target { method: Method::Get, path: "/health".to_owned(), body: None };
    assert!(STRANGERS.iter().all(|stranger| health.send(&daemon, stranger, &[]).status == 200));
}
