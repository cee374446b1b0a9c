//! A client of the API over TLS, with whatever certificate and key exchange a test wants, and both ends of a link with TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use qkd_sim::lab::{Authority, Issued, Lab};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, NamedGroup, RootCertStore, StreamOwned};
use serde_json::json;

use crate::DEADLINE;
use crate::module::{Cards, Module, ModuleConfig};
use crate::ports::free_ports;
use crate::process::Process;
use crate::programs::program;

/// ring with these key exchange groups.
#[must_use]
pub fn provider(kx_groups: Vec<&'static dyn SupportedKxGroup>) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups, ..ring::default_provider() })
}

/// The hybrid group, and nothing else.
#[must_use]
pub fn hybrid() -> Vec<&'static dyn SupportedKxGroup> {
    vec![rustls_graviola::kx::X25519MLKEM768]
}

/// The groups of ring, without the hybrid one.
#[must_use]
pub fn classical() -> Vec<&'static dyn SupportedKxGroup> {
    ring::ALL_KX_GROUPS.to_vec()
}

/// Certificate and key of a name of the lab in this folder.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn issued(lab: &Path, name: &str) -> Issued {
    let read = |kind: &str| std::fs::read_to_string(lab.join(format!("{name}.{kind}"))).expect("a file");
    Issued { certificate: read("pem"), key: read("key") }
}

/// A certificate chain and its key as rustls takes them.
#[must_use]
pub fn identity(issued: &Issued) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(issued.certificate.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes());
    (chain.expect("certificates"), key.expect("a key"))
}

/// What vouches for others, as rustls takes it.
#[must_use]
pub fn roots(authority: &Issued) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in identity(authority).0 {
        roots.add(certificate).expect("an authority");
    }
    roots
}

/// A client over TLS.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
}

/// What a call brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub http: u16,
    /// Body as JSON; null where there is none.
    pub body: serde_json::Value,
}

impl Client {
    /// A client that trusts `authority`, and shows a certificate if there is one.
    #[must_use]
    pub fn new(authority: &Issued, own: Option<&Issued>, groups: Vec<&'static dyn SupportedKxGroup>) -> Self {
        let builder = ClientConfig::builder_with_provider(provider(groups))
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots(authority));
        let config = match own.map(identity) {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("a certificate"),
        };
        Self { config: Arc::new(config) }
    }

    /// Opens a connection. The handshake takes place at the first octet.
    ///
    /// # Panics
    /// When there is no TCP connection.
    #[must_use]
    pub fn connect(&self, to: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
        let socket = TcpStream::connect(to).expect("a connection");
        socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(Arc::clone(&self.config), name).expect("a session");
        StreamOwned::new(session, socket)
    }

    /// Sends octets and answers all that came, with the key exchange and the server's certificate, or what went wrong.
    ///
    /// # Errors
    /// Of handshake and connection.
    pub fn exchange(&self, to: SocketAddr, octets: &[u8]) -> std::io::Result<Exchange> {
        let mut stream = self.connect(to);
        stream.write_all(octets)?;
        stream.flush()?;
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer)
            && answer.is_empty()
        {
            return Err(error);
        }
        let certificate = stream.conn.peer_certificates().and_then(<[_]>::first).cloned();
        Ok(Exchange {
            answer,
            group: stream.conn.negotiated_key_exchange_group().map(|group| group.name()),
            certificate,
        })
    }

    /// Makes a call of the API.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn call(&self, to: SocketAddr, method: &str, path: &str, body: &serde_json::Value) -> Reply {
        let body = body.to_string();
        let request = format!(
            "{method} /api/v1/kms/etsi004/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let exchange = self.exchange(to, request.as_bytes()).expect("an answer");
        let text = String::from_utf8(exchange.answer).expect("text");
        let http = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Reply {
            http: http.unwrap_or_else(|| panic!("no HTTP: {text:?}")),
            body: serde_json::from_str(body).unwrap_or(serde_json::Value::Null),
        }
    }
}

/// What an exchange over TLS brought.
pub struct Exchange {
    /// Everything that the server sent.
    pub answer: Vec<u8>,
    /// Key exchange.
    pub group: Option<NamedGroup>,
    /// The server's certificate.
    pub certificate: Option<CertificateDer<'static>>,
}

/// URI of the KMS at each end.
pub const KMS: [&str; 2] = ["kms://a", "kms://b"];

/// Both ends of a link whose every connection has TLS.
pub struct Secured {
    /// The daemons.
    pub modules: [Option<Module>; 2],
    /// Certificates, made by `qkd-sim lab-certificates`' own code.
    pub lab: PathBuf,
    /// Who signed them.
    pub authority: Authority,
    /// The cards.
    pub cards: Cards,
    /// Where each KMS is to listen.
    pub endpoints: [SocketAddr; 2],
    peer: SocketAddr,
}

/// What differs between tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// Further lines of the section `[tls]`.
    pub tls: &'a str,
    /// Further lines of the section `[card]`.
    pub card: &'a str,
    /// Further lines of the section `[[kms]]`.
    pub kms: &'a str,
    /// Further sections.
    pub more: &'a str,
    /// Environment of the daemons.
    pub environment: &'a [(&'a str, &'a str)],
    /// The KMSs take key over plain HTTP.
    pub plain_push: bool,
    /// Another program than the `qkdd` that was built.
    pub qkdd: Option<&'a Path>,
}

impl Secured {
    /// Makes certificates and starts cards, but no daemon.
    #[must_use]
    pub fn prepare() -> Self {
        Self::prepare_with(Cards::start(&["--weather", "calm", "--rate", "4M", "--key", "positional"]))
    }

    /// As [`Secured::prepare`], with these cards.
    #[must_use]
    pub fn prepare_with(cards: Cards) -> Self {
        let lab = cards.folder.path().join("lab");
        let authority = Lab { hosts: [vec![], vec![]], kms: KMS.map(str::to_owned), days: 100 }
            .write(&lab)
            .expect("certificates");
        let [endpoint_a, endpoint_b, peer] = free_ports();
        let endpoints = [endpoint_a, endpoint_b];
        Self { modules: [None, None], lab, authority, cards, endpoints, peer }
    }

    /// As [`Secured::prepare`], with both daemons, in step.
    #[must_use]
    pub fn start(choice: Choice<'_>) -> Self {
        let mut secured = Self::prepare();
        secured.start_module(0, choice);
        secured.start_module(1, choice);
        let _ = secured.module(1).process.line("takes over epoch", DEADLINE);
        secured
    }

    /// The daemon at `end`, which runs.
    #[must_use]
    pub fn module(&self, end: usize) -> &Module {
        self.modules[end].as_ref().expect("it runs")
    }

    /// Starts the daemon at `end`.
    pub fn start_module(&mut self, end: usize, choice: Choice<'_>) {
        let letter = ["a", "b"][end];
        let lines = std::fs::read_to_string(self.lab.join(format!("tls-{letter}.toml"))).expect("lines");
        let peer = if end == 0 { "listen" } else { "connect" };
        let scheme = if choice.plain_push { "http" } else { "https" };
        let config = ModuleConfig {
            name: letter,
            role: if end == 0 { "leader" } else { "follower" },
            socket: if end == 0 { &self.cards.socket_a } else { &self.cards.socket_b },
            peer: format!("{peer} = \"{}\"\ncertificate_name = \"{}\"", self.peer, Lab::module_name(1 - end)),
            peer_kms: KMS[1 - end],
            kms: (KMS[end], format!("{scheme}://localhost:{}", self.endpoints[end].port())),
            more: &format!("{lines}{}\n{}", choice.tls, choice.more),
        };
        let folder = self.cards.folder.path();
        let path = config.write(folder);
        let text = std::fs::read_to_string(&path).expect("the configuration was written");
        let text = text.replacen("[api]", &format!("accept_test_key = true\n{}\n[api]", choice.card), 1);
        let names = format!("certificate_names = [\"URI:{}\"]\n{}\n[ledger]", KMS[end], choice.kms);
        std::fs::write(&path, text.replacen("[ledger]", &names, 1)).expect("and can be written again");
        let mut command = Command::new(choice.qkdd.map_or_else(|| program("qkdd"), Path::to_path_buf));
        command.arg("--config").arg(path).envs(choice.environment.iter().copied());
        self.modules[end] = Some(config.start_as(&mut command));
    }

    /// A client that is one of the lab's: `kms-a` and so on.
    #[must_use]
    pub fn client(&self, name: &str, groups: Vec<&'static dyn SupportedKxGroup>) -> Client {
        Client::new(&self.authority.own, Some(&self.issued(name)), groups)
    }

    /// Certificate and key of a name of the lab.
    #[must_use]
    pub fn issued(&self, name: &str) -> Issued {
        issued(&self.lab, name)
    }

    /// Starts a KMS over TLS at each end, which open `streams` key streams.
    #[must_use]
    pub fn start_kms(&self, streams: u32) -> [Process; 2] {
        let folder = self.cards.folder.path();
        let ids = folder.join("ids");
        [0, 1].map(|end| {
            let letter = ["a", "b"][end];
            let file = |name: String| self.lab.join(name);
            let mut command = Command::new(program("qkd-sim"));
            command
                .args(["kms", "--json", "--key", "positional", "--source", KMS[0], "--destination", KMS[1]])
                .args(["--streams", &streams.to_string(), "--report-every", "50ms"])
                .args(["--listen", &self.endpoints[end].to_string()])
                .args(["--module", &format!("https://{}", self.module(end).api)])
                .arg("--certificate")
                .arg(file(format!("kms-{letter}.pem")))
                .arg("--certificate-key")
                .arg(file(format!("kms-{letter}.key")))
                .arg("--authorities")
                .arg(file("authority.pem".into()))
                .arg("--history")
                .arg(self.history(end));
            match end {
                0 => command.arg("--open").arg("--ids-out").arg(&ids),
                _ => command.arg("--join-from").arg(&ids),
            };
            let process = Process::start(&format!("kms {letter}"), &mut command);
            let _ = process.line("listening ", DEADLINE);
            process
        })
    }

    /// Opens a key stream at both ends and asks for its key, with nobody there to take it.
    ///
    /// # Panics
    /// When a call goes on failing.
    #[must_use]
    pub fn open_stream(&self) -> serde_json::Value {
        let clients = ["kms-a", "kms-b"].map(|name| self.client(name, hybrid()));
        let succeed = |end: usize, path: &str, request: &serde_json::Value| {
            let until = std::time::Instant::now() + DEADLINE;
            loop {
                let reply = clients[end].call(self.module(end).api, "POST", path, request);
                if (200..300).contains(&reply.http) {
                    return reply;
                }
                assert!(std::time::Instant::now() < until, "{path} at end {end}: {reply:?}");
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        };
        let mut request = json!({"source": KMS[0], "destination": KMS[1], "key_stream_id": null, "qos": {}});
        let id = succeed(0, "open-connect", &request).body["key_stream_id"].clone();
        request["key_stream_id"] = id.clone();
        let _ = succeed(1, "open-connect", &request);
        for end in 0..2 {
            let _ = succeed(end, "get-key", &json!({"key_stream_id": id}));
        }
        id
    }

    /// The history of the KMS at `end`.
    #[must_use]
    pub fn history(&self, end: usize) -> PathBuf {
        self.cards.folder.path().join(format!("{end}.history"))
    }
}

/// Chunks that a KMS has got, by its newest line.
#[must_use]
pub fn chunks(kms: &Process) -> u64 {
    newest(kms, "chunks")
}

/// Streams on which a KMS has got key, by its newest line: it ends well only when that is all of them.
#[must_use]
pub fn with_key(kms: &Process) -> u64 {
    newest(kms, "with_key")
}

/// A number of a KMS's newest line; 0 before there is one.
fn newest(kms: &Process, field: &str) -> u64 {
    let output = kms.output();
    let line = output.lines().rev().find(|line| line.contains("\"event\":\"status\"")).unwrap_or_default();
    let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    line[field].as_u64().unwrap_or(0)
}

/// What the foreign TLS stack on this machine says: `openssl s_client` with these arguments, which sends a request of the
/// API. Its answer is in what is returned, if there was one.
///
/// # Panics
/// When there is no openssl.
#[must_use]
pub fn openssl(to: SocketAddr, authority: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command
        .args(["60", "openssl", "s_client", "-quiet", "-verify_return_error", "-servername", "localhost"])
        .args(["-connect", &to.to_string(), "-CAfile"])
        .arg(authority)
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("openssl is there");
    let mut input = child.stdin.take().expect("a pipe");
    // One that was refused already does not read it.
    let _ = input.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    drop(input);
    let output = child.wait_with_output().expect("its end");
    assert_ne!(output.status.code(), Some(124), "openssl was kept waiting");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
