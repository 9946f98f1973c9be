//! Renewing a right: the connection's, and one subscription's.

use throng_hub::publication::ChannelName;
use throng_wire::dialect::{RefreshResult, Reply, SubRefreshRequest};

use super::proof::{Claimed, temporary};
use super::subscribe::Shown;
use super::{Cx, Session, wake};
use crate::codes::{Disconnect, ErrorCode};
use crate::token::{ConnectionClaims, SubscriptionClaims, TokenError};

impl Session {
    pub(super) fn refresh(&mut self, cx: &mut Cx<'_, '_>, id: u32, token: &str) {
        if token.is_empty() {
            return self.refuse(cx, Disconnect::BAD_REQUEST, "refresh brings no token");
        }
        if cx.settings.backends.refresh.is_some() {
            let because = "refresh came, and client.proxy.refresh.enabled is on: the backend is \
                           asked instead";
            return self.refuse(cx, Disconnect::BAD_REQUEST, because);
        }
        match self.connection_claims(cx, token) {
            Ok(None) => self.ask_notary(cx, token, Claimed::Refresh { id }),
            Ok(Some(claims)) => self.refresh_by_token(cx, id, Ok(claims)),
            Err(error) => self.refresh_by_token(cx, id, Err(error)),
        }
    }

    /// Renews the right of a client whose token was read, or does not.
    pub(super) fn refresh_by_token(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        read: Result<ConnectionClaims, TokenError>,
    ) {
        let claims = match read {
            Ok(claims) => claims,
            Err(TokenError::Expired) => {
                let because = "the token that came to refresh is expired itself";
                return self.refuse(cx, Disconnect::CONNECTION_EXPIRED, because);
            }
            Err(TokenError::Invalid(reason)) => {
                let what = "the token that came to refresh is invalid";
                return self.refuse_token(cx, Disconnect::INVALID_TOKEN, what, &reason);
            }
            Err(error) => {
                let (error, because) = temporary(error, "the token that came to refresh");
                return self.deny(cx, id, error, &because);
            }
        };
        if wake::is_over(cx, claims.expire_at) {
            let because = "the expire_at of the token that came to refresh is in the past";
            return self.refuse(cx, Disconnect::CONNECTION_EXPIRED, because);
        }
        if claims.user != *self.user {
            let because = "the token that came to refresh is another user's";
            return self.refuse(cx, Disconnect::INVALID_TOKEN, because);
        }
        let mut channels: Vec<&str> = claims.channels.iter().map(String::as_str).collect();
        channels.extend(claims.subs.iter().map(|(channel, _)| channel.as_str()));
        channels.sort_unstable();
        channels.dedup();
        if !self.has_token_channels(cx, &channels) {
            let because = "the token that came to refresh has other channels than the first one";
            return self.refuse(cx, Disconnect::INSUFFICIENT, because);
        }
        let ttl = self.set_expiry(cx, claims.expire_at);
        cx.out.wake_at(self.wake_at());
        let client = self.client.to_string();
        let result = RefreshResult {
            client: &client,
            version: crate::version::said(),
            expires: ttl.is_some(),
            ttl: ttl.unwrap_or(0),
        };
        self.reply(cx, id, &Reply::Refresh(result));
    }

    /// Whether these are the server-side channels of the token that the client connected with.
    fn has_token_channels(&self, cx: &Cx<'_, '_>, channels: &[&str]) -> bool {
        let had: &[ChannelName] = self.extra.as_ref().map_or(&[], |extra| &extra.token_channels);
        let personal = cx.settings.client.personal_channel.as_ref();
        let personal =
            personal.map(|personal| self.personal_channel(cx.settings, &personal.namespace));
        let mine = |channel: &&ChannelName| personal.as_deref() != Some(&***channel);
        had.iter()
            .filter(mine)
            .map(|each| &**each)
            .eq(channels.iter().copied().filter(|channel| personal.as_deref() != Some(channel)))
    }

    pub(super) fn sub_refresh(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        request: &SubRefreshRequest<'_>,
    ) {
        if request.kind != 0 {
            return self.keys_command(cx, id, request);
        }
        let (channel, token): (&str, &str) = (&request.channel, &request.token);
        if channel.is_empty() {
            return self.refuse(cx, Disconnect::BAD_REQUEST, "sub_refresh names no channel");
        }
        let slot = cx.out.conn.slot;
        if cx.registry.find(slot, channel).is_none() && !self.is_polling(channel) {
            let because = format!("{}: sub_refresh without a subscription", Shown(channel));
            return self.deny(cx, id, ErrorCode::PERMISSION_DENIED, &because);
        }
        if token.is_empty() {
            let because = format!("{}: sub_refresh brings no token", Shown(channel));
            return self.deny(cx, id, ErrorCode::BAD_REQUEST, &because);
        }
        if super::backend::sub_refresh_backend(cx.settings, channel).is_some() {
            let because = "sub_refresh came, and sub_refresh_proxy_enabled is on: the backend is \
                           asked instead";
            return self.refuse(cx, Disconnect::BAD_REQUEST, because);
        }
        match self.subscription_claims(cx, token) {
            Ok(None) => {
                let channel = ChannelName::from(channel);
                self.ask_notary(cx, token, Claimed::SubRefresh { id, channel });
            }
            Ok(Some(claims)) => self.sub_refresh_by_token(cx, id, channel, Ok(claims)),
            Err(error) => self.sub_refresh_by_token(cx, id, channel, Err(error)),
        }
    }

    /// Renews a subscription whose token was read, or does not.
    pub(super) fn sub_refresh_by_token(
        &mut self,
        cx: &mut Cx<'_, '_>,
        id: u32,
        channel: &str,
        read: Result<SubscriptionClaims, TokenError>,
    ) {
        let slot = cx.out.conn.slot;
        // It may have ended while its token was looked at.
        if cx.registry.find(slot, channel).is_none() && !self.is_polling(channel) {
            let because = format!("{}: the subscription has ended meanwhile", Shown(channel));
            return self.deny(cx, id, ErrorCode::PERMISSION_DENIED, &because);
        }
        let claims = match read {
            Ok(claims) => claims,
            Err(TokenError::Invalid(reason)) => {
                let what = format!("{}: the token is invalid", Shown(channel));
                return self.refuse_token(cx, Disconnect::INVALID_TOKEN, &what, &reason);
            }
            Err(error) => {
                let what = format!("{}: the token that came to refresh", Shown(channel));
                let (error, because) = temporary(error, &what);
                return self.deny(cx, id, error, &because);
            }
        };
        let fits = claims.channel == channel
            && claims.user == *self.user
            && (claims.client.is_empty() || claims.client == self.client.to_string());
        if !fits {
            let because =
                format!("{}: the token is for another channel, user or client", Shown(channel));
            return self.refuse(cx, Disconnect::INVALID_TOKEN, &because);
        }
        if wake::is_over(cx, claims.expire_at) {
            let because =
                format!("{}: the expire_at of the token that came is in the past", Shown(channel));
            return self.deny(cx, id, ErrorCode::EXPIRED, &because);
        }
        let grace = cx.settings.client.expired_sub_close_delay;
        let (at_s, ttl) = claims.expire_at.map_or((0, 0), |unix_s| wake::expiry(cx, unix_s, grace));
        self.set_subscription_expiry(cx, channel, at_s);
        self.reply(cx, id, &Reply::SubRefresh { expires: at_s != 0, ttl, items: &[] });
    }
}
