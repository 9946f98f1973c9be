//! The screen of one process: the verdict and what to do first, then the ladder.

use throng_limits::doctor::report::amount;
use throng_limits::doctor::words::grouped;
use throng_limits::doctor::{Bounds, Finding, Report, Resource, Rung, Severity};

use super::style::Style;
use crate::table::{Align, table};
use crate::text::count;

/// A terminal that nobody made larger.
const COLUMNS: usize = 80;
/// Its lines, less the prompt that comes next.
const LINES: usize = 23;
/// Columns of the labels.
const LABEL: usize = 8;
/// Ceilings on a short screen, at most.
const RUNGS: usize = 7;
/// Ceilings with a mark: the first to bind, and what comes after.
const MARKED: usize = 3;
/// Columns of a ceiling's name.
const CEILING: usize = 28;
/// Other findings on a short screen, at most.
const ALSO: usize = 3;
/// Peers that are named.
const PEERS: usize = 3;

/// The whole screen.
pub(super) fn screen(report: &Report, style: Style) -> String {
    let mut lines = first(report, style);
    let mut open = open(report);
    let mut also = also(report, style);
    let unseen = unseen(report, style);
    if !style.all {
        // What to do comes before what else there is: a rung, its heading, and two lines more.
        let over = |lines: &[String], open: &[String], also: &[String]| {
            rows(lines) + rows(open) + rows(also) + rows(&unseen) + 4 > LINES
        };
        while over(&lines, &open, &also) && also.pop().is_some() {}
        if over(&lines, &open, &also) {
            open.clear();
        }
        if over(&lines, &open, &also) {
            // There is a line `check` besides.
            lines.retain(|line| !line.trim_start().starts_with("# then: "));
        }
    }
    let rungs = report.ladder.rungs.len();
    let shown = if style.all {
        rungs
    } else {
        // A blank line before, the heading, and the line that says what is left out.
        let taken = rows(&lines) + rows(&open) + rows(&also) + rows(&unseen) + 3;
        LINES.saturating_sub(taken).clamp(1, RUNGS)
    };
    // The blank line is the last that is given up.
    let used = rows(&lines) + rows(&open) + rows(&also) + rows(&unseen) + 4;
    if style.all || used <= LINES {
        lines.push(String::new());
    }
    lines.extend(ladder(report, shown, style));
    lines.extend(open);
    lines.extend(also);
    lines.extend(unseen);
    if style.all {
        lines.extend(report.notes.iter().flat_map(|note| labelled("note", note)));
        lines.extend(evidence(report));
    } else if rungs > shown || left_out(report) > 0 {
        lines.push(style.dim(
            &labelled("", "--all shows every ceiling, finding and piece of evidence").join("\n"),
        ));
    }
    lines.join("\n") + "\n"
}

/// Verdict, why, now, for good, next, check: what a tired operator reads.
fn first(report: &Report, style: Style) -> Vec<String> {
    let mut lines = labelled(report.severity.word(), &report.verdict);
    // The word is coloured after the line was measured.
    let word = report.severity.word();
    lines[0] = lines[0].replacen(word, &style.word(report.severity), 1);
    lines.extend(labelled("why", &report.why));
    lines.extend(
        report
            .warnings
            .iter()
            .take(if style.all { usize::MAX } else { 1 })
            .flat_map(|warning| labelled("mind", warning)),
    );
    lines.extend(now(report, style));
    if report.severity >= Severity::Tight || style.all {
        lines.extend(for_good(report));
    }
    // Where it is the verdict it was said already.
    if let Some(need) = report.need.as_ref().filter(|_| report.check != Some("need")) {
        let fits = if need.fits >= need.wanted { "fit" } else { "do not fit" };
        let text = format!("{} {fits}: {}", count(need.wanted, "connection"), need.by);
        lines.extend(labelled("need", &text));
    }
    let next = report.next.join("; ");
    let check = format!("check  {}", report.verify);
    let both = format!("{:<LABEL$}{next}  {check}", "next");
    let width = both.chars().count();
    if next.is_empty() {
        lines.push(format!("{:<LABEL$}{}", "check", report.verify));
    } else if width <= COLUMNS {
        let gap = " ".repeat((COLUMNS - width).min(8));
        lines.push(format!("{:<LABEL$}{next}{gap}  {check}", "next"));
    } else {
        lines.extend(labelled("next", &next));
        lines.push(format!("{:<LABEL$}{}", "check", report.verify));
    }
    lines
}

fn now(report: &Report, style: Style) -> Vec<String> {
    let note = match report.undone_by.first() {
        Some(by) if report.now.is_some() && !report.now_note.is_empty() => {
            format!("{}; until {by}", report.now_note)
        }
        _ => report.now_note.clone(),
    };
    let Some(command) = &report.now else {
        return if note.is_empty() { Vec::new() } else { labelled("now", &note) };
    };
    // A command stands on one line, however long: it is copied.
    let line = format!("{:<LABEL$}{command}", "now");
    let together = line.chars().count() + 4 + note.chars().count();
    let bold = format!("{:<LABEL$}{}", "now", style.bold(command));
    if note.is_empty() {
        vec![bold]
    } else if together <= COLUMNS {
        vec![format!("{bold}    {note}")]
    } else {
        std::iter::once(bold).chain(labelled("", &note)).collect()
    }
}

/// The first line says what it comes to; the others are typed.
pub(super) fn for_good(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for (at, line) in report.for_good.iter().enumerate() {
        if at == 0 {
            lines.extend(labelled("for good", line));
        } else {
            lines.push(format!("{:<LABEL$}{line}", ""));
        }
    }
    if let Some(command) = report.verify_for_good.as_ref().filter(|_| !lines.is_empty()) {
        lines.push(format!("{:<LABEL$}# then: {command}", ""));
    }
    lines
}

fn ladder(report: &Report, shown: usize, style: Style) -> Vec<String> {
    let columns = [
        ("", Align::Left),
        ("ceiling", Align::Left),
        ("used", Align::Right),
        ("limit", Align::Right),
        ("each", Align::Right),
        ("connections", Align::Right),
        ("read in", Align::Left),
    ];
    // The first three that bind, then the shortest queue: so that a short screen has both.
    let crowd = report.ladder.crowd().count();
    let mut rungs: Vec<&Rung> = report.ladder.rungs.iter().collect();
    if crowd > MARKED && rungs.len() > crowd {
        rungs[MARKED..=crowd].rotate_right(1);
    }
    let rows: Vec<Vec<String>> =
        rungs.into_iter().take(shown).enumerate().map(|(at, rung)| row(at, rung)).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let whole = table(&columns, &rows);
    if style.all || whole.lines().all(|line| line.chars().count() <= COLUMNS) {
        return whole.lines().map(str::to_owned).collect();
    }
    // Half a path helps nobody: --all has them all.
    let short: Vec<Vec<String>> =
        rows.iter().map(|row| row[..row.len().min(columns.len() - 1)].to_vec()).collect();
    let short = table(&columns[..columns.len() - 1], &short);
    short.lines().map(|line| cut(line, COLUMNS)).collect()
}

fn row(at: usize, rung: &Rung) -> Vec<String> {
    let mark = match (rung.bounds, at) {
        (Bounds::Crowd, 0) => "first",
        (Bounds::Crowd, 1 | 2) => "then",
        _ => "",
    };
    let name = if rung.resource == Resource::Application {
        cut(&rung.of, CEILING)
    } else if rung.of.is_empty() {
        rung.resource.words().to_owned()
    } else {
        cut(&format!("{} {}", rung.resource.words(), rung.of), CEILING)
    };
    let allows = match rung.bounds {
        Bounds::Crowd if rung.allows > 1 << 50 => "no end".to_owned(),
        Bounds::Crowd => grouped(rung.allows),
        Bounds::Rush => "at once".to_owned(),
        Bounds::Beside => "-".to_owned(),
    };
    let each = match rung.bounds {
        Bounds::Beside => "-".to_owned(),
        _ if rung.cost_milli.is_multiple_of(1000) => amount(rung, rung.cost_milli / 1000),
        _ => format!("{}.{:03}", rung.cost_milli / 1000, rung.cost_milli % 1000),
    };
    let at = rung.at.first().map(|each| each.at.clone()).unwrap_or_default();
    vec![mark.to_owned(), name, amount(rung, rung.used), amount(rung, rung.limit), each, allows, at]
}

/// What is open, by kind and by state, and from whom.
fn open(report: &Report) -> Vec<String> {
    let open = &report.open;
    let listed = |pairs: &[(String, u64)], most: usize| {
        let shown: Vec<String> = pairs
            .iter()
            .take(most)
            .map(|(name, number)| format!("{name} {}", grouped(*number)))
            .collect();
        shown.join(", ")
    };
    let mut parts = Vec::new();
    if !open.kinds.is_empty() {
        parts.push(listed(&open.kinds, 5));
    }
    if !open.states.is_empty() {
        parts.push(format!("TCP {}", listed(&open.states, 5)));
    }
    if open.inbound > 0 && !open.peers.is_empty() {
        parts.push(format!("from {}", from(&open.peers)));
    }
    if open.crowd > 0 {
        let crowd = grouped(open.crowd);
        parts.push(format!("{crowd} sockets counted behind its listeners (--all looks at each)"));
    }
    if parts.is_empty() { Vec::new() } else { labelled("open", &parts.join("; ")) }
}

/// `10.0.0.1 (12), 10.0.0.2 (9)`
fn from(peers: &[(String, u64)]) -> String {
    let shown: Vec<String> = peers
        .iter()
        .take(PEERS)
        .map(|(name, number)| format!("{name} ({})", grouped(*number)))
        .collect();
    shown.join(", ")
}

/// Findings besides the one behind the verdict.
fn others(report: &Report) -> impl Iterator<Item = &Finding> {
    // The worst comes first, and is the verdict.
    report.findings.iter().skip(usize::from(report.check.is_some()))
}

fn left_out(report: &Report) -> usize {
    others(report).count().saturating_sub(ALSO)
}

fn also(report: &Report, style: Style) -> Vec<String> {
    let most = if style.all { usize::MAX } else { ALSO };
    others(report)
        .take(most)
        .flat_map(|finding| {
            let mut lines = labelled("also", &finding.what);
            if style.all {
                lines.extend(finding.why.iter().flat_map(|why| labelled("", why)));
                lines.extend(finding.now.iter().map(|now| format!("{:<LABEL$}now: {now}", "")));
                lines.extend(
                    finding
                        .for_good
                        .iter()
                        .flat_map(|line| labelled("", &format!("for good: {line}"))),
                );
            }
            lines
        })
        .collect()
}

fn unseen(report: &Report, style: Style) -> Vec<String> {
    if report.unseen.is_empty() {
        return Vec::new();
    }
    let mut text: Vec<String> =
        report
            .unseen
            .iter()
            .map(|each| {
                if style.all { format!("{} ({})", each.what, each.why) } else { each.what.clone() }
            })
            .collect();
    text.dedup();
    let root = report.unseen.iter().any(|each| each.root_sees);
    let hint = if root { "; root sees more: sudo throng doctor PID" } else { "" };
    labelled("unseen", &format!("{}{hint}", text.join("; ")))
}

/// Where everything was read.
fn evidence(report: &Report) -> Vec<String> {
    let of_findings = report.findings.iter().flat_map(|finding| &finding.evidence);
    let all = report.evidence.iter().chain(of_findings);
    let mut lines: Vec<String> =
        all.map(|each| format!("{:<LABEL$}{}: {}", "", each.at, each.what)).collect();
    lines.dedup();
    if let Some(line) = lines.first_mut() {
        line.replace_range(..LABEL, "seen    ");
    }
    lines
}

/// A label and a text in lines of one screen, those after the first indented.
pub(super) fn labelled(label: &str, text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let gap = if label.len() >= LABEL { "  " } else { "" };
    let mut line = format!("{label:<LABEL$}{gap}");
    let mut is_empty = true;
    for word in text.split_whitespace() {
        let width = line.chars().count() + 1 + word.chars().count();
        if !is_empty && width > COLUMNS {
            lines.push(std::mem::replace(&mut line, " ".repeat(LABEL)));
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    lines.push(line);
    lines
}

/// Rows of a terminal that lines take: long ones are broken by it.
fn rows(lines: &[String]) -> usize {
    lines.iter().map(|line| plain(line).div_ceil(COLUMNS).max(1)).sum()
}

/// Columns of a line, colours not counted.
fn plain(line: &str) -> usize {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().map_or(0, |part| part.chars().count());
    first
        + parts
            .map(|part| part.split_once('m').map_or(0, |(_, rest)| rest.chars().count()))
            .sum::<usize>()
}

/// A text of at most so many characters.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_wide_as_a_screen_and_indented_below_their_label() {
        let lines = labelled("why", &"word ".repeat(40));
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS), "{lines:?}");
        assert!(lines[0].starts_with("why     word") && lines[1].starts_with("        word"));
        assert_eq!(labelled("for good", "x"), ["for good  x"]);
        assert_eq!(labelled("now", ""), ["now     "]);
    }

    #[test]
    fn colours_take_no_room_and_long_lines_take_several() {
        assert_eq!(plain("\u{1b}[1;31mFULL\u{1b}[0m x"), 6);
        assert_eq!(rows(&["x".repeat(81), String::new()]), 3);
        assert_eq!(cut("abcdef", 4), "abc…");
    }
}
