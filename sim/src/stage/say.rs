//! Tells the user.

use std::io::{self, Write};

use serde_json::json;

/// Tells the user, in words or as lines of JSON.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Say {
    pub(crate) json: bool,
}

impl Say {
    /// A sentence.
    pub(crate) fn text(&self, text: &str) {
        if self.json {
            self.line(&json!({ "event": "text", "text": text }).to_string());
        } else {
            self.line(text);
        }
    }

    /// One line; that nobody reads it ends nothing.
    pub(crate) fn line(&self, line: &str) {
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}
