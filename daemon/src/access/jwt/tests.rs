use super::{super::Scope, *};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};
use std::time::Duration;

const SECRET: &[u8] = b"a shared secret of the tests, long enough";

/// RFC 7515 appendix A: its claims, and its three keys with what each signs.
const RFC_CLAIMS: &str =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const RFC_SECRET: &str = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
const RFC_HS256: (&str, &str) =
    ("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
const RFC_RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const RFC_RS256: (&str, &str) = (
    "eyJhbGciOiJSUzI1NiJ9",
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
);
const RFC_EC_POINT: (&str, &str) =
    ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
const RFC_ES256: (&str, &str) =
    ("eyJhbGciOiJFUzI1NiJ9", "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q");

/// Long enough for the RFC's tokens, which expired in 2011.
const AGES: Duration = Duration::from_secs(3600 * 24 * 365 * 40);

fn of_secret() -> Jwt {
    with(|keys| keys.add_secret(SECRET), |_| {})
}

fn with(add: impl FnOnce(&mut Keys), rule: impl FnOnce(&mut JwtConfig)) -> Jwt {
    on_ring::install();
    let mut rules = JwtConfig { leeway: Duration::from_secs(60), ..JwtConfig::default() };
    rule(&mut rules);
    let mut keys = Keys::default();
    add(&mut keys);
    Jwt { keys, rules }
}

fn of_set(set: &Value) -> Jwt {
    with(|keys| keys.add_set(&set.to_string()).unwrap(), |_| {})
}

fn now_s() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn hs256(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    move |message| hmac::sign(&key, message).as_ref().to_vec()
}

/// A token that holds but for what `claims` says otherwise.
fn token_with(claims: &Value) -> String {
    let mut all = json!({"exp": now_s() + 600, "scope": "push"});
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    token(&json!({"alg": "HS256"}), &all, hs256(SECRET))
}

struct Ec(EcdsaKeyPair);

impl Ec {
    fn make() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap())
    }

    fn jwk(&self, id: &str) -> Value {
        let point = self.0.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "x": x, "y": y})
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }
}

#[test]
fn the_rfc_s_own_tokens_verify_and_their_neighbours_do_not() {
    let rsa = json!({"kty": "RSA", "n": RFC_RSA_N, "e": "AQAB"});
    let ec = json!({"kty": "EC", "crv": "P-256", "x": RFC_EC_POINT.0, "y": RFC_EC_POINT.1});
    let set = json!({"keys": [rsa, ec]});
    let jwt = with(
        |keys| {
            keys.add_secret(&URL_SAFE_NO_PAD.decode(RFC_SECRET).unwrap());
            keys.add_set(&set.to_string()).unwrap();
        },
        |rules| rules.leeway = AGES,
    );
    for (header, signature) in [RFC_HS256, RFC_RS256, RFC_ES256] {
        let token = format!("{header}.{RFC_CLAIMS}.{signature}");
        let verified = jwt.verify(&token).unwrap();
        assert!(Scope::ALL.into_iter().all(|scope| !verified.grant.allows(scope)), "it names no scope");
        for tampered in [
            format!("{header}.{}.{signature}", RFC_CLAIMS.replacen("ISz", "ISx", 1).replacen("eyJp", "eyJq", 1)),
            format!("{header}.{RFC_CLAIMS}.A{}", &signature[1..]),
            format!("{header}.{RFC_CLAIMS}."),
            format!("{header}.{RFC_CLAIMS}"),
            format!("{header}.{RFC_CLAIMS}.{signature}."),
            format!(".{RFC_CLAIMS}.{signature}"),
        ] {
            assert!(jwt.verify(&tampered).is_err(), "{tampered}");
        }
    }
    // Each signature under each other's header.
    for (header, signature) in [(RFC_HS256.0, RFC_RS256.1), (RFC_RS256.0, RFC_ES256.1), (RFC_ES256.0, RFC_HS256.1)] {
        assert!(jwt.verify(&format!("{header}.{RFC_CLAIMS}.{signature}")).is_err());
    }
}

#[test]
fn time_is_checked_with_the_leeway_on_either_side() {
    let jwt = of_secret();
    let verified = jwt.verify(&token_with(&json!({}))).unwrap();
    assert!(verified.until_s >= now_s() + 600);
    assert!(jwt.verify(&token_with(&json!({"exp": now_s() - 30, "nbf": now_s() + 30}))).is_ok());
    assert_eq!(jwt.verify(&token_with(&json!({"exp": now_s() - 100}))).unwrap_err(), TokenError::Expired);
    assert_eq!(jwt.verify(&token_with(&json!({"nbf": now_s() + 100}))).unwrap_err(), TokenError::NotYetValid);
    for exp in [json!(null), json!("soon"), json!(-1)] {
        assert!(jwt.verify(&token_with(&json!({"exp": exp}))).is_err(), "{exp}");
    }
    assert!(jwt.verify(&token_with(&json!({"nbf": "soon"}))).is_err());
}

#[test]
fn a_token_without_signature_or_with_another_secret_s_is_refused() {
    let jwt = of_secret();
    let claims = json!({"exp": now_s() + 600, "scope": "admin"});
    for alg in ["none", "None", "NONE", "", "HS257"] {
        assert!(jwt.verify(&token(&json!({"alg": alg}), &claims, |_| Vec::new())).is_err(), "{alg}");
        assert!(jwt.verify(&token(&json!({"alg": alg}), &claims, hs256(SECRET))).is_err(), "{alg}");
    }
    for alg in ["HS384", "HS512", "RS256", "ES256", "EdDSA"] {
        assert!(jwt.verify(&token(&json!({"alg": alg}), &claims, hs256(SECRET))).is_err(), "{alg}");
    }
    assert!(
        jwt.verify(&token(&json!({"alg": "HS256"}), &claims, hs256(b"another secret, as long as the right one")))
            .is_err()
    );
    assert!(
        jwt.verify(&token(&json!({"alg": "HS256", "crit": ["b64"], "b64": false}), &claims, hs256(SECRET))).is_err()
    );
    assert!(jwt.verify(&token(&json!({"alg": "HS256", "kid": "any"}), &claims, hs256(SECRET))).is_ok());
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let key = Ec::make();
    let jwk = key.jwk("one");
    let jwt = of_set(&json!({"keys": [jwk]}));
    let claims = json!({"exp": now_s() + 600, "scope": "admin"});
    let text = jwk.to_string();
    for secret in [key.0.public_key().as_ref(), text.as_bytes(), jwk["x"].as_str().unwrap().as_bytes(), b""] {
        for header in [json!({"alg": "HS256"}), json!({"alg": "HS256", "kid": "one"})] {
            assert!(jwt.verify(&token(&header, &claims, hs256(secret))).is_err());
        }
    }
    // Nor is a secret that somebody published in a set.
    let published = json!({"kty": "oct", "kid": "one", "k": URL_SAFE_NO_PAD.encode(SECRET)});
    let jwt = of_set(&json!({"keys": [key.jwk("one"), published]}));
    assert!(jwt.verify(&token(&json!({"alg": "HS256", "kid": "one"}), &claims, hs256(SECRET))).is_err());
}

#[test]
fn the_key_that_a_token_names_is_the_one_that_must_have_signed_it() {
    let (one, other) = (Ec::make(), Ec::make());
    let both = of_set(&json!({"keys": [one.jwk("one"), other.jwk("other")]}));
    let alone = of_set(&json!({"keys": [one.jwk("one")]}));
    let claims = json!({"exp": now_s() + 600});
    let signed = |header: Value, key: &Ec| token(&header, &claims, |message| key.sign(message));
    assert!(both.verify(&signed(json!({"alg": "ES256", "kid": "other"}), &other)).is_ok());
    assert!(both.verify(&signed(json!({"alg": "ES256", "kid": "one"}), &other)).is_err());
    assert!(both.verify(&signed(json!({"alg": "ES256", "kid": "third"}), &one)).is_err());
    assert!(both.verify(&signed(json!({"alg": "ES256"}), &one)).is_err(), "which of the two it is is not guessed");
    assert!(alone.verify(&signed(json!({"alg": "ES256"}), &one)).is_ok());
    // A key that it brings itself is not heeded.
    let brought = json!({"alg": "ES256", "jwk": other.jwk("one")});
    assert!(alone.verify(&signed(brought, &other)).is_err());
}

#[test]
fn eddsa_tokens_verify() {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
    let jwt = of_set(&json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "ed", "x": x}]}));
    let claims = json!({"exp": now_s() + 600, "scope": "push"});
    let right = token(&json!({"alg": "EdDSA", "kid": "ed"}), &claims, |message| key.sign(message).as_ref().to_vec());
    assert!(jwt.verify(&right).unwrap().grant.allows(Scope::Push));
    let wrong =
        token(&json!({"alg": "EdDSA", "kid": "ed"}), &claims, |message| key.sign(&message[1..]).as_ref().to_vec());
    assert!(jwt.verify(&wrong).is_err());
}

#[test]
fn keys_that_are_for_something_else_are_left_out_and_a_set_without_any_is_refused() {
    let key = Ec::make().jwk("one");
    let but = |name: &str, value: Value| {
        let mut other = key.clone();
        other[name] = value;
        other
    };
    let useless = [
        but("use", json!("enc")),
        but("alg", json!("ES384")),
        but("crv", json!("P-384")),
        but("kty", json!("XY")),
        json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
        json!(7),
    ];
    let of = |keys: &[Value]| {
        let mut all = Keys::default();
        all.add_set(&json!({"keys": keys}).to_string()).map(|()| all.len())
    };
    assert!(matches!(of(&useless), Err(JwksError::NoUsableKey)));
    assert_eq!(of(&[&useless[..], std::slice::from_ref(&key)].concat()).unwrap(), 1);
    for text in ["", "[]", "{}", "{\"keys\": 7}", "{\"keys\": []}"] {
        assert!(Keys::default().add_set(text).is_err(), "{text}");
    }
}

#[test]
fn issuer_and_audience_are_asked_for_where_they_are_configured() {
    let jwt = with(
        |keys| keys.add_secret(SECRET),
        |rules| {
            rules.issuer = Some("https://id.example".into());
            rules.audience = Some("forebay".into());
        },
    );
    let right = json!({"iss": "https://id.example", "aud": ["other", "forebay"]});
    assert!(jwt.verify(&token_with(&right)).is_ok());
    for (wrong, why) in [
        (json!({"iss": "https://other.example", "aud": "forebay"}), TokenError::Issuer),
        (json!({"iss": "https://id.example", "aud": "other"}), TokenError::Audience),
        (json!({"iss": "https://id.example", "aud": []}), TokenError::Audience),
    ] {
        assert_eq!(jwt.verify(&token_with(&wrong)).unwrap_err(), why);
    }
    for lacking in
        [json!({"iss": "https://id.example"}), json!({"aud": "forebay"}), json!({"iss": 7, "aud": "forebay"})]
    {
        assert_eq!(jwt.verify(&token_with(&lacking)).unwrap_err(), TokenError::MissingClaim, "{lacking}");
    }
    // RFC 7519 section 4.1.3: who is no audience refuses what has one.
    assert!(of_secret().verify(&token_with(&json!({"aud": "forebay"}))).is_err());
}

#[test]
fn scopes_and_roles_say_what_a_token_is_for() {
    let jwt = of_secret();
    let scopes = |claims: Value| {
        let mut claims = claims;
        if claims.get("scope").is_none() {
            claims["scope"] = Value::Null;
        }
        let grant = jwt.verify(&token_with(&claims)).unwrap().grant;
        Scope::ALL.into_iter().filter(|scope| grant.allows(*scope)).map(Scope::name).collect::<Vec<_>>().join(" ")
    };
    for (claims, granted) in [
        (json!({"scope": "openid pop forebay:push profile"}), "push pop"),
        (json!({"scp": ["forebay:admin", "push"]}), "push admin"),
        (json!({"scp": "pop"}), "pop"),
        (json!({"role": "admin"}), "push pop admin"),
        (json!({"roles": ["read-write", "other"]}), "push pop"),
        (json!({"role": "read-only"}), ""),
        (json!({"scope": "Push PUSH pushes other:push forebay:"}), ""),
        (json!({"scope": {"push": true}, "scp": 7, "roles": [["admin"]], "role": true}), ""),
    ] {
        assert_eq!(scopes(claims.clone()), granted, "{claims}");
    }
}

#[test]
fn the_subject_is_the_validated_one() {
    let jwt = of_secret();
    let subject =
        |sub: Value| jwt.verify(&token_with(&json!({"sub": sub}))).map(|v| v.grant.subject().map(str::to_owned));
    assert_eq!(subject(json!("sensor-ü")), Ok(Some("sensor-ü".to_owned())));
    assert_eq!(subject(json!(null)), Ok(None));
    assert_eq!(subject(json!("")), Ok(None));
    assert_eq!(subject(json!("x".repeat(255))).unwrap().unwrap().len(), 255);
    for sub in [json!("x".repeat(256)), json!(7), json!(["x"]), json!("a\0b")] {
        assert!(subject(sub.clone()).is_err(), "{sub}");
    }
}

#[test]
fn a_short_secret_or_one_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    let config = JwtConfig { secret_file: Some(file.path().to_path_buf()), ..JwtConfig::default() };
    std::fs::write(file.path(), "short\n").unwrap();
    assert!(Jwt::load(&config).unwrap_err().to_string().contains("32"));
    std::fs::write(file.path(), [SECRET, b"\r\n"].concat()).unwrap();
    let jwt = Jwt::load(&config).unwrap();
    assert!(jwt.verify(&token_with(&json!({"exp": now_s() + 600}))).is_ok(), "the end of the line is no part of it");
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(Jwt::load(&config).unwrap_err().to_string().contains("chmod"));
}
