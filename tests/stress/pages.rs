//! The pages, and what each is made of.

/// Which layers the workers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The cache layer alone.
    Cache,
    /// Tag invalidation, stale while revalidate, cache, coalescing; short lifetimes, so that 304 refreshes.
    All,
}

impl Mode {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::All => "all",
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        [Self::Cache, Self::All].into_iter().find(|mode| mode.as_str() == text).expect("a mode")
    }
}

pub(crate) const ORIGIN: &str = "http://origin.test";
pub(crate) const LANGUAGES: [&str; 2] = ["de", "en"];
pub(crate) const TAGS: u64 = 5;

/// One of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page(pub(crate) u64);

impl Page {
    pub(crate) const COUNT: u64 = 6;

    pub(crate) fn prefix(self) -> String {
        format!("/section{}", self.0 % 2)
    }

    pub(crate) fn path(self) -> String {
        format!("{}/page{}", self.prefix(), self.0)
    }

    pub(crate) fn url(self) -> String {
        format!("{ORIGIN}{}", self.path())
    }

    pub(crate) fn of_path(path: &str) -> Option<Self> {
        (0..Self::COUNT).map(Self).find(|page| page.path() == path)
    }

    pub(crate) fn tags(self) -> [String; 2] {
        [format!("tag{}", self.0 % 3), format!("tag{}", 3 + self.0 % 2)]
    }

    /// The names of the versions that it shows.
    pub(crate) fn parts(self) -> [String; 5] {
        let [a, b] = self.tags();
        [a, b, self.path(), self.prefix(), "everything".to_owned()]
    }

    /// Half of the pages have a response for each language.
    pub(crate) fn varies(self) -> bool {
        self.0.is_multiple_of(2)
    }
}

/// What a page says: itself, its language, its versions; so often that it is in several pieces on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) page: Page,
    pub(crate) language: String,
    pub(crate) versions: Vec<u64>,
}

impl Content {
    const REPEATED: usize = 24;

    pub(crate) fn versions_field(&self) -> String {
        self.versions.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn etag(&self) -> String {
        format!("\"{}-{}-{}\"", self.page.0, self.language, self.versions_field().replace(',', "-"))
    }

    fn line(&self) -> String {
        format!("{} {} {}\n", self.page.0, self.language, self.versions_field())
    }

    pub(crate) fn to_text(&self) -> String {
        self.line().repeat(Self::REPEATED)
    }

    /// Reads it back; `None` where it is not one page, whole.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.lines().next()?.split(' ');
        let page = Page(words.next()?.parse().ok()?);
        let language = words.next()?.to_owned();
        let versions = words.next()?.split(',').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        let content = Self { page, language, versions };
        (content.to_text() == text).then_some(content)
    }
}
