//! The facts of the interface, written down from its text and not from the code, and held against the documents.

use std::collections::{BTreeMap, BTreeSet};

use qkd_daemon::api::openapi::{Document, json};
use serde_json::Value;

/// What a member is. `U32` is from its least value to 4294967295.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Uri,
    Uuid,
    U32(u32),
    Text,
    Base64,
    Object(Members),
    Status(&'static [u64]),
    /// The interface leaves open what it is.
    Anything,
}

/// Name, type, whether it must be there, and whether it may be null.
type Members = &'static [(&'static str, Is, bool, bool)];

const THERE: bool = true;
const NULL: bool = true;

const QOS_ASKED: Members = &[
    ("key_chunk_size", Is::U32(1), !THERE, NULL),
    ("max_bps", Is::U32(0), !THERE, NULL),
    ("min_bps", Is::U32(0), !THERE, NULL),
    ("jitter", Is::U32(0), !THERE, NULL),
    ("priority", Is::U32(0), !THERE, NULL),
    ("timeout", Is::U32(0), !THERE, NULL),
    ("ttl", Is::U32(0), !THERE, NULL),
    ("metadata_mimetype", Is::Text, !THERE, NULL),
];
const QOS_REGISTERED: Members = &[
    ("key_chunk_size", Is::U32(1), THERE, !NULL),
    ("max_bps", Is::U32(0), THERE, !NULL),
    ("min_bps", Is::U32(0), THERE, !NULL),
    ("jitter", Is::U32(0), THERE, !NULL),
    ("priority", Is::U32(0), THERE, !NULL),
    ("timeout", Is::U32(0), THERE, !NULL),
    ("ttl", Is::U32(0), THERE, !NULL),
    ("metadata_mimetype", Is::Text, THERE, !NULL),
];
const METADATA: Members = &[("size", Is::U32(0), !THERE, NULL), ("buffer", Is::Text, !THERE, NULL)];
const METADATA_ANSWERED: Members = &[("size", Is::U32(0), THERE, !NULL), ("buffer", Is::Text, THERE, !NULL)];

/// One answer: code in profile `openapi`, code in profile `ok`, and the body's members. No members: no body.
type Reply = (&'static str, &'static str, Members);

struct Call {
    path: &'static str,
    method: &'static str,
    extension: Option<&'static str>,
    asks: Members,
    answers: &'static [Reply],
}

const DETAIL: (&str, Is, bool, bool) = ("detail", Is::Text, THERE, !NULL);

const MODULE: &[Call] = &[
    Call {
        path: "/api/v1/kms/etsi004/open-connect",
        method: "post",
        extension: None,
        asks: &[
            ("source", Is::Uri, THERE, !NULL),
            ("destination", Is::Uri, THERE, !NULL),
            ("key_stream_id", Is::Uuid, THERE, NULL),
            ("qos", Is::Object(QOS_ASKED), THERE, !NULL),
        ],
        answers: &[
            (
                "201",
                "200",
                &[
                    ("source", Is::Uri, THERE, !NULL),
                    ("destination", Is::Uri, THERE, !NULL),
                    ("key_stream_id", Is::Uuid, THERE, !NULL),
                    ("qos", Is::Object(QOS_REGISTERED), THERE, !NULL),
                    ("status", Is::Status(&[0, 1]), THERE, !NULL),
                ],
            ),
            ("400", "400", &[("status", Is::Status(&[5]), THERE, !NULL), DETAIL]),
            ("403", "403", &[("status", Is::Status(&[5]), THERE, !NULL), DETAIL]),
            ("408", "408", &[("status", Is::Status(&[5]), THERE, !NULL), DETAIL]),
            ("413", "413", &[("status", Is::Status(&[5]), THERE, !NULL), DETAIL]),
            ("415", "415", &[("status", Is::Status(&[5]), THERE, !NULL), DETAIL]),
            (
                "500",
                "500",
                &[
                    ("status", Is::Status(&[4, 6, 7]), THERE, !NULL),
                    ("qos", Is::Object(QOS_REGISTERED), !THERE, !NULL),
                    DETAIL,
                ],
            ),
            ("503", "503", &[("status", Is::Status(&[4]), THERE, !NULL), DETAIL]),
        ],
    },
    Call {
        path: "/api/v1/kms/etsi004/get-key",
        method: "get",
        extension: Some("post"),
        asks: &[
            ("key_stream_id", Is::Uuid, THERE, !NULL),
            ("index", Is::U32(0), !THERE, NULL),
            ("metadata", Is::Object(METADATA), !THERE, NULL),
        ],
        answers: &[
            ("205", "200", &[("status", Is::Status(&[0]), THERE, !NULL)]),
            (
                "400",
                "400",
                &[
                    ("status", Is::Status(&[3, 8]), THERE, !NULL),
                    ("metadata", Is::Object(METADATA_ANSWERED), !THERE, !NULL),
                    DETAIL,
                ],
            ),
            ("403", "403", &[("status", Is::Status(&[3]), THERE, !NULL), DETAIL]),
            ("408", "408", &[("status", Is::Status(&[3]), THERE, !NULL), DETAIL]),
            ("413", "413", &[("status", Is::Status(&[3]), THERE, !NULL), DETAIL]),
            ("415", "415", &[("status", Is::Status(&[3]), THERE, !NULL), DETAIL]),
            ("500", "500", &[("status", Is::Status(&[2, 6]), THERE, !NULL), DETAIL]),
            ("503", "503", &[("status", Is::Status(&[4]), THERE, !NULL), DETAIL]),
        ],
    },
    Call {
        path: "/api/v1/kms/etsi004/close",
        method: "put",
        extension: Some("post"),
        asks: &[("key_stream_id", Is::Uuid, THERE, !NULL)],
        answers: &[
            // "204" has no body and "200" has one; which, is looked at where they are compared.
            ("204", "200", &[("status", Is::Status(&[0]), THERE, !NULL)]),
            ("400", "400", &[("status", Is::Status(&[5]), THERE, !NULL), DETAIL]),
            ("403", "403", &[("status", Is::Status(&[5]), THERE, !NULL), DETAIL]),
            ("408", "408", &[("status", Is::Status(&[5]), THERE, !NULL), DETAIL]),
            ("413", "413", &[("status", Is::Status(&[5]), THERE, !NULL), DETAIL]),
            ("415", "415", &[("status", Is::Status(&[5]), THERE, !NULL), DETAIL]),
            ("500", "500", &[("status", Is::Status(&[6]), THERE, !NULL), DETAIL]),
            ("503", "503", &[("status", Is::Status(&[4]), THERE, !NULL), DETAIL]),
        ],
    },
];

const KEY_MATERIAL_NAME: Members = &[("key_stream_id", Is::Uuid, THERE, !NULL)];
const KEY_MATERIAL_METADATA: Members =
    &[("size", Is::U32(0), THERE, !NULL), ("buffer", Is::Object(KEY_MATERIAL_NAME), THERE, !NULL)];
const KMS_ANSWER: Members =
    &[("status", Is::Status(&[]), THERE, !NULL), ("metadata", Is::Anything, !THERE, !NULL)];
const KMS: Call = Call {
    path: "/api/v1/qkd/etsi004/key-material",
    method: "post",
    extension: None,
    asks: &[
        ("status", Is::Status(&[0, 1, 2, 4]), THERE, !NULL),
        ("index", Is::U32(0), THERE, !NULL),
        ("key_buffer", Is::Base64, THERE, !NULL),
        ("metadata", Is::Object(KEY_MATERIAL_METADATA), !THERE, !NULL),
    ],
    answers: &[("201", "201", KMS_ANSWER), ("4XX", "4XX", KMS_ANSWER), ("5XX", "5XX", KMS_ANSWER)],
};

fn names(value: &Value) -> BTreeSet<&str> {
    value.as_object().map(|members| members.keys().map(String::as_str).collect()).unwrap_or_default()
}

fn check_object(at: &str, members: Members, schema: &Value) {
    let wanted: BTreeSet<&str> = members.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names(&schema["properties"]), wanted, "members of {at}");
    let required: BTreeSet<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let wanted: BTreeSet<&str> = members.iter().filter(|member| member.2).map(|(name, ..)| *name).collect();
    assert_eq!(required, wanted, "required members of {at}");
    for (name, is, _, null) in members {
        check(&format!("{at}.{name}"), *is, *null, &schema["properties"][*name]);
    }
}

fn check(at: &str, is: Is, null: bool, schema: &Value) {
    let types: BTreeSet<&str> = match &schema["type"] {
        Value::String(one) => BTreeSet::from([one.as_str()]),
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        other => panic!("{at} has type {other}"),
    };
    let base = match is {
        Is::Uri | Is::Uuid | Is::Text | Is::Base64 => "string",
        Is::U32(_) | Is::Status(_) => "integer",
        Is::Object(_) | Is::Anything => "object",
    };
    let wanted: BTreeSet<&str> = [base].into_iter().chain(null.then_some("null")).collect();
    assert_eq!(types, wanted, "type of {at}");
    match is {
        Is::Uri => assert_eq!(schema["format"], "uri", "{at}"),
        Is::Uuid => assert_eq!(schema["format"], "uuid", "{at}"),
        Is::Base64 => assert_eq!(schema["contentEncoding"], "base64", "{at}"),
        Is::U32(least) => {
            assert_eq!(schema["minimum"], least, "{at}");
            assert_eq!(schema["maximum"], u32::MAX, "{at}");
        }
        Is::Status(statuses) => {
            let named: Vec<u64> =
                schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
            assert_eq!(named, statuses, "statuses of {at}");
        }
        Is::Object(members) => check_object(at, members, schema),
        Is::Text | Is::Anything => {}
    }
}

fn check_call(call: &Call, profile_ok: bool, operation: &Value) {
    let at = format!("{} {}", call.method, call.path);
    let body = &operation["requestBody"];
    assert_eq!(body["required"], true, "{at}");
    assert_eq!(names(&body["content"]), BTreeSet::from(["application/json"]), "{at}");
    check_object(&at, call.asks, &body["content"]["application/json"]["schema"]);
    let replies: BTreeMap<&str, Members> = call
        .answers
        .iter()
        .map(|(openapi, ok, members)| (if profile_ok { *ok } else { *openapi }, *members))
        .collect();
    assert_eq!(names(&operation["responses"]), replies.keys().copied().collect(), "codes of {at}");
    for (code, members) in replies {
        let (at, response) = (format!("{at} {code}"), &operation["responses"][code]);
        if code == "204" {
            assert!(response.get("content").is_none(), "{at} has a body");
            continue;
        }
        check_object(&at, members, &response["content"]["application/json"]["schema"]);
        assert_eq!(response["headers"].get("retry-after").is_some(), code == "503", "Retry-After of {at}");
    }
}

fn read(document: Document) -> Value {
    serde_json::from_str(&json(document)).unwrap()
}

#[test]
fn a_module_s_document_that_says_other_than_the_interface_is_found() {
    for (document, ok, extended) in [
        (Document::Module, false, false),
        (Document::ModuleOk, true, false),
        (Document::ModuleExtended, false, true),
    ] {
        let document = read(document);
        assert_eq!(names(&document["paths"]), MODULE.iter().map(|call| call.path).collect());
        for call in MODULE {
            let operations = &document["paths"][call.path];
            let methods: BTreeSet<&str> =
                [call.method].into_iter().chain(call.extension.filter(|_| extended)).collect();
            assert_eq!(names(operations), methods, "{}", call.path);
            for method in methods {
                check_call(call, ok, &operations[method]);
            }
        }
    }
}

#[test]
fn a_kms_s_document_that_says_other_than_the_interface_is_found() {
    let document = read(Document::Kms);
    assert_eq!(names(&document["paths"]), BTreeSet::from([KMS.path]));
    assert_eq!(names(&document["paths"][KMS.path]), BTreeSet::from([KMS.method]));
    check_call(&KMS, false, &document["paths"][KMS.path][KMS.method]);
}
