//! What a backend's answer means for the client, in words for the operator.

use super::answer::{Answer, Said};
use super::{Came, Kind, Trying};
use crate::codes::{Disconnect, ErrorCode, Unsubscribe};
use crate::config::{Backend, Settings};

/// What becomes of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    /// The backend says no.
    Refused,
    /// There is no answer, or none that can be used.
    Broken,
}

/// A judgement, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub outcome: Outcome,
    /// What the client gets: an error's or a close's code.
    pub code: Option<u32>,
    /// A sentence.
    pub text: String,
    /// What to change, a sentence each.
    pub advice: Vec<String>,
}

/// What was asked, for the judgement of its answer.
pub(super) struct Asked<'a> {
    pub(super) settings: &'a Settings,
    pub(super) backend: &'a Backend,
    pub(super) trying: &'a Trying,
    pub(super) has_cookie: bool,
    pub(super) now_s: i64,
}

impl Asked<'_> {
    pub(super) fn verdict(
        &self,
        understood: &Result<Answer, String>,
        came: Option<&Came>,
    ) -> Verdict {
        let mut verdict = match understood {
            Ok(Answer::Said(said)) => self.said(said),
            Ok(Answer::Nothing) => self.nothing(),
            Ok(Answer::Error { code, message, temporary }) => {
                self.error(*code, message, *temporary)
            }
            Ok(Answer::Disconnect(close)) => self.close(close),
            Ok(Answer::Failed) => self.broken("failed", came),
            Err(why) => self.broken(why, came),
        };
        if verdict.outcome != Outcome::Accepted {
            verdict.advice.extend(self.cookie());
        }
        verdict
    }

    fn said(&self, said: &Said) -> Verdict {
        let over = said.expire_at.is_some_and(|at| at <= self.now_s);
        let until = match said.expire_at {
            Some(at) => format!(", for {}", seconds(at - self.now_s)),
            None => String::new(),
        };
        let past = "expire_at is in the past: it is in Unix seconds, and the clocks of both machines \
                    must agree";
        match self.trying.kind {
            Kind::Refresh | Kind::SubRefresh if said.expired || over => {
                let verdict = self.ended();
                if over { verdict.with(past) } else { verdict }
            }
            Kind::Connect | Kind::Subscribe if over => {
                let ErrorCode { code, message, .. } = ErrorCode::EXPIRED;
                refused(code, format!("the client gets error {code} {message}")).with(past)
            }
            Kind::Connect => self.admitted(said, &until),
            Kind::Refresh => accepted(format!("the connection goes on{until}")),
            Kind::Subscribe => accepted(format!("the client is subscribed{until}")),
            Kind::SubRefresh => accepted(format!("the subscription goes on{until}")),
            Kind::Publish => self.published(said),
            Kind::MapPublish => accepted("the key is written".to_owned()),
            Kind::MapRemove => accepted("the key is removed".to_owned()),
            Kind::Rpc => accepted("the client gets the data of the answer".to_owned()),
            Kind::SharedPollRefresh => {
                let items = said.items.len();
                accepted(format!("clients that track them get {items} keys, if they are new"))
            }
        }
    }

    fn admitted(&self, said: &Said, until: &str) -> Verdict {
        let of_subs = said.subs.iter().map(|(channel, _)| channel);
        let mut channels: Vec<&str> = Vec::new();
        for channel in of_subs.chain(&said.channels) {
            if !channels.contains(&channel.as_str()) {
                channels.push(channel);
            }
        }
        for channel in &channels {
            if let Err(error) = self.settings.channel.resolve(channel) {
                let code = Disconnect::BAD_REQUEST.code.into();
                let text = format!("the client is closed with {code}: {channel:?}: {error}");
                return refused(code, text)
                    .with("channels and subs of the answer must name channels that there can be");
            }
        }
        let limit = self.settings.client.channel_limit;
        if limit > 0 && channels.len() > limit {
            let code = Disconnect::CHANNEL_LIMIT.code.into();
            let count = channels.len();
            let text =
                format!("the client is closed with {code}: {count} subscriptions come along");
            return refused(code, text).with(&format!("client.channel_limit is {limit}"));
        }
        let who = match said.user.as_str() {
            "" => "without a user (anonymous)".to_owned(),
            user => format!("as the user {user:?}"),
        };
        let along = match channels.len() {
            0 => String::new(),
            count if count > 5 => format!(", subscribed to {count} channels"),
            _ => format!(", subscribed to {}", channels.join(", ")),
        };
        let verdict = accepted(format!("the client is let in {who}{until}{along}"));
        if said.user.is_empty() {
            return verdict
                .with("the answer names no user: {\"result\":{\"user\":\"42\"}} does")
                .with_all(self.cookie());
        }
        verdict
    }

    fn published(&self, said: &Said) -> Verdict {
        let channel = self.trying.channel.as_deref().unwrap_or_default();
        let Some(data) = &said.grant.data else {
            return accepted("it is published as it is".to_owned());
        };
        let format =
            self.settings.channel.resolve(channel).map(|it| it.options.publication_data_format);
        match format.map(|format| format.check(data)) {
            Ok(Err(because)) => {
                let ErrorCode { code, message, .. } = ErrorCode::INTERNAL;
                broken(code, format!("the client gets error {code} {message}: {because}"))
                    .with("the data of the answer is not what the channel's publication_data_format wants")
            }
            _ => accepted("it is published with the data of the answer".to_owned()),
        }
    }

    fn nothing(&self) -> Verdict {
        let client = &self.settings.client;
        match self.trying.kind {
            Kind::Connect
                if client.insecure || client.allow_anonymous_connect_without_token =>
            {
                accepted(
                    "the answer names no user; the client is let in without one (anonymous), because \
                     client.allow_anonymous_connect_without_token is on"
                        .to_owned(),
                )
                .with_all(self.cookie())
            }
            Kind::Connect => {
                let code = Disconnect::BAD_REQUEST.code.into();
                let text = format!("the client is closed with {code}: the answer has no result");
                refused(code, text).with(
                    "answer {\"result\":{\"user\":\"42\"}} for whom you know; to let others in \
                     too: client.allow_anonymous_connect_without_token",
                )
            }
            Kind::Refresh | Kind::SubRefresh => {
                self.ended().with("the answer has no result; {\"result\":{}} goes on")
            }
            Kind::Subscribe | Kind::Publish | Kind::MapPublish | Kind::MapRemove => {
                let ErrorCode { code, message, .. } = ErrorCode::PERMISSION_DENIED;
                refused(code, format!("the client gets error {code} {message}"))
                    .with("the answer has no result; {\"result\":{}} allows it")
            }
            Kind::Rpc => accepted("the client gets an answer without data".to_owned()),
            Kind::SharedPollRefresh => {
                let code = ErrorCode::INTERNAL.code;
                broken(code, "the answer has no result; it is asked again".to_owned())
                    .with("where nothing is new: {\"result\":{\"items\":[]}}")
            }
        }
    }

    fn error(&self, code: u32, message: &str, temporary: bool) -> Verdict {
        match self.trying.kind {
            Kind::Refresh | Kind::SubRefresh => broken(
                code,
                format!("an error ({code} {message}) does not end it: it is asked again in 60 s"),
            )
            .with("to end it: {\"result\":{\"expired\":true}}"),
            _ => {
                let then =
                    if temporary { "tries again later" } else { "does not try again by itself" };
                refused(code, format!("the client gets error {code} {message:?} and {then}"))
            }
        }
    }

    fn close(&self, close: &Disconnect) -> Verdict {
        let Disconnect { code, reason } = close;
        let then = if close.reconnects() {
            "comes back by itself"
        } else {
            "does not come back by itself"
        };
        refused((*code).into(), format!("the client is closed with {code} {reason:?} and {then}"))
    }

    /// What a refresh that says no does.
    fn ended(&self) -> Verdict {
        if self.trying.kind == Kind::Refresh {
            let Disconnect { code, reason } = Disconnect::CONNECTION_EXPIRED;
            return refused(code.into(), format!("the client is closed with {code} {reason}"));
        }
        let Unsubscribe { code, reason } = Unsubscribe::EXPIRED;
        refused(code, format!("the client is unsubscribed with {code} {reason}"))
    }

    fn broken(&self, why: &str, came: Option<&Came>) -> Verdict {
        let ErrorCode { code, message, .. } = ErrorCode::INTERNAL;
        let what = match self.trying.kind {
            Kind::Refresh | Kind::SubRefresh => {
                "it goes on, and is asked about again in 60 s".to_owned()
            }
            _ => format!("the client gets error {code} {message} and tries again later"),
        };
        let mut verdict = broken(code, format!("the backend {why}: {what}"));
        verdict.advice.extend(self.mend(why, came));
        verdict
    }

    /// How an answer that cannot be used becomes one.
    fn mend(&self, why: &str, came: Option<&Came>) -> Option<String> {
        let option = &self.backend.option;
        let transform = format!(
            "a no is {{\"disconnect\":{{\"code\":4501,\"reason\":\"…\"}}}} with the status 200; or let \
             the status mean it: {option}.http.status_to_code_transforms"
        );
        let Some(came) = came else {
            return match why {
                _ if why.starts_with("did not answer within") => {
                    Some(format!("make it faster, or give it more time: {option}.timeout"))
                }
                _ if why.starts_with("cannot be connected to") || why.starts_with("has a name") => {
                    Some(format!("start the application, or correct {option}.endpoint"))
                }
                _ if why.contains("not HTTP") => {
                    Some(format!("what listens there is no HTTP server: correct {option}.endpoint"))
                }
                _ => Some("the application's own log says why".to_owned()),
            };
        };
        Some(match came.status {
            300..=399 => {
                let to = came.headers.iter().find(|(name, _)| name == "location");
                let to = to.map_or(String::new(), |(_, to)| format!(" (to {to})"));
                format!(
                    "it redirects{to}: a login page, mostly, or another address. Let this path answer \
                     by itself, or correct {option}.endpoint"
                )
            }
            401 => transform,
            403 | 419 => format!(
                "if that is the framework's protection of forms (CSRF), take this path out of it; \
                 {transform}"
            ),
            404 | 405 => format!(
                "the path of {option}.endpoint is not one that the application answers with POST"
            ),
            500..=599 => "the application's own log says why".to_owned(),
            200 => "the answer must be JSON with one of result, error and disconnect, such as \
                    {\"result\":{}}"
                .to_owned(),
            _ => transform,
        })
    }

    /// What is to be said about cookies.
    fn cookie(&self) -> Option<String> {
        let wanted = self.backend.http_headers.contains(&http::header::COOKIE);
        let option = &self.backend.option;
        match (self.has_cookie, wanted) {
            (true, false) => Some(format!(
                "the cookie was not passed on: {option}.http_headers does not name it; add it: \
                 http_headers = [\"Cookie\"]"
            )),
            (false, true) => Some(format!(
                "no cookie was sent, and {option}.http_headers names it: try one with --cookie"
            )),
            _ => None,
        }
    }
}

impl Verdict {
    fn with(mut self, advice: &str) -> Self {
        self.advice.push(advice.to_owned());
        self
    }

    fn with_all(mut self, advice: Option<String>) -> Self {
        self.advice.extend(advice);
        self
    }
}

fn accepted(text: String) -> Verdict {
    Verdict { outcome: Outcome::Accepted, code: None, text, advice: Vec::new() }
}

fn refused(code: u32, text: String) -> Verdict {
    Verdict { outcome: Outcome::Refused, code: Some(code), text, advice: Vec::new() }
}

fn broken(code: u32, text: String) -> Verdict {
    Verdict { outcome: Outcome::Broken, code: Some(code), text, advice: Vec::new() }
}

/// A time in words.
fn seconds(count: i64) -> String {
    match count {
        ..120 => format!("{count} s"),
        120..7200 => format!("{} min", count / 60),
        7200..172_800 => format!("{} h", count / 3600),
        _ => format!("{} days", count / 86_400),
    }
}
