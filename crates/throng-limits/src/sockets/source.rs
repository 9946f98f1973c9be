//! Where the table of sockets comes from: the kernel itself, or the text that it keeps of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::getxattr;

use crate::descriptors::{Holding, socket_inode};
use crate::facts::FactError;
use crate::tree::Tree;

use super::inet::{self, MPTCP, Question, RAW, TCP, UDP};
use super::namespace::Namespace;
use super::netlink::Line;
use super::row::Row;
use super::silence::{self, Sample};
use super::state::State;
use super::text;
use super::unix::{self, Family, UnixRow};

/// BOUNDED: rows of one table that a copy keeps; as text they are within what a tree reads back.
const ROWS_KEPT_MAX: usize = 400_000;

/// BOUNDED: listeners of one port, as a server with `SO_REUSEPORT` has one for each thread.
const SAME_PORT_MAX: usize = 1 << 12;

/// What the kernel's text has no room for, in files of our own beside it in a captured tree.
const UNIX_KEPT: &str = "throng-unix";
const SAMPLES_KEPT: &str = "throng-tcp-info";
const NAMES_KEPT: &str = "throng-protocols";

/// Where the table comes from, and whose it is.
#[derive(Debug)]
pub(super) struct Source<'a> {
    tree: &'a Tree,
    pid: u32,
    namespace: &'a Namespace,
    form: Form,
    /// What a copy says about the protocols of descriptors.
    names: Option<HashMap<u32, String>>,
}

#[derive(Debug)]
enum Form {
    Kernel(Line),
    /// The texts that were read, by name.
    Text(BTreeMap<&'static str, Result<String, FactError>>),
}

impl<'a> Source<'a> {
    /// The kernel, when it lets us; else the text, and why.
    pub(super) fn open(
        tree: &'a Tree,
        pid: u32,
        namespace: &'a Namespace,
    ) -> (Self, Option<io::Error>) {
        let (form, refused) = match tree.is_live().then(|| namespace.line()) {
            Some(Ok(line)) => (Form::Kernel(line), None),
            Some(Err(error)) => (Form::Text(BTreeMap::new()), Some(error)),
            None => (Form::Text(BTreeMap::new()), None),
        };
        (Self { tree, pid, namespace, form, names: None }, refused)
    }

    pub(super) fn is_kernel(&self) -> bool {
        matches!(self.form, Form::Kernel(_))
    }

    /// Gives the sockets that a question is about to `each`.
    pub(super) fn rows(
        &mut self,
        question: Question<'_>,
        mut each: impl FnMut(Row),
    ) -> io::Result<()> {
        if let Form::Kernel(line) = &mut self.form {
            let asked = line.dump(&question.encode(), |message| {
                if let Some(row) = inet::row(message) {
                    each(row);
                }
                ControlFlow::Continue(())
            });
            if !is_not_built_in(&asked) {
                return asked;
            }
            if question.protocol == TCP {
                self.form = Form::Text(BTreeMap::new());
            }
        }
        let Some(name) = table_name(question.protocol, question.family) else { return Ok(()) };
        let wanted = |row: &Row| {
            let ports = question.local_ports;
            row.state.bit() & question.states != 0
                && (ports.is_empty() || ports.contains(&row.local.port()))
        };
        text::rows(&self.text(name)?).filter(wanted).for_each(each);
        Ok(())
    }

    /// The sockets that listen on a port.
    pub(super) fn listening_at(&mut self, port: u16) -> Vec<Row> {
        let mut rows = Vec::new();
        for protocol in [TCP, MPTCP] {
            for family in inet::FAMILIES {
                let states = State::Listen.bit();
                let local_ports = &[port];
                let question = Question { family, states, local_ports, ..Question::all(protocol) };
                let take = |row: Row| {
                    if rows.len() < SAME_PORT_MAX {
                        rows.push(row);
                    }
                };
                // A kernel without the protocol has no sockets of it.
                self.rows(question, take).ok();
            }
        }
        rows
    }

    /// All Unix sockets.
    pub(super) fn unix(&mut self, mut each: impl FnMut(UnixRow)) -> io::Result<()> {
        if let Form::Kernel(line) = &mut self.form {
            let asked = line.dump(&unix::UNIX.question(), |message| {
                if let Some(row) = unix::row(message) {
                    each(row);
                }
                ControlFlow::Continue(())
            });
            if !is_not_built_in(&asked) {
                return asked;
            }
        } else if let Ok(text) = self.text(UNIX_KEPT) {
            unix::kept_rows(&text).for_each(each);
            return Ok(());
        }
        unix::rows(&self.text("unix")?).for_each(each);
        Ok(())
    }

    /// The inodes of all sockets of another family.
    pub(super) fn inodes(&mut self, family: &Family, mut each: impl FnMut(u32)) -> io::Result<()> {
        if let Form::Kernel(line) = &mut self.form {
            let asked = line.dump(&family.question(), |message| {
                family.inode(message).into_iter().for_each(&mut each);
                ControlFlow::Continue(())
            });
            if !is_not_built_in(&asked) {
                return asked;
            }
        }
        let text = self.text(family.name)?;
        // In both tables the inode is the last column.
        let inode = |row: &str| row.split_ascii_whitespace().next_back()?.parse().ok();
        text.lines().skip(1).filter_map(inode).for_each(each);
        Ok(())
    }

    /// Up to `most` connections that a question is about, with what they last said and heard.
    pub(super) fn samples(
        &mut self,
        question: Question<'_>,
        most: usize,
        mine: impl Fn(u32) -> bool,
    ) -> io::Result<Vec<Sample>> {
        let mut samples = Vec::new();
        if !self.is_kernel() {
            // A copy keeps both families together.
            let text = match question.family {
                inet::V4 => self.text(SAMPLES_KEPT)?,
                _ => return Ok(samples),
            };
            let wanted =
                |sample: &Sample| sample.state.bit() & question.states != 0 && mine(sample.inode);
            samples.extend(silence::kept_rows(&text).filter(wanted).take(most));
            return Ok(samples);
        }
        // On a line of its own, as the dump is broken off when there are enough.
        self.namespace.line()?.dump(&question.encode(), |message| {
            if let (Some(row), Some(spoken)) = (inet::row(message), inet::spoken(message))
                && mine(row.inode)
            {
                samples.push(Sample { inode: row.inode, state: row.state, spoken });
            }
            if samples.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(samples)
    }

    /// What the kernel calls the protocol of a descriptor's socket, such as `TCPv6`.
    pub(super) fn protocol_name(&mut self, number: u32) -> Option<String> {
        if self.is_asked() {
            let path = format!("/proc/{}/fd/{number}", self.pid);
            let mut name = [0; 64];
            let length = getxattr(path, c"system.sockprotoname", &mut name[..]).ok()?;
            let name = name.get(..length)?.split(|byte| *byte == 0).next()?;
            return Some(String::from_utf8_lossy(name).into_owned());
        }
        if self.names.is_none() {
            let text = self.text(NAMES_KEPT).unwrap_or_default();
            let rows = text.lines().filter_map(|line| line.split_once(' '));
            let names =
                rows.filter_map(|(number, name)| Some((number.parse().ok()?, name.to_owned())));
            self.names = Some(names.collect());
        }
        self.names.as_ref()?.get(&number).cloned()
    }

    /// Whether a descriptor is still the same socket; of a captured tree nothing else is known.
    pub(super) fn still_holds(&self, holding: Holding) -> bool {
        let path = format!("/proc/{}/fd/{}", self.pid, holding.number);
        !self.is_asked()
            || std::fs::read_link(path)
                .is_ok_and(|link| socket_inode(link.as_os_str().as_bytes()) == Some(holding.inode))
    }

    /// For a tree that leaves a copy: writes the kernel's table into it as text, and goes on with
    /// this text, so that who reads the copy sees what we see. True when not all was kept.
    pub(super) fn copy(&mut self, own: &[u32], numbers: &[u32]) -> io::Result<bool> {
        if !self.is_kernel() {
            return Ok(false);
        }
        let mut kept = BTreeMap::new();
        let names =
            numbers.iter().filter_map(|number| Some((number, self.protocol_name(*number)?)));
        let names: String = names.map(|(number, name)| format!("{number} {name}\n")).collect();
        kept.insert(NAMES_KEPT, names);
        let mut cut = false;
        for family in inet::FAMILIES {
            let mut rows = Vec::new();
            self.rows(Question { family, ..Question::all(TCP) }, |row| {
                cut |= rows.len() == ROWS_KEPT_MAX;
                if rows.len() < ROWS_KEPT_MAX {
                    rows.push(row);
                }
            })?;
            kept.insert(if family == inet::V4 { "tcp" } else { "tcp6" }, text::table(&rows));
        }
        let mut rows = Vec::new();
        self.unix(|row| rows.extend((rows.len() < ROWS_KEPT_MAX).then_some(row)))?;
        kept.insert(UNIX_KEPT, unix::kept(&rows));
        kept.insert(SAMPLES_KEPT, silence::kept(&self.both_samples(own)?));
        let read = kept.into_iter().map(|(name, text)| {
            self.tree.record_proc(&format!("{}/net/{name}", self.pid), &text);
            (name, Ok(text))
        });
        self.form = Form::Text(read.collect());
        Ok(cut)
    }

    fn both_samples(&mut self, own: &[u32]) -> io::Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for state in [State::Established, State::CloseWait] {
            for family in inet::FAMILIES {
                let all = Question::all(TCP);
                let question = Question { family, states: state.bit(), info: true, ..all };
                let mine = |inode| own.binary_search(&inode).is_ok();
                samples.extend(self.samples(question, super::SAMPLE_MAX, mine)?);
            }
        }
        Ok(samples)
    }

    /// Whether descriptors can be asked, and need not be known from a copy.
    fn is_asked(&self) -> bool {
        self.tree.is_live() && (self.is_kernel() || !self.tree.is_recording())
    }

    /// A text of the process's `/proc/PID/net`; read once where the kernel answers nothing else.
    fn text(&mut self, name: &'static str) -> io::Result<Cow<'_, str>> {
        let (tree, pid) = (self.tree, self.pid);
        let read = || tree.read_proc(&format!("{pid}/net/{name}"));
        let text = match &mut self.form {
            Form::Kernel(_) => return read().map(Cow::Owned).map_err(|error| reason(&error)),
            Form::Text(texts) => texts.entry(name).or_insert_with(read),
        };
        text.as_deref().map(Cow::Borrowed).map_err(reason)
    }
}

fn reason(error: &FactError) -> io::Error {
    match error {
        FactError::Unreadable { source, .. } => source.kind().into(),
        FactError::Unexpected { what, .. } => io::Error::other(*what),
    }
}

/// Each table has a module of its own in the kernel, which may be missing.
fn is_not_built_in(asked: &io::Result<()>) -> bool {
    asked.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The name of a table in `/proc/PID/net`. There is none for MPTCP.
fn table_name(protocol: u16, family: u8) -> Option<&'static str> {
    let [v4, v6] = match protocol {
        TCP => ["tcp", "tcp6"],
        UDP => ["udp", "udp6"],
        RAW => ["raw", "raw6"],
        _ => return None,
    };
    Some(if family == inet::V4 { v4 } else { v6 })
}
