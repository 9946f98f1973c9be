//! The text format of Prometheus, version 0.0.4.

use std::fmt::Write;

use super::cells::Sum;
use super::family::Family;
use crate::config::Names;

/// What the page says it is.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page while it is written.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    names: Names,
    /// The family at hand.
    name: String,
}

/// A label and its value.
pub(super) type Label<'a> = (&'a str, &'a str);

/// In what a distribution was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Written as seconds.
    Micros,
    Count,
}

impl Page {
    pub(super) fn new(names: Names) -> Self {
        Self { text: String::with_capacity(32 * 1024), names, name: String::new() }
    }

    /// Begins a family; its numbers follow.
    pub(super) fn family(&mut self, family: &Family) {
        self.name = family.full_name(self.names);
        let (name, text) = (&self.name, &mut self.text);
        text.push_str("# HELP ");
        text.push_str(name);
        text.push(' ');
        put_escaped(family.help, false, text);
        put(text, format_args!("\n# TYPE {name} {}\n", family.kind.name()));
    }

    /// A family with one number.
    pub(super) fn single(&mut self, family: &Family, value: u64) {
        self.family(family);
        self.whole(&[], value);
    }

    pub(super) fn whole(&mut self, labels: &[Label<'_>], value: u64) {
        self.sample("", labels, format_args!("{value}"));
    }

    pub(super) fn real(&mut self, labels: &[Label<'_>], value: f64) {
        if value == f64::INFINITY {
            self.sample("", labels, format_args!("+Inf"));
        } else {
            self.sample("", labels, format_args!("{value}"));
        }
    }

    /// A distribution.
    pub(super) fn spread(&mut self, labels: &[Label<'_>], sum: &Sum, unit: Unit) {
        let mut count = 0;
        for (at, bucket) in sum.buckets.iter().enumerate() {
            count += bucket;
            let bound = match (sum.bounds.get(at), unit) {
                (None, _) => "+Inf".to_owned(),
                (Some(bound), Unit::Micros) => seconds_of(*bound),
                (Some(bound), Unit::Count) => bound.to_string(),
            };
            let mut labels = labels.to_vec();
            labels.push(("le", &bound));
            self.sample("_bucket", &labels, format_args!("{count}"));
        }
        match unit {
            Unit::Micros => {
                let (whole, part) = (sum.sum / 1_000_000, sum.sum % 1_000_000);
                self.sample("_sum", labels, format_args!("{whole}.{part:06}"));
            }
            Unit::Count => self.sample("_sum", labels, format_args!("{}", sum.sum)),
        }
        self.sample("_count", labels, format_args!("{count}"));
    }

    fn sample(&mut self, suffix: &str, labels: &[Label<'_>], value: std::fmt::Arguments<'_>) {
        let text = &mut self.text;
        text.push_str(&self.name);
        text.push_str(suffix);
        for (at, (label, value)) in labels.iter().enumerate() {
            text.push(if at == 0 { '{' } else { ',' });
            text.push_str(label);
            text.push_str("=\"");
            put_escaped(value, true, text);
            text.push('"');
        }
        if !labels.is_empty() {
            text.push('}');
        }
        put(text, format_args!(" {value}\n"));
    }

    pub(super) fn end(self) -> String {
        self.text
    }
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a string takes everything");
}

/// What would end a line or a value stands behind a backslash.
fn put_escaped(value: &str, in_quotes: bool, text: &mut String) {
    for each in value.chars() {
        match each {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if in_quotes => text.push_str("\\\""),
            _ => text.push(each),
        }
    }
}

/// A bound in seconds, as Go's client writes it: that of Centrifugo has the same text here, since a
/// bound is a label, and labels are compared as text.
fn seconds_of(us: u64) -> String {
    if us < 100 && us > 0 {
        let (digit, power) = if us < 10 { (us, 6) } else { (us / 10, 5) };
        let rest = if us < 10 { 0 } else { us % 10 };
        let point = if rest > 0 { format!(".{rest}") } else { String::new() };
        return format!("{digit}{point}e-0{power}");
    }
    let (whole, part) = (us / 1_000_000, us % 1_000_000);
    if part == 0 {
        return whole.to_string();
    }
    format!("{whole}.{part:06}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::cells::{COMMANDS, FAN_OUT};
    use crate::metrics::family;

    #[test]
    fn bounds_are_written_as_go_writes_them() {
        let text = |bounds: &[u64]| bounds.iter().map(|us| seconds_of(*us)).collect::<Vec<_>>();
        assert_eq!(text(&FAN_OUT[..6]), ["1e-06", "5e-06", "1e-05", "5e-05", "0.0001", "0.00025"]);
        let wanted = ["0.1", "0.25", "0.5", "1", "2.5", "5", "10"];
        assert_eq!(text(&COMMANDS[COMMANDS.len() - 7..]), wanted);
        assert_eq!(seconds_of(15), "1.5e-05");
    }

    #[test]
    fn what_would_break_a_line_or_a_value_is_escaped() {
        let mut page = Page::new(Names::Throng);
        page.family(&family::BUILD);
        page.whole(&[("version", "a\"b\\c\nd")], 1);
        let text = page.end();
        assert!(text.ends_with("throng_node_build{version=\"a\\\"b\\\\c\\nd\"} 1\n"), "{text}");
    }

    #[test]
    fn a_distribution_counts_up() {
        let mut page = Page::new(Names::Centrifugo);
        page.family(&family::COMMAND_DURATION);
        let sum = Sum { bounds: &[1_000, 2_500_000], buckets: vec![2, 0, 1], sum: 3_000_042 };
        page.spread(&[("method", "rpc")], &sum, Unit::Micros);
        let text = page.end();
        let samples: Vec<&str> = text.lines().skip(2).collect();
        let name = "centrifugo_client_command_duration_seconds_histogram";
        let wanted = [
            format!("{name}_bucket{{method=\"rpc\",le=\"0.001\"}} 2"),
            format!("{name}_bucket{{method=\"rpc\",le=\"2.5\"}} 2"),
            format!("{name}_bucket{{method=\"rpc\",le=\"+Inf\"}} 3"),
            format!("{name}_sum{{method=\"rpc\"}} 3.000042"),
            format!("{name}_count{{method=\"rpc\"}} 3"),
        ];
        assert_eq!(samples, wanted);
    }
}
