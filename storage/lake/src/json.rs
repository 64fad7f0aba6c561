//! What a table shows of JSON payloads beside their bytes.
//!
//! One pass that builds nothing: the text is checked to be JSON, and of an object the well-known
//! numbers are kept.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// How many well-known numbers there are: lat, lon, speed, heading.
pub const NUMBERS: usize = 4;

/// The well-known numbers of a payload.
pub type Numbers = [Option<f64>; NUMBERS];

/// The text of a payload that is JSON, and the well-known numbers if it is an object.
#[must_use]
pub fn read(payload: &[u8]) -> Option<(&str, Numbers)> {
    let text = std::str::from_utf8(payload).ok()?;
    // Cheaper than an error, and most binary payloads end here.
    let first = text.trim_start().bytes().next()?;
    if !matches!(first, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') {
        return None;
    }
    let Document(numbers) = serde_json::from_str(text).ok()?;
    Some((text, numbers))
}

fn place_of(key: &str) -> Option<usize> {
    match key {
        "lat" | "latitude" => Some(0),
        "lon" | "lng" | "longitude" => Some(1),
        "speed" => Some(2),
        "heading" => Some(3),
        _ => None,
    }
}

struct Document(Numbers);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut numbers = Numbers::default();
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match place_of(&key) {
                Some(place) => numbers[place] = map.next_value::<Number>()?.0,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Document(numbers))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Document, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Document(Numbers::default()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Document, E> {
        Ok(Document(Numbers::default()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Document, E> {
        Ok(Document(Numbers::default()))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Document, E> {
        Ok(Document(Numbers::default()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Document, E> {
        Ok(Document(Numbers::default()))
    }

    fn visit_str<E>(self, _: &str) -> Result<Document, E> {
        Ok(Document(Numbers::default()))
    }

    fn visit_unit<E>(self) -> Result<Document, E> {
        Ok(Document(Numbers::default()))
    }
}

/// A number, or anything else, which is no number.
struct Number(Option<f64>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl<'de> Visitor<'de> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_f64<E>(self, number: f64) -> Result<Number, E> {
        Ok(Number(Some(number)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
        Ok(Number(Some(number as f64)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
        Ok(Number(Some(number as f64)))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Number, E> {
        Ok(Number(None))
    }

    fn visit_str<E>(self, _: &str) -> Result<Number, E> {
        Ok(Number(None))
    }

    fn visit_unit<E>(self) -> Result<Number, E> {
        Ok(Number(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Number, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Number(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Number, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Number(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_numbers_are_found_by_any_of_their_names() {
        let table = [
            (
                r#"{"lat":48.1,"lon":11,"speed":-0.5,"heading":359}"#,
                [Some(48.1), Some(11.0), Some(-0.5), Some(359.0)],
            ),
            (r#" {"latitude":1,"x":{"speed":9},"lng":2.5} "#, [Some(1.0), Some(2.5), None, None]),
            (r#"{"lat":"48","lon":null,"speed":[1],"heading":{"a":1}}"#, [None; 4]),
            ("{}", [None; 4]),
            ("[1,2]", [None; 4]),
            ("17", [None; 4]),
            ("-1.5", [None; 4]),
            ("true", [None; 4]),
            ("null", [None; 4]),
            (r#""text""#, [None; 4]),
        ];
        for (text, numbers) in table {
            assert_eq!(read(text.as_bytes()), Some((text, numbers)), "{text}");
        }
    }

    #[test]
    fn security_what_is_not_json_is_only_bytes() {
        let deep = "[".repeat(100_000);
        let payloads: [&[u8]; 9] = [
            b"",
            b"  ",
            b"hello",
            b"{",
            b"{\"lat\":}",
            b"{} x",
            b"\xff{}",
            b"nul",
            deep.as_bytes(),
        ];
        for payload in payloads {
            assert_eq!(read(payload), None);
        }
    }
}
