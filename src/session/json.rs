//! The value of one field.

use serde::{Deserializer, de::Visitor};
use serde_json::{Error, de::SliceRead};

/// JSON that is read by `serde_json`, but for text without escapes: that is taken as it stands, where `serde_json`
/// looks for its end.
pub(super) struct Json<'de>(pub(super) &'de [u8]);

impl<'de> Json<'de> {
    /// What stands between the quotation marks, if that is the text.
    fn plain(&self) -> Option<&'de str> {
        let text = self.0.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        // All of it at once, many bytes at a time, instead of up to the first that is special.
        let special = text.iter().fold(false, |found, byte| found | matches!(byte, b'"' | b'\\' | ..0x20));
        if special { None } else { std::str::from_utf8(text).ok() }
    }

    fn parsed<T>(
        &self,
        read: impl FnOnce(&mut serde_json::Deserializer<SliceRead<'de>>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut json = serde_json::Deserializer::from_slice(self.0);
        let value = read(&mut json)?;
        json.end().map(|()| value)
    }
}

/// Methods that leave it to `serde_json`, some after they have looked for plain text.
macro_rules! deserialize {
    ($(text $name:ident)* $(; $other:ident $(, $arg:ident: $type:ty)*)*) => {
        $(
            fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
                match self.plain() {
                    Some(text) => visitor.visit_borrowed_str(text),
                    None => self.parsed(|json| json.$name(visitor)),
                }
            }
        )*
        $(
            fn $other<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, Error> {
                self.parsed(|json| json.$other($($arg,)* visitor))
            }
        )*
    };
}

type Names = &'static [&'static str];

impl<'de> Deserializer<'de> for Json<'de> {
    type Error = Error;

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.plain() {
            Some(_) => visitor.visit_some(self),
            None => self.parsed(|json| json.deserialize_option(visitor)),
        }
    }

    deserialize! {
        text deserialize_any text deserialize_str text deserialize_string;
        deserialize_bool; deserialize_char; deserialize_unit; deserialize_identifier; deserialize_ignored_any;
        deserialize_i8; deserialize_i16; deserialize_i32; deserialize_i64; deserialize_i128;
        deserialize_u8; deserialize_u16; deserialize_u32; deserialize_u64; deserialize_u128;
        deserialize_f32; deserialize_f64; deserialize_bytes; deserialize_byte_buf; deserialize_seq; deserialize_map;
        deserialize_tuple, len: usize;
        deserialize_unit_struct, name: &'static str;
        deserialize_newtype_struct, name: &'static str;
        deserialize_tuple_struct, name: &'static str, len: usize;
        deserialize_struct, name: &'static str, fields: Names;
        deserialize_enum, name: &'static str, variants: Names
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;
    use serde::{Deserialize, de::DeserializeOwned};
    use serde_json::Value;

    use super::*;

    /// What is read, if anything, which is what `serde_json` reads.
    fn read<T: DeserializeOwned + Debug + PartialEq>(json: &[u8]) -> Option<T> {
        let ours = T::deserialize(Json(json)).ok();
        assert_eq!(ours, serde_json::from_slice(json).ok(), "{}", json.escape_ascii());
        ours
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Wrapped(String);

    #[derive(Debug, PartialEq, Deserialize)]
    enum Theme {
        #[serde(rename = "dark")]
        Dark,
    }

    #[test]
    fn text_is_read_by_every_type_that_takes_it() {
        for json in ["\"dark\"", "\"\"", "\"dä\\u0072k\\n\"", " \"dark\" ", "\"a\"b\"", "\"", "null", "17", "\"a\nb\""]
        {
            let json = json.as_bytes();
            read::<String>(json);
            read::<Box<str>>(json);
            read::<Option<String>>(json);
            read::<Option<Option<Wrapped>>>(json);
            read::<Wrapped>(json);
            read::<Theme>(json);
            read::<Value>(json);
            read::<char>(json);
            read::<u32>(json);
            read::<()>(json);
        }
        assert_eq!(read::<String>(b"\"dark\"").as_deref(), Some("dark"));
        assert_eq!(read::<Option<String>>(b"\"dark\""), Some(Some("dark".to_owned())));
        assert_eq!(read::<Option<Theme>>(b"\"dark\""), Some(Some(Theme::Dark)));
        assert_eq!(read::<String>(b"\"\xff\""), None, "it is no UTF-8");
    }

    proptest! {
        #[test]
        fn what_serde_json_writes_is_read(text in any::<String>(), list in any::<Vec<Option<u32>>>()) {
            prop_assert_eq!(read(&serde_json::to_vec(&text).unwrap()), Some(text));
            prop_assert_eq!(read(&serde_json::to_vec(&list).unwrap()), Some(list));
        }

        #[test]
        fn whatever_stands_there_is_read_as_serde_json_reads_it(json in "[\"\\\\]?.{0,8}[\"\\\\]?") {
            read::<String>(json.as_bytes());
            read::<Value>(json.as_bytes());
        }
    }
}
