//! What all writing commands end with: the write, or what it would do, and its receipt.

use crate::cli::app::App;
use crate::cli::options::{BaseOptions, WriteOptions};
use crate::cli::people;
use crate::cli::stop::Outcome;
use crate::ledger::{Act, Context, Ledger, Planned, Receipt, Write};
use crate::shape;

/// Writes one change of one record, and prints the receipt.
pub(super) fn one(
    app: &mut App,
    (collection, key): (String, String),
    act: Act,
    options: &WriteOptions,
    base: &BaseOptions,
) -> Outcome {
    let ledger = app.ledger()?;
    let write = base.apply(&ledger, Write::new(collection, key, act))?;
    if options.dry_run {
        return plan(app, &ledger, vec![write], &options.context());
    }
    let receipt = ledger.write(write, &options.context())?;
    print(app, &receipt)
}

/// Prints what writes would do.
pub(super) fn plan(app: &mut App, ledger: &Ledger, writes: Vec<Write>, context: &Context) -> Outcome {
    let planned: Vec<Planned> = ledger.dry_run().write_all(writes, context)?;
    app.out.answer(&shape::planned(&planned), || people::planned(&planned))
}

/// Prints a receipt.
pub(super) fn print(app: &mut App, receipt: &Receipt) -> Outcome {
    app.out.answer(&shape::receipt(receipt), || people::receipt(receipt))
}
