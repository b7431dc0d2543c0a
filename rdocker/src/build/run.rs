//! `RUN`: a container of the OCI runtime on an overlay of the layers so far.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::mount::{Kind, Mount};
use super::mounts::Prepared;
use super::points::{self, Point};
use super::report::{At, Event};
use super::sandbox::Cell;
use super::source::Root;
use super::stage::{Plan, Work};
use super::{cancelled, context};
use crate::container::api::{Config, HostConfig};
use crate::container::identity::Accounts;
use crate::container::record::{Places, Record};
use crate::container::spec::{self, Facts};
use crate::container::{cgroup, id, network, start};
use crate::dockerfile::{Command, Run};
use crate::error::{Error, Result};
use crate::image::instruction::{command_line, is_variable, workdir};
use crate::network::attach::{self, Attached};
use crate::network::sandbox::Sandbox as Netns;
use crate::network::{DEFAULT, Wish};
use crate::runtime::last_error;

/// How often a step looks whether the build is to end.
const LOOK: Duration = Duration::from_millis(100);
/// The runtime's log in the bundle.
const LOG: &str = "log.json";
/// Default bytes of /dev/shm.
const SHM_SIZE: i64 = 64 << 20;
/// What every container has mounted over, made if the image lacks it.
const POINTS: [(&str, Point); 5] = [
    ("/proc", Point::Directory),
    ("/sys", Point::Directory),
    ("/dev", Point::Directory),
    ("/etc/hosts", Point::File),
    ("/etc/resolv.conf", Point::File),
];

/// What is executed.
struct Program {
    arguments: Vec<String>,
    /// A script that the image does not have: its name and text.
    script: Option<(String, String)>,
    /// For history and messages.
    shown: String,
}

impl Work<'_, '_> {
    /// Runs the command, unless its result is known.
    pub(super) fn run(&mut self, at: At, run: &Run) -> Result<()> {
        let program = self.program(run);
        let mut mounts = Vec::new();
        for text in &run.mounts {
            let text = self.word(text)?;
            let mut mount = Mount::parse(&text)
                .map_err(|why| Error::Invalid(format!("--mount={text}: {why}")))?;
            let cwd = &self.state.config.config.working_dir;
            mount.target = mount.target.map(|target| workdir(cwd, &target));
            if mount.target.as_deref() == Some("/") {
                return Err(Error::Invalid(format!(
                    "--mount={text}: target can not be \"/\""
                )));
            }
            mounts.push(mount);
        }
        let mut prepared = Prepared::gather(self, mounts)?;
        let network = self.network(run);
        if run.security.as_deref() == Some("insecure") && !self.build.options.insecure {
            return Err(Error::Hinted {
                message: "security.insecure is not allowed".to_owned(),
                hint: "give --allow security.insecure to trust this Dockerfile with the machine"
                    .to_owned(),
            });
        }
        let arguments = self.scope.run_arguments(self.env());
        let created_by = match arguments.len() {
            0 => format!("RUN {}", program.shown),
            count => format!("RUN |{count} {} {}", arguments.join(" "), program.shown),
        };
        let mut key = self.key("run");
        let config = &self.state.config.config;
        key.list(&program.arguments);
        let (name, text) = program.script.clone().unwrap_or_default();
        key.list(&[&name, &text, &config.user, &config.working_dir, &network]);
        key.text(run.security.as_deref().unwrap_or_default());
        key.list(&config.env);
        key.list(&arguments);
        prepared.describe(&mut key);
        let plan = Plan {
            key: key.finish(),
            created_by: &created_by,
        };
        if self.cached(at, &plan)? {
            return Ok(());
        }
        let upper = self.execute(at, run, &program, &mut prepared, &network, &arguments)?;
        self.finish(&plan, Some(&upper))
    }

    fn program(&self, run: &Run) -> Program {
        let config = &self.state.config.config;
        let plain = |command: &Command| {
            let arguments = command_line(command, config);
            Program {
                shown: arguments.join(" "),
                arguments,
                script: None,
            }
        };
        let (Command::Shell(line), [first, ..]) = (&run.command, &run.heredocs[..]) else {
            return plain(&run.command);
        };
        let alone = run.heredocs.len() == 1
            && first.descriptor.is_empty()
            && crate::dockerfile::lines::heredoc_word(line).is_some();
        if !alone {
            // The shell reads here-documents itself.
            let mut whole = line.clone();
            for heredoc in &run.heredocs {
                whole.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
            }
            return plain(&Command::Shell(whole));
        }
        let body = first.body();
        if !body.starts_with("#!") {
            return plain(&Command::Shell(body));
        }
        let name = first.name.replace('/', "_");
        Program {
            arguments: vec![format!("/dev/pipes/{name}")],
            shown: format!("<<{name} {body}"),
            script: Some((name, body)),
        }
    }

    /// The network mode: `none`, `host`, or the name of a network.
    fn network(&self, run: &Run) -> String {
        let asked = run.network.as_deref().filter(|mode| *mode != "default");
        match asked.unwrap_or(&self.build.options.network) {
            "" | "default" => DEFAULT.to_owned(),
            mode => mode.to_owned(),
        }
    }

    fn execute(
        &self,
        at: At,
        run: &Run,
        program: &Program,
        prepared: &mut Prepared<'_>,
        network: &str,
        arguments: &[String],
    ) -> Result<PathBuf> {
        let build = self.build;
        let id = id::random();
        let cell = build.sandbox.cell(&id)?;
        prepared.settle(build, &cell)?;
        if let Some((name, text)) = &program.script {
            prepared.script(&cell, name, text)?;
        }
        let root = self.root(prepared)?;
        let cwd = self
            .state
            .config
            .config
            .working_dir
            .trim_start_matches('/')
            .as_bytes();
        super::tree::make_dirs(root.fd.as_fd(), cwd, (0, 0))?;
        let record = self.record_of(run, program, prepared, network, arguments, &id);
        let attached = self.connect(&record, &cell)?;
        let spec = self.spec(&record, prepared, &cell, &root)?;
        let path = cell.dir.join("config.json");
        fs::write(&path, spec.to_string()).map_err(|errno| Error::host("write", &path, errno))?;
        build.report.step(Event::Running(at, &id[..12]));
        let ran = prepared.serve(|| self.wait(at, &id, &cell));
        if let Some(attached) = attached {
            attached.close();
            // What is left is found again by `attach::sweep`.
            let _ = attach::down(build.host, &id);
        }
        build.report.step(Event::Removed(at, &id[..12]));
        match ran? {
            0 => root.finish(),
            code => Err(Error::Command {
                line: program.arguments.join(" "),
                code,
            }),
        }
    }

    /// Mounts the layers, with one below the step's own that has the mount points they lack.
    fn root(&self, prepared: &Prepared<'_>) -> Result<Root> {
        let build = self.build;
        let mut layers = build.paths(&self.state.chains);
        let mut wanted: Vec<(String, Point)> = POINTS
            .iter()
            .map(|(path, point)| ((*path).to_owned(), *point))
            .collect();
        wanted.extend(prepared.points());
        let root = Root::mount(build, &layers)?;
        let layer = context::scratch_dir(build.lease)?;
        if !points::make(root.fd.as_fd(), &layer, &wanted)? {
            return Ok(root);
        }
        drop(root);
        layers.push(layer);
        Root::mount(build, &layers)
    }

    /// The container as if it were one of the user's.
    fn record_of(
        &self,
        run: &Run,
        program: &Program,
        prepared: &Prepared<'_>,
        network: &str,
        arguments: &[String],
        id: &str,
    ) -> Record {
        let options = self.build.options;
        let image = &self.state.config.config;
        let mut env = image.env.clone();
        env.retain(|word| is_variable(word));
        env.extend(arguments.iter().cloned());
        env.extend(self.scope.proxies());
        env.extend(prepared.env().iter().cloned());
        let unified = cgroup::is_unified();
        let wish = Wish {
            network: network.to_owned(),
            ..Wish::default()
        };
        Record {
            id: id.to_owned(),
            name: format!("build-{}", &id[..12]),
            created: jiff::Timestamp::now(),
            image: String::new(),
            config: Config {
                hostname: "rdocker-build".to_owned(),
                user: image.user.clone(),
                env,
                cmd: Some(program.arguments.clone()),
                working_dir: image.working_dir.clone(),
                ..Config::default()
            },
            host_config: HostConfig {
                network_mode: network.to_owned(),
                ipc_mode: "private".to_owned(),
                cgroupns_mode: if unified { "private" } else { "host" }.to_owned(),
                shm_size: if options.shm_size > 0 {
                    options.shm_size
                } else {
                    SHM_SIZE
                },
                privileged: run.security.as_deref() == Some("insecure"),
                security_opt: Some(options.security.clone()),
                tmpfs: prepared.tmpfs(),
                resources: options.resources.clone(),
                extra_hosts: Some(options.hosts.clone()),
                ..HostConfig::default()
            },
            mounts: prepared.binds(),
            networks: vec![wish],
            platform: "linux".to_owned(),
        }
    }

    fn spec(
        &self,
        record: &Record,
        prepared: &Prepared<'_>,
        cell: &Cell,
        root: &Root,
    ) -> Result<serde_json::Value> {
        let mut join = BTreeMap::new();
        if network::is_bridged(&record.host_config.network_mode) {
            join.insert("network", Netns::path(&cell.dir));
        }
        let files = [("/etc/hosts", "hosts"), ("/etc/resolv.conf", "resolv.conf")];
        let facts = Facts {
            id: record.id.clone(),
            identity: Accounts::read(&root.path())?.resolve(&record.config.user, &[])?,
            mounts: prepared.binds(),
            files: files
                .map(|(target, name)| (target, cell.dir.join(name)))
                .to_vec(),
            join,
            rootfs: root.path(),
            ..start::machine(self.build.host, &record.host_config, &record.id)?
        };
        spec::build(&record.config, &record.host_config, &facts)
    }

    /// Gives the container its place in a network, and writes the files that name it.
    fn connect(&self, record: &Record, cell: &Cell) -> Result<Option<Attached>> {
        let host = self.build.host;
        if !network::is_bridged(&record.host_config.network_mode) {
            network::write_files(host, record, &cell.dir, &[])?;
            return Ok(None);
        }
        let places = Places {
            dir: cell.dir.clone(),
            run: cell.dir.clone(),
        };
        network::up(host, record, &places).map(Some)
    }

    /// Starts the container, passes on what it prints, gives its exit code.
    fn wait(&self, at: At, id: &str, cell: &Cell) -> Result<u8> {
        let build = self.build;
        let program = build.runtime.program();
        let fail = |errno| Error::host("execute", program, errno);
        let (read, write) = std::io::pipe().map_err(fail)?;
        let mut command = build.runtime.run_attached(id, &cell.dir);
        let errors = write.try_clone().map_err(fail)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(OwnedFd::from(write))
            .stderr(OwnedFd::from(errors))
            // The terminal's Ctrl-C ends the build, and the build ends the container.
            .process_group(0)
            .spawn()
            .map_err(fail)?;
        // Its copies of the pipe's end would keep the pipe open.
        drop(command);
        self.pass_on(at, id, cell, std::fs::File::from(OwnedFd::from(read)))?;
        let status = child.wait().map_err(fail)?;
        if build.sandbox.is_cancelled() {
            return Err(cancelled());
        }
        if let Some(message) = last_error(&cell.dir.join(LOG)).filter(|_| !status.success()) {
            // What was made of it before the error is not the runtime's to keep.
            let _ = build.runtime.delete(&cell.dir, id);
            return Err(Error::Runtime { message });
        }
        use std::os::unix::process::ExitStatusExt;
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ok(u8::try_from(code).unwrap_or(u8::MAX))
    }

    fn pass_on(&self, at: At, id: &str, cell: &Cell, mut pipe: std::fs::File) -> Result<()> {
        let build = self.build;
        let log = cell.dir.join(LOG);
        let mut buffer = vec![0; 64 << 10];
        let look = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::MAX);
        loop {
            let mut ends = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut ends, look).unwrap_or(0);
            if build.sandbox.is_cancelled() {
                // It may not be there yet, or not any more; it is asked again until it is gone.
                let _ = build.runtime.kill(&cell.dir, id, nix::libc::SIGKILL);
            }
            if ready == 0 {
                continue;
            }
            let fail = |errno| Error::host("read", Path::new("the container's output"), errno);
            match pipe.read(&mut buffer).map_err(fail)? {
                0 => return Ok(()),
                n => {
                    let output = without_refusal(&buffer[..n], &log);
                    build.report.step(Event::Output(at, output));
                }
            }
        }
    }
}

/// Output without the line by which the runtime tells why it failed: it is in its log too, and
/// becomes the build's error.
fn without_refusal<'o>(output: &'o [u8], log: &Path) -> &'o [u8] {
    let Some(message) = last_error(log) else {
        return output;
    };
    let line = format!("{message}\n");
    output.strip_suffix(line.as_bytes()).unwrap_or(output)
}

impl Kind {
    /// The name in a key.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Bind(_) => "bind",
            Self::Cache(_) => "cache",
            Self::Tmpfs(_) => "tmpfs",
            Self::Secret(_) => "secret",
            Self::Ssh(_) => "ssh",
        }
    }
}
