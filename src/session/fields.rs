//! The fields of a session as the type that a handler wants to see.

use std::collections::{BTreeMap, btree_map::Iter};

use bytes::Bytes;
use serde::{
    Deserializer,
    de::{DeserializeOwned, DeserializeSeed, MapAccess, Visitor, value::BorrowedStrDeserializer},
    forward_to_deserialize_any,
};
use serde_json::Error;

use super::{core::Pending, json::Json};

/// The fields that are stored, with what is pending in their place.
pub(super) struct Fields<'a> {
    stored: Option<Iter<'a, Box<str>, Bytes>>,
    pending: &'a Pending,
    changed: Iter<'a, Box<str>, Option<Bytes>>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(stored: Option<&'a BTreeMap<Box<str>, Bytes>>, pending: &'a Pending) -> Self {
        Self { stored: stored.map(BTreeMap::iter), pending, changed: pending.iter() }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, &'a Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        let pending = self.pending;
        let kept = self.stored.as_mut().and_then(|stored| stored.find(|(name, _)| !pending.contains_key(*name)));
        let field = kept.or_else(|| self.changed.find_map(|(name, value)| Some((name, value.as_ref()?))));
        field.map(|(name, value)| (&**name, value))
    }
}

/// Reads a `T` from the fields as they are, without making one text of them. `None` if they do not fit, or if `T` wants
/// more from JSON than an object with names has: keys that are numbers, variants of an enum. Then
/// [their text](to_json) tells.
pub(super) fn read<'de, T: DeserializeOwned>(fields: impl Iterator<Item = (&'de str, &'de Bytes)>) -> Option<T> {
    T::deserialize(Object(fields)).ok()
}

/// The fields as one JSON object.
pub(super) fn to_json<'de>(fields: impl Iterator<Item = (&'de str, &'de Bytes)>) -> Vec<u8> {
    let mut json = Vec::with_capacity(256);
    json.push(b'{');
    for (name, value) in fields {
        if json.len() > 1 {
            json.push(b',');
        }
        // A string always becomes JSON, and a vector takes it.
        let _ = serde_json::to_writer(&mut json, name);
        json.push(b':');
        json.extend_from_slice(value);
    }
    json.push(b'}');
    json
}

struct Object<I>(I);

impl<'de, I: Iterator<Item = (&'de str, &'de Bytes)>> Deserializer<'de> for Object<I> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Members { fields: self.0, value: &[] })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

struct Members<'de, I> {
    fields: I,
    /// That of the name that was read last.
    value: &'de [u8],
}

impl<'de, I: Iterator<Item = (&'de str, &'de Bytes)>> MapAccess<'de> for Members<'de, I> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((name, value)) = self.fields.next() else { return Ok(None) };
        self.value = value;
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Json(self.value))
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use serde_json::{Map, Value};

    use super::*;

    const SHOP: &[(&str, &str)] = &[("notes", r#"["a\n",null]"#), ("theme", r#""dark""#), ("visits", " 17 ")];

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Shop {
        theme: String,
        visits: u32,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Wrapped(Option<Shop>);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Nested {
        visits: Option<u32>,
        #[serde(flatten)]
        others: Map<String, Value>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Either {
        One(u32),
        Other(String),
    }

    fn bytes(fields: &[(&'static str, &'static str)]) -> Vec<(&'static str, Bytes)> {
        fields.iter().map(|(name, value)| (*name, Bytes::from_static(value.as_bytes()))).collect()
    }

    /// What is read of the fields, and of their text.
    fn both<T: DeserializeOwned>(fields: &[(&'static str, &'static str)]) -> (Option<T>, Option<T>) {
        let fields = bytes(fields);
        let all = || fields.iter().map(|(name, value)| (*name, value));
        (read(all()), serde_json::from_slice(&to_json(all())).ok())
    }

    #[test]
    fn what_is_read_of_the_fields_is_what_is_read_of_their_text() {
        fn alike<T: DeserializeOwned + PartialEq + std::fmt::Debug>() {
            let (of_fields, of_text) = both::<T>(SHOP);
            assert!(of_fields.is_some());
            assert_eq!(of_fields, of_text);
        }
        alike::<Shop>();
        alike::<Wrapped>();
        alike::<Nested>();
        alike::<Value>();
        alike::<BTreeMap<String, Value>>();
    }

    #[test]
    fn what_needs_more_of_json_is_left_to_the_text() {
        assert_eq!(both::<BTreeMap<u32, bool>>(&[("17", "true")]), (None, Some(BTreeMap::from([(17, true)]))));
        assert_eq!(both::<Either>(&[("One", "1")]), (None, Some(Either::One(1))));
    }

    #[test]
    fn what_does_not_fit_is_not_read() {
        assert_eq!(both::<Shop>(&[("theme", r#""dark""#)]), (None, None), "a field is missing");
        assert_eq!(both::<Shop>(&[("theme", "1"), ("visits", "1")]), (None, None), "one has another type");
        assert_eq!(both::<Value>(&[("theme", "1 2")]), (None, None), "one is not JSON");
        assert_eq!(both::<Vec<u8>>(SHOP), (None, None));
    }
}
