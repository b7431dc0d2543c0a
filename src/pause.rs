//! The `pause` and `resume` verbs: freeze a container's cgroup, and thaw it.

/// Freeze or thaw a container
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}
