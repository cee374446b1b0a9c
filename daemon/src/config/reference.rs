//! The configuration reference for people, from the same list that the daemon reads by.

use std::fmt::Write;

/// Markdown: one heading and one table for each section, with every setting, what it may be, and its default.
#[must_use]
pub fn reference_markdown() -> String {
    let mut text = String::new();
    for section in super::reference() {
        let heading =
            if section.name == "kms" { "[[kms]]".to_owned() } else { format!("[{}]", section.name) };
        // Writing to a String cannot fail.
        let _ = write!(text, "### `{heading}`\n\n{}\n\n", section.about.trim());
        text.push_str("| setting | may be | default | meaning |\n|---|---|---|---|\n");
        for setting in section.settings {
            let default = match setting.default.as_str() {
                word @ ("required" | "none") => word.to_owned(),
                value => format!("`{value}`"),
            };
            let meaning = setting.meaning.trim();
            let _ = writeln!(text, "| `{}` | {} | {default} | {meaning} |", setting.name, setting.allowed);
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}
