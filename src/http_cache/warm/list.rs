//! Lists of URLs.

use std::{fmt, path::Path};

use http::{HeaderValue, Request, Uri, header, uri};

/// What to warm, as text: one URL or path on each line; empty lines and lines that begin with `#` are left out.
///
/// ```text
/// # the front page, and what it links to
/// http://shop.example/
/// /products/17?size=xl
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List(Vec<Uri>);

impl List {
    /// The largest file that is read, in bytes.
    pub const MAX_FILE: u64 = 64 << 20;

    /// Reads a file, at most [`List::MAX_FILE`] bytes of UTF-8.
    pub async fn read(path: impl AsRef<Path>) -> Result<Self, ListError> {
        let path = path.as_ref().to_owned();
        let name = path.display().to_string();
        let in_file = |reason: String| ListError(format!("{name}: {reason}"));
        // Files block.
        let read = tokio::task::spawn_blocking(move || {
            use std::io::Read as _;
            let mut text = String::new();
            std::fs::File::open(path)?.take(Self::MAX_FILE + 1).read_to_string(&mut text)?;
            Ok::<_, std::io::Error>(text)
        });
        let text = read.await.map_err(|error| in_file(error.to_string()))?;
        let text = text.map_err(|error| in_file(error.to_string()))?;
        if text.len() as u64 > Self::MAX_FILE {
            return Err(in_file(format!("a list has at most {} bytes", Self::MAX_FILE)));
        }
        Self::parse(&text).map_err(|ListError(reason)| in_file(reason))
    }

    /// Parses the text of a list.
    pub fn parse(text: &str) -> Result<Self, ListError> {
        // Editors of some systems begin a file with a byte order mark.
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim).enumerate();
        let urls = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        urls.map(|(at, line)| url(line).map_err(|reason| ListError(format!("line {}: {reason}", at + 1)))).collect()
    }

    /// Where the lines lead that are only a path: an origin, such as `http://shop.example`.
    pub fn at(mut self, origin: &str) -> Result<Self, ListError> {
        let wrong = || ListError(format!("{origin:?} is no origin, such as http://shop.example"));
        let origin = url(origin).ok().filter(|origin| origin.path() == "/" && origin.query().is_none());
        let parts = origin.map(Uri::into_parts);
        let Some(uri::Parts { scheme: Some(scheme), authority: Some(authority), .. }) = parts else {
            return Err(wrong());
        };
        for uri in self.0.iter_mut().filter(|uri| uri.authority().is_none()) {
            let mut parts = uri::Parts::from(std::mem::take(uri));
            (parts.scheme, parts.authority) = (Some(scheme.clone()), Some(authority.clone()));
            *uri = Uri::from_parts(parts).map_err(|_| wrong())?;
        }
        Ok(self)
    }

    /// GET requests for them.
    pub fn requests<B: Default>(&self) -> impl ExactSizeIterator<Item = Request<B>> + Send + use<B> {
        self.0.clone().into_iter().map(|uri| {
            let host = uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
            let mut request = Request::new(B::default());
            *request.uri_mut() = uri;
            request.headers_mut().extend(host.map(|host| (header::HOST, host)));
            request
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Uri> for List {
    fn from_iter<I: IntoIterator<Item = Uri>>(uris: I) -> Self {
        Self(uris.into_iter().collect())
    }
}

fn url(line: &str) -> Result<Uri, &'static str> {
    // Clients send it percent-encoded.
    let uri = line.parse::<Uri>().ok().filter(|_| line.is_ascii());
    let uri = uri.ok_or("no URL; what is not ASCII, and blanks, must be percent-encoded")?;
    match (uri.scheme_str(), uri.authority()) {
        (None, None) if line.starts_with('/') => Ok(uri),
        (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') => Ok(uri),
        (Some("http" | "https"), Some(_)) => Err("a URL with user information, which would be logged"),
        _ => Err("neither a URL with http or https nor a path that begins with /"),
    }
}

/// A list cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListError(String);

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ListError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_paths_are_read_and_all_else_is_skipped() {
        let text = "\u{feff}# comment\n\n  http://a.example/x?y=1  \r\n/b\nhttps://c.example\n";
        let list = List::parse(text).unwrap().at("http://here.example:81").unwrap();
        let all: Vec<_> = list.requests::<String>().map(|request| (request.uri().to_string(), request)).collect();
        let uris: Vec<_> = all.iter().map(|(uri, _)| uri.as_str()).collect();
        assert_eq!(uris, ["http://a.example/x?y=1", "http://here.example:81/b", "https://c.example/"]);
        assert_eq!(all[1].1.headers()["host"], "here.example:81");
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, want) in [
            ("/a\n\nb.example/x", "line 3: "),
            ("ftp://a.example/", "line 1: neither"),
            ("/a b", "line 1: no URL"),
            ("/grün", "line 1: no URL"),
            ("http://me:secret@a.example/", "line 1: a URL with user information"),
            ("*", "line 1: neither"),
        ] {
            let error = List::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(want), "{text}: {error}");
            assert!(!error.contains("secret"));
        }
        for origin in ["shop.example", "http://shop.example/x", "/"] {
            assert!(List::parse("/a").unwrap().at(origin).is_err(), "{origin}");
        }
    }
}
