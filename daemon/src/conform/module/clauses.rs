//! What is checked on a QKD module.

use crate::conform::book::Clause;
use crate::conform::book::Level::{Must, Should};

const OPEN: &str = "push mode, open-connect";
const GET_KEY: &str = "push mode, get-key";
const CLOSE: &str = "push mode, close";
const STATUS: &str = "push mode, status table";
const MATERIAL: &str = "push mode, key-material";
const ETSI: &str = "ETSI GS QKD 004 V2.1.1";
const SILENT: &str = "decision";
const HTTP: &str = "RFC 9110, RFC 9112";
const TLS: &str = "push mode, transport";

const fn must(id: &'static str, source: &'static str, text: &'static str) -> Clause {
    Clause { id, level: Must, source, text }
}

const fn should(id: &'static str, source: &'static str, text: &'static str) -> Clause {
    Clause { id, level: Should, source, text }
}

/// Every clause, in the order in which it is reported.
pub(crate) const CLAUSES: &[Clause] = &[
    must("reach", HTTP, "the module answers HTTP/1.1"),
    should("tls.client", TLS, "over https, a client without a certificate gets no answer"),
    // What stands alone.
    must("http.in-order", HTTP, "several requests on one connection are each answered, in their order"),
    should("http.unknown-path", SILENT, "an unknown path gets 404, status 4"),
    should("http.method", SILENT, "a method that a path does not have gets 405 with Allow"),
    should("http.media-type", SILENT, "another media type than application/json gets 415"),
    should("http.too-large", SILENT, "a body beyond what is taken gets 413"),
    must(
        "http.no-json",
        SILENT,
        "a body that is no JSON object gets 400, with status 5, 3 and 5 at the three paths",
    ),
    must("open.source", OPEN, "source is required: without it, or not a URI, 400 and status 5"),
    must("open.destination", OPEN, "destination is required: without it, or not a URI, 400 and status 5"),
    must("open.key-stream-id", OPEN, "key_stream_id is required and a UUID or null: else 400 and status 5"),
    must("open.qos", OPEN, "qos is required and an object: else 400 and status 5"),
    must("open.qos-members", OPEN, "members of qos are whole numbers of 32 bits: else 400 and status 5"),
    must("open.chunk-size-0", SILENT, "key_chunk_size 0 gets 400 and status 5"),
    must(
        "open.unknown-kms",
        SILENT,
        "KMSs that the module does not know get 400 and status 5, and no stream",
    ),
    must(
        "open.too-large",
        STATUS,
        "a key_chunk_size beyond the largest gets 500, status 7, and a counter-proposal in qos",
    ),
    must("open.no-stream-left", SILENT, "an open refused with status 7 leaves no stream"),
    must("get-key.key-stream-id", GET_KEY, "key_stream_id is required and a UUID: else 400 and status 3"),
    must(
        "get-key.members",
        GET_KEY,
        "index and metadata.size are whole numbers of 32 bits: else 400 and status 3",
    ),
    must("get-key.unknown", SILENT, "an unknown key stream ID gets 400 and status 3"),
    must("close.key-stream-id", CLOSE, "key_stream_id is required and a UUID: else 400 and status 5"),
    must("close.unknown", SILENT, "an unknown key stream ID gets 400 and status 5"),
    // One end of a stream.
    must("open.null-id", OPEN, "null lets the module choose the ID; the answer is 201 (or 200) with a UUID"),
    must("open.answer", OPEN, "the answer has key_stream_id, qos and status"),
    should("open.names", SILENT, "the answer has source and destination, as they were sent"),
    must(
        "open.registered-qos",
        ETSI,
        "the answer has every member of qos as registered, and what was asked for where it was taken",
    ),
    must("open.proposal-holds", ETSI, "an open with the counter-proposal of status 7 succeeds"),
    must("open.status-1", STATUS, "status 1 as long as the other KMS has not opened"),
    must("open.predefined", ETSI, "an ID agreed beforehand is taken, whoever opens first"),
    must("open.again", SILENT, "the same KMS opening the same stream again gets the same answer"),
    must("open.in-use", STATUS, "opening it with other parameters gets 400 and status 5"),
    must("get-key.before-peer", STATUS, "before the other KMS has opened, get-key gets 400 and status 3"),
    must(
        "get-key.metadata-size",
        STATUS,
        "metadata.size from 1 to 56 gets 400 and status 8, with the size that is needed",
    ),
    should("get-key.post", SILENT, "POST does what GET with a body does"),
    must("close.success", CLOSE, "close gets 204 (or 200)"),
    must(
        "close.no-body",
        HTTP,
        "204 has no octet of a body: the next answer on the connection follows at once",
    ),
    should("close.post", SILENT, "POST does what PUT does"),
    must(
        "close.remembered",
        SILENT,
        "the ID of a closed stream gets status 5 at open-connect, and never starts again",
    ),
    // Both ends.
    must("open.status-0", STATUS, "status 0 once both KMSs have opened, at both modules"),
    must("open.joins", ETSI, "who opens second gets the registered qos and not its own"),
    must(
        "get-key.success",
        GET_KEY,
        "get-key gets 205 with a body and its Content-Length (or 200): status 0",
    ),
    must("push.both", SILENT, "key is pushed once both KMSs have sent get-key, and not before"),
    must("push.starts", MATERIAL, "key reaches the endpoint that is configured for each KMS"),
    must("push.request", MATERIAL, "key-material is a POST of JSON with index and key_buffer"),
    must("push.status", MATERIAL, "key comes with status 0, and only key does"),
    must("push.key", MATERIAL, "key_buffer is base64 of key_chunk_size octets"),
    must(
        "push.metadata",
        MATERIAL,
        "metadata names the key stream in an object, and size is its number of characters",
    ),
    should("push.size-57", SILENT, "metadata.size is 57, as in the specification's example"),
    must("push.first", SILENT, "the first index of a stream is 0 unless get-key asked for a later one"),
    must(
        "push.order",
        ETSI,
        "each chunk comes for the first time in order, its index one more than the last",
    ),
    must("push.same-octets", ETSI, "an index that comes again has the octets that it had"),
    must("push.same-key", ETSI, "the same key has the same index at both ends"),
    must("push.again-503", SILENT, "after 503 the same chunk comes again"),
    must("push.again-429", SILENT, "after 429 the same chunk comes again"),
    must("push.retry-after", HTTP, "not before the time that Retry-After names"),
    must("push.again-late", SILENT, "a chunk that is not answered comes again"),
    must("push.again-broken", SILENT, "a chunk whose connection breaks comes again"),
    must("push.suspended", SILENT, "after another 4xx nothing comes until get-key, and then the same chunk"),
    must("push.redirect", SILENT, "a redirect is not followed: key goes to the configured endpoint only"),
    must(
        "get-key.delivered",
        STATUS,
        "an index that was delivered and wiped gets 500 and status 2, and changes nothing",
    ),
    should(
        "notice.closed",
        SILENT,
        "when the other KMS has closed, key-material without key tells so with status 1",
    ),
    must("close.stops", ETSI, "after close is answered no chunk comes"),
    must("get-key.index", SILENT, "a stream starts at the later of the two indexes asked for, at both ends"),
    // All of it.
    must("answer.status", STATUS, "every answer with a body has status in it, a number from 0 to 8"),
    must("answer.media-type", HTTP, "every body is application/json"),
    must("answer.profile", OPEN, "success is told by 201, 205 and 204, or by 200 at all three"),
    should("answer.detail", SILENT, "what refuses a request says why in detail, and names the member"),
];

/// Clauses for which nothing but the module is needed, and no QKD link.
pub(super) const ALONE: &[&str] = &[
    "http.in-order",
    "http.unknown-path",
    "http.method",
    "http.media-type",
    "http.too-large",
    "http.no-json",
    "open.source",
    "open.destination",
    "open.key-stream-id",
    "open.qos",
    "open.qos-members",
    "open.chunk-size-0",
    "open.unknown-kms",
    "open.too-large",
    "open.no-stream-left",
    "get-key.key-stream-id",
    "get-key.members",
    "get-key.unknown",
    "close.key-stream-id",
    "close.unknown",
];

/// Clauses for which both modules and the KMS endpoints are needed.
pub(super) const BOTH: &[&str] = &[
    "open.status-0",
    "open.joins",
    "get-key.success",
    "push.both",
    "push.starts",
    "push.request",
    "push.status",
    "push.key",
    "push.metadata",
    "push.size-57",
    "push.first",
    "push.order",
    "push.same-octets",
    "push.same-key",
    "push.again-503",
    "push.again-429",
    "push.retry-after",
    "push.again-late",
    "push.again-broken",
    "push.suspended",
    "push.redirect",
    "get-key.delivered",
    "notice.closed",
    "close.stops",
    "get-key.index",
];
