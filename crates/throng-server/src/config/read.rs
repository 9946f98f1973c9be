//! Reads options as what they are, or says what is wrong with them.

use std::time::Duration;

use regex_lite::Regex;

use super::duration::{parse_bytes, parse_duration};
use super::options::{self, Spec};
use super::problem::{Place, Problem, ProblemKind};
use super::tree::Value;
use super::written::Written;

/// Less than this, a bare number was hardly meant as nanoseconds.
const NANOSECONDS_MIN: i64 = 1_000_000;

/// Reads one option after the other and remembers every problem.
pub(super) struct Reader<'a> {
    pub written: &'a Written,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

impl Reader<'_> {
    pub(super) fn text(&mut self, path: &str) -> String {
        match self.value(path) {
            None => default(path).to_owned(),
            Some(Value::Text(text)) => text.clone(),
            // JSON and TOML write whole numbers in one way only, so nothing is lost.
            Some(Value::Int(value)) => value.to_string(),
            Some(_) => self.wrong(path, "not a text; put it in quotes"),
        }
    }

    pub(super) fn bool(&mut self, path: &str) -> bool {
        match self.value(path) {
            None => default(path) == "true",
            Some(value) => match as_bool(value) {
                Some(value) => value,
                None => self.wrong(path, "not a yes or no; write true or false"),
            },
        }
    }

    /// A whole number from 0.
    pub(super) fn count(&mut self, path: &str) -> usize {
        let value = match self.value(path) {
            None => Some(default(path).parse().unwrap_or(0)),
            Some(value) => as_int(value),
        };
        match value.map(usize::try_from) {
            Some(Ok(count)) => count,
            Some(Err(_)) => self.wrong(path, "must be 0 or more"),
            None => self.wrong(path, "not a whole number"),
        }
    }

    /// A whole number from 0 that fits the type.
    pub(super) fn small<T: TryFrom<usize> + Default>(&mut self, path: &str, max: &str) -> T {
        match T::try_from(self.count(path)) {
            Ok(value) => value,
            Err(_) => self.wrong(path, &format!("too large; at most {max}")),
        }
    }

    /// A whole number, negative too.
    pub(super) fn int(&mut self, path: &str) -> i64 {
        match self.value(path) {
            None => default(path).parse().unwrap_or(0),
            Some(value) => match as_int(value) {
                Some(value) => value,
                None => self.wrong(path, "not a whole number"),
            },
        }
    }

    pub(super) fn bytes(&mut self, path: &str) -> usize {
        let bytes = match self.value(path) {
            None => parse_bytes(default(path)).or(Some(0)),
            Some(Value::Text(text)) => parse_bytes(text),
            Some(value) => as_int(value).and_then(|bytes| u64::try_from(bytes).ok()),
        };
        match bytes.and_then(|bytes| usize::try_from(bytes).ok()) {
            Some(bytes) => bytes,
            None => self.wrong(path, "not a size; write for example \"256MB\" or \"1GiB\""),
        }
    }

    pub(super) fn duration(&mut self, path: &str) -> Duration {
        match self.value(path) {
            None => spec(path).and_then(default_duration).unwrap_or_default(),
            Some(value) => match as_duration(value) {
                Ok(duration) => duration,
                Err(what) => self.wrong(path, &what),
            },
        }
    }

    /// A duration that may be zero or less, which turns the thing off.
    pub(super) fn duration_or_off(&mut self, path: &str) -> Duration {
        match self.value(path) {
            Some(Value::Int(value)) if *value <= 0 => Duration::ZERO,
            Some(Value::Text(text)) if text.starts_with('-') => Duration::ZERO,
            _ => self.duration(path),
        }
    }

    pub(super) fn texts(&mut self, path: &str) -> Vec<String> {
        match self.value(path) {
            None => Vec::new(),
            Some(value) => match as_texts(value) {
                Some(texts) => texts,
                None => self.wrong(path, "not a list of texts; write [\"one\", \"two\"]"),
            },
        }
    }

    /// None where it is empty.
    pub(super) fn regex(&mut self, path: &str) -> Option<Regex> {
        let text = self.text(path);
        if text.is_empty() {
            return None;
        }
        match Regex::new(&text) {
            Ok(regex) => Some(regex),
            Err(error) => self.wrong(path, &format!("not a regular expression: {error}")),
        }
    }

    /// One of a few words, each with what it means.
    pub(super) fn word<T: Clone>(&mut self, path: &str, words: &[(&str, T)]) -> T {
        let text = self.text(path);
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return meaning.clone();
        }
        let known: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let _: () = self.wrong(path, &format!("not known; write one of {}", known.join(", ")));
        words[0].1.clone()
    }

    /// A path of the HTTP server.
    pub(super) fn http_path(&mut self, path: &str) -> String {
        let text = self.text(path);
        if text.starts_with('/') && !text.contains(['?', '#', ' ']) {
            return text;
        }
        self.wrong(path, "not a path; it begins with /")
    }

    /// Whether anybody said something about it.
    pub(super) fn is_given(&self, path: &str) -> bool {
        self.written.given.contains_key(path)
    }

    fn value(&self, path: &str) -> Option<&Value> {
        self.written.given.get(path).map(|given| &given.node.value)
    }

    /// Remembers what is wrong with an option; what it gives back is never used.
    pub(super) fn wrong<T: Default>(&mut self, path: &str, what: &str) -> T {
        let problem = self.said(path, ProblemKind::Invalid, what);
        self.problems.push(problem);
        T::default()
    }

    /// Remembers what is doubtful about an option.
    pub(super) fn doubt(&mut self, path: &str, what: &str) {
        let problem = self.said(path, ProblemKind::Doubtful, what);
        self.warnings.push(problem);
    }

    fn said(&self, path: &str, kind: ProblemKind, what: &str) -> Problem {
        let given = self.written.given.get(path);
        Problem {
            kind,
            place: given.map_or(Place::Default, |given| given.place.clone()),
            path: path.to_owned(),
            value: given.filter(|_| !is_secret(path)).map(|given| given.node.value.to_string()),
            what: what.to_owned(),
        }
    }
}

fn spec(path: &str) -> Option<&'static Spec> {
    options::options().spec(path)
}

fn default(path: &str) -> &'static str {
    spec(path).map_or("", |spec| spec.default)
}

pub(super) fn default_duration(spec: &Spec) -> Option<Duration> {
    if spec.default.is_empty() { Some(Duration::ZERO) } else { parse_duration(spec.default) }
}

/// As Go's `ParseBool`.
pub(super) fn as_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Int(0) => Some(false),
        Value::Int(1) => Some(true),
        Value::Text(text) => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn as_int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(value) => Some(*value),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

pub(super) fn as_duration(value: &Value) -> Result<Duration, String> {
    let text = match value {
        // A bare number is nanoseconds, as in Centrifugo; 25 was hardly meant so.
        Value::Int(number) => {
            let nanos = u64::try_from(*number).map_err(|_| "must be 0 or more".to_owned())?;
            if (1..NANOSECONDS_MIN).contains(number) {
                let what = format!("a bare number is nanoseconds; write \"{number}s\" for seconds");
                return Err(what);
            }
            return Ok(Duration::from_nanos(nanos));
        }
        Value::Text(text) => text,
        _ => return Err("not a duration; write for example \"25s\"".to_owned()),
    };
    parse_duration(text).ok_or_else(|| {
        let squeezed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let with_unit = format!("{squeezed}s");
        if text.starts_with('-') {
            "must be 0 or more".to_owned()
        } else if parse_duration(&squeezed).is_some() {
            format!("not a duration; write {squeezed:?}")
        } else if parse_duration(&with_unit).is_some() {
            format!("not a duration; write {with_unit:?}")
        } else {
            "not a duration; write for example \"25s\", \"1h30m\" or \"100ms\"".to_owned()
        }
    })
}

/// A list, or a text with spaces between, as the environment has it.
pub(super) fn as_texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Text(text) => Some(text.split_whitespace().map(str::to_owned).collect()),
        Value::List(list) => list
            .iter()
            .map(|node| match &node.value {
                Value::Text(text) => Some(text.clone()),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

/// Whether a message must not show the option's value: who mistakes a private key for the public one
/// does not find it in a log.
pub(super) fn is_secret(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    name == "key"
        || ["secret", "password", "_pem", "dsn", "credentials", "static_headers", "public_key"]
            .iter()
            .any(|s| name.contains(s))
}
