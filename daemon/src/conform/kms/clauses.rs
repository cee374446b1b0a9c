//! What is checked on a KMS.

use crate::conform::book::Clause;
use crate::conform::sources::{ETSI, GET_KEY, HTTP, MATERIAL, OPEN, SILENT, STATUS, TLS, must, should};

/// Every clause, in the order in which it is reported.
pub(crate) const CLAUSES: &[Clause] = &[
    must("reach", HTTP, "the KMS answers HTTP/1.1 where key-material is sent"),
    should("tls.client", TLS, "over https, a module without a certificate gets no answer"),
    // What stands alone.
    must("material.json", MATERIAL, "a body that is no JSON object is refused with a 4xx"),
    must("material.status", MATERIAL, "status is required and a number of 32 bits: else a 4xx"),
    must("material.index", MATERIAL, "index is required and a number of 32 bits: else a 4xx"),
    must("material.key-buffer", MATERIAL, "key_buffer is required and a string: else a 4xx"),
    should("material.metadata", SILENT, "without metadata that names a key stream, a 4xx"),
    must(
        "material.unknown",
        SILENT,
        "key for an unknown stream is refused with a 4xx: it would be sent for ever after a 5xx",
    ),
    should("http.method", HTTP, "another method than POST gets 405"),
    should("http.unknown-path", HTTP, "another path gets 404"),
    should("http.too-large", HTTP, "a body of 64 MiB is refused with a 4xx, and not read"),
    // What the KMS calls.
    must(
        "open.request",
        OPEN,
        "open-connect is a POST of JSON with source, destination, key_stream_id and qos",
    ),
    must(
        "get-key.request",
        GET_KEY,
        "get-key is a GET (or POST) of JSON with the key_stream_id that the module has given",
    ),
    // A stream that the KMS has opened.
    must("chunk.accepted", MATERIAL, "a good chunk gets 2xx"),
    should("chunk.201", MATERIAL, "it gets 201"),
    must("chunk.status", MATERIAL, "the answer's status is 0"),
    must(
        "chunk.members",
        HTTP,
        "members in another order, white space and members that are not known change nothing",
    ),
    must("chunk.split", HTTP, "a request that comes in pieces is taken as one"),
    should("chunk.compact", SILENT, "metadata.buffer without the space, of size 56, is taken"),
    should("chunk.string", SILENT, "metadata.buffer as a string is taken"),
    must("chunk.again", SILENT, "a chunk that comes again with the same octets gets 2xx"),
    must(
        "chunk.again-elsewhere",
        SILENT,
        "so does one whose first connection broke before the answer was read",
    ),
    must("chunk.changed", ETSI, "other octets under an index that was taken are refused with a 4xx"),
    must("chunk.length", ETSI, "a chunk that has not key_chunk_size octets is refused with a 4xx"),
    must("chunk.base64", MATERIAL, "a key_buffer that is no base64 is refused with a 4xx"),
    should("chunk.empty", SILENT, "status 0 without key is refused with a 4xx"),
    should("chunk.with-status", SILENT, "key with another status than 0 is refused with a 4xx"),
    must(
        "chunk.in-flight",
        SILENT,
        "several requests under way on one connection are answered in their order",
    ),
    should("chunk.keep-alive", HTTP, "the connection stays for the next chunk"),
    must("chunk.after-loss", SILENT, "after chunks that are lost, the stream goes on at a later index"),
    must(
        "notice.insufficient",
        STATUS,
        "key-material without key, with status 2, gets 2xx and uses up no index",
    ),
    must("notice.link-down", STATUS, "so does one with status 4"),
    must("notice.closed", STATUS, "so does one with status 1"),
    // All of it.
    must("answer.status", STATUS, "every answer with a body has status in it, a number from 0 to 8"),
];

/// Clauses for which a stream is needed that the KMS knows.
pub(super) const STREAM: &[&str] = &[
    "chunk.accepted",
    "chunk.201",
    "chunk.status",
    "chunk.members",
    "chunk.split",
    "chunk.compact",
    "chunk.string",
    "chunk.again",
    "chunk.again-elsewhere",
    "chunk.changed",
    "chunk.length",
    "chunk.base64",
    "chunk.empty",
    "chunk.with-status",
    "chunk.in-flight",
    "chunk.keep-alive",
    "chunk.after-loss",
    "notice.insufficient",
    "notice.link-down",
    "notice.closed",
];
