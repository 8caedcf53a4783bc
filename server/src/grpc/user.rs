//! UserService.

use std::collections::BTreeMap;

use tonic::{Request, Response, Status};
use upbridge_proto::v1::user_service_server::UserService;
use upbridge_proto::v1::*;

use super::{Door, convert, status};
use crate::model::page::Page;
use crate::model::user as model;
use crate::model::{Email, Error};

#[tonic::async_trait]
impl UserService for Door {
    async fn list_users(&self, request: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let filter = model::UserFilter {
            role: message.role.and_then(role),
            status: message.status.and_then(user_status),
            sync_status: message.sync_status.and_then(|number| convert::value(model::SyncStatus::ALL, number)),
            query: message.query,
        };
        let bound = format!("users {filter:?}");
        let page = Page::parse(message.page_size, message.page_token.as_deref(), &bound).map_err(status)?;
        let listed = self.hub.list_users(&filter, &page).await.map_err(status)?;
        let users = listed.items.iter().map(convert::user).collect();
        Ok(Response::new(ListUsersResponse { users, next_page_token: listed.next }))
    }

    async fn get_user_stats(
        &self,
        request: Request<GetUserStatsRequest>,
    ) -> Result<Response<GetUserStatsResponse>, Status> {
        convert::open(request)?;
        let stats = self.hub.user_stats().await.map_err(status)?;
        let mut by_role: BTreeMap<String, i64> =
            model::Role::ALL.iter().map(|role| (role.as_str().to_owned(), 0)).collect();
        let mut by_status: BTreeMap<String, i64> =
            model::UserStatus::ALL.iter().map(|status| (status.as_str().to_owned(), 0)).collect();
        for (role, status, count) in &stats.counts {
            *by_role.entry(role.as_str().to_owned()).or_default() += count;
            *by_status.entry(status.as_str().to_owned()).or_default() += count;
        }
        Ok(Response::new(GetUserStatsResponse {
            total_users: by_role.values().sum(),
            users_by_role: by_role,
            users_by_status: by_status,
            recent_signups: stats.recent_signups,
            as_of: Some(convert::timestamp(stats.as_of)),
        }))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let id = convert::uuid(&message.user_id, "user_id").map_err(status)?;
        let (user, membership) = self.hub.get_user(id).await.map_err(status)?;
        let now = self.hub.now();
        Ok(Response::new(GetUserResponse {
            user: Some(convert::user(&user)),
            subscription: membership.map(|held| convert::membership(&held, now)),
        }))
    }

    async fn update_user(&self, request: Request<UpdateUserRequest>) -> Result<Response<UpdateUserResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let id = convert::uuid(&message.user_id, "user_id").map_err(status)?;
        let email = message.email.map(|email| Email::parse(&email, "email")).transpose().map_err(status)?;
        let change = model::UserChange {
            email: email.map(|email| email.to_string()),
            name: message.name,
            username: message.username,
            role: message.role.and_then(role),
            status: message.status.and_then(user_status),
            password_hash: None,
        };
        if change.keys().is_empty() && message.password.is_none() {
            return Err(status(Error::invalid("user", "must have a field to change")));
        }
        let user = self.hub.update_user(&ctx, id, change, message.password).await.map_err(status)?;
        Ok(Response::new(UpdateUserResponse { user: Some(convert::user(&user)) }))
    }

    async fn deactivate_user(
        &self,
        request: Request<DeactivateUserRequest>,
    ) -> Result<Response<DeactivateUserResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let id = convert::uuid(&message.user_id, "user_id").map_err(status)?;
        let user = self.hub.deactivate_user(&ctx, id).await.map_err(status)?;
        Ok(Response::new(DeactivateUserResponse { user: Some(convert::user(&user)) }))
    }

    async fn delete_user(&self, request: Request<DeleteUserRequest>) -> Result<Response<DeleteUserResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let id = convert::uuid(&message.user_id, "user_id").map_err(status)?;
        self.hub.delete_user(&ctx, id).await.map_err(status)?;
        Ok(Response::new(DeleteUserResponse {}))
    }
}

fn role(number: i32) -> Option<model::Role> {
    convert::value(model::Role::ALL, number)
}

fn user_status(number: i32) -> Option<model::UserStatus> {
    convert::value(model::UserStatus::ALL, number)
}
