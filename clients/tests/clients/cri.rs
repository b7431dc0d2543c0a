//! containerd's CRI, as the kubelet calls it: pods, containers, security contexts, exec, attach.

use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clients::{Machine, is_runc};
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::security_profile::ProfileType;
use k8s_cri::v1::{self as cri, NamespaceMode};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Uri};
use tungstenite::Message;
use tungstenite::client::IntoClientRequest;

use crate::containerd::{self, import_as};

const IMAGE: &str = "docker.io/library/busybox:latest";

/// The kubelet's side of the socket.
struct Kubelet {
    runtime: Runtime,
    client: RuntimeServiceClient<Channel>,
    token: String,
    /// A file of the machine as this process sees it.
    logs: PathBuf,
}

/// Makes one call and takes the answer's message.
macro_rules! call {
    ($kubelet:expr, $method:ident, $request:expr) => {{
        let answer = $kubelet.runtime.block_on($kubelet.client.$method($request));
        answer
            .unwrap_or_else(|status| panic!("{}: {status}", stringify!($method)))
            .into_inner()
    }};
}

mod node;

impl Kubelet {
    fn connect(machine: &Machine) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime without threads");
        let socket = machine.path("/run/containerd/containerd.sock");
        let connect = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(socket).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        let endpoint = Endpoint::from_static("http://containerd.invalid");
        let channel = runtime
            .block_on(endpoint.connect_with_connector(connect))
            .expect("containerd listens");
        Self {
            runtime,
            client: RuntimeServiceClient::new(channel),
            token: machine.token().to_owned(),
            logs: machine.path("/var/log/pods"),
        }
    }

    fn pod(&self, name: &str) -> cri::PodSandboxConfig {
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: "podhost".into(),
            log_directory: "/var/log/pods".into(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", self.token),
                sysctls: [("net.core.somaxconn".into(), "42".into())].into(),
                security_context: Some(cri::LinuxSandboxSecurityContext::default()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn run_pod(&mut self, config: &cri::PodSandboxConfig, handler: &str) -> String {
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: handler.into(),
        };
        call!(self, run_pod_sandbox, request).pod_sandbox_id
    }

    fn remove_pod(&mut self, id: &str) {
        let pod_sandbox_id = id.to_owned();
        call!(
            self,
            stop_pod_sandbox,
            cri::StopPodSandboxRequest { pod_sandbox_id }
        );
        let pod_sandbox_id = id.to_owned();
        call!(
            self,
            remove_pod_sandbox,
            cri::RemovePodSandboxRequest { pod_sandbox_id }
        );
    }

    fn create(
        &mut self,
        pod: (&str, &cri::PodSandboxConfig),
        config: cri::ContainerConfig,
    ) -> String {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.0.into(),
            config: Some(config),
            sandbox_config: Some(pod.1.clone()),
        };
        call!(self, create_container, request).container_id
    }

    fn start(&mut self, id: &str) {
        call!(
            self,
            start_container,
            cri::StartContainerRequest {
                container_id: id.into()
            }
        );
    }

    fn status(&mut self, id: &str) -> cri::ContainerStatus {
        let request = cri::ContainerStatusRequest {
            container_id: id.into(),
            verbose: false,
        };
        call!(self, container_status, request)
            .status
            .expect("it exists")
    }

    fn wait(&mut self, id: &str) -> i32 {
        let start = Instant::now();
        loop {
            let status = self.status(id);
            if status.state() == cri::ContainerState::ContainerExited {
                return status.exit_code;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Bytes, as the kubelet counts what a container uses.
    fn working_set(&mut self, id: &str) -> u64 {
        let container_id = id.to_owned();
        let request = cri::ContainerStatsRequest { container_id };
        let stats = call!(self, container_stats, request).stats;
        let bytes = stats.and_then(|stats| stats.memory?.working_set_bytes);
        bytes.expect("it runs").value
    }

    fn limit_memory(&mut self, id: &str, bytes: i64) {
        let resources = cri::LinuxContainerResources {
            memory_limit_in_bytes: bytes,
            ..Default::default()
        };
        let request = cri::UpdateContainerResourcesRequest {
            container_id: id.into(),
            linux: Some(resources),
            ..Default::default()
        };
        call!(self, update_container_resources, request);
    }

    fn stop(&mut self, id: &str) {
        call!(
            self,
            stop_container,
            cri::StopContainerRequest {
                container_id: id.into(),
                timeout: 0
            }
        );
    }

    fn remove(&mut self, id: &str) {
        call!(
            self,
            remove_container,
            cri::RemoveContainerRequest {
                container_id: id.into()
            }
        );
    }

    fn exec(&mut self, id: &str, script: &str) -> (i32, String) {
        let request = cri::ExecSyncRequest {
            container_id: id.into(),
            cmd: sh(script),
            timeout: 30,
        };
        let answer = call!(self, exec_sync, request);
        let text = [answer.stdout, answer.stderr].concat();
        (
            answer.exit_code,
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// Runs a container to its end: the exit code and what it logged.
    fn run(
        &mut self,
        pod: (&str, &cri::PodSandboxConfig),
        config: cri::ContainerConfig,
    ) -> (i32, String) {
        let log = self.logs.join(&config.log_path);
        let id = self.create(pod, config);
        self.start(&id);
        let code = self.wait(&id);
        let text = std::fs::read_to_string(log).unwrap_or_default();
        self.remove(&id);
        (code, logged(&text))
    }
}

/// What a container wrote, from its log: each line is TIME STREAM TAG TEXT.
fn logged(log: &str) -> String {
    let text = |line: &str| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned();
    log.lines().map(|line| text(line) + "\n").collect()
}

fn sh(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(String::from).into()
}

fn container(name: &str, script: &str) -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: name.into(),
            attempt: 0,
        }),
        image: Some(cri::ImageSpec {
            image: IMAGE.into(),
            ..Default::default()
        }),
        command: sh(script),
        log_path: format!("{name}.log"),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(cri::LinuxContainerResources {
                memory_limit_in_bytes: 64 << 20,
                cpu_shares: 100,
                ..Default::default()
            }),
            // What the kubelet sends for an ordinary container.
            security_context: Some(cri::LinuxContainerSecurityContext {
                masked_paths: vec!["/proc/kcore".into(), "/etc/group".into()],
                readonly_paths: vec!["/proc/sys".into()],
                seccomp: profile(ProfileType::RuntimeDefault, ""),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

fn profile(kind: ProfileType, file: &str) -> Option<cri::SecurityProfile> {
    let profile_type = kind.into();
    Some(cri::SecurityProfile {
        profile_type,
        localhost_ref: file.into(),
    })
}

fn security(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerSecurityContext {
    let linux = config.linux.as_mut().expect("`container` sets it");
    linux
        .security_context
        .as_mut()
        .expect("`container` sets it")
}

/// containerd as the documentation configures it, with a network for pods.
fn machine() -> Machine {
    machine_of(Machine::start(), str::to_owned)
}

/// See [`machine`]; `change` rewrites the documentation's configuration.
fn machine_of(machine: Machine, change: impl Fn(&str) -> String) -> Machine {
    machine.write_files_of("cri");
    let file = "/etc/containerd/config.toml";
    let text = std::fs::read_to_string(machine.path(file)).expect("the page has this file");
    machine.write(file, &change(&text));
    // A pod's own process shall be killed last, which takes CAP_SYS_RESOURCE.
    let more = "printf '[plugins.\"io.containerd.grpc.v1.cri\"]\\nrestrict_oom_score_adj = true\\n' \
                >>/etc/containerd/config.toml";
    let _ = machine.sh(more).succeeds();
    let bridge = r#"{"cniVersion":"0.4.0","name":"pods","plugins":[{"type":"bridge","bridge":"pods0",
        "isGateway":true,"ipMasq":false,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.99.0.0/24"}]]}}]}"#;
    machine.write("/etc/cni/net.d/10-pods.conflist", bridge);
    let _ = machine
        .sh("mkdir -p /opt/cni && ln -s /usr/lib/cni /opt/cni/bin")
        .succeeds();
    containerd::daemon(&machine);
    import_as(&machine, "k8s.io", IMAGE, r#"["sh"]"#);
    let script = "containerd config dump | sed -n 's/.*sandbox_image = \"\\(.*\\)\"/\\1/p'";
    let pause = machine.sh(script).succeeds();
    import_as(&machine, "k8s.io", &pause, r#"["sleep","1000000"]"#);
    machine
}

#[test]
fn a_pod_lives_through_the_cri() {
    let machine = machine();
    let mut kubelet = Kubelet::connect(&machine);
    let status = call!(kubelet, status, cri::StatusRequest { verbose: false });
    let conditions = status.status.expect("it has a status").conditions;
    assert!(
        conditions.iter().all(|condition| condition.status),
        "{conditions:?}"
    );

    let config = kubelet.pod("one");
    let pod = kubelet.run_pod(&config, "keel");
    let id = kubelet.create(
        (&pod, &config),
        container("main", "hostname; exec sleep 1000"),
    );
    assert_eq!(
        kubelet.status(&id).state(),
        cri::ContainerState::ContainerCreated
    );
    kubelet.start(&id);
    assert_eq!(
        kubelet.status(&id).state(),
        cri::ContainerState::ContainerRunning
    );

    assert_eq!(kubelet.exec(&id, "echo yes; exit 3"), (3, "yes\n".into()));
    let (code, text) = kubelet.exec(
        &id,
        "hostname; ip addr show eth0; cat /proc/sys/net/core/somaxconn",
    );
    assert_eq!(code, 0, "{text}");
    for words in ["podhost", "inet 10.99.0.", "42"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    exec_on_a_stream(&machine, &mut kubelet, &id);

    assert!(kubelet.working_set(&id) > 0);
    kubelet.limit_memory(&id, 32 << 20);
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
    assert_eq!(kubelet.exec(&id, limit), (0, "33554432\n".into()));

    kubelet.stop(&id);
    assert_eq!(kubelet.status(&id).exit_code, 137);
    let log = std::fs::read_to_string(kubelet.logs.join("main.log")).expect("it is logged");
    assert_eq!(logged(&log), "podhost\n");
    kubelet.remove(&id);
    attach_to_a_container(&machine, &mut kubelet, (&pod, &config));
    kubelet.remove_pod(&pod);
    assert_eq!(
        machine
            .sh("ls /run/containerd/runc/k8s.io | wc -l")
            .succeeds(),
        "0"
    );
    let left = machine.cgroups();
    assert!(
        left.iter().all(|dir| dir.ends_with(machine.token())),
        "{left:?}"
    );
}

/// What a security context asks for, seen from inside.
type Change = fn(&mut cri::ContainerConfig);

/// name, change, script, exit code, words
const CONTEXTS: &[(&str, Change, &str, i32, &str)] = &[
    ("plain", |_| (), "grep Seccomp: /proc/self/status", 0, "2"),
    ("masked", |_| (), "wc -c </etc/group", 0, "0"),
    (
        "readonly path",
        |_| (),
        "echo 1 >/proc/sys/net/core/somaxconn",
        1,
        "Read-only",
    ),
    (
        "readonly root",
        |config| security(config).readonly_rootfs = true,
        "touch /x",
        1,
        "Read-only",
    ),
    (
        "user",
        |config| {
            security(config).run_as_user = Some(cri::Int64Value { value: 1000 });
            security(config).run_as_group = Some(cri::Int64Value { value: 1000 });
            security(config).supplemental_groups = vec![77];
        },
        "id",
        0,
        "uid=1000(app) gid=1000 groups=77",
    ),
    (
        "capabilities",
        |config| {
            security(config).capabilities = Some(cri::Capability {
                add_capabilities: vec!["NET_ADMIN".into()],
                drop_capabilities: vec!["ALL".into()],
                ..Default::default()
            });
        },
        "grep CapEff /proc/self/status",
        0,
        "0000000000001000",
    ),
    (
        "no new privileges",
        |config| security(config).no_new_privs = true,
        "grep NoNewPrivs /proc/self/status",
        0,
        "1",
    ),
    (
        "unconfined",
        |config| security(config).seccomp = profile(ProfileType::Unconfined, ""),
        "grep Seccomp: /proc/self/status",
        0,
        "0",
    ),
    (
        "a profile of its own",
        |config| security(config).seccomp = profile(ProfileType::Localhost, "/run/p.json"),
        "mkdir /x",
        1,
        "Operation not permitted",
    ),
    (
        "the pod's processes",
        |config| {
            security(config).namespace_options = Some(cri::NamespaceOption {
                pid: NamespaceMode::Pod.into(),
                ..Default::default()
            });
        },
        "ps",
        0,
        "sleep 1000000",
    ),
    (
        "a mount",
        |config| {
            config.mounts = vec![cri::Mount {
                container_path: "/mnt".into(),
                host_path: "/run/image/etc".into(),
                readonly: true,
                ..Default::default()
            }];
        },
        "ls /mnt; touch /mnt/x",
        1,
        "Read-only",
    ),
    (
        "a device",
        |config| {
            config.devices = vec![cri::Device {
                container_path: "/dev/fuse".into(),
                host_path: "/dev/fuse".into(),
                permissions: "rwm".into(),
            }];
        },
        "ls -l /dev/fuse",
        0,
        "10, 229",
    ),
    (
        "too much memory",
        |_| (),
        "x=a; while :; do x=$x$x; done",
        137,
        "",
    ),
];

#[test]
fn security_contexts_hold_through_the_cri() {
    let machine = machine();
    let errno = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    machine.write("/run/p.json", errno);
    let mut kubelet = Kubelet::connect(&machine);
    let config = kubelet.pod("two");
    // The default runtime this time.
    let pod = kubelet.run_pod(&config, "");
    let mut failures = Vec::new();
    for (index, (name, change, script, code, words)) in CONTEXTS.iter().enumerate() {
        let mut asked = container(&format!("c{index}"), script);
        change(&mut asked);
        let (ended, text) = kubelet.run((&pod, &config), asked);
        if ended != *code || !text.contains(words) {
            failures.push(format!(
                "{name}: ended with {ended}, wanted {code} and {words:?}: {text}"
            ));
        }
    }
    let (passed, run) = (CONTEXTS.len() - failures.len(), CONTEXTS.len());
    let runtime = if is_runc() { "runc" } else { "keel" };
    clients::report(&format!(
        "security contexts with {runtime}: {passed} passed / {run} run\n"
    ));
    kubelet.remove_pod(&pod);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A stream of the CRI: each message begins with the number of its channel.
struct Stream(tungstenite::WebSocket<TcpStream>);

impl Stream {
    /// containerd serves streams on the machine's loopback.
    fn open(machine: &Machine, url: &str) -> Self {
        let url = url.replacen("http:", "ws:", 1);
        let mut request = url.as_str().into_client_request().expect("a URL");
        let name = "v4.channel.k8s.io".parse().expect("a header");
        request.headers_mut().insert("Sec-WebSocket-Protocol", name);
        let host = request
            .uri()
            .authority()
            .expect("it names a port")
            .as_str()
            .to_owned();
        let stream = machine
            .inside_its_network(|| TcpStream::connect(&host))
            .expect("it listens");
        let limit = Some(Duration::from_secs(20));
        stream
            .set_read_timeout(limit)
            .expect("a socket has timeouts");
        Self(
            tungstenite::client(request, stream)
                .expect("it speaks websocket")
                .0,
        )
    }

    fn send(&mut self, text: &str) {
        let bytes = [&[0], text.as_bytes()].concat();
        self.0.send(Message::binary(bytes)).expect("it is open");
    }

    /// Everything of standard output and error until `end`, or the stream's own.
    fn read_until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.contains(end) {
            match self.0.read() {
                Ok(Message::Binary(bytes)) if matches!(bytes.first(), Some(1 | 2)) => {
                    text += &String::from_utf8_lossy(&bytes[1..]);
                }
                Ok(Message::Close(_)) | Err(_) => break,
                Ok(_) => {}
            }
        }
        text
    }
}

fn exec_on_a_stream(machine: &Machine, kubelet: &mut Kubelet, id: &str) {
    let request = cri::ExecRequest {
        container_id: id.into(),
        cmd: sh("tty; read line; echo got $line"),
        tty: true,
        stdin: true,
        stdout: true,
        stderr: false,
    };
    let url = call!(kubelet, exec, request).url;
    let mut stream = Stream::open(machine, &url);
    stream.send("words\n");
    let text = stream.read_until("got words");
    assert!(
        text.contains("/dev/pts/") && text.contains("got words"),
        "{text:?}"
    );
}

fn attach_to_a_container(
    machine: &Machine,
    kubelet: &mut Kubelet,
    pod: (&str, &cri::PodSandboxConfig),
) {
    let mut config = container("reader", "while read line; do echo got $line; done");
    config.stdin = true;
    let id = kubelet.create(pod, config);
    kubelet.start(&id);
    let request = cri::AttachRequest {
        container_id: id.clone(),
        stdin: true,
        tty: false,
        stdout: true,
        stderr: true,
    };
    let url = call!(kubelet, attach, request).url;
    let mut stream = Stream::open(machine, &url);
    stream.send("words\n");
    let text = stream.read_until("got words");
    assert!(text.contains("got words"), "{text:?}");
    kubelet.stop(&id);
    kubelet.remove(&id);
}
