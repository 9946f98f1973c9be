//! Which publications a subscriber wants, by their tags: a tree of tests, flat in memory.

use std::cmp::Ordering;

use crate::state::{Corrupt, Fields, Part, Record, Writer};

/// Tests and joints of one filter at most. It is tried on each publication of the channel, and so
/// many tests cost about what one delivery does.
pub const NODES_MAX: usize = 64;

/// How deep a filter may nest.
pub const DEPTH_MAX: usize = 16;

/// Bytes of all its texts together at most, so that no text is long to compare.
pub const BYTES_MAX: usize = 4096;

/// A filter. Its nodes come in the order in which they are read: each before those below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    nodes: Box<[Node]>,
}

/// A node of a filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    /// All of so many nodes below.
    All(u16),
    /// One of them.
    Any(u16),
    /// Not the one below.
    Not,
    /// What the tag of this key must be.
    Test { key: Box<str>, test: Test },
}

/// What a tag must be. Where there is none only [`Test::IsNot`], [`Test::NotIn`] and
/// [`Test::Absent`] hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Test {
    Is(Box<str>),
    IsNot(Box<str>),
    In(Box<[Box<str>]>),
    NotIn(Box<[Box<str>]>),
    Exists,
    Absent,
    Begins(Box<str>),
    Ends(Box<str>),
    Contains(Box<str>),
    /// These compare decimal numbers; a tag that is none does not pass.
    Less(Box<str>),
    AtMost(Box<str>),
    More(Box<str>),
    AtLeast(Box<str>),
}

/// Why nodes are no filter, in words for who wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit(pub String);

impl Filter {
    /// A filter of these nodes.
    ///
    /// # Errors
    /// When they are too many, nest too deep, are too long, or are not one tree.
    pub fn new(nodes: Vec<Node>) -> Result<Self, Unfit> {
        if nodes.len() > NODES_MAX {
            return Err(Unfit(format!("it has {} nodes, and may have {NODES_MAX}", nodes.len())));
        }
        let bytes: usize = nodes.iter().map(Node::bytes).sum();
        if bytes > BYTES_MAX {
            return Err(Unfit(format!("its texts have {bytes} bytes, and may have {BYTES_MAX}")));
        }
        let number = nodes.iter().find_map(Node::bad_number);
        if let Some(number) = number {
            return Err(Unfit(format!("\"{number}\" is not a decimal number")));
        }
        match check(&nodes, 1)? {
            [] => Ok(Self { nodes: nodes.into() }),
            _ => Err(Unfit("it is more than one tree".to_owned())),
        }
    }

    /// Whether these tags, sorted by key, pass.
    pub fn passes(&self, tags: &[(String, String)]) -> bool {
        eval(&self.nodes, tags).0
    }
}

/// Checks the tree that `nodes` begin with; returns what follows it.
fn check(nodes: &[Node], depth: usize) -> Result<&[Node], Unfit> {
    if depth > DEPTH_MAX {
        return Err(Unfit(format!("it nests deeper than {DEPTH_MAX}")));
    }
    let Some((first, mut rest)) = nodes.split_first() else {
        return Err(Unfit("a node is missing".to_owned()));
    };
    let below = first.below();
    if matches!(first, Node::All(0) | Node::Any(0)) {
        return Err(Unfit("\"and\" and \"or\" need nodes".to_owned()));
    }
    for _ in 0..below {
        rest = check(rest, depth + 1)?;
    }
    Ok(rest)
}

/// What the tree says that `nodes` begin with, and what follows it. No deeper than [`DEPTH_MAX`].
fn eval<'a>(nodes: &'a [Node], tags: &[(String, String)]) -> (bool, &'a [Node]) {
    let Some((first, mut rest)) = nodes.split_first() else { return (false, nodes) };
    let mut passed = 0;
    for _ in 0..first.below() {
        let (passes, behind) = eval(rest, tags);
        passed += u16::from(passes);
        rest = behind;
    }
    let passes = match first {
        Node::All(count) => passed == *count,
        Node::Any(_) => passed > 0,
        Node::Not => passed == 0,
        Node::Test { key, test } => {
            let at = tags.binary_search_by(|(tag, _)| (**tag).cmp(key));
            test.passes(at.ok().and_then(|at| tags.get(at)).map(|(_, value)| value.as_str()))
        }
    };
    (passes, rest)
}

impl Node {
    fn below(&self) -> u16 {
        match self {
            Self::All(count) | Self::Any(count) => *count,
            Self::Not => 1,
            Self::Test { .. } => 0,
        }
    }

    fn bytes(&self) -> usize {
        let Self::Test { key, test } = self else { return 0 };
        key.len() + test.texts().iter().map(|text| text.len()).sum::<usize>()
    }

    fn bad_number(&self) -> Option<&str> {
        let Self::Test { test, .. } = self else { return None };
        match test {
            Test::Less(number)
            | Test::AtMost(number)
            | Test::More(number)
            | Test::AtLeast(number) => Some(&**number).filter(|number| decimal(number).is_none()),
            _ => None,
        }
    }
}

impl Test {
    fn passes(&self, tag: Option<&str>) -> bool {
        let Some(tag) = tag else {
            return matches!(self, Self::IsNot(_) | Self::NotIn(_) | Self::Absent);
        };
        let is_in = |list: &[Box<str>]| list.iter().any(|one| **one == *tag);
        let compared = |number: &str| Some(decimal(tag)?.cmp(&decimal(number)?));
        match self {
            Self::Is(text) => **text == *tag,
            Self::IsNot(text) => **text != *tag,
            Self::In(list) => is_in(list),
            Self::NotIn(list) => !is_in(list),
            Self::Exists => true,
            Self::Absent => false,
            Self::Begins(text) => tag.starts_with(&**text),
            Self::Ends(text) => tag.ends_with(&**text),
            Self::Contains(text) => tag.contains(&**text),
            Self::Less(number) => compared(number).is_some_and(Ordering::is_lt),
            Self::AtMost(number) => compared(number).is_some_and(Ordering::is_le),
            Self::More(number) => compared(number).is_some_and(Ordering::is_gt),
            Self::AtLeast(number) => compared(number).is_some_and(Ordering::is_ge),
        }
    }

    fn texts(&self) -> &[Box<str>] {
        match self {
            Self::In(list) | Self::NotIn(list) => list,
            Self::Exists | Self::Absent => &[],
            Self::Is(text)
            | Self::IsNot(text)
            | Self::Begins(text)
            | Self::Ends(text)
            | Self::Contains(text)
            | Self::Less(text)
            | Self::AtMost(text)
            | Self::More(text)
            | Self::AtLeast(text) => std::slice::from_ref(text),
        }
    }

    /// Its number in what is written down: none is ever given another meaning.
    fn number(&self) -> u8 {
        match self {
            Self::Is(_) => 1,
            Self::IsNot(_) => 2,
            Self::In(_) => 3,
            Self::NotIn(_) => 4,
            Self::Exists => 5,
            Self::Absent => 6,
            Self::Begins(_) => 7,
            Self::Ends(_) => 8,
            Self::Contains(_) => 9,
            Self::Less(_) => 10,
            Self::AtMost(_) => 11,
            Self::More(_) => 12,
            Self::AtLeast(_) => 13,
        }
    }

    fn of_number(number: u8, texts: Vec<Box<str>>) -> Option<Self> {
        match number {
            3 => return Some(Self::In(texts.into())),
            4 => return Some(Self::NotIn(texts.into())),
            5 => return Some(Self::Exists),
            6 => return Some(Self::Absent),
            _ => {}
        }
        let text = texts.into_iter().next()?;
        Some(match number {
            1 => Self::Is(text),
            2 => Self::IsNot(text),
            7 => Self::Begins(text),
            8 => Self::Ends(text),
            9 => Self::Contains(text),
            10 => Self::Less(text),
            11 => Self::AtMost(text),
            12 => Self::More(text),
            13 => Self::AtLeast(text),
            _ => return None,
        })
    }
}

/// A decimal number's digits, without zeros that say nothing.
#[derive(Debug, PartialEq, Eq)]
struct Decimal<'a> {
    is_negative: bool,
    whole: &'a str,
    part: &'a str,
}

/// A number as people write it: a sign or none, digits, and perhaps a point among or before them.
fn decimal(text: &str) -> Option<Decimal<'_>> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, part) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let is_number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    if whole.len() + part.len() == 0 || !is_number(whole) || !is_number(part) {
        return None;
    }
    let (whole, part) = (whole.trim_start_matches('0'), part.trim_end_matches('0'));
    let is_zero = whole.len() + part.len() == 0;
    Some(Decimal { is_negative: text.starts_with('-') && !is_zero, whole, part })
}

impl Ord for Decimal<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_size = || {
            let whole = self.whole.len().cmp(&other.whole.len());
            whole.then_with(|| self.whole.cmp(other.whole)).then_with(|| self.part.cmp(other.part))
        };
        match (self.is_negative, other.is_negative) {
            (false, false) => by_size(),
            (true, true) => by_size().reverse(),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Decimal<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

const ALL: u8 = 1;
const ANY: u8 = 2;
const NOT: u8 = 3;
const TEST: u8 = 4;

/// Each node is a record.
impl Record for Filter {
    const WHAT: &'static str = "a tags filter";

    fn put_fields(&self, out: &mut Writer) {
        let Self { nodes } = self;
        for node in nodes {
            out.record(1, |out| match node {
                Node::All(count) => {
                    ALL.put(1, out);
                    count.put(2, out);
                }
                Node::Any(count) => {
                    ANY.put(1, out);
                    count.put(2, out);
                }
                Node::Not => NOT.put(1, out),
                Node::Test { key, test } => {
                    TEST.put(1, out);
                    key.put(3, out);
                    test.number().put(4, out);
                    for text in test.texts() {
                        out.bytes(5, text.as_bytes());
                    }
                }
            });
        }
    }

    fn take_fields(mut fields: Fields<'_>) -> Result<Self, Corrupt> {
        let mut nodes = Vec::new();
        while let Some(field) = fields.field()? {
            match field.tag {
                1 => nodes.push(take_node(field.fields("a node of a filter")?)?),
                _ => field.pass()?,
            }
        }
        Self::new(nodes).map_err(|Unfit(why)| fields.corrupt(why))
    }
}

fn take_node(mut fields: Fields<'_>) -> Result<Node, Corrupt> {
    let (mut kind, mut count, mut key, mut number) = (0_u8, 0_u16, Box::<str>::default(), 0_u8);
    let mut texts: Vec<Box<str>> = Vec::new();
    while let Some(field) = fields.field()? {
        match field.tag {
            1 => kind = Part::take(None, &field)?,
            2 => count = Part::take(None, &field)?,
            3 => key = Part::take(None, &field)?,
            4 => number = Part::take(None, &field)?,
            5 => texts.push(field.text()?.into()),
            _ => field.pass()?,
        }
    }
    let node = match kind {
        ALL => Some(Node::All(count)),
        ANY => Some(Node::Any(count)),
        NOT => Some(Node::Not),
        TEST => Test::of_number(number, texts).map(|test| Node::Test { key, test }),
        _ => None,
    };
    node.ok_or_else(|| fields.corrupt(format!("there is no node {kind} with test {number}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Now;

    fn test(key: &str, test: Test) -> Node {
        Node::Test { key: key.into(), test }
    }

    fn tags(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_test_says_what_a_tag_must_be() {
        let list = || -> Box<[Box<str>]> { ["a".into(), "b".into()].into() };
        for (each, passing, failing, absent) in [
            (Test::Is("a".into()), "a", "b", false),
            (Test::IsNot("a".into()), "b", "a", true),
            (Test::In(list()), "b", "c", false),
            (Test::NotIn(list()), "c", "b", true),
            (Test::Begins("ab".into()), "abc", "bab", false),
            (Test::Ends("ab".into()), "cab", "abc", false),
            (Test::Contains("ab".into()), "cabc", "ba", false),
            (Test::Less("10".into()), "9.99", "10.0", false),
            (Test::AtMost("10".into()), "010.00", "10.01", false),
            (Test::More("-1.5".into()), "-1.49", "-1.5", false),
            (Test::AtLeast("0".into()), "-0", "-0.1", false),
            (Test::Less("5".into()), "+4", "four", false),
        ] {
            let filter = Filter::new(vec![test("k", each)]).unwrap();
            assert!(filter.passes(&tags(&[("a", "z"), ("k", passing)])), "{filter:?} {passing}");
            assert!(
                !filter.passes(&tags(&[("k", failing), ("z", passing)])),
                "{filter:?} {failing}"
            );
            assert_eq!(filter.passes(&tags(&[("j", passing)])), absent, "{filter:?} without");
        }
        let exists = Filter::new(vec![test("k", Test::Exists)]).unwrap();
        let absent = Filter::new(vec![test("k", Test::Absent)]).unwrap();
        for (list, there) in [(tags(&[("k", "")]), true), (tags(&[]), false)] {
            assert_eq!((exists.passes(&list), absent.passes(&list)), (there, !there));
        }
    }

    #[test]
    fn joints_join_what_is_below_them() {
        // (a = 1 and not b exists) or c begins with x
        let filter = Filter::new(vec![
            Node::Any(2),
            Node::All(2),
            test("a", Test::Is("1".into())),
            Node::Not,
            test("b", Test::Exists),
            test("c", Test::Begins("x".into())),
        ])
        .unwrap();
        assert!(filter.passes(&tags(&[("a", "1")])));
        assert!(!filter.passes(&tags(&[("a", "1"), ("b", "")])));
        assert!(filter.passes(&tags(&[("a", "1"), ("b", ""), ("c", "xy")])));
        assert!(!filter.passes(&tags(&[("a", "2")])));
        let mut out = Writer::new(Vec::new(), Now::default());
        filter.put_fields(&mut out);
        let bytes = out.into_bytes();
        let fields = || Fields::new(&bytes, 0, "filter", Now::default());
        assert_eq!(Filter::take_fields(fields()), Ok(filter));
        for cut in 0..bytes.len() {
            // Cut between two nodes it is a smaller tree, or none.
            Filter::take_fields(Fields::new(&bytes[..cut], 0, "filter", Now::default())).ok();
        }
    }

    #[test]
    fn what_is_too_much_or_no_tree_is_refused_with_words() {
        let why = |nodes: Vec<Node>| Filter::new(nodes).unwrap_err().0;
        let leaf = || test("k", Test::Exists);
        assert_eq!(why(vec![]), "a node is missing");
        assert_eq!(why(vec![Node::All(2), leaf()]), "a node is missing");
        assert_eq!(why(vec![leaf(), leaf()]), "it is more than one tree");
        assert_eq!(why(vec![Node::All(0)]), "\"and\" and \"or\" need nodes");
        assert_eq!(why(vec![leaf(); 65]), "it has 65 nodes, and may have 64");
        let deep = |depth: usize| [vec![Node::Not; depth - 1], vec![leaf()]].concat();
        assert!(Filter::new(deep(16)).is_ok());
        assert_eq!(why(deep(17)), "it nests deeper than 16");
        let long = test("k", Test::Is("x".repeat(4096).into()));
        assert_eq!(why(vec![long]), "its texts have 4097 bytes, and may have 4096");
        for bad in ["", "1e3", "0x1", ".", "--1", "1.2.3", "٣"] {
            let node = test("k", Test::More(bad.into()));
            assert_eq!(why(vec![node]), format!("\"{bad}\" is not a decimal number"));
        }
    }
}
