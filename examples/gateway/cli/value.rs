//! Flags and their values: parsed once, and refused in one sentence.

use std::{fmt, num::NonZeroUsize, str::FromStr, time::Duration};

use lexopt::Parser;

/// What is wrong with the command line, in one sentence.
#[derive(Debug)]
pub(crate) struct Usage(pub(super) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<lexopt::Error> for Usage {
    fn from(error: lexopt::Error) -> Self {
        Self(match error {
            lexopt::Error::UnexpectedOption(flag) => format!("There is no flag {flag}; --help lists those there are."),
            lexopt::Error::UnexpectedArgument(value) => {
                format!("{} is not a flag; --help lists those there are.", value.display())
            }
            lexopt::Error::MissingValue { option: Some(flag) } => format!("{flag} needs a value."),
            lexopt::Error::UnexpectedValue { option, .. } => format!("{option} takes no value."),
            other => format!("The command line cannot be read: {other}."),
        })
    }
}

/// A flag, and where its value comes from.
pub(super) struct Flag<'a> {
    pub(super) name: String,
    pub(super) parser: &'a mut Parser,
}

impl Flag<'_> {
    pub(super) fn text(&mut self) -> Result<String, Usage> {
        let value = self.parser.value()?;
        value.into_string().map_err(|value| Usage(format!("--{}: {} is not UTF-8.", self.name, value.display())))
    }

    pub(super) fn value<T: FromStr>(&mut self, expected: &str) -> Result<T, Usage> {
        let text = self.text()?;
        self.parse(&text, &text, expected)
    }

    /// `PREFIX=VALUE`, of which the value may have no `=`.
    pub(super) fn pair<T: FromStr>(&mut self, expected: &str) -> Result<(Prefix, T), Usage> {
        let text = self.text()?;
        let (prefix, value) = text.rsplit_once('=').unwrap_or_default();
        Ok((self.parse(prefix, &text, expected)?, self.parse(value, &text, expected)?))
    }

    fn parse<T: FromStr>(&self, part: &str, text: &str, expected: &str) -> Result<T, Usage> {
        part.parse().map_err(|_| Usage(format!("--{} takes {expected}, not {text:?}.", self.name)))
    }

    /// More than none, and no more than a day.
    pub(super) fn timeout(&mut self) -> Result<Duration, Usage> {
        let Seconds(duration) = self.value("seconds from 0.001 to 86400")?;
        if duration.as_secs_f64() > 86_400.0 || duration < Duration::from_millis(1) {
            return Err(Usage(format!("--{} takes seconds from 0.001 to 86400.", self.name)));
        }
        Ok(duration)
    }

    /// What the environment has under the name that the flag gives. The value is a secret, and in no message.
    pub(super) fn environment(&mut self) -> Result<String, Usage> {
        let name = self.text()?;
        match std::env::var(&name) {
            Ok(secret) if !secret.is_empty() => Ok(secret),
            _ => Err(Usage(format!("--{}: the environment has no {name}.", self.name))),
        }
    }

    /// The flag with a reason why its value will not do.
    pub(super) fn refuse(&self, why: impl fmt::Display) -> Usage {
        Usage(format!("--{}: {why}.", self.name))
    }
}

/// A duration in seconds, up to 68 years.
pub(super) struct Seconds(pub(super) Duration);

impl FromStr for Seconds {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let seconds: f64 = text.parse().map_err(|_| ())?;
        if (0.0..=f64::from(i32::MAX)).contains(&seconds) {
            Ok(Self(Duration::from_secs_f64(seconds)))
        } else {
            Err(())
        }
    }
}

pub(super) struct Threads(pub(super) NonZeroUsize);

impl FromStr for Threads {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().ok().filter(|threads: &NonZeroUsize| threads.get() <= 1024).map(Self).ok_or(())
    }
}

/// The beginning of a path: begins with a slash, has none at its end, and is taken literally.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Prefix(pub(crate) Box<str>);

impl FromStr for Prefix {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if !text.starts_with('/') || text.contains(['{', '}', '?', '#']) {
            return Err(());
        }
        Ok(Self(text.trim_end_matches('/').into()))
    }
}
