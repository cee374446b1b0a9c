//! The three calls at the QKD module, and their record in the history.

use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{CallError, Server};
use super::journal::Journal;
use crate::history::now;
use crate::history::record::{Called, Line, Opened};

/// Method with which the calls are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// As the interface says: get-key with GET and a body, close with PUT.
    Get,
    /// The extension for clients that cannot send a body with GET: both with POST.
    Post,
}

/// Quality of service to ask for; what is absent is left to the module.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct QosArgs {
    /// Octets per key chunk.
    #[arg(long, value_name = "OCTETS")]
    pub chunk_size: Option<u32>,
    /// Greatest rate of key in bit/s.
    #[arg(long, value_name = "BIT/S")]
    pub max_bps: Option<u32>,
    /// Smallest rate of key in bit/s.
    #[arg(long, value_name = "BIT/S")]
    pub min_bps: Option<u32>,
    /// Greatest deviation from the agreed rate in bit/s.
    #[arg(long, value_name = "BIT/S")]
    pub jitter: Option<u32>,
    /// Priority; larger is served first.
    #[arg(long)]
    pub priority: Option<u32>,
    /// Milliseconds after which the module gives up a call on the stream.
    #[arg(long, value_name = "MS")]
    pub timeout: Option<u32>,
    /// Seconds after which keys of the stream are erased.
    #[arg(long, value_name = "S")]
    pub ttl: Option<u32>,
}

impl QosArgs {
    fn to_json(&self) -> Value {
        json!({
            "key_chunk_size": self.chunk_size,
            "max_bps": self.max_bps,
            "min_bps": self.min_bps,
            "jitter": self.jitter,
            "priority": self.priority,
            "timeout": self.timeout,
            "ttl": self.ttl,
            "metadata_mimetype": "application/json",
        })
    }
}

/// Quality of service in one word after the other: "chunk-size=64 ttl=5".
#[derive(Clone, Debug)]
pub struct QosText(QosArgs);

impl FromStr for QosText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut qos = QosArgs::default();
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("`{word}` must be name=value"))?;
            let member = match name {
                "chunk-size" => &mut qos.chunk_size,
                "max-bps" => &mut qos.max_bps,
                "min-bps" => &mut qos.min_bps,
                "jitter" => &mut qos.jitter,
                "priority" => &mut qos.priority,
                "timeout" => &mut qos.timeout,
                "ttl" => &mut qos.ttl,
                _ => {
                    return Err(format!(
                        "`{name}` is none of chunk-size, max-bps, min-bps, jitter, priority, timeout, ttl"
                    ));
                }
            };
            *member =
                Some(value.parse().map_err(|_| format!("`{value}` is no number from 0 to {}", u32::MAX))?);
        }
        Ok(Self(qos))
    }
}

impl QosText {
    /// What is said here, and `else_` where nothing is.
    pub(super) fn over(&self, else_: &QosArgs) -> QosArgs {
        let Self(own) = self;
        QosArgs {
            chunk_size: own.chunk_size.or(else_.chunk_size),
            max_bps: own.max_bps.or(else_.max_bps),
            min_bps: own.min_bps.or(else_.min_bps),
            jitter: own.jitter.or(else_.jitter),
            priority: own.priority.or(else_.priority),
            timeout: own.timeout.or(else_.timeout),
            ttl: own.ttl.or(else_.ttl),
        }
    }
}

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An answer that refuses.
    #[error("{call} was answered with HTTP {http}, status {}{detail}", .status.map_or("none".into(), |s: u32| s.to_string()))]
    Refused {
        /// Which call.
        call: &'static str,
        /// HTTP status.
        http: u16,
        /// `status` of the answer.
        status: Option<u32>,
        /// What else the answer said.
        detail: String,
        /// The KMS does not take a quality of service that cannot be met now for the last word.
        insists: bool,
    },
    /// An answer that accepts, but without what it must say.
    #[error("{call} was answered with HTTP {http}, but the answer lacks {lacks}")]
    Incomplete {
        /// Which call.
        call: &'static str,
        /// HTTP status.
        http: u16,
        /// Which members.
        lacks: &'static str,
    },
}

impl Failure {
    /// True if the module says that there is no such stream, or that nobody is at its other end.
    pub(super) fn knows_no_stream(&self) -> bool {
        matches!(self, Self::Refused { http: 400, status: Some(3 | 5), .. })
    }

    /// True if the same call may succeed a little later: no answer, the peer not there yet, no link, a busy module.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Call(CallError::Url(_)) | Self::Incomplete { .. } => false,
            Self::Call(_) => true,
            Self::Refused { http, status, insists, .. } => {
                matches!(status, Some(3 | 4 | 6))
                    || (*insists && *status == Some(7))
                    || matches!(http, 408 | 425 | 429 | 502..=504)
            }
        }
    }
}

/// What OPEN_CONNECT gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) stream: Uuid,
    pub(super) chunk_size: u32,
    pub(super) status: u32,
}

/// A QKD module, as one KMS sees it.
#[derive(Clone, Debug)]
pub(super) struct Module {
    pub(super) server: Server,
    pub(super) source: String,
    pub(super) destination: String,
    /// What each stream asks for.
    pub(super) qos: Vec<QosArgs>,
    /// Asks again for a quality of service that cannot be met now.
    pub(super) insist: bool,
    pub(super) form: Form,
    /// Longest time for one call.
    pub(super) deadline: Duration,
}

struct Answer {
    http: u16,
    status: Option<u32>,
    body: Value,
}

impl Answer {
    fn refused(&self, call: &'static str, insists: bool) -> Failure {
        // Bounded and without control characters: it goes to a terminal.
        let detail: String = ["detail", "qos"]
            .iter()
            .filter_map(|member| Some(format!(", {member}: {}", self.body.get(member)?)))
            .flat_map(|text| text.chars().take(300).collect::<Vec<_>>())
            .filter(|character| !character.is_control())
            .collect();
        Failure::Refused { call, http: self.http, status: self.status, detail, insists }
    }
}

impl Module {
    async fn call(&self, method: &str, path: &str, body: &Value) -> Result<Answer, CallError> {
        let body = body.to_string();
        let reply = self.server.call(method, path, body.as_bytes(), self.deadline).await?;
        let body: Value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
        let status = body.get("status").and_then(Value::as_u64).and_then(|status| u32::try_from(status).ok());
        Ok(Answer { http: reply.status, status, body })
    }

    /// Opens stream `number`; `None`: the module chooses its ID.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(super) async fn open(
        &self,
        number: usize,
        stream: Option<Uuid>,
        journal: &Journal,
    ) -> Result<Granted, Failure> {
        const CALL: &str = "open-connect";
        let body = json!({
            "source": self.source,
            "destination": self.destination,
            "key_stream_id": stream,
            "qos": self.qos.get(number).cloned().unwrap_or_default().to_json(),
        });
        let t = now();
        let answer = self.call("POST", "/api/v1/kms/etsi004/open-connect", &body).await;
        let (http, status, body) = parts(&answer);
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let named = text("key_stream_id").and_then(|id| Uuid::try_parse(id).ok());
        let chunk_size = body
            .pointer("/qos/key_chunk_size")
            .and_then(Value::as_u64)
            .and_then(|size| u32::try_from(size).ok())
            .filter(|size| *size > 0);
        journal.record(&Line::Open(Opened {
            t,
            answered: now(),
            stream: named.or(stream),
            http,
            status,
            chunk_size,
        }));
        let answer = answer?;
        if !(200..300).contains(&answer.http) {
            return Err(answer.refused(CALL, self.insist));
        }
        let lacks = |lacks| Failure::Incomplete { call: CALL, http, lacks };
        let granted = Granted {
            stream: named.ok_or_else(|| lacks("key_stream_id"))?,
            chunk_size: chunk_size.ok_or_else(|| lacks("qos.key_chunk_size above 0"))?,
            status: status.ok_or_else(|| lacks("status"))?,
        };
        if stream.is_some_and(|asked| asked != granted.stream) {
            return Err(lacks("the key_stream_id that was asked for"));
        }
        Ok(granted)
    }

    /// Asks for key.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(super) async fn get_key(
        &self,
        stream: Uuid,
        index: Option<u32>,
        journal: &Journal,
    ) -> Result<(), Failure> {
        let mut body = json!({ "key_stream_id": stream });
        if let (Some(index), Some(members)) = (index, body.as_object_mut()) {
            members.insert("index".into(), index.into());
        }
        let method = if self.form == Form::Get { "GET" } else { "POST" };
        let t = now();
        let answer = self.call(method, "/api/v1/kms/etsi004/get-key", &body).await;
        let (http, status, _) = parts(&answer);
        journal.record(&Line::GetKey(Called { t, answered: now(), stream, index, http, status }));
        settled("get-key", answer)
    }

    /// Closes a stream.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(super) async fn close(&self, stream: Uuid, journal: &Journal) -> Result<(), Failure> {
        let method = if self.form == Form::Get { "PUT" } else { "POST" };
        let t = now();
        let answer =
            self.call(method, "/api/v1/kms/etsi004/close", &json!({ "key_stream_id": stream })).await;
        let (http, status, _) = parts(&answer);
        journal.record(&Line::Close(Called { t, answered: now(), stream, index: None, http, status }));
        settled("close", answer)
    }
}

fn parts(answer: &Result<Answer, CallError>) -> (u16, Option<u32>, &Value) {
    answer.as_ref().map_or((0, None, &Value::Null), |answer| (answer.http, answer.status, &answer.body))
}

fn settled(call: &'static str, answer: Result<Answer, CallError>) -> Result<(), Failure> {
    let answer = answer?;
    if (200..300).contains(&answer.http) { Ok(()) } else { Err(answer.refused(call, false)) }
}
