//! Words for people: numbers, plurals, paragraphs.

use crate::failure::Failure;

pub(crate) use throng_limits::thousands;

/// Columns of a paragraph.
const COLUMNS: usize = 80;

/// `1 subscriber`, `1,024 subscribers`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number))
}

/// `512 bytes`, `12 KiB`, `3 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    match number {
        0..1024 => count(number, "byte"),
        1024..1_048_576 => format!("{} KiB", number.div_ceil(1024)),
        _ => format!("{} MiB", thousands(number.div_ceil(1 << 20))),
    }
}

/// One line of JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::could_not_run(error.to_string()))
}

/// A paragraph in lines of a readable length, each with the indent in front.
pub(crate) fn paragraph(text: &str, indent: &str) -> String {
    let mut done = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > COLUMNS {
            done.push('\n');
            column = 0;
        }
        if column == 0 {
            done.push_str(indent);
            column = indent.len();
        } else {
            done.push(' ');
            column += 1;
        }
        done.push_str(word);
        column += length;
    }
    done
}

/// A stranger's text must not speak to the terminal.
pub(crate) fn visible(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control();
            let plain = (!escaped).then_some(c);
            c.escape_default().filter(move |_| escaped).chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_plurals() {
        assert_eq!(count(1, "user"), "1 user");
        assert_eq!(count(0, "user"), "0 users");
        assert_eq!(count(1_234_567, "user"), "1,234,567 users");
    }

    #[test]
    fn paragraphs_have_a_readable_length() {
        let text = paragraph(&"word ".repeat(40), "  ");
        assert!(text.lines().all(|line| line.starts_with("  word") && line.len() <= COLUMNS));
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(visible("a\u{1b}[2Jä\n"), "a\\u{1b}[2Jä\\n");
    }
}
