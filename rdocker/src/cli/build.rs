//! `build`, and `builder prune`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use jiff::Timestamp;

use crate::build::context::Place;
use crate::build::output::{self, Output};
use crate::build::project::Project;
use crate::build::{self, Built, Given, Options, Sandbox};
use crate::container::api::{Resources, Ulimit};
use crate::container::parse::value;
use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::image::Images;
use crate::image::catalog::tag_name;
use crate::store::Store;
use crate::store::digest::Digest;
use crate::store::lease::Lease;
use crate::ui::Ui;
use crate::ui::build::{Style, report};
use crate::ui::format::size;

use super::check::{self, Call, Method};
use super::filter::Filters;
use super::size as tree_size;
use super::transfer::{registry_options, to_file_or_stdout};

/// Build an image from a Dockerfile
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "rdocker build [OPTIONS] PATH | URL | -",
    after_help = "The context is a directory, an archive, a git repository (URL#REF:DIR), an URL of \
                  an archive,\nor '-': an archive or a Dockerfile from stdin."
)]
pub struct Build {
    /// Add a custom host-to-IP mapping ("host:ip")
    #[arg(long, value_name = "HOST:IP", value_parser = value::extra_host)]
    add_host: Vec<String>,
    /// Allow extra privileged entitlement (security.insecure)
    #[arg(long, value_name = "ENTITLEMENT")]
    allow: Vec<String>,
    /// Set build-time variables (NAME=VALUE, or NAME to take it from here)
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Additional build contexts (name=path)
    #[arg(long, value_name = "NAME=PATH")]
    build_context: Vec<String>,
    /// What to do instead of a build ("check", "outline" or "targets", with ",format=json")
    #[arg(long, value_name = "METHOD", default_value = "build", value_parser = Call::parse)]
    call: Call,
    /// Look for mistakes in the Dockerfile, and build nothing: --call=check
    #[arg(long)]
    check: bool,
    /// Images here or in registries to consider as cache sources
    #[arg(long, value_name = "IMAGE")]
    cache_from: Vec<String>,
    /// Name of the Dockerfile (default: "PATH/Dockerfile"; '-' is stdin)
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Write the image ID to the file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Set metadata for an image
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Write what came of the build to the file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Set the networking mode for the RUN instructions during build
    #[arg(long, value_name = "MODE", default_value = "")]
    network: String,
    /// Do not use cache when building the image
    #[arg(long)]
    no_cache: bool,
    /// Do not cache specified stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Output destination (format: "type=local|tar|docker|oci|image,dest=path")
    #[arg(short, long, value_name = "OUTPUT")]
    output: Vec<String>,
    /// Set target platform for build (os[/arch[/variant]])
    #[arg(long)]
    platform: Option<String>,
    /// Set type of progress output
    #[arg(
        long,
        value_name = "STYLE",
        default_value = "auto",
        env = "BUILDKIT_PROGRESS"
    )]
    progress: Style,
    /// Always attempt to pull all referenced images
    #[arg(long)]
    pull: bool,
    /// Push the image to its registries when it is built
    #[arg(long)]
    push: bool,
    /// Suppress the build output and print image ID on success
    #[arg(short, long)]
    quiet: bool,
    /// Secret to expose to the build (format: "id=mysecret[,src=/local/secret|,env=NAME]")
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// SSH agent socket or keys to expose to the build (format: "default|<id>[=<socket>|<key>[,<key>]]")
    #[arg(long, value_name = "SSH")]
    ssh: Vec<String>,
    /// Name and optionally a tag (format: "name:tag")
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<String>,
    /// Set the target build stage to build
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    accepted: Accepted,
    #[arg(hide = true)]
    context: String,
}

/// Limits of what `RUN` runs.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct Limits {
    /// Set the parent cgroup for the RUN instructions during build
    #[arg(long, value_name = "PATH", default_value = "")]
    cgroup_parent: String,
    /// Limit the CPU CFS (Completely Fair Scheduler) period
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    cpu_period: i64,
    /// Limit the CPU CFS (Completely Fair Scheduler) quota
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    cpu_quota: i64,
    /// CPU shares (relative weight)
    #[arg(short, long, default_value_t = 0)]
    cpu_shares: i64,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "LIST", default_value = "")]
    cpuset_cpus: String,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "LIST", default_value = "")]
    cpuset_mems: String,
    /// Memory limit
    #[arg(short, long, value_name = "BYTES", value_parser = value::bytes, default_value = "0")]
    memory: i64,
    /// Swap limit equal to memory plus swap: -1 to enable unlimited swap
    #[arg(long, value_name = "BYTES", value_parser = value::bytes_or_unlimited,
          allow_hyphen_values = true, default_value = "0")]
    memory_swap: i64,
    /// Security options
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", value_parser = value::bytes, default_value = "0")]
    shm_size: i64,
    /// Ulimit options
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = value::ulimit)]
    ulimit: Vec<Ulimit>,
}

/// Options that change nothing here, and that scripts give.
#[derive(Debug, clap::Args)]
struct Accepted {
    #[arg(long, hide = true)]
    annotation: Vec<String>,
    #[arg(long, hide = true)]
    attest: Vec<String>,
    #[arg(long, hide = true)]
    builder: Option<String>,
    #[arg(long, hide = true)]
    cache_to: Vec<String>,
    #[arg(long, hide = true)]
    compress: bool,
    #[arg(long, hide = true)]
    disable_content_trust: bool,
    #[arg(long, hide = true)]
    force_rm: bool,
    #[arg(long, hide = true)]
    isolation: Option<String>,
    #[arg(long, hide = true)]
    load: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    provenance: Option<Option<String>>,
    #[arg(long, hide = true, default_value = "true", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new(),
          action = clap::ArgAction::Set)]
    rm: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    sbom: Option<Option<String>>,
    #[arg(long, hide = true)]
    squash: bool,
}

impl Accepted {
    /// What of it somebody may count on.
    fn warn(&self, ui: &mut Ui) -> Result<()> {
        if self.squash {
            ui.warn("--squash does nothing: copy from a stage into an empty one instead")?;
        }
        if !self.annotation.is_empty() {
            ui.warn("--annotation does nothing: manifests are written without; use --label")?;
        }
        // Every image tells of its steps, so that `inline` is what is done anyway.
        let elsewhere = |text: &&String| !text.contains("type=inline");
        for text in self.cache_to.iter().filter(elsewhere) {
            ui.warn(format_args!(
                "--cache-to {text} does nothing: any image that was pushed is a --cache-from"
            ))?;
        }
        Ok(())
    }
}

impl Build {
    /// Builds, and puts the result where `--output` says.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let outputs = self.outputs()?;
        let options = self.options(host, &outputs, ui)?;
        self.accepted.warn(ui)?;
        let place = Place::find(&self.context)?;
        let style = if self.quiet {
            Style::Quiet
        } else {
            self.progress
        };
        let store = Store::open(&host.data_root)?;
        let images = Images::new(&store);
        let call = if self.check { Call::CHECK } else { self.call };
        if call.method != Method::Build {
            let lease = store.lease()?;
            let project = Project::open(&lease, &place, &options)?;
            return call.run(&project, images, &options, ui);
        }
        let sandbox = Sandbox::enter(host)?;
        let lease = store.lease()?;
        let shown = report(style);
        let built = build::build(
            host,
            images,
            &lease,
            &place,
            &options,
            shown.as_ref(),
            &sandbox,
        );
        drop(shown);
        let mut built = built?;
        built.label(&options.labels);
        for output in &outputs {
            self.deliver(output, &built, images, &lease, &options, ui)?;
        }
        if outputs
            .iter()
            .any(|output| matches!(output, Output::Image { push: true, .. }))
        {
            for tag in &options.tags {
                let progress = crate::ui::progress::Lines::on(crate::ui::progress::Stream::Stdout);
                images.push(tag, &options.registry, &progress)?;
            }
        }
        if let (Some(path), Some(id)) = (&self.iidfile, built.id()) {
            std::fs::write(path, id.to_string())
                .map_err(|errno| Error::local("write", path, errno))?;
        }
        if let Some(path) = &self.metadata_file {
            let text = metadata(built.id().as_ref(), &options);
            let text = serde_json::to_vec_pretty(&text).unwrap_or_default();
            std::fs::write(path, text).map_err(|errno| Error::host("write", path, errno))?;
        }
        drop(lease);
        if !matches!(style, Style::Quiet | Style::Rawjson) {
            check::summary(&built.findings, ui)?;
        }
        Ok(())
    }

    fn outputs(&self) -> Result<Vec<Output>> {
        let parse = |text: &String| {
            Output::parse(text).map_err(|why| Error::Invalid(format!("--output {text:?}: {why}")))
        };
        let mut outputs: Vec<Output> = self.output.iter().map(parse).collect::<Result<_>>()?;
        if outputs.is_empty() || (self.push && !outputs.iter().any(Output::is_image)) {
            outputs.push(Output::Image {
                names: Vec::new(),
                push: false,
            });
        }
        for output in &mut outputs {
            if let Output::Image { push, .. } = output {
                *push |= self.push;
            }
        }
        Ok(outputs)
    }

    fn options(&self, host: &Host, outputs: &[Output], ui: &mut Ui) -> Result<Options> {
        let mut names = self.tag.clone();
        for output in outputs {
            if let Output::Image { names: more, .. } = output {
                names.extend(more.iter().cloned());
            }
        }
        let platform = self.platform.as_deref().filter(|text| !text.is_empty());
        if platform.is_some_and(|text| text.contains(',')) {
            return Err(Error::Hinted {
                message: "one build gives one platform".to_owned(),
                hint: "build each platform by itself".to_owned(),
            });
        }
        if let Some(entitlement) = self.allow.iter().find(|name| !is_entitlement(name)) {
            return Err(Error::Invalid(format!(
                "invalid entitlement: {entitlement}"
            )));
        }
        let pushes = |output: &Output| matches!(output, Output::Image { push: true, .. });
        if names.is_empty() && outputs.iter().any(pushes) {
            return Err(Error::Hinted {
                message: "tag is needed when pushing to registry".to_owned(),
                hint: "name the image with -t REGISTRY/NAME".to_owned(),
            });
        }
        let limits = &self.limits;
        Ok(Options {
            dockerfile: self.file.clone(),
            contexts: pairs("build-context", &self.build_context)?,
            target: self.target.clone(),
            arguments: arguments(&self.build_arg),
            labels: value::pairs(&self.label),
            no_cache: self.no_cache,
            no_cache_stages: self
                .no_cache_filter
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .collect::<BTreeSet<_>>(),
            cache_from: self
                .cache_from
                .iter()
                .map(|text| cache_source(text, ui))
                .collect::<Result<Vec<_>>>()?
                .concat(),
            pull: self.pull,
            platform: platform.map(str::parse).transpose()?,
            network: self.network.clone(),
            secrets: self
                .secret
                .iter()
                .map(|text| secret(text))
                .collect::<Result<_>>()?,
            ssh: self
                .ssh
                .iter()
                .map(|text| ssh(text))
                .collect::<Result<_>>()?,
            insecure: self.allow.iter().any(|name| name == "security.insecure"),
            hosts: self.add_host.clone(),
            shm_size: limits.shm_size,
            resources: Resources {
                cgroup_parent: limits.cgroup_parent.clone(),
                cpu_period: limits.cpu_period,
                cpu_quota: limits.cpu_quota,
                cpu_shares: limits.cpu_shares,
                cpuset_cpus: limits.cpuset_cpus.clone(),
                cpuset_mems: limits.cpuset_mems.clone(),
                memory: limits.memory,
                memory_swap: limits.memory_swap,
                ulimits: limits.ulimit.clone(),
                ..Resources::default()
            },
            security: limits.security_opt.clone(),
            registry: registry_options(host),
            tags: names
                .iter()
                .map(|name| Ok(tag_name(name)?))
                .collect::<Result<_>>()?,
        })
    }

    fn deliver(
        &self,
        output: &Output,
        built: &Built,
        images: Images<'_>,
        lease: &Lease<'_>,
        options: &Options,
        ui: &mut Ui,
    ) -> Result<()> {
        let file = |path: &Path| (path != Path::new("-")).then(|| path.to_owned());
        match output {
            Output::Local(dir) => output::to_directory(built, lease, dir),
            Output::Tar(path) => to_file_or_stdout(file(path).as_deref(), |to: &mut dyn Write| {
                output::to_archive(built, lease, to)
            }),
            Output::Archive(path) => {
                let names = named(built, images, lease, options)?;
                to_file_or_stdout(file(path).as_deref(), |to| Ok(images.save(&names, to)?))
            }
            Output::Layout(dir) => {
                let names = named(built, images, lease, options)?;
                output::to_layout(lease, dir, |to| Ok(images.save(&names, to)?))
            }
            Output::Nothing => Ok(()),
            Output::Image { .. } => {
                let id = output::to_image(built, images, lease, &options.tags)?;
                self.tell(&id, options, ui)
            }
        }
    }

    fn tell(&self, id: &Digest, options: &Options, ui: &mut Ui) -> Result<()> {
        if self.quiet {
            return ui.line(id);
        }
        ui.line(format_args!("Successfully built {}", id.short()))?;
        for tag in &options.tags {
            ui.line(format_args!("Successfully tagged {}", tag.familiar()))?;
        }
        Ok(())
    }
}

/// Enters a result as an image, and gives what `save` calls it by.
fn named(
    built: &Built,
    images: Images<'_>,
    lease: &Lease<'_>,
    options: &Options,
) -> Result<Vec<String>> {
    let id = output::to_image(built, images, lease, &[])?;
    let mut names: Vec<String> = options.tags.iter().map(ToString::to_string).collect();
    for name in &names {
        images.tag(&id.to_string(), name)?;
    }
    if names.is_empty() {
        names.push(id.to_string());
    }
    Ok(names)
}

/// `--metadata-file`: the keys that buildx writes for an image.
fn metadata(id: Option<&Digest>, options: &Options) -> serde_json::Value {
    let mut value = serde_json::json!({});
    if let Some(id) = id {
        value["containerimage.config.digest"] = id.to_string().into();
        value["containerimage.digest"] = id.to_string().into();
    }
    if !options.tags.is_empty() {
        let names: Vec<String> = options.tags.iter().map(ToString::to_string).collect();
        value["image.name"] = names.join(",").into();
    }
    value
}

fn is_entitlement(name: &str) -> bool {
    matches!(name, "security.insecure" | "network.host")
}

/// `NAME=VALUE`, or `NAME` for the value that it has here; a variable that is not set is left out.
fn arguments(list: &[String]) -> BTreeMap<String, String> {
    let one = |text: &String| match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((text.clone(), std::env::var(text).ok()?)),
    };
    let mut all: BTreeMap<String, String> = list.iter().filter_map(one).collect();
    // The variable has a meaning of its own, whoever starts the build.
    if let Ok(epoch) = std::env::var(crate::build::scope::EPOCH) {
        all.entry(crate::build::scope::EPOCH.to_owned())
            .or_insert(epoch);
    }
    all
}

fn pairs(flag: &str, list: &[String]) -> Result<BTreeMap<String, String>> {
    let one = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_ascii_lowercase(), value.to_owned()))
        }
        _ => Err(Error::Invalid(format!(
            "invalid {flag} {text:?}: want NAME=VALUE"
        ))),
    };
    list.iter().map(one).collect()
}

/// The images of `NAME[,NAME…]` or `type=registry,ref=NAME`.
fn cache_source(text: &str, ui: &mut Ui) -> Result<Vec<String>> {
    if !text.contains('=') {
        return Ok(text.split(',').map(str::to_owned).collect());
    }
    let field = |name: &str| {
        let mut fields = text.split(',').filter_map(|field| field.split_once('='));
        fields.find_map(|(key, value)| (key.trim() == name).then_some(value))
    };
    match (field("type"), field("ref")) {
        (None | Some("registry"), Some(name)) => Ok(vec![name.to_owned()]),
        // A cache that is not read makes a build slower, and not wrong.
        (Some("local" | "gha" | "s3" | "azblob"), _) => {
            ui.warn(format_args!(
                "--cache-from {text} does nothing: only images are read"
            ))?;
            Ok(Vec::new())
        }
        _ => Err(Error::Hinted {
            message: format!("invalid cache source {text:?}"),
            hint: "name an image, or give type=registry,ref=IMAGE".to_owned(),
        }),
    }
}

/// `id=NAME[,src=FILE|,env=VARIABLE]`
fn secret(text: &str) -> Result<(String, Given)> {
    let (mut id, mut kind, mut source, mut env) = (None, None, None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        match key.trim().to_ascii_lowercase().as_str() {
            "id" => id = Some(value),
            "src" | "source" => source = Some(value),
            "env" => env = Some(value),
            "type" if matches!(value, "file" | "env") => kind = Some(value),
            _ => {
                return Err(Error::Invalid(format!(
                    "invalid secret {text:?}: unexpected {field:?}"
                )));
            }
        }
    }
    let id = id.filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| Error::Invalid(format!("invalid secret {text:?}: it has no id")))?;
    let given = match (source, env) {
        (Some(name), None) if kind == Some("env") => Given::Env(name.to_owned()),
        (Some(path), None) => Given::File(path.into()),
        (None, Some(name)) => Given::Env(name.to_owned()),
        (None, None) if kind != Some("file") && std::env::var_os(id).is_some() => {
            Given::Env(id.to_owned())
        }
        (None, None) => Given::File(id.into()),
        _ => {
            return Err(Error::Invalid(format!(
                "invalid secret {text:?}: give src or env"
            )));
        }
    };
    Ok((id.to_owned(), given))
}

/// `default`, or `NAME=SOCKET`, or `NAME=KEY,KEY`
fn ssh(text: &str) -> Result<(String, Vec<PathBuf>)> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    if !paths.is_empty() {
        return Ok((id.to_owned(), paths.split(',').map(PathBuf::from).collect()));
    }
    let socket = std::env::var_os("SSH_AUTH_SOCK").ok_or_else(|| Error::Hinted {
        message: format!("invalid ssh {text:?}: SSH_AUTH_SOCK is not set"),
        hint: "start ssh-agent, or name a key: --ssh default=FILE".to_owned(),
    })?;
    Ok((id.to_owned(), vec![socket.into()]))
}

/// Remove build cache
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker builder prune [OPTIONS]")]
pub struct BuilderPrune {
    /// Remove all unused build cache, not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Provide filter values (e.g. "until=24h")
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Amount of disk space to keep for cache
    #[arg(long, visible_alias = "reserved-space", value_name = "BYTES", value_parser = value::bytes)]
    keep_storage: Option<i64>,
}

impl BuilderPrune {
    /// Forgets steps whose layers no image has; with `--all` every step.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let which = if self.all {
            "all build cache"
        } else {
            "all dangling build cache"
        };
        let question =
            format!("WARNING! This will remove {which}.\nAre you sure you want to continue?");
        if !self.force && !ui.confirm(&question)? {
            return Ok(());
        }
        let filters = Filters::parse(&self.filter, &["until"])?;
        let store = Store::open(&host.data_root)?;
        let freed = prune_cache(host, &store, self.all, &filters, self.keep_storage, ui)?;
        ui.line(format_args!("Total:\t{}", size(freed, 4)))
    }
}

/// Removes cached steps and idle cache directories, and tells which.
pub fn prune_cache(
    host: &Host,
    store: &Store,
    all: bool,
    filters: &Filters,
    keep: Option<i64>,
    ui: &mut Ui,
) -> Result<u64> {
    let usage = build::usage(host, store, tree_size::tree)?;
    let mut over = usage
        .reclaimable()
        .saturating_sub(keep.unwrap_or(0).cast_unsigned());
    let (mut keys, now) = (Vec::new(), Timestamp::now());
    // The longest unused come first.
    for row in &usage.steps {
        let used = Timestamp::from_second(row.used).unwrap_or_default();
        if !filters.until(used, now)? || row.shared && !all || keep.is_some() && over == 0 {
            continue;
        }
        over = over.saturating_sub(row.size);
        keys.push(row.key.clone());
    }
    // Nobody notes when a directory was used last, so an age spares them all.
    let spared = filters.has("until") || keep.is_some() && over == 0;
    let mounts = if spared { &[] } else { &usage.mounts[..] };
    let freed = build::prune(store, &keys, mounts)?;
    if !keys.is_empty() {
        ui.line("Deleted build cache objects:")?;
        keys.iter()
            .try_for_each(|key| ui.line(key.trim_start_matches("sha256:")))?;
        ui.line("")?;
    }
    events::other(
        host,
        "builder",
        "prune",
        "",
        &[("reclaimed", freed.to_string())],
    )?;
    Ok(freed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_agents_are_read_as_docker_writes_them() {
        let file = |path: &str| Given::File(path.into());
        let cases = [
            ("id=a,src=/f", ("a", file("/f"))),
            ("id=a,source=/f", ("a", file("/f"))),
            ("type=file,id=a,src=/f", ("a", file("/f"))),
            ("id=a,env=V", ("a", Given::Env("V".into()))),
            ("type=env,id=a,src=V", ("a", Given::Env("V".into()))),
            (
                "id=no-such-variable",
                ("no-such-variable", file("no-such-variable")),
            ),
        ];
        for (text, (id, given)) in cases {
            assert_eq!(secret(text).unwrap(), (id.to_owned(), given), "{text}");
        }
        for wrong in [
            "src=/f",
            "id=,src=x",
            "id=a,x=y",
            "id=a,type=z",
            "id=a,src=x,env=y",
        ] {
            assert!(secret(wrong).is_err(), "{wrong}");
        }
        let (id, paths) = ssh("k=/a,/b").unwrap();
        assert_eq!((id.as_str(), paths), ("k", vec!["/a".into(), "/b".into()]));
    }
}
