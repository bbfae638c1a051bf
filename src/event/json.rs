//! JSON as records hold it: strict reading, one form for every number, and canonical text.
//!
//! What is read is what is kept: a text that any part of this program would change or lose (a duplicate key, a number
//! that no machine number equals, a lone surrogate) is refused rather than repaired. `serde_json` does the parsing; a
//! scan of the number literals before it adds exactness, which a parsed number can no longer show.
//!
//! Invariant: a value has one canonical text, whatever the order of its keys, the version of `serde_json` or the
//! features that another crate switches on in it (but `arbitrary_precision`, which changes how numbers are visited).
//!
//! Invariant: `parse(canonical(v)) == v` for every value that [`parse`] or [`normalize`] returned.
//!
//! Invariant: no input, however hostile, panics or recurses deeper than its [`Limits`].

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;
use std::ops::Range;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::limits::{BLOB_BYTES, JSON_DEPTH, PATH_BYTES, PATH_DEPTH};
use super::path::escape;
use crate::error::{Error, ErrorKind};

/// Why a text or a value is not JSON that a record can hold. Pointers are JSON Pointers into the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The text is longer than allowed.
    #[error("expected JSON of at most {limit} bytes, got {bytes}")]
    TooLong {
        /// How many bytes are allowed.
        limit: usize,
        /// How many came.
        bytes: usize,
    },
    /// Containers are nested deeper than allowed.
    #[error("expected at most {limit} nested objects and arrays, got more at `{pointer}`")]
    TooDeep {
        /// How many nested containers are allowed.
        limit: usize,
        /// The first container that is too deep.
        pointer: String,
    },
    /// The bytes are not UTF-8.
    #[error("expected UTF-8, got another byte at offset {offset}")]
    NotUtf8 {
        /// Where the first bad byte is.
        offset: usize,
    },
    /// The text is not JSON.
    #[error("expected JSON, but {reason} at line {line} column {column}")]
    Syntax {
        /// What the parser says.
        reason: String,
        /// The line of the fault, from 1.
        line: usize,
        /// The column of the fault, from 1.
        column: usize,
        /// The value that the parser was reading.
        pointer: String,
    },
    /// An object has a key twice.
    #[error("expected each key once, got `{pointer}` again")]
    DuplicateKey {
        /// The key that came twice.
        pointer: String,
    },
    /// A number is neither a 64-bit integer nor the shortest decimal of a 64-bit float.
    #[error("expected a number that 64 bits hold exactly, got another at `{pointer}`")]
    InexactNumber {
        /// The number.
        pointer: String,
    },
    /// The text is JSON but not its canonical form.
    #[error("expected canonical JSON: sorted keys, no spaces, numbers in their shortest form")]
    NotCanonical,
}

impl JsonError {
    /// The JSON Pointer of the fault, where it has a place.
    #[must_use]
    pub fn pointer(&self) -> Option<&str> {
        match self {
            Self::TooDeep { pointer, .. }
            | Self::Syntax { pointer, .. }
            | Self::DuplicateKey { pointer }
            | Self::InexactNumber { pointer } => Some(pointer),
            Self::TooLong { .. } | Self::NotUtf8 { .. } | Self::NotCanonical => None,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::TooDeep { .. } => Some("flatten the data, or send the inner part as a string"),
            Self::DuplicateKey { .. } => Some("leave out or rename one of the two"),
            Self::InexactNumber { .. } => Some("send it as a string, or round it"),
            _ => None,
        }
    }
}

impl From<JsonError> for Error {
    fn from(fault: JsonError) -> Self {
        let kind = match fault {
            JsonError::TooLong { .. } | JsonError::TooDeep { .. } => ErrorKind::TooLarge,
            _ => ErrorKind::Validation,
        };
        let error = Self::new(kind, fault.to_string());
        let error = error.with_pointers(fault.pointer().map(str::to_owned).into_iter().collect());
        let error = match fault.hint() {
            Some(hint) => error.with_hint(hint),
            None => error,
        };
        error.with_source(fault)
    }
}

/// How much a JSON text may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many containers may be nested in each other: `[]` is 1. At most 126 is granted, just short of where
    /// `serde_json` itself stops.
    pub depth: usize,
    /// How many bytes the text may have.
    pub bytes: usize,
}

impl Limits {
    /// The limits of a record: no object in it is deeper than a path may be.
    pub const RECORD: Self = Self { depth: PATH_DEPTH, bytes: BLOB_BYTES as usize };
}

impl Default for Limits {
    /// The limits of any other JSON.
    fn default() -> Self {
        Self { depth: JSON_DEPTH, bytes: BLOB_BYTES as usize }
    }
}

/// Reads a JSON text strictly, within the default [`Limits`].
///
/// # Errors
/// As [`parse_with`].
pub fn parse(text: &str) -> Result<Value, JsonError> {
    parse_with(text, Limits::default())
}

/// Reads JSON bytes strictly, within the default [`Limits`].
///
/// # Errors
/// As [`parse_with`], and when the bytes are not UTF-8.
pub fn parse_bytes(bytes: &[u8]) -> Result<Value, JsonError> {
    parse_bytes_with(bytes, Limits::default())
}

/// Reads JSON bytes strictly, within `limits`.
///
/// # Errors
/// As [`parse_with`], and when the bytes are not UTF-8.
pub fn parse_bytes_with(bytes: &[u8], limits: Limits) -> Result<Value, JsonError> {
    check_length(bytes.len(), limits)?;
    let text = std::str::from_utf8(bytes).map_err(|fault| JsonError::NotUtf8 { offset: fault.valid_up_to() })?;
    parse_with(text, limits)
}

/// Reads a JSON text strictly, within `limits`. The value is normal: see [`normalize`].
///
/// # Errors
/// When the text is no JSON, exceeds a limit, has a key twice, or a number that is not exact in `i64`, `u64` or `f64`.
pub fn parse_with(text: &str, limits: Limits) -> Result<Value, JsonError> {
    check_length(text.len(), limits)?;
    let scan = Scan::of(text);
    let mut reader = Reader::new(scan.numbers, limits.depth);
    let mut parser = serde_json::Deserializer::from_str(&scan.text);
    let value = Node(&mut reader).deserialize(&mut parser);
    value.and_then(|value| parser.end().map(|()| value)).map_err(|fault| reader.explain(&fault))
}

fn check_length(bytes: usize, limits: Limits) -> Result<(), JsonError> {
    if bytes > limits.bytes { Err(JsonError::TooLong { limit: limits.bytes, bytes }) } else { Ok(()) }
}

/// Brings every number of an already parsed value into its one form: a float that is an integer in the range of `i64`
/// or `u64` becomes that integer, `-0.0` becomes `0`.
///
/// # Errors
/// When the value is nested deeper than the default [`Limits`] or (with an embedder's `arbitrary_precision`) has a
/// number that no machine number holds.
pub fn normalize(mut value: Value) -> Result<Value, JsonError> {
    let limit = JSON_DEPTH;
    match normalize_in_place(&mut value, limit) {
        Ok(()) => Ok(value),
        Err(Fault { mut trail, kind }) => {
            trail.reverse();
            Err(kind.at(pointer(&trail), limit))
        }
    }
}

/// [`normalize`] of a value that mostly is normal already: then it is not copied.
///
/// # Errors
/// As [`normalize`].
pub(crate) fn normalized(value: &Value) -> Result<Cow<'_, Value>, JsonError> {
    if is_normal(value, JSON_DEPTH) { Ok(Cow::Borrowed(value)) } else { normalize(value.clone()).map(Cow::Owned) }
}

fn is_normal(value: &Value, depth: usize) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => normal(number).as_ref() == Some(number),
        Value::Array(items) => depth > 0 && items.iter().all(|item| is_normal(item, depth - 1)),
        Value::Object(members) => depth > 0 && members.values().all(|member| is_normal(member, depth - 1)),
    }
}

fn normalize_in_place(value: &mut Value, depth: usize) -> Result<(), Fault> {
    if matches!(value, Value::Array(_) | Value::Object(_)) && depth == 0 {
        return Err(FaultKind::TooDeep.into());
    }
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Number(number) => {
            *number = normal(number).ok_or(FaultKind::InexactNumber)?;
            Ok(())
        }
        Value::Array(items) => items.iter_mut().enumerate().try_for_each(|(index, item)| {
            normalize_in_place(item, depth - 1).map_err(|fault| fault.within(index.to_string()))
        }),
        Value::Object(members) => members.iter_mut().try_for_each(|(key, member)| {
            normalize_in_place(member, depth - 1).map_err(|fault| fault.within(key.clone()))
        }),
    }
}

/// The one form of a number; none if it is not finite.
fn normal(number: &Number) -> Option<Number> {
    if number.is_i64() || number.is_u64() {
        return Some(number.clone());
    }
    let float = number.as_f64().filter(|float| float.is_finite())?;
    integer_of(float).or_else(|| Number::from_f64(float))
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked, and both bounds are exact floats")]
#[expect(clippy::cast_sign_loss, reason = "the sign is checked")]
fn integer_of(float: f64) -> Option<Number> {
    const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
    if float.fract() != 0.0 {
        None
    } else if (-TWO_TO_63..TWO_TO_63).contains(&float) {
        Some(Number::from(float as i64))
    } else if (TWO_TO_63..TWO_TO_63 * 2.0).contains(&float) {
        Some(Number::from(float as u64))
    } else {
        None
    }
}

/// The canonical text of a value: keys sorted by their bytes, no spaces, the fewest escapes, numbers as ECMAScript
/// writes them (RFC 8785) but for integers, which are always plain.
#[must_use]
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write_canonical(value, &mut out);
    out
}

/// Appends the canonical text of a value: see [`canonical`].
pub fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => write_array(items, out),
        Value::Object(members) => write_object(members, out),
    }
}

fn write_array(items: &[Value], out: &mut String) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_canonical(item, out);
    }
    out.push(']');
}

fn write_object(members: &Map<String, Value>, out: &mut String) {
    // An embedder may have given `serde_json` maps in order of insertion.
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_unstable_by_key(|&(key, _)| key);
    out.push('{');
    for (index, (key, member)) in sorted.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(key, out);
        out.push(':');
        write_canonical(member, out);
    }
    out.push('}');
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        let (plain, tail) = rest.split_at(at);
        let mut chars = tail.chars();
        out.push_str(plain);
        chars.by_ref().take(1).for_each(|special| write_escape(special, out));
        rest = chars.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

fn write_escape(special: char, out: &mut String) {
    match special {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        other => append(format_args!("\\u{:04x}", u32::from(other)), out),
    }
}

fn write_number(number: &Number, out: &mut String) {
    let normal = normal(number);
    let number = normal.as_ref().unwrap_or(number);
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(integer), _, _) => append(format_args!("{integer}"), out),
        (None, Some(integer), _) => append(format_args!("{integer}"), out),
        (None, None, Some(float)) if float.is_finite() => write_float(float, out),
        _ => append(format_args!("{number}"), out),
    }
}

/// Writes a float that is no 64-bit integer as ECMAScript does: plain where the decimal point is within 21 digits to
/// the right or 6 zeros to the left of the first digit, else with an exponent.
fn write_float(float: f64, out: &mut String) {
    let decimal = Decimal::shortest(float);
    if decimal.negative {
        out.push('-');
    }
    let digits = decimal.digits.as_str();
    let count = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    let point = decimal.exponent.saturating_add(count);
    match point {
        -5..=0 => {
            out.push_str("0.");
            push_zeros(-point, out);
            out.push_str(digits);
        }
        1..=21 if point >= count => {
            out.push_str(digits);
            push_zeros(point - count, out);
        }
        1..=21 => push_with_point(digits, usize::try_from(point).unwrap_or(0), out),
        _ => write_exponential(digits, point - 1, out),
    }
}

fn write_exponential(digits: &str, exponent: i64, out: &mut String) {
    if digits.len() > 1 {
        push_with_point(digits, 1, out);
    } else {
        out.push_str(digits);
    }
    append(format_args!("e{exponent:+}"), out);
}

fn push_with_point(digits: &str, at: usize, out: &mut String) {
    let (whole, fraction) = digits.split_at_checked(at).unwrap_or((digits, ""));
    out.push_str(whole);
    out.push('.');
    out.push_str(fraction);
}

fn append(text: fmt::Arguments<'_>, out: &mut String) {
    // Writing to a `String` cannot fail.
    let _ = out.write_fmt(text);
}

fn push_zeros(count: i64, out: &mut String) {
    (0..count).for_each(|_| out.push('0'));
}

/// Whether a text is JSON in its canonical form.
#[must_use]
pub fn is_canonical(text: &str) -> bool {
    parse_canonical(text).is_ok()
}

/// Reads a text that must be the canonical form of a value.
///
/// # Errors
/// As [`parse`], and when the text is not canonical.
pub fn parse_canonical(text: &str) -> Result<Value, JsonError> {
    let value = parse(text)?;
    if canonical(&value) == text { Ok(value) } else { Err(JsonError::NotCanonical) }
}

/// The number literals of a text in order, and the text to give to `serde_json`.
///
/// Where a literal is refused, the list ends with `None` and the literal is blanked out in the text (same length, so
/// that lines and columns stay): the parser must get as far as that place, which is then reported with its pointer.
struct Scan<'a> {
    text: Cow<'a, str>,
    numbers: Vec<Option<Number>>,
}

impl<'a> Scan<'a> {
    fn of(text: &'a str) -> Self {
        let mut numbers = Vec::new();
        let mut at = 0;
        while let Some(range) = next_literal(text.as_bytes(), at) {
            at = range.end;
            let number = text.get(range.clone()).and_then(number_of);
            let is_refused = number.is_none();
            numbers.push(number);
            if is_refused {
                return Self { text: Cow::Owned(blank(text, range)), numbers };
            }
        }
        Self { text: Cow::Borrowed(text), numbers }
    }
}

fn blank(text: &str, range: Range<usize>) -> String {
    let filler = format!("{:<width$}", 0, width = range.len());
    let mut text = text.to_owned();
    text.replace_range(range, &filler);
    text
}

/// The next run of bytes outside a string that begins like a number.
fn next_literal(bytes: &[u8], from: usize) -> Option<Range<usize>> {
    let mut at = from;
    while let Some(byte) = bytes.get(at) {
        at = match byte {
            b'"' => string_end(bytes, at + 1),
            b'-' | b'0'..=b'9' => return Some(at..literal_end(bytes, at + 1)),
            _ => at + 1,
        };
    }
    None
}

fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

fn literal_end(bytes: &[u8], from: usize) -> usize {
    let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    from + bytes.iter().skip(from).take_while(is_part).count()
}

/// The number that a literal is exactly; none if it is refused. What is no number is `serde_json`'s to refuse.
fn number_of(literal: &str) -> Option<Number> {
    if let Some(integer) = integer(literal) {
        return Some(integer);
    }
    if !is_number(literal) {
        return Some(Number::from(0));
    }
    let decimal = Decimal::parse(literal);
    decimal.to_integer().or_else(|| decimal.to_float(literal))
}

fn integer(literal: &str) -> Option<Number> {
    let signed = literal.parse::<i64>().map(Number::from);
    signed.or_else(|_| literal.parse::<u64>().map(Number::from)).ok()
}

/// Whether a literal follows the grammar of RFC 8259.
fn is_number(literal: &str) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let body = literal.strip_prefix('-').unwrap_or(literal);
    let (mantissa, exponent) = body.split_once(['e', 'E']).unwrap_or((body, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let power = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    is_digits(whole) && (whole == "0" || !whole.starts_with('0')) && is_digits(fraction) && is_digits(power)
}

/// A decimal number, digits × 10^exponent, without zeros at either end of its digits; zero has none.
#[derive(PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// The digits that are enough for every float.
    const FLOAT_DIGITS: usize = 17;
    /// The digits of the greatest `u64`.
    const INTEGER_DIGITS: usize = 20;

    /// The value of a text in the grammar of numbers.
    fn parse(literal: &str) -> Self {
        let (negative, body) = literal.strip_prefix('-').map_or((false, literal), |body| (true, body));
        let (mantissa, exponent) = body.split_once(['e', 'E']).unwrap_or((body, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        let digits = all.trim_end_matches('0');
        let shift = i64::try_from(all.len() - digits.len()).unwrap_or(i64::MAX)
            - i64::try_from(fraction.len()).unwrap_or(i64::MAX);
        Self {
            negative,
            exponent: parse_exponent(exponent).saturating_add(shift),
            digits: digits.trim_start_matches('0').to_owned(),
        }
    }

    fn to_integer(&self) -> Option<Number> {
        if self.digits.is_empty() {
            return Some(Number::from(0));
        }
        let zeros = usize::try_from(self.exponent).ok()?;
        if self.digits.len().saturating_add(zeros) > Self::INTEGER_DIGITS {
            return None;
        }
        let sign = if self.negative { "-" } else { "" };
        integer(&format!("{sign}{}{}", self.digits, "0".repeat(zeros)))
    }

    /// The shortest decimal that reads as `float`, the nearest where several do, and the even one of two that are as
    /// near: what ECMAScript writes. (The standard library rounds such a tie up.)
    fn shortest(float: f64) -> Self {
        Number::from_f64(float).map_or_else(|| Self::parse("0"), |number| Self::parse(&number.to_string()))
    }

    /// The float that `literal`, this number, is a shortest and nearest decimal of. Of a tie both are taken, since
    /// printers differ there.
    fn to_float(&self, literal: &str) -> Option<Number> {
        if self.digits.len() > Self::FLOAT_DIGITS {
            return None;
        }
        let float = literal.parse::<f64>().ok().filter(|float| float.is_finite())?;
        let is_shortest = Self::shortest(float) == *self || Self::parse(&format!("{float:e}")) == *self;
        if is_shortest { Number::from_f64(float) } else { None }
    }
}

/// An exponent, where one that no `i64` holds is as large as any.
fn parse_exponent(text: &str) -> i64 {
    text.parse().unwrap_or(if text.starts_with('-') { i64::MIN } else { i64::MAX })
}

/// What the reader refuses although it is JSON.
#[derive(Clone, Copy)]
enum FaultKind {
    TooDeep,
    DuplicateKey,
    InexactNumber,
}

impl FaultKind {
    fn at(self, pointer: String, limit: usize) -> JsonError {
        match self {
            Self::TooDeep => JsonError::TooDeep { limit, pointer },
            Self::DuplicateKey => JsonError::DuplicateKey { pointer },
            Self::InexactNumber => JsonError::InexactNumber { pointer },
        }
    }
}

/// A refusal on its way out, which collects the names of what it leaves, innermost first.
struct Fault {
    kind: FaultKind,
    trail: Vec<String>,
}

impl Fault {
    fn within(mut self, segment: String) -> Self {
        self.trail.push(segment);
        self
    }
}

impl From<FaultKind> for Fault {
    fn from(kind: FaultKind) -> Self {
        Self { kind, trail: Vec::new() }
    }
}

/// The pointer through these segments, cut where it is longer than any path, since keys may be of any length.
fn pointer(segments: &[String]) -> String {
    let mut pointer = String::new();
    for segment in segments {
        pointer.push('/');
        pointer.push_str(&escape(segment));
    }
    if pointer.len() > PATH_BYTES {
        pointer.truncate(pointer.floor_char_boundary(PATH_BYTES));
        pointer.push('…');
    }
    pointer
}

/// What the visitors of one text share.
struct Reader {
    numbers: std::vec::IntoIter<Option<Number>>,
    limit: usize,
    depth: usize,
    fault: Option<FaultKind>,
    /// The names of what the reader was in when it failed, innermost first: costs nothing where nothing fails.
    trail: Vec<String>,
}

impl Reader {
    /// One less than how deep `serde_json` itself goes, so that this limit is the one that speaks.
    const PARSER_DEPTH: usize = 126;

    fn new(numbers: Vec<Option<Number>>, depth: usize) -> Self {
        let limit = depth.min(Self::PARSER_DEPTH);
        Self { numbers: numbers.into_iter(), limit, depth: 0, fault: None, trail: Vec::new() }
    }

    fn refuse<E: de::Error>(&mut self, kind: FaultKind) -> E {
        self.fault = Some(kind);
        E::custom("refused")
    }

    fn enter<E: de::Error>(&mut self) -> Result<(), E> {
        if self.depth >= self.limit {
            return Err(self.refuse(FaultKind::TooDeep));
        }
        self.depth += 1;
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
    }

    /// The number that is read now: the parser visits them in the order of the scan.
    fn number<E: de::Error>(&mut self) -> Result<Value, E> {
        match self.numbers.next().flatten() {
            Some(number) => Ok(Value::Number(number)),
            None => Err(self.refuse(FaultKind::InexactNumber)),
        }
    }

    fn element<'de, A: SeqAccess<'de>>(&mut self, seq: &mut A, index: usize) -> Result<Option<Value>, A::Error> {
        seq.next_element_seed(Node(self)).inspect_err(|_| self.trail.push(index.to_string()))
    }

    fn member<'de, A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
        members: &mut Map<String, Value>,
        key: String,
    ) -> Result<(), A::Error> {
        let value = if members.contains_key(&key) {
            Err(self.refuse(FaultKind::DuplicateKey))
        } else {
            map.next_value_seed(Node(self))
        };
        match value {
            Ok(value) => members.insert(key, value),
            Err(fault) => {
                self.trail.push(key);
                return Err(fault);
            }
        };
        Ok(())
    }

    fn explain(mut self, fault: &serde_json::Error) -> JsonError {
        self.trail.reverse();
        let pointer = pointer(&self.trail);
        match self.fault {
            Some(kind) => kind.at(pointer, self.limit),
            None => syntax(fault, pointer),
        }
    }
}

fn syntax(fault: &serde_json::Error, pointer: String) -> JsonError {
    let (line, column) = (fault.line(), fault.column());
    let text = fault.to_string();
    let place = format!(" at line {line} column {column}");
    let reason = text.strip_suffix(&place).unwrap_or(&text).to_owned();
    JsonError::Syntax { reason, line, column, pointer }
}

/// The visitor of one value.
struct Node<'a>(&'a mut Reader);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Value, E> {
        self.0.number()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Value, E> {
        self.0.number()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Value, E> {
        self.0.number()
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        self.0.enter()?;
        let mut items = Vec::new();
        while let Some(item) = self.0.element(&mut seq, items.len())? {
            items.push(item);
        }
        self.0.leave();
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.0.enter()?;
        let mut members = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            self.0.member(&mut map, &mut members, key)?;
        }
        self.0.leave();
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Any normal value of a few levels.
    pub(crate) fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-1e3..1e3).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(4, 40, 5, |inner| {
            let key = prop_oneof!["[ab$/~]{0,2}", any::<String>()];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((key, inner), 0..5)
                    .prop_map(|all| Value::Object(all.into_iter().collect())),
            ]
        });
        value.prop_map(|value| normalize(value).unwrap())
    }

    /// A number that is printed as its literal.
    fn one_form(literal: &str) -> Option<String> {
        parse(literal).ok().map(|value| canonical(&value))
    }

    fn pointer_of(text: &str) -> String {
        parse(text).unwrap_err().pointer().unwrap().to_owned()
    }

    #[test]
    fn integers_have_one_form() {
        let cases = [
            ("1.0", "1"),
            ("1e3", "1000"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("0e999999999999999999999", "0"),
            ("-0e-5", "0"),
            ("12.5e1", "125"),
            ("1000e-3", "1"),
            ("9007199254740993.0", "9007199254740993"),
            ("1E+2", "100"),
            ("18446744073709551615", "18446744073709551615"),
            ("1.8446744073709551615e19", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("-9.223372036854775808E18", "-9223372036854775808"),
        ];
        for (literal, expected) in cases {
            assert_eq!(one_form(literal).as_deref(), Some(expected), "{literal}");
            assert!(!parse(literal).unwrap().is_f64(), "{literal}");
        }
    }

    #[test]
    fn a_literal_longer_than_any_number_can_still_be_exact() {
        let zeros = "0".repeat(5_000);
        assert_eq!(one_form(&format!("1{zeros}e-5000")).as_deref(), Some("1"));
        assert_eq!(one_form(&format!("0.{zeros}5e5000")).as_deref(), Some("0.5"));
        assert_eq!(one_form(&format!("2.50{zeros}")).as_deref(), Some("2.5"));
    }

    #[test]
    fn floats_are_written_as_ecmascript_does() {
        let cases = [
            ("0.1", "0.1"),
            ("3.14", "3.14"),
            ("1e300", "1e+300"),
            ("1e20", "100000000000000000000"),
            ("1e21", "1e+21"),
            ("123456789012345680000", "123456789012345680000"),
            ("0.000001", "0.000001"),
            ("0.0000001", "1e-7"),
            ("-1.5e-9", "-1.5e-9"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("18446744073709552000", "18446744073709552000"),
            ("-0.00012", "-0.00012"),
            ("12.75", "12.75"),
            ("333333333.3333333", "333333333.3333333"),
            ("9.999999999999997e22", "9.999999999999997e+22"),
        ];
        for (literal, expected) in cases {
            assert_eq!(one_form(literal).as_deref(), Some(expected), "{literal}");
        }
    }

    #[test]
    fn inexact_numbers_are_refused_where_they_are() {
        let literals = [
            "1e400",
            "-1e400",
            "0.1000000000000000055511151231257827",
            "12345678901234567890123",
            "1e999999999",
            "1e-400",
            "18446744073709551616",
            "-9223372036854775809",
            "1e-999999999999999999999999",
            "1e99999999999999999999999",
            "9007199254740993.5",
            "0.30000000000000001",
        ];
        for literal in literals {
            let text = format!("{{\"x\": [1, \"2e999\", {{\"a/b\": {literal}}}], \"y\": 1e999}}");
            assert_eq!(parse(&text), Err(JsonError::InexactNumber { pointer: "/x/2/a~1b".into() }), "{literal}");
        }
        assert_eq!(parse("1e400"), Err(JsonError::InexactNumber { pointer: String::new() }));
    }

    #[test]
    fn duplicate_keys_are_refused_by_name() {
        assert_eq!(pointer_of(r#"{"a":[{"b~":1,"\u0062~":2}]}"#), "/a/0/b~0");
        assert!(matches!(parse(r#"{"":1,"":1}"#), Err(JsonError::DuplicateKey { pointer }) if pointer == "/"));
        assert!(parse(r#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let texts = [
            "",
            " ",
            "NaN",
            "-Infinity",
            "Infinity",
            "01",
            "1.",
            ".5",
            "1e",
            "-",
            "+1",
            "1-2",
            "1 2",
            "[1,]",
            "{\"a\":1,}",
            "nul",
            "\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"\\ud800\\u0041\"",
            "\"\n\"",
            "{a:1}",
            "\u{feff}1",
            "[1",
            "{1:2}",
            "'a'",
            "1e400 x",
            "--1",
            "0x1",
        ];
        for text in texts {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(matches!(parse("{\"a\":[1,1e]}"), Err(JsonError::Syntax { pointer, .. }) if pointer == "/a/1"));
        assert_eq!(parse_bytes(b"\"a\xff\""), Err(JsonError::NotUtf8 { offset: 2 }));
        assert!(parse_bytes(b"\"\xed\xa0\x80\"").is_err());
    }

    #[test]
    fn depth_and_length_are_limited() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(JSON_DEPTH)).is_ok());
        assert!(matches!(parse(&nested(JSON_DEPTH + 1)), Err(JsonError::TooDeep { limit: JSON_DEPTH, .. })));
        assert!(parse(&"[".repeat(1_000_000)).is_err());
        assert!(parse(&"{\"a\":".repeat(1_000_000)).is_err());
        let most = Limits { depth: usize::MAX, bytes: 1_000 };
        assert!(parse_with(&nested(126), most).is_ok());
        assert!(matches!(parse_with(&nested(127), most), Err(JsonError::TooDeep { limit: 126, .. })));
        assert!(matches!(parse_with(&nested(501), most), Err(JsonError::TooLong { limit: 1_000, bytes: 1_002 })));
        assert_eq!(pointer_of(&"{\"a\":".repeat(70)), "/a".repeat(64));
        assert!(parse_with("[[],{}]", Limits { depth: 2, ..Limits::RECORD }).is_ok());
        assert!(parse_with("[[],{\"a\":[]}]", Limits { depth: 2, ..Limits::RECORD }).is_err());
        assert!(parse_with("1", Limits { depth: 0, bytes: 1 }).is_ok());
    }

    #[test]
    fn normalizing_finds_what_is_too_deep_and_brings_floats_into_one_form() {
        let deep = |depth| (0..depth).fold(json!(1.0), |value, _| json!({ "a": value }));
        assert_eq!(normalize(deep(JSON_DEPTH)).unwrap().pointer(&"/a".repeat(JSON_DEPTH)), Some(&json!(1)));
        let fault = normalize(deep(JSON_DEPTH + 1)).unwrap_err();
        assert_eq!(fault.pointer().unwrap(), "/a".repeat(JSON_DEPTH));
        let lists = |depth| (0..depth).fold(json!(1.0), |value, _| json!([value]));
        assert!(normalize(lists(JSON_DEPTH)).is_ok());
        assert_eq!(normalize(lists(JSON_DEPTH + 1)).unwrap_err().pointer().unwrap(), "/0".repeat(JSON_DEPTH));
        let floats = json!([-0.0, 1.5, 2f64.powi(63), 2f64.powi(64), -2f64.powi(63), 1e300]);
        let texts = "[0,1.5,9223372036854775808,18446744073709552000,-9223372036854775808,1e+300]";
        assert_eq!(canonical(&floats), texts);
        assert_eq!(*normalized(&floats).unwrap(), normalize(floats.clone()).unwrap());
        assert_eq!(normalize(floats).unwrap(), parse(texts).unwrap());
    }

    #[test]
    fn strings_have_the_fewest_escapes() {
        let text = "\"\\/\u{8}\u{c}\n\r\t\0\u{1f} \u{7f}é🦀\u{2028}";
        let expected = "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f \u{7f}é🦀\u{2028}\"";
        assert_eq!(canonical(&json!(text)), expected);
        assert!(is_canonical(expected));
    }

    #[test]
    fn only_the_canonical_text_is_canonical() {
        assert!(is_canonical(r#"{"":null,"a":[1,2.5,{}],"é":"x"}"#));
        let others =
            [r#"{"b":1,"a":2}"#, "[1, 2]", "1.0", "1E3", "1e22", r#""\u0061""#, r#""\u001F""#, r#""\/""#, "-0"];
        for text in others {
            assert_eq!(parse_canonical(text), Err(JsonError::NotCanonical), "{text}");
        }
    }

    #[test]
    fn long_names_are_cut_in_errors() {
        let name = "🦀".repeat(100_000);
        assert!(pointer_of(&format!("{{\"{name}\": [1e999]}}")).len() <= PATH_BYTES + 3);
        let exactly = "n".repeat(PATH_BYTES - 1);
        assert_eq!(pointer_of(&format!("{{\"{exactly}\": 1e999}}")), format!("/{exactly}"));
    }

    #[test]
    fn faults_become_public_errors_with_pointers() {
        let error = Error::from(parse(r#"{"a":1,"a":2}"#).unwrap_err());
        assert_eq!((error.kind(), error.pointers()), (ErrorKind::Validation, &["/a".to_owned()][..]));
        assert_eq!(Error::from(parse(&"[".repeat(99)).unwrap_err()).kind(), ErrorKind::TooLarge);
        let hint = |text: &str| Error::from(parse(text).unwrap_err()).hint().unwrap_or("none").to_owned();
        assert!(hint(r#"{"a":1,"a":2}"#).contains("rename"));
        assert!(hint(&"[".repeat(99)).contains("flatten"));
        assert!(hint("1e999").contains("round"));
        assert_eq!(hint("{"), "none");
    }

    #[test]
    fn of_two_shortest_decimals_that_are_as_near_both_are_read_and_the_even_one_is_written() {
        for (float, even, odd) in [
            (1_020_793_938_595_006.0 + 0.25, "1020793938595006.2", "1020793938595006.3"),
            (-1_020_793_938_595_006.0 - 0.75, "-1020793938595006.8", "-1020793938595006.7"),
            (1_125_899_906_842_624.0 + 0.25, "1125899906842624.2", "1125899906842624.3"),
        ] {
            assert_eq!(canonical(&json!(float)), even);
            assert_eq!(parse(even).unwrap(), json!(float));
            assert!(is_canonical(even) && !is_canonical(odd));
        }
        for literal in ["1020793938595006.3", "1125899906842624.3"] {
            assert_eq!(parse(literal).unwrap().as_f64().unwrap(), literal.parse::<f64>().unwrap());
        }
        assert!(parse("1020793938595006.4").is_ok() && parse("1020793938595006.26").is_err());
    }

    proptest! {
        #[test]
        fn canonical_text_reads_back(value in values()) {
            let text = canonical(&value);
            let read = parse(&text).unwrap();
            prop_assert_eq!(&read, &value);
            prop_assert_eq!(canonical(&read), text.clone());
            let normal = normalize(read.clone());
            prop_assert_eq!(normalized(&read).map(Cow::into_owned), normal.clone());
            prop_assert_eq!(normal.unwrap(), value);
            prop_assert!(is_canonical(&text));
        }

        #[test]
        fn the_order_of_keys_does_not_matter(mut members in proptest::collection::btree_map(any::<String>(), values(), 0..6)) {
            let forward: Vec<_> = members.iter().map(|(k, v)| format!("{}: {v}", json!(k))).collect();
            let backward: Vec<_> = forward.iter().rev().cloned().collect();
            let canonical_of = |all: &[String]| canonical(&parse(&format!("{{{}}}", all.join(" , "))).unwrap());
            prop_assert_eq!(canonical_of(&forward), canonical_of(&backward));
            let object = Value::Object(std::mem::take(&mut members).into_iter().collect());
            prop_assert_eq!(canonical(&object), canonical_of(&forward));
        }

        #[test]
        fn floats_keep_every_bit(float in any::<f64>()) {
            let read = parse(&canonical(&json!(float))).unwrap();
            prop_assert_eq!(read.as_f64().unwrap(), float);
            prop_assert_eq!(parse(&format!("{float:e}")).unwrap(), normalize_shortest(float));
        }

        #[test]
        fn a_literal_is_read_as_its_exact_value_or_refused(literal in "-?(0|[1-9][0-9]{0,22})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?") {
            if let Some(text) = one_form(&literal) {
                let is_read = |one: &str| Decimal::parse(one).digits == Decimal::parse(&literal).digits;
                let rounded_up = format!("{:e}", literal.parse::<f64>().unwrap());
                prop_assert!(is_read(&text) || is_read(&rounded_up));
                prop_assert_eq!(text.parse::<f64>().unwrap(), literal.parse::<f64>().unwrap());
            }
        }

        #[test]
        fn hostile_texts_never_panic(text in "[\\[\\]{}\",:0-9eE.+\\\\ntu d8\\-]{0,40}") {
            if let Ok(value) = parse(&text) {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
                prop_assert_eq!(parse(&canonical(&value)), Ok(value));
            }
        }

        #[test]
        fn broken_json_never_panics(value in values(), at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = canonical(&value).into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            drop(parse_bytes(&bytes));
            drop(parse_bytes(&bytes[..at]));
        }
    }

    /// What the shortest decimal of a float reads as: an integer in range is that decimal, not the float's exact value.
    fn normalize_shortest(float: f64) -> Value {
        match format!("{float}").parse::<i64>() {
            Ok(integer) => json!(integer),
            Err(_) => format!("{float}").parse::<u64>().map_or_else(|_| json!(float), |integer| json!(integer)),
        }
    }
}
