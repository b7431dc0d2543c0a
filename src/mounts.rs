//! The `mounts` verb: adds mounts to a container that runs, or removes some.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};
use serde_json::Value;

use crate::bundle::{parse_spec, read_json_stream};
use crate::cgroups::Placement;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::plan::fds::Fds;
use crate::plan::mounts::What;
use crate::plan::{Facts, Plan, Step, namespaces};
use crate::spawn::{self, Role};
use crate::state::{Container, Status};
use crate::validate::validate_mounts;

/// Change the mounts of a running container
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// add or remove
    #[arg(value_name = "ACTION", value_parser = action)]
    pub action: Action,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
    /// JSON file: the mounts section of config.json, an array of mounts
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// What `mounts` does with the mounts of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Mount them, in order.
    Add,
    /// Unmount their destinations, in order.
    Remove,
}

fn action(text: &str) -> Result<Action, &'static str> {
    match text {
        "add" => Ok(Action::Add),
        "remove" => Ok(Action::Remove),
        _ => Err("add and remove exist"),
    }
}

/// Runs the verb. Nothing is left mounted if one of the file's mounts fails.
///
/// Bind mounts are copies that the runtime takes on the host; a process that enters the container
/// attaches them.
///
/// # Errors
/// [`Error::Spec`] with the file's name for a mount that cannot be; [`Error::NotRunning`].
pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let container = context.store.load_locked(&args.id)?;
    if matches!(container.status()?, Status::Stopped | Status::Creating) {
        return Err(Error::NotRunning);
    }
    let name = args.file.display().to_string();
    let own = container.spec()?;
    let list = read(&args.file, &name)?;
    let mut spec = own.clone();
    spec.set_mounts(Some(list.clone()));
    change(args.action, &container, &spec, context).map_err(|error| match error {
        Error::Spec { at, why, .. } => Error::Spec {
            file: name,
            at,
            why,
        },
        other => other,
    })?;
    keep(args.action, &container, own, list)
}

/// The mounts of the file: the array alone, or an object with a member `mounts` like config.json.
fn read(file: &Path, name: &str) -> Result<Vec<Mount>> {
    let bytes = read_json_stream(file, name)?;
    let tree = serde_json::from_slice::<Value>(&bytes).map_err(|error| Error::Spec {
        file: name.to_owned(),
        at: format!("line {} column {}", error.line(), error.column()),
        why: error.to_string(),
    })?;
    let mounts = match tree {
        Value::Object(mut object) => object.remove("mounts").unwrap_or_default(),
        other => other,
    };
    if mounts.as_array().is_none_or(Vec::is_empty) {
        return Err(Error::Spec {
            file: name.to_owned(),
            at: ".mounts".into(),
            why: "an array of mounts is needed, as in config.json".into(),
        });
    }
    let spec = serde_json::json!({ "ociVersion": "1.0.0", "mounts": mounts });
    let spec = parse_spec(spec.to_string().as_bytes(), name)?;
    Ok(spec.mounts().clone().unwrap_or_default())
}

fn change(action: Action, container: &Container, spec: &Spec, context: &Context) -> Result<()> {
    let record = &container.record;
    let facts = Facts {
        id: &record.id,
        no_new_keyring: true,
        cgroup: Some(&record.cgroup),
        ..Facts::of(Path::new(&record.bundle))
    };
    let init = record.init.ok_or(Error::NotRunning)?;
    let pidfd = init.open()?;
    let kinds = spawn::namespaces_to_enter(init.pid, 0)?;
    if kinds & namespaces::MOUNT == 0 {
        let why = "the container has no mount namespace of its own";
        return Err(Error::WrongStatus(why.into()));
    }
    let (mut plan, mut fds) = match action {
        Action::Add => {
            validate_mounts(spec, &context.host)?;
            let plan = Plan::for_mounts(spec, &facts)?;
            let fds = match kinds & namespaces::USER {
                0 => plan.open()?,
                _ => plan.open_locked(None)?,
            };
            need_copies(&plan, &fds)?;
            (plan, fds)
        }
        Action::Remove => {
            spare_the_confinement(spec)?;
            (Plan::for_mounts(spec, &facts)?, Fds::default())
        }
    };
    fds.init = Some((pidfd, kinds));
    let role = match action {
        Action::Add => Role::Mount,
        Action::Remove => Role::Unmount,
    };
    let mut process = spawn::start(&mut plan, &mut fds, &Placement::Nowhere, role)?;
    process.wait_for(&plan, Step::Created).map(drop)
}

/// From inside the container its process cannot reach the host's files.
fn need_copies(plan: &Plan, fds: &Fds) -> Result<()> {
    let is_missing = |(mount, source): (&crate::plan::mounts::Mount, &Option<_>)| {
        matches!(mount.what, What::Bind { .. }) && source.is_none()
    };
    let missing = plan.mounts.iter().zip(&fds.sources).position(is_missing);
    missing.map_or(Ok(()), |index| {
        let why = "a bind mount can be added only with CAP_SYS_ADMIN in the runtime's own \
                   mount namespace: run keel as root, or as root of a user namespace that has one";
        Err(Error::spec(format!(".mounts[{index}]"), why))
    })
}

/// What hides the host's files from the container, or keeps it from writing to them, stays.
fn spare_the_confinement(spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref();
    let hidden = linux.and_then(|linux| linux.masked_paths().as_deref());
    let readonly = linux.and_then(|linux| linux.readonly_paths().as_deref());
    let confined = hidden.into_iter().chain(readonly).flatten().map(Path::new);
    let confined: Vec<&Path> = confined.chain([Path::new("/")]).collect();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        if confined.contains(&mount.destination().as_path()) {
            let why = "this mount confines the container, it cannot be removed while it runs";
            let at = format!(".mounts[{index}].destination");
            return Err(Error::spec(at, why));
        }
    }
    Ok(())
}

/// Notes the change in the configuration that is kept: a checkpoint has to know every mount.
fn keep(action: Action, container: &Container, mut own: Spec, list: Vec<Mount>) -> Result<()> {
    let mut kept = own.mounts().clone().unwrap_or_default();
    match action {
        Action::Add => kept.extend(list),
        Action::Remove => {
            for gone in &list {
                let same = |mount: &Mount| mount.destination() == gone.destination();
                if let Some(index) = kept.iter().rposition(same) {
                    kept.remove(index);
                }
            }
        }
    }
    own.set_mounts(Some(kept));
    container.save_spec(&own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Mount>> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.json");
        std::fs::write(&file, text).unwrap();
        read(&file, "m.json")
    }

    #[test]
    fn a_file_is_the_array_or_an_object_that_has_it() {
        let array = r#"[{"destination":"/a","type":"tmpfs"}]"#;
        assert_eq!(read_text(array).unwrap().len(), 1);
        let object = format!(r#"{{"mounts":{array}}}"#);
        assert_eq!(read_text(&object).unwrap().len(), 1);
        for text in [
            "",
            "[]",
            "{}",
            "7",
            r#"{"mounts":7}"#,
            r#"[{"type":"tmpfs"}]"#,
        ] {
            match read_text(text) {
                Err(Error::Spec { file, .. }) => assert_eq!(file, "m.json", "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_confines_the_container_cannot_be_removed() {
        let spec = |destination: &str| -> Spec {
            let text = format!(
                r#"{{"ociVersion":"1.0.0","mounts":[{{"destination":"{destination}"}}],
                "linux":{{"maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/sys"]}}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        for path in ["/", "/proc/kcore", "/proc/sys", "/proc/sys/"] {
            assert!(spare_the_confinement(&spec(path)).is_err(), "{path}");
        }
        assert!(spare_the_confinement(&spec("/data")).is_ok());
    }
}
