//! How the module stands, for people.

use qkd_daemon::picture::{Picture, State};

use super::figures::{in_words, time};

/// Several lines. The first says whether key flows, the next why not.
pub(crate) fn status(picture: &Picture) -> String {
    let mut lines = vec![match picture.health.state {
        State::Delivering => "delivering".to_owned(),
        State::Ready => "ready: no key stream is open".to_owned(),
        State::Degraded => "degraded".to_owned(),
    }];
    lines.extend(
        picture.health.reasons.iter().map(|reason| format!("    {}: {}", reason.cause.word(), reason.text)),
    );
    let (module, link, agreement) = (&picture.module, &picture.link, &picture.agreement);
    lines.push(format!(
        "module {}, {}, qkdd {}, up {} s",
        module.name,
        module.role.word(),
        module.version,
        module.uptime_s
    ));
    lines.push(format!("QKD link: {}, since {}", link.state.word(), time(link.since_unix_ms)));
    if let Some(measured) = &link.measured {
        lines.push(format!(
            "    secret key rate {}, QBER {:.2} %",
            in_words(measured.secret_key_rate_bps, "bit/s"),
            measured.qber * 100.0
        ));
    }
    lines.push(format!(
        "epoch {}, {}",
        agreement.epoch,
        if agreement.in_step { "in step" } else { "not in step" }
    ));
    if let (false, Some(why)) = (agreement.connected, &agreement.last_reason) {
        lines.push(format!("    peer link: {why}"));
    }
    lines.push(card(picture));
    let streams = &picture.streams;
    lines.push(format!(
        "key streams: {} ({} delivering, {} waiting, {} suspended, {} failing, {} held up, {} closing)",
        streams.live,
        streams.delivering,
        streams.waiting,
        streams.suspended,
        streams.failing,
        streams.held_up,
        streams.closing
    ));
    lines
        .push(format!("vault: {} bytes used of {}", picture.pool.vault_used_bytes, picture.pool.vault_bytes));
    let lost: u64 = picture.key.lost.values().sum();
    lines.push(format!(
        "key since the start: {} accepted, {} lost, {} burnt",
        in_words(picture.key.accepted, "bit"),
        in_words(lost, "bit"),
        in_words(picture.key.burnt, "bit")
    ));
    lines.push(format!("ledger: at write {}", picture.ledger.write_number));
    for certificate in &picture.certificates {
        lines.push(format!(
            "{}: until {}",
            certificate.what,
            time(certificate.expires_unix_s.saturating_mul(1_000))
        ));
    }
    lines.join("\n")
}

fn card(picture: &Picture) -> String {
    let card = &picture.card;
    let mut line = format!("card {} at {}, {}", card.serial, card.location, card.role.word());
    if let Some(session) = &card.session {
        line.push_str(&format!(", session {session}"));
    }
    for (what, celsius) in [("detector", card.detector_celsius), ("board", card.board_celsius)] {
        if let Some(celsius) = celsius {
            line.push_str(&format!(", {what} {celsius:.1} °C"));
        }
    }
    if card.test_key {
        line.push_str(", TEST KEY, which anyone can compute");
    }
    line
}
