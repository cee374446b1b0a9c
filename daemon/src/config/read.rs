//! Reads sections of the configuration file, and remembers what is wrong and where.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;
use super::rule::{Rule, excerpt, kind};

/// A section of the file.
pub(crate) trait Section: Sized {
    /// Name in the brackets.
    const NAME: &'static str;

    /// Reads the section; `None` when a problem has been noted.
    fn read(section: &mut SectionReader<'_, '_>) -> Option<Self>;

    /// What the section may hold.
    fn reference() -> SectionReference;
}

/// What a section may hold, for people.
#[derive(Clone, Debug)]
pub struct SectionReference {
    /// As it stands in brackets.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Its settings, in the order of the reference.
    pub settings: Vec<SettingReference>,
}

/// One setting, for people.
#[derive(Clone, Debug)]
pub struct SettingReference {
    /// As it stands before the equals sign.
    pub name: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// What it may be, in words with the unit.
    pub allowed: String,
    /// The default in TOML's notation, or "required" or "none".
    pub default: String,
}

/// The file as it is read.
pub(crate) struct Reader<'f> {
    file: &'f Path,
    text: &'f str,
    problems: Vec<Problem>,
    /// Where each setting stands, for problems that show only when several are compared.
    places: BTreeMap<(&'static str, usize, &'static str), Range<usize>>,
}

impl<'f> Reader<'f> {
    pub(crate) fn new(file: &'f Path, text: &'f str) -> Self {
        Self { file, text, problems: Vec::new(), places: BTreeMap::new() }
    }

    /// Notes a problem at an octet offset of the text.
    pub(crate) fn note(&mut self, offset: usize, message: String) {
        let (line, column) = line_and_column(self.text, offset);
        self.problems.push(Problem { file: self.file.to_owned(), line, column, message });
    }

    /// Notes a problem at a setting of the `number`th section of that name, or at the section when it has none.
    pub(crate) fn note_at(
        &mut self,
        section: &'static str,
        number: usize,
        setting: &'static str,
        message: &str,
    ) {
        let place = self.places.get(&(section, number, setting));
        let place = place.or_else(|| self.places.get(&(section, number, "")));
        let offset = place.map_or(0, |range| range.start);
        self.note(offset, format!("[{section}] {setting}: {message}"));
    }

    /// The problems in the order of their place.
    pub(crate) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.problems
    }

    /// Whether nothing is wrong so far.
    pub(crate) fn is_right(&self) -> bool {
        self.problems.is_empty()
    }

    /// Reads the section that stands once in the file, or its defaults when it does not.
    pub(crate) fn section<S: Section>(&mut self, root: &DeTable<'_>) -> Option<S> {
        let Some(value) = root.get(S::NAME) else {
            let empty = DeTable::new();
            return self.table::<S>(0, 0..0, &empty, true);
        };
        match value.get_ref() {
            DeValue::Table(table) => self.table::<S>(0, value.span(), table, false),
            other => {
                let message = format!("{} must be a section: write [{0}]; it is {}", S::NAME, kind(other));
                self.note(value.span().start, message);
                None
            }
        }
    }

    /// Reads the sections that may stand several times, as `[[name]]`.
    pub(crate) fn sections<S: Section>(&mut self, root: &DeTable<'_>, most: usize) -> Option<Vec<S>> {
        let name = S::NAME;
        let Some(value) = root.get(name) else {
            self.note(0, format!("[[{name}]] is missing: give one for each KMS at this end"));
            return None;
        };
        let DeValue::Array(items) = value.get_ref() else {
            self.note(value.span().start, format!("{name} must be a list of sections: write [[{name}]]"));
            return None;
        };
        if items.is_empty() || items.len() > most {
            let message = format!("[[{name}]] stands {} times: give 1 to {most}", items.len());
            self.note(value.span().start, message);
            return None;
        }
        let mut sections = Vec::with_capacity(items.len());
        for (number, item) in items.iter().enumerate() {
            match item.get_ref() {
                DeValue::Table(table) => {
                    sections.push(self.table::<S>(number, item.span(), table, false));
                }
                _ => self
                    .note(item.span().start, format!("{name} must be a list of sections: write [[{name}]]")),
            }
        }
        sections.into_iter().collect()
    }

    fn table<S: Section>(
        &mut self,
        number: usize,
        span: Range<usize>,
        table: &DeTable<'_>,
        is_missing: bool,
    ) -> Option<S> {
        self.places.insert((S::NAME, number, ""), span.clone());
        let mut section =
            SectionReader { reader: self, name: S::NAME, number, table, span, is_missing, known: Vec::new() };
        let read = S::read(&mut section);
        let known = section.known;
        for (key, _) in table.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref())) {
            let message = unknown_setting(S::NAME, key.get_ref(), &known);
            self.note(key.span().start, message);
        }
        read
    }
}

/// One section as it is read.
pub(crate) struct SectionReader<'r, 'f> {
    reader: &'r mut Reader<'f>,
    name: &'static str,
    number: usize,
    table: &'r DeTable<'r>,
    span: Range<usize>,
    is_missing: bool,
    known: Vec<&'static str>,
}

impl SectionReader<'_, '_> {
    /// Reads one setting; `None` when a problem has been noted.
    pub(crate) fn setting<R: Rule>(&mut self, name: &'static str, rule: &R) -> Option<R::Value> {
        self.known.push(name);
        let Some(value) = self.table.get(name) else {
            let absent = rule.absent();
            if absent.is_none() {
                let section = if self.is_missing { "the section is missing; " } else { "" };
                let message = format!("[{}] {section}{name} must be given: {}", self.name, rule.allowed());
                self.reader.note(self.span.start, message);
            }
            return absent;
        };
        self.reader.places.insert((self.name, self.number, name), value.span());
        match rule.read(value.get_ref()) {
            Ok(read) => Some(read),
            Err(why) => {
                self.reader.note(value.span().start, format!("[{}] {name}: {why}", self.name));
                None
            }
        }
    }
}

/// Notes sections that do not exist.
pub(crate) fn refuse_unknown_sections(
    reader: &mut Reader<'_>,
    root: &DeTable<'_>,
    reference: &[SectionReference],
) {
    let known: Vec<&'static str> = reference.iter().map(|section| section.name).collect();
    for (key, value) in root.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref())) {
        let shown = excerpt(key.get_ref());
        let home = reference.iter().find(|section| section.settings.iter().any(|s| s.name == key.get_ref()));
        let message = match home {
            Some(section) if !matches!(value.get_ref(), DeValue::Table(_)) => {
                format!("{shown} stands outside of its section: put it under [{}]", section.name)
            }
            _ => match nearest(key.get_ref(), &known) {
                Some(near) => format!("there is no section [{shown}]: did you mean [{near}]?"),
                None => format!("there is no section [{shown}]; the sections are {}", known.join(", ")),
            },
        };
        reader.note(key.span().start, message);
    }
}

fn unknown_setting(section: &str, key: &str, known: &[&'static str]) -> String {
    let shown = excerpt(key);
    match nearest(key, known) {
        Some(near) => format!("[{section}] has no setting {shown}: did you mean {near}?"),
        None => format!("[{section}] has no setting {shown}; it has {}", known.join(", ")),
    }
}

/// The known name that was probably meant.
fn nearest(written: &str, known: &[&'static str]) -> Option<&'static str> {
    if written.len() > 64 {
        return None;
    }
    let tolerated = (written.len() / 3).max(1);
    let candidates = known.iter().map(|name| (edits(written, name), *name));
    candidates.filter(|(distance, _)| *distance <= tolerated).min().map(|(_, name)| name)
}

/// Fewest insertions, deletions and replacements of a character that turn one word into the other.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for ((b, diagonal), above) in to.iter().zip(&row).zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(a != *b)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// Line and column in characters, both from 1, of an octet offset.
pub(crate) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// Reads the text as TOML.
pub(crate) fn parse<'t>(reader: &mut Reader<'_>, text: &'t str) -> Option<Spanned<DeTable<'t>>> {
    match DeTable::parse(text) {
        Ok(root) => Some(root),
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            let message = excerpt(error.message());
            reader.note(offset, format!("this is not TOML: {message}"));
            None
        }
    }
}
