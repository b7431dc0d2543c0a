//! What a build tells while it works. Nothing here prints.

use crate::image::Progress;

/// Which step an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Number of the stage in the Dockerfile, from 0.
    pub stage: usize,
    /// Number of the step among all that run, from 1.
    pub step: usize,
    /// How many run.
    pub steps: usize,
}

/// One thing that happened.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Which stages are going to run, by their numbers.
    Plan(&'a [usize]),
    /// Nothing of a stage comes any more.
    StageEnd(usize),
    /// A step begins.
    Step(At, &'a str),
    /// A line about a step.
    Note(At, &'a str),
    /// The step's result is known from before.
    Cached(At),
    /// The step's container runs.
    Running(At, &'a str),
    /// What it prints.
    Output(At, &'a [u8]),
    /// The step's container is gone.
    Removed(At, &'a str),
    /// The step is done; the state after it has this id.
    Done(At, &'a str),
    /// The step failed; what it printed explains it.
    Failed(At),
    /// Something that the user should know, and that stops nothing.
    Warning(&'a str),
}

/// Hears what happens; several stages tell at once.
pub trait Report: Progress {
    /// One event.
    fn step(&self, event: Event<'_>);
}
