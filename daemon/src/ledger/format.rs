//! The format of the file: its number, and the way from an older one.

use redb::{ReadableDatabase, TableDefinition, TableError, WriteTransaction};

/// The format that this release writes.
pub(super) const FORMAT: u32 = 1;

/// Brings a ledger to the next format, within the transaction in which the number rises.
pub(super) type Step = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// Each step with the format that it leads away from, rising by one up to [`FORMAT`].
pub(super) const STEPS: &[(u32, Step)] = &[];

/// What the file says of itself. Every format has this table.
const ABOUT: TableDefinition<&str, u32> = TableDefinition::new("about");
const NUMBER: &str = "format";

/// What is wrong with a file's format.
#[derive(Debug)]
pub(super) enum FormatError {
    /// It has none, or one that was never in use.
    Unknown(String),
    /// A later release wrote it.
    Newer(u32),
    /// It could not be read or brought to this release's format.
    Database(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for FormatError {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

/// Gives a new file its number.
pub(super) fn set(transaction: &WriteTransaction, number: u32) -> Result<(), redb::Error> {
    transaction.open_table(ABOUT)?.insert(NUMBER, number)?;
    Ok(())
}

/// Sees that the file has format `current`; brings it there by `steps`, all of them in one transaction, where it is older.
pub(super) fn bring_to(
    database: &redb::Database,
    current: u32,
    steps: &[(u32, Step)],
) -> Result<(), FormatError> {
    let mut found = match database.begin_read()?.open_table(ABOUT) {
        Ok(about) => about.get(NUMBER)?.map(|number| number.value()),
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    }
    .ok_or_else(|| FormatError::Unknown("it does not say which format it has".into()))?;
    if found > current {
        return Err(FormatError::Newer(found));
    }
    if found == current {
        return Ok(());
    }
    let from = found;
    let transaction = database.begin_write()?;
    while found < current {
        let step = steps.iter().find(|(from, _)| *from == found);
        let (_, step) = step.ok_or_else(|| FormatError::Unknown(format!("there is no format {found}")))?;
        step(&transaction)?;
        found = found.saturating_add(1);
    }
    set(&transaction, current)?;
    transaction.commit()?;
    log::info!(id = "ledger.converted"; "the ledger is brought from format {from} to format {current}");
    Ok(())
}
