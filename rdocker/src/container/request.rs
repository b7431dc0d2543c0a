//! `RunArgs` to a create request: values get their types and Docker's defaults, conflicts are
//! told. Nothing of the machine but the caller's environment and named files is looked at.

use std::collections::BTreeMap;
use std::path::Path;

use super::api::{Config, HostConfig, LogConfig, MountRequest, Resources, RestartPolicy};
use super::args::{ConfineArgs, LifeArgs, LimitArgs, NetArgs, RunArgs};
use super::parse::{mount, networks, port, value};
use crate::error::{Error, Result};
use crate::image::config::{Empty, Healthcheck};
use crate::network::Wish;

/// Bytes of /dev/shm when nobody says otherwise.
pub const SHM_SIZE: i64 = 64 << 20;
/// Docker refuses smaller memory limits, because a container's own start needs as much.
const MEMORY_MIN: i64 = 6 << 20;

/// Everything `create` needs to know, before the image is looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// The wanted name.
    pub name: Option<String>,
    /// What runs; holds what the user typed, the image's part is merged in later.
    pub config: Config,
    /// What the container gets from this machine.
    pub host_config: HostConfig,
    /// The bridge networks, the one it starts with first.
    pub networks: Vec<Wish>,
    /// `os[/arch[/variant]]`.
    pub platform: Option<String>,
}

/// Where the environment and the files that flags name come from.
pub struct Caller<'a> {
    /// Looks up a variable of the caller's environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::Invalid(message.into()))
}

fn list(values: &[String]) -> Option<Vec<String>> {
    (!values.is_empty()).then(|| values.to_vec())
}

impl Request {
    /// Gives the flags their meaning.
    ///
    /// # Errors
    /// A value that does not parse, a combination that docker refuses, a file that cannot be read.
    pub fn from_args(args: &RunArgs, caller: &Caller<'_>) -> Result<Self> {
        check_conflicts(args)?;
        let name = args
            .name
            .as_deref()
            .map(value::container_name)
            .transpose()?;
        Ok(Self {
            name,
            config: config(args, caller)?,
            host_config: host_config(args)?,
            networks: networks::wishes(&args.net)?,
            platform: args.life.platform.clone(),
        })
    }
}

fn check_conflicts(args: &RunArgs) -> Result<()> {
    let life = &args.life;
    let restarts = life
        .restart
        .as_deref()
        .is_some_and(|policy| !matches!(policy, "" | "no"));
    if life.rm && restarts {
        return invalid("conflicting options: cannot specify both --restart and --rm");
    }
    if args.limits.cpus.is_some()
        && (args.limits.cpu_period.is_some() || args.limits.cpu_quota.is_some())
    {
        return invalid(
            "conflicting options: cannot specify both --cpus and --cpu-period or --cpu-quota",
        );
    }
    if args.confine.gpus.is_some() {
        return Err(Error::Hinted {
            message: "could not select device driver \"\" with capabilities: [[gpu]]".to_owned(),
            hint: "give the device nodes with --device".to_owned(),
        });
    }
    match args.confine.isolation.as_deref() {
        None | Some("" | "default") => Ok(()),
        Some(other) => invalid(format!(
            "invalid isolation {other:?}: only 'default' on Linux"
        )),
    }
}

fn config(args: &RunArgs, caller: &Caller<'_>) -> Result<Config> {
    let process = &args.process;
    let (image, command) = args
        .image_and_command
        .split_first()
        .ok_or_else(|| Error::Invalid("an image is required".to_owned()))?;
    let mut env = Vec::new();
    for file in &process.env_file {
        env.extend(value::env_file(file, caller.env)?);
    }
    for text in &process.env {
        env.extend(value::env(text, caller.env)?);
    }
    let mut labels = BTreeMap::new();
    for file in &process.label_file {
        labels.extend(value::pairs(&value::label_file(file)?));
    }
    labels.extend(value::pairs(&process.label));
    let mut exposed_ports = BTreeMap::new();
    for text in &args.net.expose {
        exposed_ports.extend(port::expose(text)?.into_iter().map(|port| (port, Empty {})));
    }
    for text in &args.net.publish {
        exposed_ports.extend(
            port::publish(text)?
                .into_iter()
                .map(|(port, _)| (port, Empty {})),
        );
    }
    let mut volumes = BTreeMap::new();
    for text in &args.files.volume {
        let flag = mount::volume_flag(text)?;
        if flag.source.is_none() {
            volumes.insert(flag.target, Empty {});
        }
    }
    if let Some(signal) = &args.life.stop_signal {
        super::signal::parse(signal)?;
    }
    let workdir = process.workdir.clone().unwrap_or_default();
    if !workdir.is_empty() && !workdir.starts_with('/') {
        return invalid(format!(
            "the working directory '{workdir}' is invalid, it needs to be an absolute path"
        ));
    }
    Ok(Config {
        hostname: hostname(process.hostname.as_deref().unwrap_or_default())?,
        domainname: process.domainname.clone().unwrap_or_default(),
        user: process.user.clone().unwrap_or_default(),
        attach_stdin: false,
        attach_stdout: true,
        attach_stderr: true,
        exposed_ports,
        tty: process.tty,
        open_stdin: process.interactive,
        stdin_once: false,
        env,
        cmd: list(command),
        healthcheck: healthcheck(&args.life)?,
        image: image.clone(),
        volumes: (!volumes.is_empty()).then_some(volumes),
        working_dir: workdir,
        // `--entrypoint ""` is one empty word, by which `create` knows that it removes the image's.
        entrypoint: process.entrypoint.clone().map(|word| vec![word]),
        on_build: None,
        labels,
        stop_signal: args.life.stop_signal.clone(),
        stop_timeout: args.life.stop_timeout,
        shell: None,
    })
}

fn hostname(name: &str) -> Result<String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !name.chars().all(valid) || name.len() > 63 {
        return invalid(format!("invalid hostname format: {name}"));
    }
    Ok(name.to_owned())
}

fn healthcheck(life: &LifeArgs) -> Result<Option<Healthcheck>> {
    let given = [
        life.health_interval,
        life.health_timeout,
        life.health_start_period,
        life.health_start_interval,
    ];
    let any = life.health_cmd.is_some()
        || life.health_retries.is_some()
        || given.iter().any(Option::is_some);
    if life.no_healthcheck {
        if any {
            return invalid("--no-healthcheck conflicts with --health-* options");
        }
        return Ok(Some(Healthcheck {
            test: vec!["NONE".to_owned()],
            ..Healthcheck::default()
        }));
    }
    if !any {
        return Ok(None);
    }
    let nanos = |duration: Option<std::time::Duration>| {
        duration.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
    };
    let too_short = |d: &std::time::Duration| *d < std::time::Duration::from_millis(1);
    if given.iter().flatten().any(|d| !d.is_zero() && too_short(d)) {
        return invalid("health check durations cannot be less than 1ms");
    }
    let test = life.health_cmd.as_ref();
    Ok(Some(Healthcheck {
        test: test
            .map(|line| vec!["CMD-SHELL".to_owned(), line.clone()])
            .unwrap_or_default(),
        interval: nanos(life.health_interval),
        timeout: nanos(life.health_timeout),
        start_period: nanos(life.health_start_period),
        start_interval: nanos(life.health_start_interval),
        retries: i64::from(life.health_retries.unwrap_or(0)),
    }))
}

fn host_config(args: &RunArgs) -> Result<HostConfig> {
    let (confine, files, net, life) = (&args.confine, &args.files, &args.net, &args.life);
    let mut binds = Vec::new();
    for text in &files.volume {
        if mount::volume_flag(text)?.source.is_some() {
            binds.push(text.clone());
        }
    }
    let mounts: Vec<MountRequest> = files
        .mount
        .iter()
        .map(|text| mount::mount_flag(text))
        .collect::<Result<_>>()?;
    let tmpfs = files.tmpfs.iter().map(|text| mount::tmpfs_flag(text));
    let cidfile = life.cidfile.as_ref().map(|path| path.display().to_string());
    let restart_policy = match &life.restart {
        Some(text) => value::restart_policy(text).map_err(Error::Invalid)?,
        None => RestartPolicy {
            name: "no".to_owned(),
            maximum_retry_count: 0,
        },
    };
    let host_config = HostConfig {
        binds: list(&binds),
        container_id_file: cidfile.unwrap_or_default(),
        log_config: LogConfig {
            kind: log_driver(life.log_driver.as_deref())?,
            options: value::pairs(&life.log_opt),
        },
        restart_policy,
        auto_remove: life.rm,
        volume_driver: files.volume_driver.clone().unwrap_or_default(),
        volumes_from: list(&files.volumes_from),
        annotations: value::pairs(&args.process.annotation),
        cap_add: list(&confine.cap_add),
        cap_drop: list(&confine.cap_drop),
        group_add: list(&args.process.group_add),
        oom_score_adj: args.limits.oom_score_adj.unwrap_or(0),
        privileged: confine.privileged,
        readonly_rootfs: files.read_only,
        security_opt: security_options(&confine.security_opt)?,
        storage_opt: value::pairs(&files.storage_opt),
        tmpfs: tmpfs.collect::<Result<_>>()?,
        shm_size: args.limits.shm_size.unwrap_or(SHM_SIZE),
        sysctls: value::pairs(&confine.sysctl),
        runtime: confine.runtime.clone().unwrap_or_default(),
        init: args.process.init.then_some(true),
        mounts,
        resources: resources(&args.limits, confine)?,
        ..HostConfig::default()
    };
    with_network(with_namespaces(host_config, confine)?, net)
}

/// A seccomp profile is read here and travels as JSON: the engine may not see the caller's files.
fn security_options(options: &[String]) -> Result<Option<Vec<String>>> {
    let read = |option: &String| -> Result<String> {
        let Some(path) = option
            .strip_prefix("seccomp=")
            .or(option.strip_prefix("seccomp:"))
        else {
            return Ok(option.clone());
        };
        if matches!(path, "unconfined" | "builtin") || path.starts_with('{') {
            return Ok(option.clone());
        }
        let text = std::fs::read_to_string(path)
            .map_err(|errno| Error::local("opening seccomp profile", Path::new(path), errno))?;
        Ok(format!("seccomp={text}"))
    };
    let options: Vec<String> = options.iter().map(read).collect::<Result<_>>()?;
    Ok(list(&options))
}

fn with_namespaces(host: HostConfig, confine: &ConfineArgs) -> Result<HostConfig> {
    let ipc = ["none", "private", "shareable", "host", "container:"];
    Ok(HostConfig {
        cgroupns_mode: mode(
            confine.cgroupns.as_deref(),
            "cgroup",
            &["host", "private"],
            "",
        )?,
        ipc_mode: mode(confine.ipc.as_deref(), "IPC", &ipc, "private")?,
        pid_mode: mode(confine.pid.as_deref(), "PID", &["host", "container:"], "")?,
        uts_mode: mode(confine.uts.as_deref(), "UTS", &["host"], "")?,
        userns_mode: mode(confine.userns.as_deref(), "user namespace", &["host"], "")?,
        ..host
    })
}

fn with_network(host: HostConfig, net: &NetArgs) -> Result<HostConfig> {
    let mut port_bindings: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for text in &net.publish {
        for (port, binding) in port::publish(text)? {
            port_bindings.entry(port).or_default().push(binding);
        }
    }
    Ok(HostConfig {
        network_mode: networks::mode(net)?,
        port_bindings,
        dns: net.dns.iter().map(ToString::to_string).collect(),
        dns_options: net.dns_option.clone(),
        dns_search: net.dns_search.clone(),
        extra_hosts: list(&net.add_host),
        links: list(&net.link),
        publish_all_ports: net.publish_all,
        ..host
    })
}

/// A namespace mode out of `allowed`; one that ends in `:` takes a name after it.
fn mode(given: Option<&str>, what: &str, allowed: &[&str], default: &str) -> Result<String> {
    let Some(given) = given.filter(|text| !text.is_empty()) else {
        return Ok(default.to_owned());
    };
    let fits = |form: &&str| match form.strip_suffix(':') {
        Some(_) => given.len() > form.len() && given.starts_with(*form),
        None => given == *form,
    };
    if allowed.iter().any(fits) {
        return Ok(given.to_owned());
    }
    invalid(format!("invalid {what} mode: {given}"))
}

fn log_driver(name: Option<&str>) -> Result<String> {
    match name {
        None | Some("" | "json-file" | "local") => Ok("json-file".to_owned()),
        Some("none") => Ok("none".to_owned()),
        Some(other) => Err(Error::Hinted {
            message: format!(
                "error looking up logging plugin {other}: plugin \"{other}\" not found"
            ),
            hint: "use --log-driver json-file or none".to_owned(),
        }),
    }
}

fn resources(limits: &LimitArgs, confine: &ConfineArgs) -> Result<Resources> {
    let memory = limits.memory.unwrap_or(0);
    let memory_swap = limits.memory_swap.unwrap_or(0);
    let resources = Resources {
        cpu_shares: limits.cpu_shares.unwrap_or(0),
        memory,
        nano_cpus: limits.cpus.unwrap_or(0),
        cgroup_parent: limits.cgroup_parent.clone().unwrap_or_default(),
        blkio_weight: limits.blkio_weight.unwrap_or(0),
        blkio_weight_device: limits.blkio_weight_device.clone(),
        blkio_device_read_bps: limits.device_read_bps.clone(),
        blkio_device_write_bps: limits.device_write_bps.clone(),
        blkio_device_read_iops: limits.device_read_iops.clone(),
        blkio_device_write_iops: limits.device_write_iops.clone(),
        cpu_period: limits.cpu_period.unwrap_or(0),
        cpu_quota: limits.cpu_quota.unwrap_or(0),
        cpu_realtime_period: limits.cpu_rt_period.unwrap_or(0),
        cpu_realtime_runtime: limits.cpu_rt_runtime.unwrap_or(0),
        cpuset_cpus: limits.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: limits.cpuset_mems.clone().unwrap_or_default(),
        devices: confine
            .device
            .iter()
            .map(|text| value::device(text))
            .collect::<Result<_>>()?,
        device_cgroup_rules: list(&confine.device_cgroup_rule),
        memory_reservation: limits.memory_reservation.unwrap_or(0),
        // Docker's default: as much swap again as memory.
        memory_swap: if memory > 0 && memory_swap == 0 {
            memory * 2
        } else {
            memory_swap
        },
        memory_swappiness: limits.memory_swappiness.filter(|percent| *percent != -1),
        oom_kill_disable: limits.oom_kill_disable.then_some(true),
        pids_limit: limits.pids_limit.filter(|limit| *limit > 0),
        ulimits: limits.ulimit.clone(),
    };
    check_limits(&resources)?;
    Ok(resources)
}

/// What Docker refuses before the kernel is asked, of a new container and of an update.
///
/// # Errors
/// The first limit that contradicts another one, or this machine.
pub fn check_limits(limits: &Resources) -> Result<()> {
    let memory = limits.memory;
    if memory != 0 && memory < MEMORY_MIN {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if limits.memory_swap > 0 && memory == 0 {
        return invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    if limits.memory_swap > 0 && limits.memory_swap < memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if memory > 0 && limits.memory_reservation > memory {
        return invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    if let Some(percent) = limits.memory_swappiness
        && !(0..=100).contains(&percent)
    {
        return invalid(format!(
            "Invalid value: {percent}, valid memory swappiness range is 0-100"
        ));
    }
    let weight = limits.blkio_weight;
    if weight != 0 && !(10..=1000).contains(&weight) {
        return invalid("Range of blkio weight is from 10 to 1000");
    }
    let cpus = std::thread::available_parallelism().map_or(u16::MAX, |n| n.get() as u16);
    let most = i64::from(cpus) * 1_000_000_000;
    if !(0..=most).contains(&limits.nano_cpus) {
        return invalid(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RunArgs,
    }

    fn request(line: &str) -> Result<Request> {
        let words = std::iter::once("run").chain(line.split_whitespace());
        let line =
            Line::try_parse_from(words).map_err(|error| Error::Invalid(error.to_string()))?;
        let env = |name: &str| (name == "HERE").then(|| "there".to_owned());
        Request::from_args(&line.args, &Caller { env: &env })
    }

    #[test]
    fn each_flag_reaches_its_api_field() {
        type Check = fn(&Request) -> bool;
        let cases: &[(&str, Check)] = &[
            ("img sh -c x", |r| {
                r.config.cmd == Some(vec!["sh".into(), "-c".into(), "x".into()])
            }),
            ("img", |r| r.config.cmd.is_none() && r.config.image == "img"),
            ("-it img", |r| r.config.tty && r.config.open_stdin),
            ("-e A=1 -e HERE -e NOT img", |r| {
                r.config.env == ["A=1", "HERE=there"]
            }),
            ("-m 64m img", |r| {
                r.host_config.resources.memory_swap == 128 << 20
            }),
            ("-m64m --memory-swap -1 img", |r| {
                r.host_config.resources.memory_swap == -1
            }),
            ("--cpus 1.5 img", |r| {
                r.host_config.resources.nano_cpus == 1_500_000_000
            }),
            ("-p8080:80 img", |r| {
                r.host_config.port_bindings["80/tcp"][0].host_port == "8080"
                    && r.config.exposed_ports.contains_key("80/tcp")
            }),
            ("-v /d -v nn:/e img", |r| {
                r.config
                    .volumes
                    .as_ref()
                    .is_some_and(|v| v.contains_key("/d"))
                    && r.host_config.binds == Some(vec!["nn:/e".into()])
            }),
            ("--entrypoint= img", |r| {
                r.config.entrypoint == Some(vec![String::new()])
            }),
            ("--restart on-failure:2 img", |r| {
                r.host_config.restart_policy.maximum_retry_count == 2
            }),
            ("--net host img", |r| r.host_config.network_mode == "host"),
            ("--ipc container:x img", |r| {
                r.host_config.ipc_mode == "container:x"
            }),
            ("--pids-limit -1 img", |r| {
                r.host_config.resources.pids_limit.is_none()
            }),
            ("--health-cmd true --health-retries 2 img", |r| {
                r.config
                    .healthcheck
                    .as_ref()
                    .is_some_and(|h| h.test[1] == "true" && h.retries == 2)
            }),
            ("--add-host db:1.2.3.4 img", |r| {
                r.host_config.extra_hosts == Some(vec!["db:1.2.3.4".into()])
            }),
            ("--tmpfs /t:size=1m img", |r| {
                r.host_config.tmpfs["/t"] == "size=1m"
            }),
            ("--security-opt no-new-privileges img", |r| {
                r.host_config.security_opt.is_some()
            }),
            ("--init --rm img", |r| {
                r.host_config.init == Some(true) && r.host_config.auto_remove
            }),
        ];
        for (line, check) in cases {
            let request = request(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(check(&request), "{line}: {request:#?}");
        }
    }

    #[test]
    fn combinations_that_docker_refuses_are_refused() {
        let cases = [
            (
                "--rm --restart always img",
                "cannot specify both --restart and --rm",
            ),
            ("-m 1m img", "Minimum memory limit allowed is 6MB"),
            ("--memory-swap 1g img", "always set the Memory limit"),
            ("-m 64m --memory-swap 32m img", "larger than memory limit"),
            ("--cpus 1 --cpu-quota 5 img", "both --cpus and"),
            (
                "--no-healthcheck --health-retries 1 img",
                "conflicts with --health-*",
            ),
            ("--pid nowhere img", "invalid PID mode"),
            ("-w rel img", "absolute path"),
            ("--log-driver syslog img", "plugin \"syslog\" not found"),
            ("--name x img", "Invalid container name (x)"),
            ("--blkio-weight 5 img", "blkio weight"),
        ];
        for (line, want) in cases {
            let why = request(line).expect_err(line).to_string();
            assert!(why.contains(want), "{line}: {why}");
        }
    }
}
