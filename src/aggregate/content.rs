//! The JSON of a part.

use std::sync::Arc;

use serde_json::{Value, value::RawValue};

/// Valid JSON: its text as it came, and parsed if a part depends on it.
#[derive(Clone, Debug)]
pub(super) struct Json {
    pub(super) text: Box<RawValue>,
    pub(super) value: Option<Arc<Value>>,
}

impl Json {
    /// Checks a text, and parses it if that is `wanted`: numbers and the order of keys stay in the answer as they came.
    pub(super) fn new(text: String, wanted: bool) -> Result<Self, serde_json::Error> {
        let value = if wanted { Some(Arc::new(serde_json::from_str(&text)?)) } else { None };
        Ok(Self { text: RawValue::from_string(text)?, value })
    }

    /// No content is `null`.
    pub(super) fn null(wanted: bool) -> Self {
        Self { text: RawValue::NULL.to_owned(), value: wanted.then(|| Arc::new(Value::Null)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_stays_as_it_came_without_the_space_around() {
        let text = " {\"b\": 1.10, \"a\": 123456789012345678901234567890} \n";
        let json = Json::new(text.to_owned(), true).unwrap();
        assert_eq!(json.text.get(), text.trim());
        assert_eq!(json.value.unwrap()["b"], 1.1);
        assert!(Json::new(text.to_owned(), false).unwrap().value.is_none());
    }

    #[test]
    fn what_is_not_json_is_an_error_parsed_or_not() {
        for text in ["", " ", "{", "<html>", "{} {}", "NaN", "'a'", "{\"a\":01}"] {
            assert!(Json::new(text.to_owned(), false).is_err(), "{text}");
            assert!(Json::new(text.to_owned(), true).is_err(), "{text}");
        }
    }
}
