//! A registry that lies, cuts, redirects and never ends: each fault gives a clear error, nothing
//! half-made, and no secret to the wrong host. `an_honest_registry_is_believed` is the control.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use common::{Host, name_of, noise, root_tar};
use rdocker::image::layer::compress::gzip;
use rdocker::image::pull::{PullOptions, Pulled};
use rdocker::image::registry::{Credential, Credentials, RegistryOptions};
use rdocker::image::{ImageConfig, Quiet};
use rdocker::store::digest::Digest;
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// One request: method and path, and its header with lower-case names.
struct Request {
    line: String,
    headers: HashMap<String, String>,
}

/// What to answer with: status line, headers, body, and how much of the body is really sent.
struct Reply {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    sent: usize,
    endless: bool,
}

impl Reply {
    fn new(status: &'static str, body: impl Into<Vec<u8>>) -> Reply {
        let body = body.into();
        Reply {
            status,
            headers: Vec::new(),
            sent: body.len(),
            body,
            endless: false,
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }
}

type Log = Arc<Mutex<Vec<Request>>>;

/// An HTTP server on loopback that answers what a function says.
struct Stub {
    host: String,
    log: Log,
}

impl Stub {
    fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let log = Log::default();
        let (answer, shared) = (Arc::new(answer), Arc::clone(&log));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&shared));
                // A client that went away is not this server's fault.
                std::thread::spawn(move || drop(serve(stream, &*answer, &log)));
            }
        });
        Stub { host, log }
    }

    fn saw(&self, header: &str, text: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter()
            .filter(|r| r.headers.get(header).is_some_and(|v| v.contains(text)))
            .count()
    }

    fn requests(&self, text: &str) -> usize {
        self.log
            .lock()
            .unwrap()
            .iter()
            .filter(|request| request.line.contains(text))
            .count()
    }

    fn seen(&self) -> usize {
        self.log.lock().unwrap().len()
    }
}

fn serve(stream: TcpStream, answer: &dyn Fn(&Request) -> Reply, log: &Log) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let request = Request {
        line: line.trim().to_owned(),
        headers,
    };
    let reply = answer(&request);
    log.lock().unwrap().push(request);
    write!(stream, "HTTP/1.1 {}\r\nConnection: close\r\n", reply.status)?;
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    if reply.endless {
        write!(stream, "Transfer-Encoding: chunked\r\n\r\n")?;
        loop {
            write!(stream, "10000\r\n")?;
            stream.write_all(&[b' '; 0x10000])?;
            write!(stream, "\r\n")?;
        }
    }
    write!(stream, "Content-Length: {}\r\n\r\n", reply.body.len())?;
    stream.write_all(&reply.body[..reply.sent])?;
    stream.flush()
}

/// An image as a registry has it.
#[derive(Clone)]
struct Served {
    layer: Vec<u8>,
    plain: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Served {
    fn new() -> Served {
        let plain = root_tar(&[("bin/sh", b"#!"), ("bin/noise", &noise(2 << 20, 7))]);
        let mut gz = gzip(Vec::new(), 1);
        gz.write_all(&plain).unwrap();
        let mut config = ImageConfig {
            os: "linux".into(),
            architecture: "amd64".into(),
            ..ImageConfig::default()
        };
        config.rootfs.diff_ids = vec![Digest::of(&plain)];
        let config = serde_json::to_vec(&config).unwrap();
        let mut served = Served {
            layer: gz.finish().unwrap(),
            plain,
            config,
            manifest: Vec::new(),
        };
        served.manifest = served.document().to_string().into_bytes();
        served
    }

    fn document(&self) -> Value {
        json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&self.config), "size": self.config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": Digest::of(&self.layer), "size": self.layer.len()}]})
    }

    fn is_layer(&self, request: &Request) -> bool {
        request
            .line
            .contains(&format!("/blobs/{}", Digest::of(&self.layer)))
    }

    /// What an honest registry answers.
    fn honest(&self, request: &Request) -> Reply {
        if request.line.starts_with("GET /v2/ ") {
            return Reply::new("200 OK", "{}");
        }
        if request.line.contains("/manifests/") {
            return Reply::new("200 OK", &*self.manifest).with("Content-Type", MANIFEST);
        }
        if request.line.contains(&Digest::of(&self.config).to_string()) {
            return Reply::new("200 OK", &*self.config);
        }
        if self.is_layer(request) {
            return ranged(request, &self.layer);
        }
        Reply::new("404 Not Found", "")
    }
}

fn ranged(request: &Request, body: &[u8]) -> Reply {
    let Some(range) = request.headers.get("range") else {
        return Reply::new("200 OK", body);
    };
    let start: usize = range
        .strip_prefix("bytes=")
        .unwrap()
        .trim_end_matches('-')
        .parse()
        .unwrap();
    let content = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
    Reply::new("206 Partial Content", &body[start..]).with("Content-Range", content)
}

fn pull_with(host: &Host, stub: &Stub, options: RegistryOptions) -> Result<Pulled, String> {
    let name = name_of(&format!("{}/x:1", stub.host));
    let options = PullOptions {
        platform: Some("linux/amd64".parse().unwrap()),
        registry: options,
    };
    host.images()
        .pull(&name, &options, &Quiet)
        .map_err(|error| error.to_string())
}

fn pull(host: &Host, stub: &Stub) -> Result<Pulled, String> {
    pull_with(host, stub, RegistryOptions::default())
}

fn joe() -> RegistryOptions {
    let credential = Credential::Password {
        user: "joe".into(),
        password: "seeded-secret".into(),
    };
    RegistryOptions {
        credentials: Credentials::Given(credential),
        ..RegistryOptions::default()
    }
}

fn assert_nothing_half_made(host: &Host, name: &str) {
    assert!(host.images().list().unwrap().is_empty(), "{name}");
    host.store.collect(rdocker::store::gc::Parts::All).unwrap();
    for dir in ["layers", "blobs/sha256", "tmp", "trash", "ingest"] {
        assert_eq!(host.count(dir), 0, "{name}: {dir}");
    }
}

#[test]
fn an_honest_registry_is_believed() {
    let served = Served::new();
    let honest = served.clone();
    let stub = Stub::start(move |request| honest.honest(request));
    let host = Host::new();
    let pulled = pull(&host, &stub).unwrap();
    assert_eq!(pulled.id, Digest::of(&served.config));
    assert_eq!(pulled.digest, Digest::of(&served.manifest));
}

/// name, how the served image is spoiled, what the error says
type Lie = (
    &'static str,
    fn(&mut Served, &Request) -> Option<Reply>,
    &'static str,
);

#[test]
#[expect(clippy::too_many_lines, reason = "a table of lies")]
fn every_lie_is_an_error_and_leaves_nothing() {
    let lies: &[Lie] = &[
        (
            "flipped byte in the layer",
            |s, r| {
                s.is_layer(r).then(|| {
                    let mut body = s.layer.clone();
                    *body.last_mut().unwrap() ^= 1;
                    Reply::new("200 OK", body)
                })
            },
            "verification failed",
        ),
        (
            "one byte more",
            |s, r| {
                s.is_layer(r)
                    .then(|| Reply::new("200 OK", [&s.layer[..], b"x"].concat()))
            },
            "verification failed",
        ),
        (
            "another configuration",
            |s, r| {
                let digest = Digest::of(&s.config).to_string();
                let other = String::from_utf8(s.config.clone())
                    .unwrap()
                    .replace("amd64", "amd65");
                r.line
                    .contains(&digest)
                    .then(|| Reply::new("200 OK", other))
            },
            "verification failed",
        ),
        (
            "manifest of 4 MiB and a byte",
            |s, r| {
                let pad = (4 << 20) + 1 - s.manifest.len();
                let body = [&s.manifest[..], &vec![b' '; pad]].concat();
                r.line
                    .contains("/manifests/")
                    .then(|| Reply::new("200 OK", body))
            },
            "larger than 4194304 bytes",
        ),
        (
            "endless manifest",
            |_, r| {
                let mut reply = Reply::new("200 OK", "");
                reply.endless = true;
                r.line.contains("/manifests/").then_some(reply)
            },
            "larger than 4194304 bytes",
        ),
        (
            "endless layer",
            |s, r| {
                let mut reply = Reply::new("200 OK", "");
                reply.endless = true;
                s.is_layer(r).then_some(reply)
            },
            "verification failed",
        ),
        (
            "schema 1",
            |_, r| {
                r.line.contains("/manifests/").then(|| {
                    Reply::new("200 OK", "{}").with(
                        "Content-Type",
                        "application/vnd.docker.distribution.manifest.v1+prettyjws",
                    )
                })
            },
            "schema 1 is no longer supported",
        ),
        (
            "index and manifest at once",
            |s, r| {
                let mut document = s.document();
                document["manifests"] = json!([]);
                r.line
                    .contains("/manifests/")
                    .then(|| Reply::new("200 OK", document.to_string()))
            },
            "index and a manifest at once",
        ),
        (
            "header against body",
            |s, r| {
                r.line
                    .contains("/manifests/")
                    .then(|| Reply::new("200 OK", &*s.manifest).with("Content-Type", INDEX))
            },
            "it says it is",
        ),
        (
            "a layer too few",
            |s, r| {
                let mut document = s.document();
                document["layers"] = json!([]);
                r.line
                    .contains("/manifests/")
                    .then(|| Reply::new("200 OK", document.to_string()))
            },
            "it names 1 layers, and the manifest 0",
        ),
        (
            "an index of other platforms",
            |s, r| {
                let entry = json!({"mediaType": MANIFEST, "digest": Digest::of(&s.manifest),
                "size": s.manifest.len(), "platform": {"os": "linux", "architecture": "s390x"}});
                let index = json!({"schemaVersion": 2, "manifests": [entry]});
                r.line
                    .contains("/manifests/1")
                    .then(|| Reply::new("200 OK", index.to_string()))
            },
            "no matching manifest for linux/amd64 in the manifest list entries",
        ),
        (
            "an index whose entry has another size",
            |s, r| {
                let entry = json!({"mediaType": MANIFEST, "digest": Digest::of(&s.manifest),
                "size": s.manifest.len() + 1, "platform": {"os": "linux", "architecture": "amd64"}});
                let index = json!({"schemaVersion": 2, "manifests": [entry]});
                r.line
                    .contains("/manifests/1")
                    .then(|| Reply::new("200 OK", index.to_string()))
            },
            "bytes, got",
        ),
        (
            "a digest that is a path",
            |s, r| {
                let document = s
                    .document()
                    .to_string()
                    .replace(Digest::of(&s.layer).hex(), "../../../../etc/passwd");
                r.line
                    .contains("/manifests/")
                    .then(|| Reply::new("200 OK", document))
            },
            "invalid digest",
        ),
        (
            "a range that was not asked for",
            |s, r| {
                s.is_layer(r).then(|| {
                    Reply::new("206 Partial Content", &s.layer[5..])
                        .with("Content-Range", "bytes 5-9/10")
                })
            },
            "another range",
        ),
        (
            "redirects without end",
            |s, r| {
                s.is_layer(r).then(|| {
                    Reply::new("302 Found", "").with("Location", r.line.split(' ').nth(1).unwrap())
                })
            },
            "redirects more than 5 times",
        ),
        (
            "a redirect to a file",
            |s, r| {
                s.is_layer(r)
                    .then(|| Reply::new("302 Found", "").with("Location", "file:///etc/passwd"))
            },
            "no http(s) URL",
        ),
    ];
    for (name, lie, want) in lies {
        let (served, lie) = (Served::new(), *lie);
        let stub = Stub::start(move |request| {
            let mut spoiled = served.clone();
            lie(&mut spoiled, request).unwrap_or_else(|| served.honest(request))
        });
        let host = Host::new();
        let error = pull(&host, &stub).expect_err(name);
        assert!(error.contains(want), "{name}: {error}");
        assert!(!error.contains('\n'), "{name}: {error}");
        assert_nothing_half_made(&host, name);
    }
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    let mut served = Served::new();
    // Blob and descriptor agree, but it is another layer.
    let mut gz = gzip(Vec::new(), 1);
    gz.write_all(&root_tar(&[("bin/evil", b"#!")])).unwrap();
    served.layer = gz.finish().unwrap();
    served.manifest = served.document().to_string().into_bytes();
    let diff_id = Digest::of(&served.plain).to_string();
    let stub = Stub::start(move |request| served.honest(request));
    let host = Host::new();
    let error = pull(&host, &stub).unwrap_err();
    assert!(
        error.contains(&format!("want diff id {diff_id}")),
        "{error}"
    );
    assert!(host.images().list().unwrap().is_empty());
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let served = Served::new();
    let (honest, cuts) = (served.clone(), Mutex::new(0usize));
    let stub = Stub::start(move |request| {
        let mut reply = honest.honest(request);
        if honest.is_layer(request) {
            let mut cuts = cuts.lock().unwrap();
            *cuts += 1;
            if *cuts <= 6 {
                reply.sent = 300_000;
            }
        }
        reply
    });
    let host = Host::new();
    assert_eq!(pull(&host, &stub).unwrap().id, Digest::of(&served.config));
    assert_eq!(stub.saw("range", "bytes=300000-"), 1);
    assert_eq!(stub.saw("range", "bytes=1800000-"), 1);
}

#[test]
fn a_registry_without_ranges_sends_it_all_again() {
    let served = Served::new();
    let (honest, first) = (served.clone(), Mutex::new(true));
    let stub = Stub::start(move |request| {
        if !honest.is_layer(request) {
            return honest.honest(request);
        }
        let mut reply = Reply::new("200 OK", &*honest.layer);
        if std::mem::take(&mut *first.lock().unwrap()) {
            reply.sent = 300_000;
        }
        reply
    });
    let host = Host::new();
    assert_eq!(pull(&host, &stub).unwrap().id, Digest::of(&served.config));
    assert_eq!(stub.saw("range", "bytes=300000-"), 1);
}

#[test]
fn a_pull_that_gave_up_is_resumed_by_the_next() {
    let served = Served::new();
    let (honest, broken) = (served.clone(), Arc::new(Mutex::new(true)));
    let shared = Arc::clone(&broken);
    let stub = Stub::start(move |request| {
        let mut reply = honest.honest(request);
        if honest.is_layer(request) && *shared.lock().unwrap() {
            if request.headers.contains_key("range") {
                return Reply::new("503 Service Unavailable", "");
            }
            reply.sent = 500_000;
        }
        reply
    });
    let host = Host::new();
    let error = pull(&host, &stub).unwrap_err();
    assert!(error.contains("503"), "{error}");
    assert_eq!(
        (
            host.count("ingest"),
            host.count("layers"),
            host.count("tmp")
        ),
        (1, 0, 0)
    );
    *broken.lock().unwrap() = false;
    assert_eq!(pull(&host, &stub).unwrap().id, Digest::of(&served.config));
    assert!(stub.saw("range", "bytes=500000-") >= 2);
    assert_eq!(host.count("ingest"), 0);
}

#[test]
fn a_redirect_elsewhere_is_followed_without_secrets() {
    let served = Served::new();
    let elsewhere = served.clone();
    let attacker = Stub::start(move |request| ranged(request, &elsewhere.layer));
    let there = attacker.host.clone();
    let stub = Stub::start(move |request| {
        if !request.headers.contains_key("authorization") {
            return Reply::new("401 Unauthorized", "").with("WWW-Authenticate", "Basic realm=r");
        }
        if served.is_layer(request) {
            let to = format!("http://{there}/blob?signature=seeded-signature");
            return Reply::new("307 Temporary Redirect", "").with("Location", to);
        }
        served.honest(request)
    });
    pull_with(&Host::new(), &stub, joe()).unwrap();
    assert!(
        stub.saw("authorization", "Basic") > 0,
        "control: the registry was told"
    );
    assert_eq!(attacker.requests("/blob"), 1);
    assert_eq!(attacker.saw("authorization", ""), 0);
    assert_eq!(attacker.saw("cookie", ""), 0);
}

#[test]
fn a_redirect_target_that_asks_for_secrets_gets_none() {
    let served = Served::new();
    let thief = Stub::start(|_| Reply::new("200 OK", r#"{"token":"x"}"#));
    let realm = format!("Bearer realm=\"http://{}/token\",service=s", thief.host);
    let attacker = Stub::start(move |_| {
        Reply::new("401 Unauthorized", "").with("WWW-Authenticate", realm.clone())
    });
    let there = attacker.host.clone();
    let stub = Stub::start(move |request| {
        if served.is_layer(request) {
            let to = format!("http://{there}/blob?signature=seeded-signature");
            return Reply::new("307 Temporary Redirect", "").with("Location", to);
        }
        served.honest(request)
    });
    let host = Host::new();
    let error = pull_with(&host, &stub, joe()).unwrap_err();
    assert!(!error.contains("seeded"), "{error}");
    assert_eq!((attacker.requests("/blob"), thief.seen()), (1, 0));
    assert!(host.images().list().unwrap().is_empty());
}

#[test]
fn a_token_server_elsewhere_without_tls_is_told_nothing() {
    let thief = Stub::start(|_| Reply::new("200 OK", r#"{"token":"x"}"#));
    // Another host by name: only the insecure registry's own host may do without TLS.
    let port = thief.host.rsplit_once(':').unwrap().1.to_owned();
    let stub = Stub::start(move |_| {
        let realm = format!("Bearer realm=\"http://localhost:{port}/token\",service=s");
        Reply::new("401 Unauthorized", "").with("WWW-Authenticate", realm)
    });
    let error = pull_with(&Host::new(), &stub, joe()).unwrap_err();
    assert!(error.contains("token server is not https"), "{error}");
    assert_eq!(thief.seen(), 0);
}

#[test]
fn a_bearer_token_is_fetched_once_and_used() {
    let served = Served::new();
    let stub_host = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&stub_host);
    let stub = Stub::start(move |request| {
        if request.line.starts_with("GET /token?") {
            let asked = "account=joe&service=s&scope=repository%3Ax%3Apull ";
            let known = request
                .headers
                .get("authorization")
                .is_some_and(|v| v.starts_with("Basic "));
            return match known && request.line.contains(asked) {
                true => Reply::new("200 OK", r#"{"access_token":"abc"}"#),
                false => Reply::new("401 Unauthorized", ""),
            };
        }
        if request.headers.get("authorization").map(String::as_str) != Some("Bearer abc") {
            let realm = format!(
                "Bearer realm=\"http://{}/token\",service=s",
                shared.lock().unwrap()
            );
            return Reply::new("401 Unauthorized", "").with("WWW-Authenticate", realm);
        }
        served.honest(request)
    });
    stub_host.lock().unwrap().push_str(&stub.host);
    pull_with(&Host::new(), &stub, joe()).unwrap();
    assert_eq!(stub.requests("GET /token?"), 1);
}

#[test]
fn urls_in_a_manifest_are_not_followed() {
    let mut served = Served::new();
    let thief = Stub::start(|_| Reply::new("200 OK", ""));
    let mut document = served.document();
    document["layers"][0]["urls"] = json!([format!("http://{}/foreign", thief.host)]);
    served.manifest = document.to_string().into_bytes();
    let stub = Stub::start(move |request| match served.is_layer(request) {
        true => Reply::new("404 Not Found", ""),
        false => served.honest(request),
    });
    assert!(pull(&Host::new(), &stub).is_err());
    assert_eq!(thief.seen(), 0);
}

#[test]
fn a_slow_registry_is_waited_for() {
    let served = Served::new();
    let id = Digest::of(&served.config);
    let stub = Stub::start(move |request| {
        std::thread::sleep(std::time::Duration::from_millis(300));
        served.honest(request)
    });
    assert_eq!(pull(&Host::new(), &stub).unwrap().id, id);
}
