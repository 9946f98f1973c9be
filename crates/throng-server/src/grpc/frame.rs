//! gRPC's messages on an HTTP/2 stream: five bytes before each, and how a call ended behind them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header};
use hyper::body::{Body, Frame};

use super::status::{Code, Status};

/// Bytes before a message: whether it is compressed, and its length.
pub(crate) const HEAD: usize = 5;

/// A message with its head.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD + message.len());
    out.put_u8(0);
    // What is longer than 4 GiB does not exist here.
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(message);
    out.freeze()
}

/// Takes the next message off the front, once all of it is there.
///
/// # Errors
/// One that is compressed, or longer than `max`.
pub(crate) fn take(buffer: &mut BytesMut, max: usize) -> Result<Option<Bytes>, Status> {
    let Some((&[flag, a, b, c, d], rest)) = buffer.split_first_chunk::<HEAD>() else {
        return Ok(None);
    };
    if flag != 0 {
        let what = "the message is compressed, which this server does not read";
        return Err(Status::new(Code::Unimplemented, what));
    }
    let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if len > max {
        let what = format!("the message has {len} bytes, and max_receive_message_size is {max}");
        return Err(Status::new(Code::ResourceExhausted, what));
    }
    if rest.len() < len {
        return Ok(None);
    }
    let mut message = buffer.split_to(HEAD + len);
    Ok(Some(message.split_off(HEAD).freeze()))
}

/// What a call is answered with: at most one message, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    message: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let next = self.message.take().map(Frame::data);
        Poll::Ready(next.or_else(|| self.trailers.take().map(Frame::trailers)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && self.trailers.is_none()
    }
}

/// The head of every answer.
pub(crate) fn answered<B>(body: B) -> Response<B> {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

/// A call that went well.
pub(crate) fn done(message: &[u8]) -> Response<Whole> {
    let trailers = Some(Status::OK.trailers());
    answered(Whole { message: Some(framed(message)), trailers })
}

/// A call that did not: its status stands in the head, and nothing follows.
pub(crate) fn failed(status: &Status) -> Response<Whole> {
    let mut answer = answered(Whole::default());
    status.put(answer.headers_mut());
    if status.code == Code::Unimplemented {
        let identity = HeaderValue::from_static("identity");
        answer.headers_mut().insert("grpc-accept-encoding", identity);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole_and_one_by_one() {
        let mut buffer = BytesMut::new();
        buffer.extend_from_slice(&framed(b"one"));
        buffer.extend_from_slice(&framed(b""));
        buffer.extend_from_slice(&framed(b"three")[..7]);
        assert_eq!(take(&mut buffer, 5).unwrap().unwrap(), "one");
        assert_eq!(take(&mut buffer, 5).unwrap().unwrap(), "");
        assert_eq!(take(&mut buffer, 5).unwrap(), None);
        buffer.extend_from_slice(b"ree");
        assert_eq!(take(&mut buffer, 5).unwrap().unwrap(), "three");
        assert!(buffer.is_empty());
    }

    #[test]
    fn what_is_compressed_or_too_long_is_refused_before_it_has_come() {
        let mut compressed = BytesMut::from(&[1, 0, 0, 0, 9][..]);
        assert_eq!(take(&mut compressed, 100).unwrap_err().code, Code::Unimplemented);
        let mut long = BytesMut::from(&[0, 0xff, 0, 0, 0][..]);
        assert_eq!(take(&mut long, 100).unwrap_err().code, Code::ResourceExhausted);
    }
}
