//! Where a field is: [`Path`], its JSON Pointer, and [`FlatKey`], the one key that it has in the record's document.
//!
//! The document has no nested maps, because those lose concurrent edits: every field is a key of its root.
//!
//! Invariant: a [`Path`] is a valid JSON Pointer (RFC 6901) within [`PATH_DEPTH`] and [`PATH_BYTES`]. A pointer has one
//! spelling only, so equal paths are equal texts, and paths are ordered by their bytes.
//!
//! Invariant: paths and keys correspond one to one, and no field has a key that is reserved for the ledger's own use.
//! A key is never empty: Automerge refuses that.

use std::borrow::Cow;
use std::fmt;
use std::ops::Bound;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::limits::{PATH_BYTES, PATH_DEPTH};
use crate::error::{Error, ErrorKind};

/// Why a text or a list of segments is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// The text neither is empty nor begins with a slash.
    #[error("expected a JSON Pointer, which begins with `/`: did you mean `/{text}`?")]
    MissingSlash {
        /// The text as it came.
        text: String,
    },
    /// A `~` is followed by neither `0` nor `1`.
    #[error("expected `~0` (for `~`) or `~1` (for `/`) at byte {offset} of `{text}`")]
    BadEscape {
        /// The text as it came.
        text: String,
        /// Where the `~` is, in bytes from the start.
        offset: usize,
    },
    /// More segments than [`PATH_DEPTH`].
    #[error("expected a path of at most {PATH_DEPTH} segments, got {depth}")]
    TooDeep {
        /// How many segments came.
        depth: usize,
    },
    /// More bytes than [`PATH_BYTES`].
    #[error("expected a path of at most {PATH_BYTES} bytes, got {bytes}")]
    TooLong {
        /// How many bytes the pointer has.
        bytes: usize,
    },
}

impl PathError {
    fn pointers(&self) -> Vec<String> {
        match self {
            Self::MissingSlash { text } => vec![format!("/{text}")],
            Self::BadEscape { text, .. } => vec![text.clone()],
            Self::TooDeep { .. } | Self::TooLong { .. } => Vec::new(),
        }
    }
}

impl From<PathError> for Error {
    fn from(fault: PathError) -> Self {
        let pointers = fault.pointers();
        let (kind, hint) = match fault {
            PathError::MissingSlash { .. } => (ErrorKind::Validation, "begin each segment with `/`; the root is ``"),
            PathError::BadEscape { .. } => (ErrorKind::Validation, "write `~` as `~0` and a `/` in a name as `~1`"),
            PathError::TooDeep { .. } => (ErrorKind::TooLarge, "keep deeper data in an array or an atomic field"),
            PathError::TooLong { .. } => (ErrorKind::TooLarge, "use shorter field names, or an atomic field"),
        };
        Self::new(kind, fault.to_string()).with_hint(hint).with_pointers(pointers).with_source(fault)
    }
}

/// The place of a field in a record: `/address/city`. The record itself is the root, whose pointer is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(String);

impl Path {
    /// The record itself.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Reads a JSON Pointer.
    ///
    /// # Errors
    /// When the text is no JSON Pointer or exceeds a limit.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        Self::check(text)?;
        Ok(Self(text.to_owned()))
    }

    /// Whether a text is a JSON Pointer within the limits.
    pub(crate) fn check(text: &str) -> Result<(), PathError> {
        check_length(text)?;
        if !text.is_empty() && !text.starts_with('/') {
            return Err(PathError::MissingSlash { text: text.to_owned() });
        }
        check_escapes(text)?;
        check_depth(text)
    }

    /// The path of a text that [`Path::check`] has found to be one.
    pub(crate) fn checked(text: String) -> Self {
        debug_assert!(Self::check(&text).is_ok(), "only what was checked is a path");
        Self(text)
    }

    /// The path through these segments, which are names as they stand in the record, without escapes.
    ///
    /// # Errors
    /// When the path exceeds a limit.
    pub fn from_segments<I>(segments: I) -> Result<Self, PathError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        segments.into_iter().try_fold(Self::root(), |path, segment| path.join(segment.as_ref()))
    }

    /// The path of the member `segment` (a name without escapes) of this object.
    ///
    /// # Errors
    /// When the path exceeds a limit.
    pub fn join(&self, segment: &str) -> Result<Self, PathError> {
        let mut text = String::with_capacity(self.0.len() + 1 + segment.len());
        text.push_str(&self.0);
        text.push('/');
        text.push_str(&escape(segment));
        check_length(&text)?;
        check_depth(&text)?;
        Ok(Self(text))
    }

    /// The JSON Pointer.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the record itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names on the way from the root, without escapes.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = Cow<'_, str>> {
        self.0.strip_prefix('/').into_iter().flat_map(|names| names.split('/')).map(unescape)
    }

    /// How many segments there are; the root has none.
    #[must_use]
    pub fn depth(&self) -> usize {
        depth(&self.0)
    }

    /// The object that this is a member of; none for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// Whether `other` is strictly below this path.
    #[must_use]
    pub fn is_prefix_of(&self, other: &Self) -> bool {
        is_below(&other.0, &self.0)
    }

    /// The key of this field in the record's document.
    #[must_use]
    pub fn to_key(&self) -> FlatKey {
        FlatKey(flatten(&self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.0
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

impl Serialize for Path {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

fn check_length(text: &str) -> Result<(), PathError> {
    if text.len() > PATH_BYTES { Err(PathError::TooLong { bytes: text.len() }) } else { Ok(()) }
}

fn check_depth(text: &str) -> Result<(), PathError> {
    let depth = depth(text);
    if depth > PATH_DEPTH { Err(PathError::TooDeep { depth }) } else { Ok(()) }
}

fn check_escapes(text: &str) -> Result<(), PathError> {
    let bytes = text.as_bytes();
    let is_bad = |&(offset, _): &(usize, &str)| !matches!(bytes.get(offset + 1), Some(b'0' | b'1'));
    match text.match_indices('~').find(is_bad) {
        Some((offset, _)) => Err(PathError::BadEscape { text: text.to_owned(), offset }),
        None => Ok(()),
    }
}

fn depth(pointer: &str) -> usize {
    pointer.bytes().filter(|&byte| byte == b'/').count()
}

fn is_below(text: &str, ancestor: &str) -> bool {
    text.strip_prefix(ancestor).is_some_and(|rest| rest.starts_with('/'))
}

/// A name as a segment of a JSON Pointer.
pub(crate) fn escape(segment: &str) -> Cow<'_, str> {
    if segment.bytes().any(|byte| matches!(byte, b'~' | b'/')) {
        Cow::Owned(segment.replace('~', "~0").replace('/', "~1"))
    } else {
        Cow::Borrowed(segment)
    }
}

fn unescape(segment: &str) -> Cow<'_, str> {
    if segment.bytes().any(|byte| byte == b'~') {
        Cow::Owned(segment.replace("~1", "/").replace("~0", "~"))
    } else {
        Cow::Borrowed(segment)
    }
}

const ROOT_KEY: &str = "$root";
const DELETED_KEY: &str = "$deleted";
/// The key of the pointer `/`, one empty segment, which would otherwise be the empty key.
const EMPTY_SEGMENT_KEY: &str = "$";
const COUNTER_PREFIX: &str = "$#";

fn flatten(pointer: &str) -> String {
    match pointer.strip_prefix('/') {
        None => ROOT_KEY.to_owned(),
        Some("") => EMPTY_SEGMENT_KEY.to_owned(),
        Some(rest) if rest.starts_with('$') => ["$", rest].concat(),
        Some(rest) => rest.to_owned(),
    }
}

/// The keys between two bounds, in byte order: what `BTreeMap::range` and Automerge's `map_range` take.
pub type KeyRange = (Bound<String>, Bound<String>);

/// The key of a field in the root of the record's document.
///
/// It is the field's JSON Pointer without the first slash, where a first segment that begins with `$` gets one more
/// `$`. The record itself is `$root`, the pointer `/` is `$`. The rest of what begins with a single `$` is reserved:
/// `$#…` for counters, `$deleted` for deletion.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlatKey(String);

impl FlatKey {
    /// The key as it was read from a document.
    #[must_use]
    pub fn from_document(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// The key of the Automerge counter that belongs to the field at `path`.
    #[must_use]
    pub fn counter(path: &Path) -> Self {
        Self([COUNTER_PREFIX, &path.to_key().0].concat())
    }

    /// The key of the register that says whether the record is deleted.
    #[must_use]
    pub fn deleted() -> Self {
        Self(DELETED_KEY.to_owned())
    }

    /// The key of the member `canonical_json` of the set at `path`: as if the set were an object with its members'
    /// canonical JSON as names. A member may be longer than a path may be.
    #[must_use]
    pub fn member(path: &Path, canonical_json: &str) -> Self {
        Self(flatten(&format!("{}/{}", path.0, escape(canonical_json))))
    }

    /// The canonical JSON of the member that this key stands for, if it is one level below the set at `path`.
    #[must_use]
    pub fn member_of(&self, path: &Path) -> Option<String> {
        let pointer = self.pointer()?;
        let segment = pointer.strip_prefix(path.as_str())?.strip_prefix('/')?;
        if segment.contains('/') { None } else { Some(unescape(segment).into_owned()) }
    }

    /// The set and the member's canonical JSON, for the key of a set member.
    #[must_use]
    pub fn split_member(&self) -> Option<(Path, String)> {
        let pointer = self.pointer()?;
        let (set, member) = pointer.rsplit_once('/')?;
        Some((Path::parse(set).ok()?, unescape(member).into_owned()))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as the text that a document takes.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }

    /// Whether the key is the ledger's own: no field, set member or record has it.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.pointer().is_none()
    }

    /// The path of the field with this key; none if the key is reserved, or stands for a set member that is too long
    /// for a path.
    #[must_use]
    pub fn to_path(&self) -> Option<Path> {
        Path::parse(&self.pointer()?).ok()
    }

    /// Whether this key is of a field (or set member) strictly below the field that has the key `ancestor`.
    #[must_use]
    pub fn is_below(&self, ancestor: &Self) -> bool {
        match ancestor.0.as_str() {
            ROOT_KEY => self.0 != ROOT_KEY && !self.is_reserved(),
            EMPTY_SEGMENT_KEY => self.0.starts_with('/'),
            other => !ancestor.is_reserved() && is_below(&self.0, other),
        }
    }

    /// A range that holds every key strictly below this one: exactly those for a field; for the root all keys, among
    /// which [`is_below`](Self::is_below) decides; for a reserved key, which has none below it, an arbitrary one.
    #[must_use]
    pub fn below_range(&self) -> KeyRange {
        match self.0.as_str() {
            ROOT_KEY => (Bound::Unbounded, Bound::Unbounded),
            EMPTY_SEGMENT_KEY => below(""),
            key => below(key),
        }
    }

    fn pointer(&self) -> Option<Cow<'static, str>> {
        match self.0.as_str() {
            ROOT_KEY => Some(Cow::Borrowed("")),
            EMPTY_SEGMENT_KEY => Some(Cow::Borrowed("/")),
            "" => None,
            key if key.starts_with("$$") => Some(Cow::Owned(key.replacen('$', "/", 1))),
            key if key.starts_with('$') => None,
            key => Some(Cow::Owned(["/", key].concat())),
        }
    }
}

impl fmt::Display for FlatKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All keys that begin with `key` and a slash; `0` is the character after `/`.
fn below(key: &str) -> KeyRange {
    (Bound::Included([key, "/"].concat()), Bound::Excluded([key, "0"].concat()))
}

#[cfg(test)]
mod tests {
    use std::ops::RangeBounds;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_read_and_its_key_printed() {
        assert_eq!("/a/b".parse::<Path>(), Path::parse("/a/b"));
        assert!("a".parse::<Path>().is_err());
        let key = Path::parse("/a/b").unwrap().to_key();
        assert_eq!((key.to_string().as_str(), key.as_str()), ("a/b", "a/b"));
    }

    const AWKWARD: [&str; 18] = [
        "",
        "$",
        "$$",
        "#",
        "$#",
        "$root",
        "root",
        "$deleted",
        "/",
        "~",
        "~1",
        "0",
        "a",
        "a0",
        "a!",
        "🦀",
        "\0",
        "\u{10ffff}",
    ];

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn key(text: &str) -> String {
        path(text).to_key().into_string()
    }

    /// Every path of at most two awkward segments, and those of three that begin with one of the first nine.
    fn awkward_paths() -> Vec<Path> {
        let extend = |paths: &[Path], names: &[&str]| -> Vec<Path> {
            paths.iter().flat_map(|path| names.iter().map(|name| path.join(name).unwrap())).collect()
        };
        let one = extend(&[Path::root()], &AWKWARD);
        let two = extend(&one, &AWKWARD);
        let three = extend(&extend(&extend(&[Path::root()], &AWKWARD[..9]), &AWKWARD[..9]), &AWKWARD[..9]);
        [vec![Path::root()], one, two, three].concat()
    }

    fn segments() -> impl Strategy<Value = Vec<String>> {
        let name = prop_oneof![proptest::sample::select(AWKWARD.to_vec()).prop_map(str::to_owned), ".{0,6}"];
        proptest::collection::vec(name, 0..=PATH_DEPTH)
    }

    #[test]
    fn a_pointer_reads_back_what_it_prints() {
        for text in ["", "/", "/a/b", "//", "/a~1b/~0", "/~01", "/🦀"] {
            assert_eq!(path(text).as_str(), text);
        }
        assert_eq!(path("/a~1b/~01").segments().collect::<Vec<_>>(), ["a/b", "~1"]);
    }

    #[test]
    fn errors_say_what_to_try() {
        let fault = Path::parse("name").unwrap_err();
        assert!(fault.to_string().contains("did you mean `/name`?"), "{fault}");
        for (text, at) in [("/a~b", 2), ("/a~", 2), ("/~0~2", 3)] {
            assert!(matches!(Path::parse(text), Err(PathError::BadEscape { offset, .. }) if offset == at), "{text}");
        }
        let public = Error::from(fault);
        assert_eq!((public.kind(), public.pointers()), (ErrorKind::Validation, &["/name".to_owned()][..]));
    }

    #[test]
    fn depth_and_length_are_limited() {
        assert!(Path::parse(&"/a".repeat(PATH_DEPTH)).is_ok());
        let deep = "/a".repeat(PATH_DEPTH + 1);
        assert_eq!(Path::parse(&deep), Err(PathError::TooDeep { depth: PATH_DEPTH + 1 }));
        assert!(path(&"/a".repeat(PATH_DEPTH)).join("a").is_err());
        assert!(Path::root().join(&"a".repeat(PATH_BYTES - 1)).is_ok());
        let fault = Path::root().join(&"a".repeat(PATH_BYTES)).unwrap_err();
        assert_eq!(Error::from(fault).kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn keys_are_as_documented() {
        let pairs = [
            ("", "$root"),
            ("/", "$"),
            ("//x", "/x"),
            ("//", "/"),
            ("/a/b", "a/b"),
            ("/$", "$$"),
            ("/$root", "$$root"),
            ("/$$/x", "$$$/x"),
            ("/a/$", "a/$"),
            ("/#", "#"),
            ("/a~1b", "a~1b"),
        ];
        for (pointer, expected) in pairs {
            assert_eq!(key(pointer), expected);
        }
        assert_eq!(FlatKey::counter(&path("/n/$")).as_str(), "$#n/$");
        assert_eq!(FlatKey::counter(&Path::root()).as_str(), "$#$root");
        assert_eq!(FlatKey::deleted().as_str(), "$deleted");
        assert_eq!(FlatKey::member(&path("/tags"), "\"a/b\"").as_str(), "tags/\"a~1b\"");
    }

    #[test]
    fn reserved_keys_are_no_paths() {
        for reserved in ["$deleted", "$#a", "$#", "$#$root", "$x", "", "$/x", "$root/x"] {
            let key = FlatKey::from_document(reserved);
            assert!(key.is_reserved() && key.to_path().is_none(), "{reserved}");
        }
    }

    #[test]
    fn awkward_paths_have_distinct_keys_that_lead_back() {
        let mut seen = std::collections::BTreeMap::new();
        for path in awkward_paths() {
            let key = path.to_key();
            assert!(!key.as_str().is_empty());
            assert_eq!(key.to_path().as_ref(), Some(&path));
            assert!(FlatKey::counter(&path).is_reserved());
            assert_eq!(seen.insert(key, path.clone()).filter(|other| *other != path), None);
        }
    }

    #[test]
    fn below_is_exact_and_the_range_holds_it() {
        let paths = awkward_paths();
        let shallow: Vec<_> = paths.iter().filter(|path| path.depth() < 3).collect();
        let keys: Vec<_> = paths.iter().map(|path| (path, path.to_key())).collect();
        for ancestor in shallow {
            let top = ancestor.to_key();
            let range = top.below_range();
            for (path, key) in &keys {
                let is_below = ancestor.is_prefix_of(path);
                assert_eq!(key.is_below(&top), is_below, "{key} below {top}");
                let is_inside = range.contains(&key.0);
                assert_eq!(is_inside, is_below || ancestor.is_root(), "{key} in the range of {top}");
            }
        }
    }

    #[test]
    fn reserved_keys_are_below_nothing_and_nothing_is_below_them() {
        let reserved: Vec<_> = awkward_paths().iter().map(FlatKey::counter).chain([FlatKey::deleted()]).collect();
        for path in awkward_paths().iter().filter(|path| path.depth() < 2) {
            let key = path.to_key();
            for own in &reserved {
                assert!(!own.is_below(&key) && !key.is_below(own), "{own} and {key}");
            }
        }
    }

    proptest! {
        #[test]
        fn segments_read_back(segments in segments()) {
            let path = Path::from_segments(&segments).unwrap();
            prop_assert_eq!(path.segments().collect::<Vec<_>>(), segments.clone());
            prop_assert_eq!(path.depth(), segments.len());
            prop_assert_eq!(&Path::parse(path.as_str()).unwrap(), &path);
            prop_assert_eq!(path.to_key().to_path(), Some(path.clone()));
            let json = serde_json::to_string(&path).unwrap();
            prop_assert_eq!(serde_json::from_str::<Path>(&json).unwrap(), path);
        }

        #[test]
        fn different_paths_have_different_keys(a in segments(), b in segments()) {
            let (a, b) = (Path::from_segments(a).unwrap(), Path::from_segments(b).unwrap());
            prop_assert_eq!(a == b, a.to_key() == b.to_key());
            prop_assert_eq!(a.is_prefix_of(&b), b.to_key().is_below(&a.to_key()));
            prop_assert!(!a.is_prefix_of(&b) || a.to_key().below_range().contains(&b.to_key().0));
        }

        #[test]
        fn any_text_that_parses_is_in_normal_form(text in "[/~01$a]{0,12}") {
            if let Ok(path) = Path::parse(&text) {
                prop_assert_eq!(Path::from_segments(path.segments()).unwrap(), path);
            }
        }

        #[test]
        fn a_member_has_the_key_of_a_child(segments in segments(), json in ".{1,8}") {
            let path = Path::from_segments(&segments).unwrap();
            let member = FlatKey::member(&path, &json);
            prop_assert!(member.is_below(&path.to_key()));
            prop_assert_eq!(member.member_of(&path), Some(json.clone()));
            if let Ok(child) = path.join(&json) {
                prop_assert_eq!(child.parent(), Some(path));
                prop_assert_eq!(child.to_key(), member);
            }
        }
    }
}
