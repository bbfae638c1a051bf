//! The ids of objects: integers or strings to devices, texts to the ledger.

use serde_json::Value as Json;

use super::{invalid, provisional};
use crate::Result;
use crate::event::LedgerId;

/// The greatest integer that every reader of JSON holds exactly.
const MOST_EXACT: i64 = (1 << 53) - 1;

/// An object as an upload names it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Object {
    /// The key of its record.
    pub(super) key: String,
    /// How it was named.
    pub(super) sent: Json,
    /// The provisional id that it was named by.
    pub(super) provisional: Option<String>,
}

impl Object {
    /// Reads an object's id. An integer and the same digits as a string are one object.
    ///
    /// # Errors
    /// `validation` where it is neither an integer nor a string that is not empty.
    pub(super) fn read(sent: Option<&Json>, ledger: LedgerId, device: &str) -> Result<Self> {
        let text = match sent {
            Some(Json::String(text)) if !text.is_empty() => text.clone(),
            Some(Json::Number(number)) if number.is_i64() || number.is_u64() => number.to_string(),
            _ => return Err(invalid("/object_id", "expected an object_id that is an integer or a string")),
        };
        let sent = sent.cloned().unwrap_or_default();
        if !provisional::is_provisional(&text) {
            return Ok(Self { key: text, sent, provisional: None });
        }
        Ok(Self { key: provisional::settled(ledger, device, &text), sent, provisional: Some(text) })
    }

    /// The id that answers name the object by.
    pub(super) fn named(&self) -> Json {
        if self.provisional.is_some() { self.key.as_str().into() } else { self.sent.clone() }
    }
}

/// The id of a record's object: what reads as an integer is one.
pub(super) fn shown(key: &str) -> Json {
    match key.parse::<i64>() {
        Ok(number) if number.unsigned_abs() <= MOST_EXACT.unsigned_abs() && number.to_string() == key => {
            number.into()
        }
        _ => key.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_id_is_an_integer_or_a_string_and_is_shown_as_an_integer_where_it_reads_as_one() {
        let read = |sent: Json| Object::read(Some(&sent), LedgerId([1; 16]), "phone");
        for (sent, key, back) in [
            (json!(7), "7", json!(7)),
            (json!("7"), "7", json!(7)),
            (json!("-3"), "-3", json!(-3)),
            (json!("007"), "007", json!("007")),
            (json!("-0"), "-0", json!("-0")),
            (json!("+7"), "+7", json!("+7")),
            (json!(9_007_199_254_740_993_u64), "9007199254740993", json!("9007199254740993")),
            (json!("a-1"), "a-1", json!("a-1")),
        ] {
            let object = read(sent.clone()).unwrap();
            assert_eq!((object.key.as_str(), object.named(), shown(key)), (key, sent, back));
        }
        for refused in [json!(""), json!(1.5), json!(null), json!(true), json!([1])] {
            assert!(read(refused.clone()).is_err(), "{refused}");
        }
        assert!(Object::read(None, LedgerId([1; 16]), "phone").is_err());
        let provisional = read(json!("tmp:1")).unwrap();
        assert_eq!(provisional.named(), json!(provisional.key));
    }
}
