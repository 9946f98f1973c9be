//! The server API from the command line: one request over one connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

use crate::failure::Failure;
use crate::place::Place;

/// How long a server may take to answer; a history of a busy channel takes a moment.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// An answer larger than this is no answer of the API.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// A head of an answer longer than this many lines is none.
const HEAD_LINES_MAX: usize = 100;

/// Calls a method and gives its whole answer, or says why there is none.
pub(crate) fn call(place: &Place, method: &str, params: &Value) -> Result<Value, Failure> {
    let stream = connect(place)?;
    let (status, body) = exchange(place, &stream, method, params)
        .map_err(|error| Failure::could_not_run(no_answer(place, &error)))?;
    match status {
        200 => {}
        401 => return Err(Failure::could_not_run(refused(place))),
        404 => {
            let path = &place.api_path;
            return Err(Failure::could_not_run(format!(
                "{} has no server API at {path}/{method} (HTTP 404): is it throng, and is this \
                 the right port? With http_server.internal_port the API is there",
                place.name()
            )));
        }
        other => {
            return Err(Failure::could_not_run(format!(
                "{} answered HTTP {other}; throng explain {other} may help",
                place.name()
            )));
        }
    }
    let answer: Value = serde_json::from_slice(&body).map_err(|_| {
        let name = place.name();
        Failure::could_not_run(format!("{name} answered something that is not JSON; is it throng?"))
    })?;
    match answer.get("error") {
        Some(error) => Err(Failure::found(said(error))),
        None => Ok(answer),
    }
}

/// `throng openapi`.
pub(crate) fn openapi(out: &mut dyn Write) -> Result<(), Failure> {
    let document = throng_server::openapi().map_err(|error| {
        Failure::could_not_run(format!("the document cannot be made, which is a bug: {error}"))
    })?;
    Ok(writeln!(out, "{document:#}")?)
}

/// Opens a connection to the server.
pub(crate) fn connect(place: &Place) -> Result<TcpStream, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::could_not_run(format!(
            "cannot reach a server at {}: {error}; start one with `throng serve`, or name it with \
             --url",
            place.name()
        ))
    };
    let addresses = (place.host.as_str(), place.port).to_socket_addrs().map_err(|e| failed(&e))?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_WAIT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) => failed(&error),
        None => failed(&"the name has no address"),
    })
}

/// The error of a call, as a person reads it.
pub(crate) fn said(error: &Value) -> String {
    let code = error["code"].as_u64().unwrap_or_default();
    let message = error["message"].as_str().unwrap_or_default();
    format!("refused: {code} {message} (throng explain {code})")
}

fn refused(place: &Place) -> String {
    let name = place.name();
    if place.api_key.is_empty() {
        format!(
            "{name} asks for the key of the server API (HTTP 401): give it with --api-key, \
             THRONG_HTTP_API_KEY, or -c FILE with the server's configuration"
        )
    } else {
        format!(
            "{name} does not accept this key of the server API (HTTP 401): compare http_api.key"
        )
    }
}

fn no_answer(place: &Place, error: &io::Error) -> String {
    let name = place.name();
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("{name} did not answer within {} s", ANSWER_WAIT.as_secs())
        }
        _ => format!("{name} did not answer: {error}; is it throng?"),
    }
}

fn exchange(
    place: &Place,
    stream: &TcpStream,
    method: &str,
    params: &Value,
) -> io::Result<(u16, Vec<u8>)> {
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    stream.set_write_timeout(Some(ANSWER_WAIT))?;
    let body = params.to_string();
    let key = match place.api_key.as_str() {
        "" => String::new(),
        key if key.contains(['\r', '\n']) => {
            return Err(io::Error::other("the key has a line break in it"));
        }
        key => format!("X-API-Key: {key}\r\n"),
    };
    let head = format!(
        "POST {}{}/{method} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nX-Throng-Audience: true\r\nConnection: close\r\n{key}\r\n",
        place.prefix,
        place.api_path,
        place.name(),
        body.len(),
    );
    let mut writer = stream;
    writer.write_all(head.as_bytes())?;
    writer.write_all(body.as_bytes())?;
    answer(&mut BufReader::new(stream.take(ANSWER_BYTES_MAX)))
}

/// Reads an answer: status and body.
fn answer(reader: &mut impl BufRead) -> io::Result<(u16, Vec<u8>)> {
    let (status, headers) = head(reader)?;
    let header = |name: &str| {
        headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    };
    let mut body = Vec::new();
    if header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        chunked(reader, &mut body)?;
    } else if let Some(length) = header("content-length").and_then(|value| value.parse().ok()) {
        reader.take(length).read_to_end(&mut body)?;
        if body.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    } else {
        reader.read_to_end(&mut body)?;
    }
    Ok((status, body))
}

/// Reads the head of an answer: status, and headers with small letters.
pub(crate) fn head(reader: &mut impl BufRead) -> io::Result<(u16, Vec<(String, String)>)> {
    let first = line(reader)?;
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    let mut headers = Vec::new();
    for _ in 0..HEAD_LINES_MAX {
        let line = line(reader)?;
        if line.is_empty() {
            return Ok((status, headers));
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    Err(io::Error::other("the answer's head does not end"))
}

fn chunked(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let size = line(reader)?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16)
            .map_err(|_| io::Error::other("the answer's chunks are broken"))?;
        if size == 0 {
            return Ok(());
        }
        let before = body.len() as u64;
        reader.take(size).read_to_end(body)?;
        if body.len() as u64 - before != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line(reader)?;
    }
}

/// A line without its end; at most 16 KiB.
fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.take(16 << 10).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| io::Error::other("the answer is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_by_length_by_chunks_and_to_the_end() {
        let read = |text: &str| answer(&mut text.as_bytes());
        let length = read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}rest").unwrap();
        assert_eq!(length, (200, b"{}".to_vec()));
        let chunks =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1;x\r\n}\r\n0\r\n\r\n";
        assert_eq!(read(chunks).unwrap(), (200, b"{}".to_vec()));
        assert_eq!(read("HTTP/1.0 401 No\n\nx").unwrap(), (401, b"x".to_vec()));
        assert!(read("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}").is_err());
        assert!(read("SSH-2.0\r\n\r\n").is_err());
        assert!(read("HTTP/1.1 200 OK\r\n").is_err());
    }
}
