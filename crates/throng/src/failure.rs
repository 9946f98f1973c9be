//! How a command fails: with a status and one message for the person who typed it.

use std::io;

/// Why a command ends with a status other than 0.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    /// Empty where everything has been said already.
    pub(crate) message: String,
}

impl Failure {
    /// It ran, and found something wrong.
    pub(crate) fn found(message: impl Into<String>) -> Self {
        Self { status: 1, message: message.into() }
    }

    /// It could not run.
    pub(crate) fn could_not_run(message: impl Into<String>) -> Self {
        Self { status: 2, message: message.into() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // Whoever reads the output has read enough, as `head` has.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { status: 0, message: String::new() };
        }
        Self::could_not_run(format!("cannot write the output: {error}"))
    }
}
