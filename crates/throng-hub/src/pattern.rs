//! Matches channel names: `*` any characters, `?` one, `[a-z]` one of these, `[!a-z]` none of
//! these, `\` takes the next one as it is.

/// A pattern, taken apart.
#[derive(Debug)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Any,
    One,
    This(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Pattern {
    pub(crate) fn new(pattern: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = pattern.chars();
        while let Some(first) = rest.next() {
            match first {
                // Two stars say no more than one, and cost more.
                '*' if matches!(parts.last(), Some(Part::Any)) => {}
                '*' => parts.push(Part::Any),
                '?' => parts.push(Part::One),
                '\\' => parts.push(Part::This(rest.next().unwrap_or('\\'))),
                '[' => match class(rest.as_str()) {
                    Some((part, after)) => {
                        parts.push(part);
                        rest = after.chars();
                    }
                    None => parts.push(Part::This('[')),
                },
                other => parts.push(Part::This(other)),
            }
        }
        Self { parts }
    }

    /// Takes at most pattern times name steps: after a star only the last star can take more.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let mut part = 0;
        let mut rest = name;
        let mut star: Option<(usize, &str)> = None;
        loop {
            let mut after = rest.chars();
            match (self.parts.get(part), after.next()) {
                (Some(Part::Any), _) => {
                    part += 1;
                    star = Some((part, rest));
                    continue;
                }
                (Some(wanted), Some(found)) if wanted.takes(found) => {
                    part += 1;
                    rest = after.as_str();
                    continue;
                }
                (None, None) => return true,
                _ => {}
            }
            let Some((after_star, taken)) = star else { return false };
            let mut taken = taken.chars();
            if taken.next().is_none() {
                return false;
            }
            part = after_star;
            rest = taken.as_str();
            star = Some((part, rest));
        }
    }
}

impl Part {
    fn takes(&self, found: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::This(this) => *this == found,
            Self::Class { negated, ranges } => {
                let within = ranges.iter().any(|(low, high)| (*low..=*high).contains(&found));
                within != *negated
            }
        }
    }
}

/// A class after its `[`, and what follows it; none if it is not closed.
fn class(text: &str) -> Option<(Part, &str)> {
    let inner = text.strip_prefix(['!', '^']);
    let (negated, body) = (inner.is_some(), inner.unwrap_or(text));
    let mut ranges = Vec::new();
    let mut rest = body.chars();
    loop {
        let low = match rest.next()? {
            ']' if !ranges.is_empty() => {
                return Some((Part::Class { negated, ranges }, rest.as_str()));
            }
            '\\' => rest.next()?,
            other => other,
        };
        let mut ahead = rest.clone();
        let high = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(high)) if high != ']' => {
                rest = ahead;
                high
            }
            _ => low,
        };
        ranges.push((low, high));
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn matches_as_a_shell_does() {
        let check = |pattern: &str, name: &str| Pattern::new(pattern).matches(name);
        for (pattern, name) in [
            ("", ""),
            ("*", ""),
            ("*", "news"),
            ("news", "news"),
            ("n*s", "news"),
            ("n*s*", "news"),
            ("**a**", "bab"),
            ("?ews", "news"),
            ("?", "\u{e9}"),
            ("[a-z]ews", "news"),
            ("[!a-m]ews", "news"),
            ("[]]", "]"),
            ("[a-]", "-"),
            ("a[", "a["),
            ("\\*", "*"),
            ("user:*:[0-9]", "user:ab:cd:7"),
        ] {
            assert!(check(pattern, name), "{pattern} matches {name}");
        }
        for (pattern, name) in [
            ("", "a"),
            ("?", ""),
            ("?", "ab"),
            ("a", "A"),
            ("n*x", "news"),
            ("[!n]ews", "news"),
            ("[a-c]", "d"),
            ("\\*", "a"),
            ("*a", "ab"),
        ] {
            assert!(!check(pattern, name), "{pattern} does not match {name}");
        }
    }

    #[test]
    fn a_wicked_pattern_takes_no_time() {
        let pattern = Pattern::new(&"*a".repeat(200));
        assert!(!pattern.matches(&"a".repeat(199)));
        assert!(!Pattern::new(&format!("{}b", "*a".repeat(100))).matches(&"a".repeat(20_000)));
    }
}
