use super::*;
use crate::{config::JwtConfig, ids::unix_now};
use std::{fs, path::PathBuf, time::Duration};

struct Kept {
    _dir: tempfile::TempDir,
    path: PathBuf,
    access: Access,
}

impl Kept {
    fn new(content: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        fs::write(&path, content).unwrap();
        let config = AccessConfig { tokens_file: Some(path.clone()), jwt: None };
        Self { _dir: dir, path, access: Access::open(&config).unwrap() }
    }

    fn rewrite(&self, content: &str) {
        fs::write(&self.path, content).unwrap();
        self.access.reload();
    }

    fn status(&self, cache: &mut Cache, authorization: Option<&str>, request: AccessRequest) -> u16 {
        self.access.check(cache, authorization, request).map_or_else(|refusal| refusal.status, |_| 200)
    }
}

fn row(token: &str, scopes: &str) -> String {
    format!("[[token]]\nhash = \"{}\"\nscopes = [{scopes}]\n", token::TokenHash::of(token))
}

const PUSH: AccessRequest = AccessRequest::Scope(Scope::Push);

#[test]
fn without_tokens_and_keys_everybody_may_do_everything() {
    let access = Access::open(&AccessConfig::default()).unwrap();
    for authorization in [None, Some("Bearer fb_x"), Some("Basic x")] {
        let grant = access.check(&mut Cache::default(), authorization, PUSH).unwrap();
        assert!(grant.allows(Scope::Admin) && grant.allows_queue("any"));
    }
}

#[test]
fn a_token_opens_what_it_is_for_and_nothing_else() {
    let kept = Kept::new(&row("fb_a", "\"push\""));
    let mut cache = Cache::default();
    for _ in 0..2 {
        assert_eq!(kept.status(&mut cache, None, PUSH), 401);
        assert_eq!(kept.status(&mut cache, None, AccessRequest::Nothing), 200);
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer fb_b",
            "Bearer fb_a fb_a",
            "Bearer fb_ax",
            "Basic fb_a",
            "fb_b",
            "bearer  x",
        ] {
            assert_eq!(kept.status(&mut cache, Some(wrong), PUSH), 401, "{wrong}");
            assert_eq!(kept.status(&mut cache, Some(wrong), AccessRequest::Token), 401, "{wrong}");
        }
        for right in ["Bearer fb_a", "bearer fb_a", "BEARER  fb_a", "fb_a"] {
            assert_eq!(kept.status(&mut cache, Some(right), PUSH), 200, "{right}");
            assert_eq!(kept.status(&mut cache, Some(right), AccessRequest::Token), 200, "{right}");
            assert_eq!(kept.status(&mut cache, Some(right), AccessRequest::Scope(Scope::Pop)), 403, "{right}");
            assert_eq!(kept.status(&mut cache, Some(right), AccessRequest::Scope(Scope::Admin)), 403, "{right}");
        }
    }
}

#[test]
fn what_a_connection_remembers_ends_with_the_file_that_it_came_from() {
    let kept = Kept::new(&row("fb_a", "\"push\""));
    let mut cache = Cache::default();
    let bearer = Some("Bearer fb_a");
    assert_eq!(kept.status(&mut cache, bearer, PUSH), 200);
    kept.rewrite(&row("fb_b", "\"push\""));
    assert_eq!(kept.status(&mut cache, bearer, PUSH), 401);
    assert_eq!(kept.status(&mut cache, Some("Bearer fb_b"), PUSH), 200);
    kept.rewrite(&row("fb_b", "\"pop\""));
    assert_eq!(kept.status(&mut cache, Some("Bearer fb_b"), PUSH), 403);
    kept.rewrite("");
    assert_eq!(kept.status(&mut cache, Some("Bearer fb_b"), PUSH), 401, "a file without tokens lets nobody in");
}

#[test]
fn a_file_that_cannot_be_read_leaves_the_tokens_as_they_were() {
    let kept = Kept::new(&row("fb_a", "\"push\""));
    let bearer = Some("Bearer fb_a");
    for bad in ["[[token]]\n", "no toml", &row("fb_b", "\"root\"")] {
        kept.rewrite(bad);
        assert_eq!(kept.status(&mut Cache::default(), bearer, PUSH), 200, "{bad}");
    }
    fs::remove_file(&kept.path).unwrap();
    kept.access.reload();
    assert_eq!(kept.status(&mut Cache::default(), bearer, PUSH), 200);
    kept.rewrite("");
    assert_eq!(kept.status(&mut Cache::default(), bearer, PUSH), 401);
}

#[test]
fn what_a_connection_remembers_is_of_one_token() {
    let kept = Kept::new(&(row("fb_a", "\"admin\"") + &row("fb_b", "\"push\"")));
    let mut cache = Cache::default();
    assert_eq!(kept.status(&mut cache, Some("Bearer fb_a"), AccessRequest::Scope(Scope::Admin)), 200);
    assert_eq!(kept.status(&mut cache, Some("Bearer fb_b"), AccessRequest::Scope(Scope::Admin)), 403);
    assert_eq!(kept.status(&mut cache, Some("Bearer fb_"), PUSH), 401);
    assert_eq!(kept.status(&mut cache, Some("Bearer fb_aa"), PUSH), 401);
    assert_eq!(kept.status(&mut cache, None, PUSH), 401);
}

#[test]
fn a_jwt_that_expires_on_an_open_connection_is_not_remembered_beyond() {
    let kept = Kept::new(&row("fb_a", "\"push\""));
    let mut cache = Cache::default();
    assert_eq!(kept.status(&mut cache, Some("Bearer fb_a"), PUSH), 200);
    // As if it had been one that ended long ago: what is remembered of it does not count, and nothing else knows it.
    let now_s = unix_now().as_secs();
    for (until_s, status) in [(now_s + 100, 200), (now_s - 1, 401)] {
        let rights = grant::Rights { scopes: [Scope::Push].into_iter().collect(), ..grant::Rights::default() };
        let proof = Proof { authorization: "Bearer a.b.c".into(), generation: 1, until_s };
        cache.0 = Grant::of(rights).proved(proof);
        let mut grant = cache.0.clone();
        assert_eq!(kept.status(&mut cache, Some("Bearer a.b.c"), PUSH), status);
        assert_eq!(kept.access.renew(&mut grant, PUSH).map_or_else(|refusal| refusal.status, |()| 200), status);
    }
}

#[test]
fn what_was_granted_is_renewed_with_what_the_files_say_or_ends() {
    let kept = Kept::new(&row("fb_a", "\"push\""));
    let mut grant = kept.access.check(&mut Cache::default(), Some("Bearer fb_a"), PUSH).unwrap();
    let mut renew = || kept.access.renew(&mut grant, PUSH).map_or_else(|refusal| refusal.status, |()| 200);
    assert_eq!(renew(), 200);
    for (content, status) in [
        (row("fb_a", "\"push\", \"admin\""), 200),
        (row("fb_a", "\"admin\""), 403),
        (row("fb_b", "\"push\""), 401),
        (row("fb_a", "\"push\""), 200),
    ] {
        kept.rewrite(&content);
        assert_eq!(renew(), status, "{content}");
    }
    let mut everything = Grant::everything();
    assert!(kept.access.renew(&mut everything, PUSH).is_ok(), "it needed no token");
}

#[test]
fn tokens_and_jwts_are_taken_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let (tokens, secret) = (dir.path().join("tokens.toml"), dir.path().join("secret"));
    fs::write(&tokens, row("fb_a", "\"push\"")).unwrap();
    fs::write(&secret, "x".repeat(32)).unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let jwt = JwtConfig { secret_file: Some(secret), leeway: Duration::from_secs(60), ..JwtConfig::default() };
    let access = Access::open(&AccessConfig { tokens_file: Some(tokens), jwt: Some(jwt) }).unwrap();
    assert!(access.check(&mut Cache::default(), Some("Bearer fb_a"), PUSH).is_ok());
    let refusal = access.check(&mut Cache::default(), Some("Bearer a.b.c"), PUSH).unwrap_err();
    assert_eq!((refusal.status, refusal.message.as_ref()), (401, "the token is not valid"));
}

#[test]
fn the_refusals_say_no_more_than_they_must() {
    let kept = Kept::new(&row("fb_secret", "\"push\""));
    let refusal = kept.access.check(&mut Cache::default(), Some("Bearer fb_secreT"), PUSH).unwrap_err();
    assert!(!refusal.message.contains("fb_"), "{refusal}");
}
