//! How a screen looks: in colour or plain, short or whole.

use std::io::IsTerminal;

use throng_limits::doctor::Severity;

/// How a screen looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    /// Only on a terminal, and where `NO_COLOR` is not set.
    pub(super) colour: bool,
    /// Whether everything is shown, and not only what fits on one screen.
    pub(super) all: bool,
}

impl Style {
    pub(super) fn of_stdout(all: bool) -> Self {
        // https://no-color.org: any value but the empty one.
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: std::io::stdout().is_terminal() && !unwanted, all }
    }

    /// The word of a verdict: red, yellow or green.
    pub(super) fn word(self, severity: Severity) -> String {
        let code = match severity {
            Severity::Full => "1;31",
            Severity::Tight => "1;33",
            Severity::Note | Severity::Fine => "1;32",
        };
        self.painted(severity.word(), code)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.painted(text, "2")
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.painted(text, "1")
    }

    fn painted(self, text: &str, code: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
