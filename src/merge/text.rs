//! Writing JSON in the style of a text that was there before: its indentation, its order of members, and its very bytes
//! wherever a value is what it was, so that a diff shows the change and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::event::json;
use crate::{Error, Result};

/// How a text is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Style {
    /// What one level is indented by; `None` where all stands on one line.
    pub indent: Option<String>,
    /// What ends a line: `\n` or `\r\n`.
    pub newline: &'static str,
    /// What stands between a member's name and its value: `: `.
    pub colon: String,
    /// What stands between two members on one line: `, `.
    pub comma: &'static str,
}

impl Default for Style {
    fn default() -> Self {
        Self { indent: Some("  ".to_owned()), newline: "\n", colon: ": ".to_owned(), comma: ", " }
    }
}

/// Writes a value in the style of the first of some JSON texts. What it has in common with that text stays as it is
/// written there, byte by byte; what it has in common with another is written as there, indented as the first is. New
/// members of an object stand where the text that has them has them.
///
/// # Errors
/// `validation` where a text is no JSON.
pub fn write_like(value: &Json, texts: &[&str]) -> Result<String> {
    let sources = texts.iter().map(|text| Source::of(text)).collect::<Result<Vec<_>>>()?;
    let style = sources.first().map(|source| source.style.clone()).unwrap_or_default();
    let places: Vec<Place<'_>> = sources
        .iter()
        .map(|source| Place { json: &source.json, piece: &source.piece, style: &source.style })
        .collect();
    let first: Vec<Option<Place<'_>>> = places.into_iter().map(Some).collect();
    let (before, after) = texts.first().map_or(("", "\n"), |text| around(text));
    let mut writer = Writer { style: &style, out: before.to_owned() };
    writer.value(value, &first, "");
    writer.out.push_str(after);
    Ok(writer.out)
}

/// The blanks before and after the value of a text.
fn around(text: &str) -> (&str, &str) {
    let start = text.len() - text.trim_start_matches(BLANKS).len();
    let end = text.trim_end_matches(BLANKS).len();
    (text.get(..start).unwrap_or_default(), text.get(end..).unwrap_or_default())
}

const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

// --- texts, taken apart ----------------------------------------------------------------------------------------------

/// A value of a text: its bytes, and its members where it is an object.
#[derive(Debug)]
struct Piece<'t> {
    raw: &'t str,
    /// What its first line is indented by, where it begins a line; else what the line of its object is.
    indent: &'t str,
    members: Vec<Member<'t>>,
    /// Where each member is among them.
    places: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Member<'t> {
    name: String,
    /// The name with its quotes, as it is written.
    quoted: &'t str,
    value: Piece<'t>,
}

impl<'t> Piece<'t> {
    fn member(&self, name: &str) -> Option<&Piece<'t>> {
        self.members.get(*self.places.get(name)?).map(|member| &member.value)
    }

    /// Whether the members stand on lines of their own.
    fn is_tall(&self) -> bool {
        self.raw.strip_prefix('{').is_some_and(|rest| {
            let blanks = rest.len() - rest.trim_start_matches(BLANKS).len();
            rest.get(..blanks).unwrap_or_default().contains('\n')
        })
    }
}

struct Source<'t> {
    json: Json,
    piece: Piece<'t>,
    style: Style,
}

impl<'t> Source<'t> {
    fn of(text: &'t str) -> Result<Self> {
        let json = json::parse(text)?;
        let mut scanner = Scanner { text, at: 0, line: None };
        let piece = scanner.value("").ok_or_else(|| Error::from(json::JsonError::NotCanonical))?;
        let style = Style::of(text, &piece);
        Ok(Self { json, piece, style })
    }
}

/// Goes through a text that is known to be JSON; gives up, rather than fail, where it is not.
struct Scanner<'t> {
    text: &'t str,
    at: usize,
    /// What the line is indented by, while only blanks of it have been passed.
    line: Option<&'t str>,
}

impl<'t> Scanner<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        let blanks = rest.get(..rest.len() - rest.trim_start_matches(BLANKS).len()).unwrap_or_default();
        self.at += blanks.len();
        self.line = blanks.rsplit_once('\n').map(|(_, indent)| indent).or(self.line);
    }

    /// Passes over so many bytes of a token.
    fn pass(&mut self, bytes: usize) {
        self.at += bytes;
        self.line = None;
    }

    fn next(&mut self, wanted: char) -> bool {
        self.blanks();
        let is_next = self.rest().starts_with(wanted);
        if is_next {
            self.pass(1);
        }
        is_next
    }

    /// A value on a line that is indented by `outer`, unless it begins one.
    fn value(&mut self, outer: &'t str) -> Option<Piece<'t>> {
        self.blanks();
        let (start, indent) = (self.at, self.line.unwrap_or(outer));
        let mut members = Vec::new();
        match self.rest().chars().next()? {
            '{' => members = self.object(indent)?,
            '[' => self.array(indent)?,
            '"' => drop(self.string()?),
            _ => {
                let rest = self.rest();
                self.pass(rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len()));
            }
        }
        let places = members.iter().map(|member: &Member<'_>| member.name.clone()).zip(0..).collect();
        Some(Piece { raw: self.text.get(start..self.at)?, indent, members, places })
    }

    fn object(&mut self, outer: &'t str) -> Option<Vec<Member<'t>>> {
        self.pass(1);
        let mut members = Vec::new();
        if self.next('}') {
            return Some(members);
        }
        loop {
            self.blanks();
            let indent = self.line.unwrap_or(outer);
            let quoted = self.string()?;
            let name = serde_json::from_str(quoted).ok()?;
            self.next(':').then_some(())?;
            let value = self.value(indent)?;
            members.push(Member { name, quoted, value });
            if self.next('}') {
                return Some(members);
            }
            self.next(',').then_some(())?;
        }
    }

    fn array(&mut self, outer: &'t str) -> Option<()> {
        self.pass(1);
        if self.next(']') {
            return Some(());
        }
        loop {
            self.value(outer)?;
            if self.next(']') {
                return Some(());
            }
            self.next(',').then_some(())?;
        }
    }

    fn string(&mut self) -> Option<&'t str> {
        let (start, rest) = (self.at, self.rest());
        let inside = rest.strip_prefix('"')?;
        let mut escaped = false;
        let end = inside.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        self.pass(end + 2);
        self.text.get(start..self.at)
    }
}

impl Style {
    /// The style of a text: the first object that stands on several lines says how it indents.
    fn of(text: &str, piece: &Piece<'_>) -> Self {
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let first = piece.members.first();
        let colon = first.map_or_else(|| ": ".to_owned(), |member| colon(piece.raw, member));
        let is_line = !piece.raw.contains('\n');
        let indent = match tall(piece) {
            Some(unit) => Some(unit),
            None if is_line && !piece.members.is_empty() => None,
            None => Some("  ".to_owned()),
        };
        let is_tight = !piece.raw.contains(", ") && (piece.members.len() > 1 || !colon.ends_with(' '));
        let comma = if is_line && is_tight { "," } else { ", " };
        Self { indent, newline, colon, comma }
    }

    /// The style of what stands on one line.
    fn flat(&self) -> Self {
        Self { indent: None, ..self.clone() }
    }
}

/// What stands between the name of the first member of an object and its value, on one line.
fn colon(raw: &str, first: &Member<'_>) -> String {
    let after = raw.split_once(first.quoted).map_or("", |(_, after)| after);
    let end = after.len() - after.trim_start_matches([':', ' ', '\t']).len();
    let colon = after.get(..end).unwrap_or_default();
    if colon.contains(':') { colon.to_owned() } else { ": ".to_owned() }
}

/// What the members of the first object on several lines are indented by, beyond the object.
fn tall(piece: &Piece<'_>) -> Option<String> {
    if piece.is_tall() {
        let member = piece.members.first()?;
        return Some(member.value.indent.strip_prefix(piece.indent)?.to_owned());
    }
    piece.members.iter().find_map(|member| tall(&member.value))
}

// --- writing ---------------------------------------------------------------------------------------------------------

/// What a text has at the place that is written.
#[derive(Clone, Copy)]
struct Place<'s> {
    json: &'s Json,
    piece: &'s Piece<'s>,
    style: &'s Style,
}

impl<'s> Place<'s> {
    fn holds(&self, value: &Json) -> bool {
        self.json == value || json::canonical(self.json) == json::canonical(value)
    }

    fn below(&self, name: &str) -> Option<Self> {
        Some(Self { json: self.json.as_object()?.get(name)?, piece: self.piece.member(name)?, style: self.style })
    }
}

struct Writer<'s> {
    style: &'s Style,
    out: String,
}

impl Writer<'_> {
    /// Writes a value on a line that is indented by this, as it stands at some places of texts.
    fn value(&mut self, value: &Json, places: &[Option<Place<'_>>], indent: &str) {
        let (first, others) = places.split_first().map_or((None, places), |(first, others)| (*first, others));
        if let Some(same) = first.filter(|place| place.holds(value)) {
            self.out.push_str(same.piece.raw);
            return;
        }
        // Members are kept in the first text's order, so an object is taken whole from another only where that has none.
        let ordered = first.is_some_and(|first| first.json.is_object()) && value.is_object();
        let other = others.iter().flatten().find(|place| !ordered && place.holds(value));
        match (other, value) {
            (Some(other), _) => self.moved(other, indent),
            (None, Json::Object(_)) => self.object(value, places, indent),
            (None, value) => self.fresh(value, indent),
        }
    }

    /// What another text has, indented as here.
    fn moved(&mut self, from: &Place<'_>, indent: &str) {
        if self.style.indent.is_none() && from.piece.raw.contains('\n') {
            self.out.push_str(&json::canonical(from.json));
            return;
        }
        let mut lines = from.piece.raw.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        self.out.push_str(lines.next().unwrap_or_default());
        for line in lines {
            let text = line.trim_start_matches([' ', '\t']);
            let blanks = line.get(..line.len() - text.len()).unwrap_or_default();
            let below = blanks.strip_prefix(from.piece.indent).unwrap_or(blanks);
            self.out.push_str(self.style.newline);
            self.out.push_str(indent);
            self.out.push_str(&self.translated(below, from.style));
            self.out.push_str(text);
        }
    }

    /// An indentation of another style in this one.
    fn translated(&self, blanks: &str, from: &Style) -> String {
        match (&from.indent, &self.style.indent) {
            (Some(from), Some(to)) if !from.is_empty() && blanks.replace(from.as_str(), "").is_empty() => {
                to.repeat(blanks.len() / from.len())
            }
            _ => blanks.to_owned(),
        }
    }

    fn object(&mut self, value: &Json, places: &[Option<Place<'_>>], indent: &str) {
        let names = names(value, places);
        let first = places.first().copied().flatten().filter(|place| place.json.is_object());
        let is_tall = match first {
            Some(place) if !place.piece.members.is_empty() => place.piece.is_tall(),
            _ => self.style.indent.is_some(),
        };
        if names.is_empty() || !is_tall {
            let flat = self.style.flat();
            let members =
                names.iter().map(|name| self.nested(&flat, value, places, name, indent)).collect::<Vec<_>>();
            self.out.push_str(&format!("{{{}}}", members.join(self.style.comma)));
            return;
        }
        let first_member = first.and_then(|place| place.piece.members.first());
        let unit = self.style.indent.clone().unwrap_or_default();
        let inner = first_member.map_or_else(|| format!("{indent}{unit}"), |member| member.value.indent.to_owned());
        let members = names.iter().map(|name| inner.clone() + &self.nested(self.style, value, places, name, &inner));
        let members = members.collect::<Vec<_>>().join(&format!(",{}", self.style.newline));
        let newline = self.style.newline;
        self.out.push_str(&format!("{{{newline}{members}{newline}{indent}}}"));
    }

    /// A member, in a style.
    fn nested(&self, style: &Style, value: &Json, places: &[Option<Place<'_>>], name: &str, indent: &str) -> String {
        let places: Vec<_> = places.iter().map(|place| place.and_then(|place| place.below(name))).collect();
        let mut writer = Writer { style, out: String::new() };
        writer.out.push_str(&json::canonical(&name.into()));
        writer.out.push_str(&style.colon);
        writer.value(value.get(name).unwrap_or(&Json::Null), &places, indent);
        writer.out
    }

    /// What no text has.
    fn fresh(&mut self, value: &Json, indent: &str) {
        let (Json::Array(items), Some(unit)) = (value, &self.style.indent) else {
            self.out.push_str(&json::canonical(value));
            return;
        };
        if items.is_empty() {
            self.out.push_str("[]");
            return;
        }
        let (newline, inner) = (self.style.newline, format!("{indent}{unit}"));
        let item = |item: &Json| {
            let mut writer = Writer { style: self.style, out: inner.clone() };
            writer.value(item, &[], &inner);
            writer.out
        };
        let items = items.iter().map(item).collect::<Vec<_>>().join(&format!(",{newline}"));
        self.out.push_str(&format!("[{newline}{items}{newline}{indent}]"));
    }
}

/// The names of an object's members: in the first text's order; each that only another text has after the one that is
/// before it there; those of none last.
fn names(value: &Json, places: &[Option<Place<'_>>]) -> Vec<String> {
    let Some(members) = value.as_object() else { return Vec::new() };
    let mut known: BTreeSet<&str> = BTreeSet::new();
    // After each name, the names that follow it.
    let mut following: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    for place in places.iter().flatten() {
        let mut previous = None;
        let written = place.piece.members.iter().map(|member| member.name.as_str());
        for name in written.filter(|name| members.contains_key(*name)) {
            if known.insert(name) {
                // Before what an earlier text has there.
                following.entry(previous).or_default().insert(0, name);
            }
            previous = Some(name);
        }
    }
    let mut names: Vec<String> = Vec::with_capacity(members.len());
    let mut todo: Vec<&str> = following.remove(&None).unwrap_or_default();
    todo.reverse();
    while let Some(name) = todo.pop() {
        names.push(name.to_owned());
        todo.extend(following.remove(&Some(name)).unwrap_or_default().into_iter().rev());
    }
    names.extend(members.keys().filter(|name| !known.contains(name.as_str())).cloned());
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const A: &str = "{\n    \"name\" : \"x\",\n    \"n\": 1.0,\n    \"list\": [1,   2],\n    \"deep\": {\n        \"b\": 1,\n        \"a\": \"\\u0041\"\n    },\n    \"flat\": {\"y\": 1,  \"x\": 2}\n}\n";

    #[test]
    fn an_unchanged_value_is_the_same_text() {
        let value = json::parse(A).unwrap();
        assert_eq!(write_like(&value, &[A]).unwrap(), A);
        for text in ["[1,  2]", " 1.50\n", "\r\n{ }\t", "\"\\u00e9\"", "null"] {
            assert_eq!(write_like(&json::parse(text).unwrap(), &[text]).unwrap(), text);
        }
    }

    #[test]
    fn only_what_differs_is_written_anew() {
        let mut value = json::parse(A).unwrap();
        value["deep"]["b"] = json!({ "new": [true] });
        value["flat"]["z"] = json!(3);
        value["name"] = json!("y");
        let expected = A.replace("\"name\" : \"x\"", "\"name\" : \"y\"").replace(
            "\"b\": 1",
            "\"b\" : {\n            \"new\" : [\n                true\n            ]\n        }",
        );
        let written = write_like(&value, &[A]).unwrap();
        assert!(written.contains("\"list\" : [1,   2],\n"), "{written}");
        assert!(written.contains("\"n\" : 1.0,\n"), "{written}");
        assert!(written.contains("\"a\" : \"\\u0041\"\n    }"), "{written}");
        assert_eq!(written.lines().count(), expected.lines().count(), "{written}");
        assert!(written.ends_with("\"flat\" : {\"y\" : 1, \"x\" : 2, \"z\" : 3}\n}\n"), "{written}");
    }

    #[test]
    fn a_new_member_stands_where_the_other_text_has_it_in_its_own_words() {
        let a = "{\n  \"a\": 1,\n  \"c\": 3\n}\n";
        let b = "{\n\t\"first\": 0,\n\t\"a\": 1,\n\t\"b\": {\n\t\t\"y\": 1,\n\t\t\"x\": [\n\t\t\t1.50\n\t\t]\n\t},\n\t\"b2\": 2,\n\t\"c\": 3\n}";
        let value = json!({ "a": 1, "b": { "x": [1.5], "y": 1 }, "b2": 2, "c": 3, "first": 0, "own": [] });
        let expected = "{\n  \"first\": 0,\n  \"a\": 1,\n  \"b\": {\n    \"y\": 1,\n    \"x\": [\n      1.50\n    ]\n  },\n  \"b2\": 2,\n  \"c\": 3,\n  \"own\": []\n}\n";
        assert_eq!(write_like(&value, &[a, b]).unwrap(), expected);
    }

    #[test]
    fn line_ends_and_one_line_texts_stay_what_they_are() {
        let windows = "{\r\n  \"a\": 1,\r\n  \"b\": 2\r\n}\r\n";
        let unix = "{\n  \"a\": {\n    \"x\": 1\n  },\n  \"b\": 2\n}\n";
        let value = json!({ "a": { "x": 1 }, "b": 3 });
        let expected = "{\r\n  \"a\": {\r\n    \"x\": 1\r\n  },\r\n  \"b\": 3\r\n}\r\n";
        assert_eq!(write_like(&value, &[windows, unix]).unwrap(), expected);
        assert_eq!(write_like(&value, &[r#"{"b":2,"a":1}"#, unix]).unwrap(), r#"{"b":3,"a":{"x":1}}"#);
        assert_eq!(write_like(&value, &[r#"{"b": 2, "a": 1}"#]).unwrap(), r#"{"b": 3, "a": {"x": 1}}"#);
        assert_eq!(write_like(&value, &[]).unwrap(), unix.replace("\"b\": 2", "\"b\": 3"));
    }

    #[test]
    fn a_text_on_one_line_with_many_members_takes_no_longer_than_its_length_asks() {
        let members = |extra: &str| {
            let all: Vec<String> = (0..60_000).map(|n| format!("\"k{n}\":{{\"n\":{n}}}")).collect();
            format!("{{{}{extra}}}", all.join(","))
        };
        let (a, b) = (members(""), members(",\"last\":1"));
        assert_eq!(write_like(&json::parse(&b).unwrap(), &[&a, &b]).unwrap(), b);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["", "{", "{\"a\":1,\"a\":2}", "1e999", "\u{feff}{}"] {
            assert!(write_like(&json!({}), &[text]).is_err(), "{text}");
        }
    }

    /// A value as somebody may have written it.
    fn written(value: &Json, style: u8) -> String {
        match style % 4 {
            0 => value.to_string(),
            1 => serde_json::to_string_pretty(value).unwrap(),
            2 => serde_json::to_string_pretty(value).unwrap().replace('\n', "\r\n"),
            _ => serde_json::to_string_pretty(value).unwrap().replace("  ", "\t") + "\n",
        }
    }

    proptest! {
        #[test]
        fn any_value_in_any_style_reads_back(values in proptest::collection::vec((crate::event::json::tests::values(), 0..4_u8), 1..4), like in 0..4_usize) {
            let texts: Vec<String> = values.iter().map(|(value, style)| written(value, *style)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).take(like).collect();
            let Some((value, _)) = values.last() else { return Ok(()) };
            let text = write_like(value, &texts).unwrap();
            prop_assert_eq!(&json::parse(&text).unwrap(), value);
            if texts.first().is_some_and(|first| json::parse(first).unwrap() == *value) {
                prop_assert_eq!(text, texts[0]);
            }
        }
    }
}
