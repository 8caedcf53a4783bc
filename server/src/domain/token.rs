//! Session tokens: JWT, HS256 and nothing else, verified against two secrets so that one can be rotated.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::user::Role;
use crate::model::{Error, Instant, Reason, Result};

const ISSUER: &str = "upbridge";
const AUDIENCE: &str = "creatorup";

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
        let claims = self
            .verifying
            .iter()
            .find_map(|key| jsonwebtoken::decode::<Claims>(token, key, &self.validation).ok())
            .ok_or_else(|| Error::unauthenticated(Reason::InvalidCredentials, "the token is not valid"))?
            .claims;
        let expires_at = DateTime::from_timestamp(claims.exp, 0)
            .filter(|expires_at| *expires_at > now)
            .ok_or_else(|| Error::unauthenticated(Reason::TokenExpired, "the token has expired"))?;
        Ok(Verified { user_id: claims.sub, session_id: claims.jti, expires_at })
    }
}
