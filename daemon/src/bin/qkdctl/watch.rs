//! Shows how the module stands again and again.

use std::collections::{HashMap, VecDeque};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use qkd_daemon::operator::outcome::Outcome;
use qkd_daemon::operator::protocol::{Answer, Request};
use qkd_daemon::picture::{Picture, Stream};

use crate::Form;
use crate::ask::Daemon;
use crate::show::figures::{course, in_words, time};
use crate::show::{self, out};

/// Looks remembered.
const LOOKS: usize = 40;
/// Key streams shown on a terminal, those with the greatest lag first.
const STREAMS: usize = 20;

/// What was seen at the last looks.
#[derive(Default)]
struct Seen {
    rate: VecDeque<f64>,
    qber: VecDeque<f64>,
    lag: HashMap<String, VecDeque<f64>>,
}

/// Looks until `count` is reached or the daemon cannot be asked. The exit code is that of the last look.
pub(crate) fn watch(daemon: &Daemon, form: Form, count: Option<u64>, every: Duration) -> ExitCode {
    let terminal = form == Form::Text && std::io::stdout().is_terminal();
    let mut seen = Seen::default();
    let mut looks = 0_u64;
    loop {
        let outcome = daemon.ask(&Request::Status);
        let code = ExitCode::from(outcome.exit_code());
        match (&outcome, form) {
            (_, Form::Json) => show::json(&outcome),
            (Outcome::Daemon(Answer::Status(picture)), Form::Text) => {
                let streams = match daemon.ask(&Request::Streams) {
                    Outcome::Daemon(Answer::Streams(streams)) => streams.streams,
                    _ => Vec::new(),
                };
                seen.take(picture, &streams);
                if terminal {
                    out(&format!("\x1b[H\x1b[2J{}", seen.screen(picture, streams)));
                } else {
                    out(&one_line(picture, &streams));
                }
            }
            (_, Form::Text) => show::text(&outcome),
        }
        looks += 1;
        if !matches!(outcome, Outcome::Daemon(Answer::Status(_))) || count.is_some_and(|count| looks >= count)
        {
            return code;
        }
        std::thread::sleep(every);
    }
}

fn one_line(picture: &Picture, streams: &[Stream]) -> String {
    let measured = picture.link.measured.as_ref();
    let causes: Vec<_> = picture.health.reasons.iter().map(|reason| reason.cause.word()).collect();
    let lag: u64 = streams.iter().map(|stream| stream.lag_chunks).sum();
    format!(
        "{} {}{} link={} rate={} qber={:.4} pool={} streams={} lag={lag}",
        time(picture.taken_unix_ms),
        picture.health.state.word(),
        if causes.is_empty() { String::new() } else { format!(" ({})", causes.join(", ")) },
        picture.link.state.word(),
        in_words(measured.map_or(0, |measured| measured.secret_key_rate_bps), "bit/s").replace(' ', ""),
        measured.map_or(0.0, |measured| measured.qber),
        picture.pool.held_bytes,
        picture.streams.live,
    )
}

impl Seen {
    #[expect(clippy::cast_precision_loss, reason = "eight heights are shown")]
    fn take(&mut self, picture: &Picture, streams: &[Stream]) {
        let measured = picture.link.measured.as_ref();
        put(&mut self.rate, measured.map_or(0.0, |measured| measured.secret_key_rate_bps as f64));
        put(&mut self.qber, measured.map_or(0.0, |measured| measured.qber));
        self.lag.retain(|id, _| streams.iter().any(|stream| stream.id == *id));
        for stream in streams {
            put(self.lag.entry(stream.id.clone()).or_default(), stream.lag_chunks as f64);
        }
    }

    fn screen(&self, picture: &Picture, mut streams: Vec<Stream>) -> String {
        let measured = picture.link.measured.as_ref();
        let mut lines = vec![format!(
            "{}  module {}  {}",
            time(picture.taken_unix_ms),
            picture.module.name,
            picture.health.state.word()
        )];
        lines.extend(picture.health.reasons.iter().map(|reason| format!("  {}", reason.text)));
        lines.push(format!("QKD link  {}", picture.link.state.word()));
        lines.push(format!(
            "rate      {:>14}  {}",
            in_words(measured.map_or(0, |measured| measured.secret_key_rate_bps), "bit/s"),
            course(self.rate.iter().copied())
        ));
        lines.push(format!(
            "QBER      {:>12.2} %  {}",
            measured.map_or(0.0, |measured| measured.qber) * 100.0,
            course(self.qber.iter().copied())
        ));
        lines.push(format!(
            "pool      {:>14}  of {}",
            in_words(picture.pool.held_bytes, "B"),
            in_words(picture.pool.vault_bytes, "B")
        ));
        streams.sort_by(|one, other| other.lag_chunks.cmp(&one.lag_chunks).then(one.id.cmp(&other.id)));
        lines.push(format!("key streams: {}", streams.len()));
        for stream in streams.iter().take(STREAMS) {
            let lag = self.lag.get(&stream.id).map(|lag| course(lag.iter().copied())).unwrap_or_default();
            lines.push(format!(
                "  {}  {:10}  lag {:>8}  {lag}",
                stream.id,
                stream.state.word(),
                stream.lag_chunks
            ));
        }
        if streams.len() > STREAMS {
            lines.push(format!("  and {} with less lag", streams.len() - STREAMS));
        }
        lines.join("\n")
    }
}

fn put(values: &mut VecDeque<f64>, value: f64) {
    while values.len() >= LOOKS {
        values.pop_front();
    }
    values.push_back(value);
}
