//! What the specification asks, and how one answer to it is judged.

use crate::lab::Lab;

/// How strongly the specification asks (RFC 2119).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Must,
    MustNot,
    Should,
    ShouldNot,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::MustNot => "MUST NOT",
            Self::Should => "SHOULD",
            Self::ShouldNot => "SHOULD NOT",
        }
    }
}

/// Why a requirement is not met, or cannot be judged here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The runtime does otherwise.
    Fail(String),
    /// This machine lacks what the test needs.
    Skip(String),
}

/// An error on the way to a verdict counts against the runtime.
impl From<String> for Why {
    fn from(text: String) -> Self {
        Self::Fail(text)
    }
}

/// The outcome of one test.
pub type Verdict = Result<(), Why>;

/// How a requirement is checked.
#[derive(Clone, Copy)]
pub enum Check {
    Test(fn(&Lab) -> Verdict),
    /// One test function for several requirements that differ in a word.
    With(&'static str, fn(&Lab, &str) -> Verdict),
    /// Nothing a test could see would differ; the reason why.
    NotTestable(&'static str),
}

/// One sentence of the specification.
#[derive(Clone, Copy)]
pub struct Requirement {
    /// Stable: document, subject, number.
    pub id: &'static str,
    pub level: Level,
    /// File and anchor in runtime-spec 1.3.
    pub section: &'static str,
    /// The sentence in our words.
    pub text: &'static str,
    pub check: Check,
}

type Test = fn(&Lab) -> Verdict;
type TestWith = fn(&Lab, &str) -> Verdict;

impl Requirement {
    const fn new(
        id: &'static str,
        level: Level,
        section: &'static str,
        text: &'static str,
        check: Check,
    ) -> Self {
        Self {
            id,
            level,
            section,
            text,
            check,
        }
    }

    pub const fn must(id: &'static str, at: &'static str, text: &'static str, test: Test) -> Self {
        Self::new(id, Level::Must, at, text, Check::Test(test))
    }

    pub const fn must_not(
        id: &'static str,
        at: &'static str,
        text: &'static str,
        test: Test,
    ) -> Self {
        Self::new(id, Level::MustNot, at, text, Check::Test(test))
    }

    pub const fn should(
        id: &'static str,
        at: &'static str,
        text: &'static str,
        test: Test,
    ) -> Self {
        Self::new(id, Level::Should, at, text, Check::Test(test))
    }

    pub const fn should_not(
        id: &'static str,
        at: &'static str,
        text: &'static str,
        test: Test,
    ) -> Self {
        Self::new(id, Level::ShouldNot, at, text, Check::Test(test))
    }

    /// A row that shares its test function with others; `word` tells them apart.
    pub const fn with(
        id: &'static str,
        level: Level,
        at: &'static str,
        text: &'static str,
        word: &'static str,
        test: TestWith,
    ) -> Self {
        Self::new(id, level, at, text, Check::With(word, test))
    }

    /// A row without a test, and the reason.
    pub const fn untestable(
        id: &'static str,
        level: Level,
        at: &'static str,
        text: &'static str,
        reason: &'static str,
    ) -> Self {
        Self::new(id, level, at, text, Check::NotTestable(reason))
    }

    /// Runs the test; `None` for a requirement that cannot be tested.
    pub fn judge(&self, lab: &Lab) -> Option<Verdict> {
        match self.check {
            Check::Test(test) => Some(test(lab)),
            Check::With(word, test) => Some(test(lab, word)),
            Check::NotTestable(_) => None,
        }
    }
}

/// Returns a failing verdict, with a formatted reason, unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            return Err($crate::requirement::Why::Fail(format!($($reason)+)));
        }
    };
}
pub(crate) use ensure;

/// Returns a verdict that this machine cannot tell, with a formatted reason.
macro_rules! skip {
    ($($reason:tt)+) => {
        return Err($crate::requirement::Why::Skip(format!($($reason)+)))
    };
}
pub(crate) use skip;
