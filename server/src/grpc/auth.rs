//! AuthService.

use chrono::TimeDelta;
use tonic::{Request, Response, Status};
use upbridge_proto::v1::auth_service_server::AuthService;
use upbridge_proto::v1::*;

use super::{Door, convert, status};
use crate::domain::account::{Opened, Register};
use crate::model::Email;
use crate::model::user::Role as ModelRole;

/// The cookie administrators' browsers send; it holds the same token.
pub const SESSION_COOKIE: &str = "upbridge_session";

#[tonic::async_trait]
impl AuthService for Door {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let command = Register {
            email: Email::parse(&message.email, "email").map_err(status)?,
            password: message.password,
            name: message.name,
            username: message.username,
            plan_id: message.plan_id,
        };
        let Opened { token, session, user, subscription } = self.hub.register(&ctx, command).await.map_err(status)?;
        let plans = self.hub.list_plans(true).await.map_err(status)?;
        let now = self.hub.now();
        let subscription = subscription.and_then(|held| {
            let plan = plans.iter().find(|plan| plan.id == held.plan_id)?;
            Some(convert::subscription(&held, plan, now))
        });
        Ok(Response::new(RegisterResponse {
            token,
            token_type: "Bearer".to_owned(),
            expires_at: Some(convert::timestamp(session.expires_at)),
            user: Some(convert::user(&user)),
            subscription,
        }))
    }

    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let opened = self.hub.login(&ctx, &message.email, message.password).await.map_err(status)?;
        let Opened { token, session, user, .. } = opened;
        let cookie =
            (user.role == ModelRole::Admin).then(|| cookie(&token, session.expires_at - self.hub.now(), self.is_tls));
        let mut response = Response::new(LoginResponse {
            token,
            token_type: "Bearer".to_owned(),
            expires_at: Some(convert::timestamp(session.expires_at)),
            user: Some(convert::user(&user)),
        });
        if let Some(cookie) = cookie.and_then(|cookie| cookie.parse().ok()) {
            response.metadata_mut().insert("set-cookie", cookie);
        }
        Ok(response)
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        let (ctx, _) = convert::open(request)?;
        self.hub.logout(&ctx).await.map_err(status)?;
        let mut response = Response::new(LogoutResponse {});
        if ctx.is_admin()
            && let Ok(cookie) = cookie("", TimeDelta::zero(), self.is_tls).parse()
        {
            response.metadata_mut().insert("set-cookie", cookie);
        }
        Ok(response)
    }

    async fn get_me(&self, request: Request<GetMeRequest>) -> Result<Response<GetMeResponse>, Status> {
        let (ctx, _) = convert::open(request)?;
        let (user, membership) = self.hub.get_profile(&ctx, None).await.map_err(status)?;
        let now = self.hub.now();
        Ok(Response::new(GetMeResponse {
            user: Some(convert::user(&user)),
            subscription: membership.map(|held| convert::membership(&held, now)),
        }))
    }

    async fn change_password(
        &self,
        request: Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let changed = self.hub.change_password(&ctx, message.current_password, message.new_password).await;
        Ok(Response::new(ChangePasswordResponse { sessions_ended: changed.map_err(status)? as i32 }))
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let (ctx, _) = convert::open(request)?;
        let sessions = self.hub.list_sessions(&ctx).await.map_err(status)?;
        let current = ctx.signed_in().map_err(status)?.session_id;
        let sessions = sessions.into_iter().map(|session| Session {
            id: session.id.to_string(),
            created_at: Some(convert::timestamp(session.created_at)),
            expires_at: Some(convert::timestamp(session.expires_at)),
            ip_address: session.ip_address,
            user_agent: session.user_agent,
            current: session.id == current,
        });
        Ok(Response::new(ListSessionsResponse { sessions: sessions.collect() }))
    }

    async fn revoke_session(
        &self,
        request: Request<RevokeSessionRequest>,
    ) -> Result<Response<RevokeSessionResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let session_id = convert::uuid(&message.session_id, "session_id").map_err(status)?;
        self.hub.revoke_session(&ctx, session_id).await.map_err(status)?;
        Ok(Response::new(RevokeSessionResponse {}))
    }
}

/// Scripts cannot read it and other sites cannot make a browser send it. It is `Secure` when the hub itself serves
/// TLS; behind a proxy on plain HTTP the proxy adds that.
fn cookie(token: &str, lifetime: TimeDelta, is_tls: bool) -> String {
    let secure = if is_tls { "; Secure" } else { "" };
    format!("{SESSION_COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age={}{secure}", lifetime.num_seconds())
}
