//! Bodies of the API's three calls.

use std::path::Path;

use qkd_daemon::api::{Settings, fuzzing};
use qkd_daemon::calls::Call;
use qkd_daemon::config::Config;

use crate::Target;

pub(crate) const TARGET: Target = Target { name: "api_body", run, seeds, bounded: 20_000, longest: 4096 };

/// Longest answer to a request that is at fault: a sentence, however long what it speaks of is.
const LONGEST_REFUSAL: usize = 700;

fn settings() -> Settings {
    let text = include_str!("../../../daemon/qkdd.example.toml");
    Settings::of(&Config::parse(Path::new("example"), text).expect("the example is right"))
}

fn run(octets: &[u8]) {
    let Some((endpoint, body)) = octets.split_first() else { return };
    let settings = settings_once();
    match fuzzing::call(settings, endpoint % 3, body) {
        Err(why) => assert!(why.len() <= LONGEST_REFUSAL, "a refusal of {} octets: {why}", why.len()),
        Ok(Call::Open(open)) => {
            assert!(settings.kms.contains(&open.kms), "opened by a KMS that is not configured");
            assert!(open.kms == open.source || open.kms == open.destination);
            let other = if open.kms == open.source { &open.destination } else { &open.source };
            assert!(settings.peer_kms.contains(other), "opened to a KMS that is not configured");
        }
        Ok(Call::GetKey(_) | Call::Close(_)) => {}
    }
}

fn settings_once() -> &'static Settings {
    static SETTINGS: std::sync::OnceLock<Settings> = std::sync::OnceLock::new();
    SETTINGS.get_or_init(settings)
}

fn seeds() -> Vec<Vec<u8>> {
    let open = r#"{"source":"kms://a","destination":"kms://b","key_stream_id":null,"qos":{"key_chunk_size":32,
        "max_bps":64000,"min_bps":0,"jitter":0,"priority":1,"timeout":1000,"ttl":60,"metadata_mimetype":"application/json"}}"#;
    let id = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
    let bodies = [
        (0, open.to_owned()),
        (0, open.replace("null", &format!("\"{id}\""))),
        (0, open.replace("{\"key_chunk_size\"", "{\"x\":[[1,{\"y\":2.5e3}]],\"key_chunk_size\"")),
        (1, format!(r#"{{"key_stream_id":"{id}","index":7,"metadata":{{"size":57,"buffer":""}}}}"#)),
        (1, format!(r#"{{"key_stream_id":"{id}"}}"#)),
        (2, format!(r#"{{"key_stream_id":"{id}"}}"#)),
        (2, r#"{"key_stream_id":"\u0066\ud83d\ude00"}"#.to_owned()),
    ];
    bodies.into_iter().map(|(endpoint, body)| [vec![endpoint], body.into_bytes()].concat()).collect()
}
