//! `plan`: prints what `create` would do, without doing anything.

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use crate::bundle::Bundle;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::plan::mounts::What;
use crate::plan::{Facts, Plan, Step, namespaces};
use crate::units::{Format, format};

/// `plan`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// table (for people) or json
    #[arg(long, short, value_name = "FORMAT", default_value = "table", value_parser = format)]
    pub format: Format,
    /// Plan for `--no-pivot`
    #[arg(long)]
    pub no_pivot: bool,
    /// The bundle's directory
    #[arg(value_name = "BUNDLE", default_value = ".")]
    pub bundle: PathBuf,
}

/// One thing that `create` would do.
#[derive(Debug, Serialize)]
struct Item {
    /// Which process does it: `runtime` or `container`.
    by: &'static str,
    /// What, in the words that an error would use.
    step: String,
    /// Details.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

/// Runs the verb.
///
/// # Errors
/// Those that `create` would give for the same bundle.
pub fn run(args: &Args, context: &mut Context, out: &mut dyn Write) -> Result<()> {
    let bundle = Bundle::open(&args.bundle, None)?;
    for warning in &bundle.warnings {
        context.log.warn(warning);
    }
    let rootfs = bundle.rootfs()?;
    let cgroup = context.plan_cgroup("ID", &bundle.spec)?;
    let facts = Facts {
        id: "ID",
        no_pivot: args.no_pivot,
        cgroup: Some(&cgroup),
        ..Facts::of(&bundle.path)
    };
    let plan = Plan::for_create(&bundle.spec, &facts)?;
    let mut items = vec![item(
        "runtime",
        "open the bundle",
        bundle.path.display().to_string(),
    )];
    for hierarchy in &cgroup.hierarchies {
        items.push(item("runtime", "make the cgroup", hierarchy.full_path()));
    }
    items.push(item(
        "runtime",
        "open the root file system",
        rootfs.display().to_string(),
    ));
    container_items(&plan, &mut items);
    let text = match args.format {
        Format::Json => serde_json::to_string_pretty(&items)
            .map_err(|error| Error::Failed(format!("print JSON: {error}")))?,
        Format::Table => table(&items),
    };
    writeln!(out, "{}", text.trim_end()).map_err(|error| Error::host("write to", "stdout", error))
}

fn item(by: &'static str, step: impl Into<String>, detail: impl Into<String>) -> Item {
    Item {
        by,
        step: step.into(),
        detail: detail.into(),
    }
}

fn container_items(plan: &Plan, items: &mut Vec<Item>) {
    let new: Vec<&str> = namespaces::ALL
        .into_iter()
        .filter(|kind| plan.namespaces.new_ones() & kind != 0)
        .map(namespaces::name)
        .collect();
    items.push(item(
        "runtime",
        "clone the container's process",
        new.join(", "),
    ));
    let step = |step, index: usize| plan.describe(step, u16::try_from(index).unwrap_or(u16::MAX));
    for index in 0..plan.namespaces.joins.len() {
        items.push(item("container", step(Step::Join, index), ""));
    }
    if let Some((uids, gids)) = &plan.namespaces.id_maps {
        let maps = format!("uids {}; gids {}", uids.trim_end(), gids.trim_end());
        items.push(item(
            "runtime",
            "write the id maps",
            maps.replace('\n', ", "),
        ));
    }
    for device in &plan.namespaces.net_devices {
        let step = format!("move the network device {}", device.name);
        items.push(item("runtime", step, &*device.inside));
    }
    for (index, mount) in plan.mounts.iter().enumerate() {
        items.push(item(
            "container",
            step(Step::MountCreate, index),
            options(mount),
        ));
    }
    for (index, device) in plan.devices.iter().enumerate() {
        items.push(item(
            "container",
            step(Step::Device, index),
            format!("mode {:o}", device.mode),
        ));
    }
    for (list, kind) in [
        (plan.create_container.len(), Step::CreateContainerHook),
        (plan.settings.sysctl.len(), Step::Sysctl),
        (plan.readonly_paths.len(), Step::ReadonlyPath),
        (plan.masked_paths.len(), Step::MaskedPath),
    ] {
        items.extend((0..list).map(|index| item("container", step(kind, index), "")));
    }
    items.push(item("container", step(Step::Pivot, 0), ""));
    let process = &plan.process;
    items.push(item("container", step(Step::Gid, 0), ""));
    items.push(item("container", step(Step::Uid, 0), ""));
    if let Some(caps) = &process.caps {
        let detail = format!(
            "bounding {:#x}, effective {:#x}",
            caps.bounding, caps.effective
        );
        items.push(item("container", step(Step::Capabilities, 0), detail));
    }
    if process.no_new_privs {
        items.push(item("container", step(Step::NoNewPrivs, 0), ""));
    }
    items.push(item("container", step(Step::Gate, 0), ""));
    let args: Vec<_> = process
        .args
        .strings()
        .iter()
        .map(|arg| arg.to_string_lossy())
        .collect();
    items.push(item("container", step(Step::Exec, 0), args.join(" ")));
}

/// The parameters and attributes of a mount.
fn options(mount: &crate::plan::mounts::Mount) -> String {
    let mut words: Vec<String> = Vec::new();
    if let What::New { params, .. } = &mount.what {
        for (key, value) in params {
            let key = key.to_string_lossy();
            words.push(match value {
                Some(value) => format!("{key}={}", value.to_string_lossy()),
                None => key.into_owned(),
            });
        }
    }
    let names = [
        (libc::MOUNT_ATTR_RDONLY, "ro"),
        (libc::MOUNT_ATTR_NOSUID, "nosuid"),
        (libc::MOUNT_ATTR_NODEV, "nodev"),
        (libc::MOUNT_ATTR_NOEXEC, "noexec"),
    ];
    for (bit, name) in names {
        if mount.attr.set & bit != 0 || (name == "ro" && mount.readonly_last) {
            words.push(name.into());
        }
    }
    words.join(",")
}

fn table(items: &[Item]) -> String {
    let width = items
        .iter()
        .map(|item| item.step.chars().count())
        .max()
        .unwrap_or(0);
    let lines = items.iter().enumerate().map(|(index, item)| {
        let line = format!(
            "{:>3}  {:<9}  {:<width$}  {}",
            index + 1,
            item.by,
            item.step,
            item.detail
        );
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}
