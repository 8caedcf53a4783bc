//! Session tokens: JWT, HS256 and nothing else, verified against two secrets so that one can be rotated.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::user::Role;
use crate::model::{Error, Instant, Reason, Result};

const ISSUER: &str = "upbridge";
const AUDIENCE: &str = "creatorup";
/// Tokens whose signature is remembered, of some 300 bytes each.
const CHECKED_TOKENS: usize = 10_000;

/// The secrets of tokens.
#[derive(Clone)]
pub struct Keys {
    /// Signs, and verifies.
    pub current: Arc<str>,
    /// Only verifies: the secret before the last rotation.
    pub previous: Option<Arc<str>>,
}

/// What a token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: Uuid,
    role: String,
    iat: i64,
    exp: i64,
    jti: Uuid,
}

/// What a good token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whose it is.
    pub user_id: Uuid,
    /// The session.
    pub session_id: Uuid,
    /// When it expires.
    pub expires_at: Instant,
}

/// Issues and verifies tokens.
pub struct TokenIssuer {
    signing: EncodingKey,
    verifying: Vec<DecodingKey>,
    validation: Validation,
    lifetime: Duration,
    /// Signatures already checked; a token says the same as long as it exists, so these are never wrong.
    checked: Cache<Arc<str>, Verified>,
}

impl TokenIssuer {
    pub(super) fn new(keys: Keys, lifetime: Duration) -> TokenIssuer {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        // Expiry is checked against the hub's own clock below.
        validation.validate_exp = false;
        let secrets = [Some(&keys.current), keys.previous.as_ref()];
        TokenIssuer {
            signing: EncodingKey::from_secret(keys.current.as_bytes()),
            verifying: secrets.into_iter().flatten().map(|key| DecodingKey::from_secret(key.as_bytes())).collect(),
            validation,
            lifetime,
            checked: Cache::new(CHECKED_TOKENS),
        }
    }

    /// When a token issued now expires, to the second, as tokens have it.
    pub fn expiry(&self, now: Instant) -> Instant {
        (now + self.lifetime).trunc_subsecs(0)
    }

    /// The token of a session.
    pub fn issue(&self, user_id: Uuid, role: Role, session_id: Uuid, now: Instant) -> Result<String> {
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user_id,
            role: role.as_str().to_owned(),
            iat: now.timestamp(),
            exp: self.expiry(now).timestamp(),
            jti: session_id,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing).map_err(Error::internal)
    }

    /// What a token stands for, when it is ours, unchanged and not expired.
    pub fn verify(&self, token: &str, now: Instant) -> Result<Verified> {
        let verified = match self.checked.get(token) {
            Some(verified) => verified,
            None => {
                let verified = self.check(token)?;
                self.checked.insert(token.into(), verified);
                verified
            }
        };
        if verified.expires_at <= now {
            return Err(Error::unauthenticated(Reason::TokenExpired, "the token has expired"));
        }
        Ok(verified)
    }

    fn check(&self, token: &str) -> Result<Verified> {
        let refused = || Error::unauthenticated(Reason::InvalidCredentials, "the token is not valid");
        let decoded = |key| jsonwebtoken::decode::<Claims>(token, key, &self.validation).ok();
        let claims = self.verifying.iter().find_map(decoded).ok_or_else(refused)?.claims;
        let expires_at = DateTime::from_timestamp(claims.exp, 0).ok_or_else(refused)?;
        Ok(Verified { user_id: claims.sub, session_id: claims.jti, expires_at })
    }
}
