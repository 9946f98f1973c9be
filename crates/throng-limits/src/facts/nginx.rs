//! What an nginx was told about connections: `worker_connections`, `worker_rlimit_nofile` and
//! `worker_processes`, wherever its configuration says so, and to whom it passes them on.

use std::path::{Path, PathBuf};

use super::read_at_most;

/// What nginx takes for `worker_connections` when nobody says.
pub const CONNECTIONS_DEFAULT: u64 = 512;
/// Files of one configuration that are read: a site is a file, and few have hundreds.
const FILES_MAX: usize = 256;
/// Words of one directive that are kept: those of interest have two, and some are endless.
const WORDS_MAX: usize = 4;
/// Servers that are passed on to, of which one is looked for.
const TARGETS_MAX: usize = 4096;

/// Where configurations are read from: this machine, a container's root, a captured tree.
pub trait Files {
    /// The text of a file.
    fn read(&self, path: &Path) -> Option<String>;
    /// The names in a directory, in any order.
    fn list(&self, directory: &Path) -> Vec<String>;
}

/// The files below a directory that stands for `/`.
#[derive(Debug, Clone)]
pub struct Below(pub PathBuf);

impl Below {
    fn at(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }
}

impl Files for Below {
    fn read(&self, path: &Path) -> Option<String> {
        read_at_most(&self.at(path)).ok()
    }

    fn list(&self, directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(self.at(directory)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// A value, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said<T> {
    pub value: T,
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
}

/// How many workers an nginx is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    Auto,
    Number(u64),
}

/// What a configuration says; what it does not say is nginx's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The first file.
    pub file: PathBuf,
    pub connections: Option<Said<u64>>,
    /// `worker_rlimit_nofile`.
    pub files: Option<Said<u64>>,
    pub workers: Option<Said<Workers>>,
    /// Where the block `events` begins.
    pub events: Option<Said<()>>,
    /// What is passed on to: the values of `proxy_pass`, and the servers of upstreams.
    pub targets: Vec<String>,
}

impl Config {
    /// Reads a configuration and what it includes. None when its first file cannot be read.
    #[must_use]
    pub fn read(file: &Path, files: &impl Files) -> Option<Self> {
        let text = files.read(file)?;
        let mut config = Self { file: file.to_owned(), ..Self::default() };
        // nginx resolves includes against the directory of the first file, wherever they stand.
        let directory = file.parent().unwrap_or(Path::new("/"));
        let mut read = 1;
        config.take(&text, file, Within::Main, &mut |config, pattern, within| {
            config.include(&directory.join(pattern), within, files, &mut read);
        });
        Some(config)
    }

    /// Whether it passes on to this port of some machine.
    #[must_use]
    pub fn passes_to(&self, port: u16) -> bool {
        self.targets.iter().any(|target| {
            let rest = target.split_once("://").map_or(target.as_str(), |(_, rest)| rest);
            let server = rest.split('/').next().unwrap_or_default();
            server.rsplit_once(':').is_some_and(|(_, found)| found.parse() == Ok(port))
        })
    }

    /// Takes what an included file says. One that includes in its turn is not followed: what counts
    /// here is not written like that, and a circle would be endless.
    fn include(&mut self, pattern: &Path, within: Within, files: &impl Files, read: &mut usize) {
        for path in expand(pattern, files) {
            *read += 1;
            if *read > FILES_MAX {
                return;
            }
            if let Some(text) = files.read(&path) {
                self.take(&text, &path, within, &mut |_, _, _| {});
            }
        }
    }

    fn take(
        &mut self,
        text: &str,
        file: &Path,
        begins: Within,
        include: &mut dyn FnMut(&mut Self, &str, Within),
    ) {
        for Directive { words, line, within } in directives(text, begins) {
            let said = |value| Said { value, file: file.to_owned(), line };
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match (within, words.as_slice()) {
                (Within::Main, ["worker_rlimit_nofile", number]) => {
                    self.files = self.files.take().or_else(|| number.parse().ok().map(said));
                }
                (Within::Main, ["worker_processes", number]) => {
                    let workers = match *number {
                        "auto" => Some(Workers::Auto),
                        number => number.parse().ok().map(Workers::Number),
                    };
                    let said = |value| Said { value, file: file.to_owned(), line };
                    self.workers = self.workers.take().or(workers.map(said));
                }
                (Within::Main, ["events"]) => {
                    let begin = Said { value: (), file: file.to_owned(), line };
                    self.events.get_or_insert(begin);
                }
                (Within::Events, ["worker_connections", number]) => {
                    let number = number.parse().ok();
                    self.connections = self.connections.take().or(number.map(said));
                }
                (Within::Deeper, ["proxy_pass", target] | ["server", target, ..])
                    if self.targets.len() < TARGETS_MAX =>
                {
                    self.targets.push((*target).to_owned());
                }
                (_, ["include", pattern]) => include(self, pattern, within),
                _ => {}
            }
        }
    }
}

/// The part of a configuration that a directive stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Main,
    Events,
    /// Some other block.
    Deeper,
}

#[derive(Debug, PartialEq, Eq)]
struct Directive {
    words: Vec<String>,
    line: usize,
    within: Within,
}

/// The directives of a text; one with a block stands before those in it.
fn directives(text: &str, begins: Within) -> Vec<Directive> {
    let mut found = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let (mut depth, mut is_events, mut line) = (0_usize, false, 1);
    for (token, at) in tokens(text) {
        if words.is_empty() {
            line = at;
        }
        let ends = match token {
            Token::Word(word) => {
                if words.len() < WORDS_MAX {
                    words.push(word);
                }
                continue;
            }
            other => other,
        };
        let within = match depth {
            0 => begins,
            1 if is_events => Within::Events,
            _ => Within::Deeper,
        };
        let words = std::mem::take(&mut words);
        if ends == Token::Open && depth == 0 {
            is_events = words.first().is_some_and(|word| word == "events");
        }
        if !words.is_empty() {
            found.push(Directive { words, line, within });
        }
        match ends {
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    found
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    End,
    Open,
    Close,
}

/// The tokens of a configuration, with the lines in which they begin.
fn tokens(text: &str) -> Vec<(Token, usize)> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    let mut line = 1;
    while let Some(first) = rest.next() {
        match first {
            '\n' => line += 1,
            '#' => while rest.next_if(|c| *c != '\n').is_some() {},
            ';' => found.push((Token::End, line)),
            '{' => found.push((Token::Open, line)),
            '}' => found.push((Token::Close, line)),
            space if space.is_whitespace() => {}
            quote @ ('"' | '\'') => {
                let (begins, mut word) = (line, String::new());
                while let Some(c) = rest.next().filter(|c| *c != quote) {
                    line += usize::from(c == '\n');
                    word.push(if c == '\\' { rest.next().unwrap_or(c) } else { c });
                }
                found.push((Token::Word(word), begins));
            }
            first => {
                let mut word = String::from(first);
                // `${name}` has braces that are none.
                let ends = |c: &char, last: char| {
                    c.is_whitespace() || *c == ';' || (*c == '{' && last != '$')
                };
                let mut last = first;
                while let Some(c) = rest.next_if(|c| !ends(c, last)) {
                    last = c;
                    word.push(c);
                }
                found.push((Token::Word(word), line));
            }
        }
    }
    found
}

/// The files that a pattern stands for, in nginx's order: that of the names.
fn expand(pattern: &Path, files: &impl Files) -> Vec<PathBuf> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let directory = pattern.parent().unwrap_or(Path::new("/"));
    if !name.contains(['*', '?']) {
        return vec![pattern.to_owned()];
    }
    let mut names = files.list(directory);
    // glob(7): a leading dot is not matched.
    names.retain(|each| !each.starts_with('.') && matches(name.as_bytes(), each.as_bytes()));
    names.sort();
    names.into_iter().map(|each| directory.join(each)).collect()
}

/// Whether a name is meant by a pattern of `*` and `?`. Each star is gone back to once only, so that
/// many of them do not cost more than both lengths together allow.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((after, from)) = star else { return false };
                star = Some((after, from + 1));
                (p, n) = (after, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests;
