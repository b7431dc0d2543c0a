//! How work on images reports what it is doing. Nothing here prints.

/// One step, told while it happens. The words are those of Docker's progress stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A line about the whole work, such as `Digest: sha256:…`.
    Message(&'a str),
    /// A line about a part: `latest: Pulling from library/busybox`.
    Of {
        /// What the line is about.
        id: &'a str,
        /// The line.
        text: &'a str,
    },
    /// A layer changed its state or moved on.
    Layer {
        /// Twelve hexadecimal digits.
        id: &'a str,
        /// What is being done with it.
        status: Status,
        /// Bytes done.
        current: u64,
        /// Bytes in all; 0 if that is not known.
        total: u64,
    },
}

/// What is being done with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// It is known that the layer is needed.
    PullingFsLayer,
    /// It waits for its turn.
    Waiting,
    /// Bytes are coming.
    Downloading,
    /// All bytes are there.
    DownloadComplete,
    /// It is being unpacked.
    Extracting,
    /// It is in the store.
    PullComplete,
    /// It was in the store before.
    AlreadyExists,
    /// A push is about to begin with it.
    Preparing,
    /// Bytes are going.
    Pushing,
    /// The registry has it now.
    Pushed,
    /// The registry had it before.
    LayerAlreadyExists,
    /// The registry took it from another of its repositories.
    Mounted,
    /// An archive's layer is being read.
    Loading,
}

impl Status {
    /// Docker's words.
    pub fn text(self) -> &'static str {
        match self {
            Status::PullingFsLayer => "Pulling fs layer",
            Status::Waiting => "Waiting",
            Status::Downloading => "Downloading",
            Status::DownloadComplete => "Download complete",
            Status::Extracting => "Extracting",
            Status::PullComplete => "Pull complete",
            Status::AlreadyExists => "Already exists",
            Status::Preparing => "Preparing",
            Status::Pushing => "Pushing",
            Status::Pushed => "Pushed",
            Status::LayerAlreadyExists => "Layer already exists",
            Status::Mounted => "Mounted from another repository",
            Status::Loading => "Loading layer",
        }
    }
}

/// Whoever wants to know; called from several threads at once.
pub trait Progress: Sync {
    /// Tells one step.
    fn event(&self, event: Event<'_>);
}

/// Nobody wants to know.
pub struct Quiet;

impl Progress for Quiet {
    fn event(&self, _: Event<'_>) {}
}
