//! The output of the doctor when it is a program of its own.

use std::io::{self, Write};

/// Writes what is written to it, with the name that this program has in the place of
/// `throng doctor`; the two are equally long.
pub(crate) struct Renamed<W: Write> {
    to: W,
    /// A line that is not whole yet.
    held: Vec<u8>,
}

const THERE: &[u8] = b"throng doctor";
const HERE: &[u8] = b"throng-doctor";

impl<W: Write> Renamed<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, held: Vec::new() }
    }

    /// Writes so many of the bytes that are held.
    fn pass_on(&mut self, many: usize) -> io::Result<()> {
        let mut bytes: Vec<u8> = self.held.drain(..many).collect();
        for at in 0..bytes.len() {
            if let Some(found) = bytes.get_mut(at..at + THERE.len())
                && found == THERE
            {
                found.copy_from_slice(HERE);
            }
        }
        self.to.write_all(&bytes)
    }
}

impl<W: Write> Write for Renamed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend(bytes);
        if let Some(end) = self.held.iter().rposition(|byte| *byte == b'\n') {
            self.pass_on(end + 1)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass_on(self.held.len())?;
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_by_the_name_of_this_program() {
        let mut told = Vec::new();
        let mut out = Renamed::new(&mut told);
        // In the pieces in which formatting writes it.
        for piece in ["now   sudo throng", " doctor 7 --raise 65536\nthrong (7), thr"] {
            out.write_all(piece.as_bytes()).unwrap();
        }
        out.write_all(b"ong doctor").unwrap();
        out.flush().unwrap();
        drop(out);
        let text = String::from_utf8(told).unwrap();
        assert_eq!(text, "now   sudo throng-doctor 7 --raise 65536\nthrong (7), throng-doctor");
    }
}
