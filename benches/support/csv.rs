//! What a bench has measured, for plots: lines of `name,x,y` in the file that `-- --csv FILE` names.

use std::{fmt::Display, fs::File, io::Write};

/// Writes nothing where no file is named.
pub(crate) struct Csv(Option<File>);

impl Csv {
    pub(crate) fn from_args() -> Self {
        let mut args = std::env::args().skip_while(|arg| arg != "--csv");
        let path = args.next().map(|_| args.next().expect("--csv wants a file"));
        Self(path.map(|path| File::create(path).expect("a file that can be written")))
    }

    /// `name` may not have a comma.
    pub(crate) fn line(&mut self, name: &str, x: impl Display, y: f64) {
        assert!(!name.contains(','), "{name}");
        // What was not measured is no number.
        if let Some(file) = self.0.as_mut().filter(|_| y.is_finite()) {
            writeln!(file, "{name},{x},{y}").expect("a file that can be written");
        }
    }
}
