//! What a stream gets of the quality of service that it asks for.

use super::settings::Settings;
use crate::interface::{Qos, QosRequest};

/// The request cannot be met; this could be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotMet {
    pub(crate) detail: String,
    pub(crate) proposal: Qos,
}

const MIMETYPE: &str = "application/json";

/// Resolves a request. `largest_chunk` is the largest chunk that both ends can keep, `free_bps` the rate that is not
/// reserved, `None` where no rate is known yet. 0 for a rate's limit, a timeout or a time to live says nothing, as absence
/// does; times beyond the configured greatest are cut to it.
pub(crate) fn resolve(
    request: &QosRequest,
    settings: &Settings,
    largest_chunk: u32,
    free_bps: Option<u64>,
) -> Result<Qos, NotMet> {
    let said = |value: Option<u32>| value.filter(|value| *value > 0);
    let max_bps = said(request.max_bps).unwrap_or(u32::MAX);
    let mut qos = Qos {
        key_chunk_size: said(request.key_chunk_size).unwrap_or(settings.default_chunk_size),
        max_bps,
        min_bps: request.min_bps.unwrap_or(0),
        jitter: request.jitter.unwrap_or(max_bps),
        priority: request.priority.unwrap_or(settings.default_priority),
        timeout: said(request.timeout)
            .unwrap_or(settings.default_timeout_ms)
            .min(settings.greatest_timeout_ms),
        ttl: said(request.ttl).unwrap_or(settings.default_ttl_s).min(settings.greatest_ttl_s),
        metadata_mimetype: MIMETYPE.to_owned(),
    };
    let mut unmet = Vec::new();
    if qos.key_chunk_size > largest_chunk {
        unmet.push(format!("a chunk of {} octets is larger than {largest_chunk}", qos.key_chunk_size));
        qos.key_chunk_size = largest_chunk;
    }
    if qos.min_bps > qos.max_bps {
        unmet.push(format!("min_bps {} is above max_bps {}", qos.min_bps, qos.max_bps));
        qos.min_bps = qos.max_bps;
    }
    if let Some(detail) = beyond_free(&mut qos, free_bps) {
        unmet.push(detail);
    }
    if unmet.is_empty() { Ok(qos) } else { Err(NotMet { detail: unmet.join("; "), proposal: qos }) }
}

/// Cuts min_bps to what is free, and says so where it had to.
pub(crate) fn beyond_free(qos: &mut Qos, free_bps: Option<u64>) -> Option<String> {
    let free = free_bps?;
    if u64::from(qos.min_bps) <= free {
        return None;
    }
    let detail = format!("min_bps {} is more than the {free} bit/s that are not reserved", qos.min_bps);
    qos.min_bps = u32::try_from(free).unwrap_or(u32::MAX);
    Some(detail)
}
