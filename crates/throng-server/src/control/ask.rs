//! The asking side: finds a server's socket and asks one question.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::Question;
use super::place::{Found, servers};

/// A server that is alive answers within its own patience with its shards.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long a server may work between two steps.
const STEP_PATIENCE: Duration = Duration::from_secs(150);
/// No answer is longer.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(
        "no server of this user is running here, or it has no control socket; another user's is \
         shown to that user and to root"
    )]
    None,
    #[error("no server with the pid {0} has a control socket that this user may see")]
    NoSuch(u32),
    #[error("several servers are running; name one with --pid: {}", listed(.0))]
    Several(Vec<Found>),
    #[error("the server with the pid {pid} does not answer on its control socket: {error}")]
    Silent { pid: u32, error: io::Error },
    #[error("the server with the pid {pid} refuses: {why}")]
    Refused { pid: u32, why: String },
}

fn listed(servers: &[Found]) -> String {
    let pids: Vec<String> = servers.iter().map(|server| server.pid.to_string()).collect();
    pids.join(", ")
}

/// The one server that is running, or the one with this pid.
///
/// # Errors
/// When there is none, or more than one.
pub fn find(pid: Option<u32>) -> Result<Found, AskError> {
    let mut servers = servers();
    if let Some(pid) = pid {
        return servers.into_iter().find(|s| s.pid == pid).ok_or(AskError::NoSuch(pid));
    }
    if servers.len() > 1 {
        // What nobody listens on was left by a process whose number another has now.
        servers.retain(|server| !super::place::is_deaf(&server.socket));
    }
    match servers.len() {
        0 => Err(AskError::None),
        1 => Ok(servers.swap_remove(0)),
        _ => Err(AskError::Several(servers)),
    }
}

/// Asks a server.
///
/// # Errors
/// When it does not answer, or not with what was asked for.
pub fn ask<T: DeserializeOwned>(server: &Found, question: &Question) -> Result<T, AskError> {
    let silent = |error| AskError::Silent { pid: server.pid, error };
    let stream = put(server, question, PATIENCE).map_err(silent)?;
    let said = next(&mut BufReader::new(stream.take(ANSWER_BYTES_MAX))).map_err(silent)?;
    answered(server, said)
}

/// Asks for something that takes a while, and is told of every step.
///
/// # Errors
/// When the server does not answer, or not with what was asked for.
pub fn follow<S: DeserializeOwned, T: DeserializeOwned>(
    server: &Found,
    question: &Question,
    step: &mut dyn FnMut(S),
) -> Result<T, AskError> {
    let silent = |error| AskError::Silent { pid: server.pid, error };
    let stream = put(server, question, STEP_PATIENCE).map_err(silent)?;
    let mut lines = BufReader::new(stream.take(ANSWER_BYTES_MAX));
    loop {
        let mut said = next(&mut lines).map_err(silent)?;
        match said.get_mut("step").map(Value::take) {
            Some(done) => step(read(done).map_err(silent)?),
            None => return answered(server, said),
        }
    }
}

fn next(lines: &mut impl BufRead) -> io::Result<Value> {
    let mut line = Vec::new();
    lines.read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}

fn answered<T: DeserializeOwned>(server: &Found, mut said: Value) -> Result<T, AskError> {
    if let Some(why) = said.get("error").and_then(Value::as_str) {
        return Err(AskError::Refused { pid: server.pid, why: why.to_owned() });
    }
    read(said["answer"].take()).map_err(|error| AskError::Silent { pid: server.pid, error })
}

fn read<T: DeserializeOwned>(value: Value) -> io::Result<T> {
    Ok(serde_json::from_value(value)?)
}

fn put(server: &Found, question: &Question, patience: Duration) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(&server.socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(stream)
}
