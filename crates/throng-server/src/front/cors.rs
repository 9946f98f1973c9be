//! Pages of other origins: which may read our answers, and how a browser is told.

use std::net::IpAddr;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN,
    VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::upgrade::{check_origin, remember};
use super::{Answer, Front};

/// For how long a browser need not ask again whether a page may ask.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("300");

/// A page that may connect, by the headers of its request.
#[derive(Debug)]
pub(super) struct Page {
    /// None: no page of a browser, or one of our own origin that need not say so.
    origin: Option<HeaderValue>,
    /// The headers that it wants to send.
    wishes: Option<HeaderValue>,
}

impl Page {
    /// # Errors
    /// The answer to a page that may not connect.
    pub(super) fn of(front: &Front, headers: &HeaderMap, ip: IpAddr) -> Result<Self, Box<Answer>> {
        check_origin(front, headers, ip).inspect_err(|answer| remember(front, ip, answer))?;
        let value = |name| headers.get(name).cloned();
        Ok(Self { origin: value(ORIGIN), wishes: value(ACCESS_CONTROL_REQUEST_HEADERS) })
    }

    /// What a browser wants to see before it shows the page an answer.
    pub(super) fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let allowed = self.origin.clone().map(|origin| {
            [
                (ACCESS_CONTROL_ALLOW_ORIGIN, origin),
                (ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")),
                // One page's answer is no other's, wherever answers are kept.
                (VARY, HeaderValue::from_static("Origin")),
            ]
        });
        let wishes = self.wishes.clone().filter(|_| self.origin.is_some());
        allowed
            .into_iter()
            .flatten()
            .chain(wishes.map(|wishes| (ACCESS_CONTROL_ALLOW_HEADERS, wishes)))
    }

    /// Lets the page read this answer.
    pub(super) fn may_read(&self, mut answer: Answer) -> Answer {
        answer.headers_mut().extend(self.fields());
        answer
    }

    /// The answer to `OPTIONS`, with which a browser asks before the page may.
    pub(super) fn preflight(&self, methods: &'static str) -> Answer {
        let mut answer = Answer::default();
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_S);
        self.may_read(answer)
    }
}
