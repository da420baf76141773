//! What a database's own code says of a failure: whose fault it is, whether trying again helps, and whether a commit may stand.
//!
//! PostgreSQL's codes (SQLSTATE) have five characters, SQLite's numbers have fewer. Words are never looked at: PostgreSQL tells them
//! in the language that it is set to.

use sea_orm::sqlx;
use sea_orm::sqlx::error::DatabaseError;
use sea_orm::{DbErr, RuntimeErr};

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Another transaction was there at the same time: the same unit may succeed at once.
    Race,
    /// No column holds such a value: the same request can't succeed.
    Request,
    /// A statement that is wrong, or a promise of the schema that our code broke.
    Ours,
    /// The database is away, full, or busy: later.
    Away,
}

/// Whose fault it is.
pub(crate) fn fault(error: &DbErr) -> Fault {
    if let Some(refusal) = refusal(error) {
        return fault_of(&refusal.code().unwrap_or_default());
    }
    match error {
        // What was read or bound is not what the code thinks that it is.
        DbErr::Type(_) | DbErr::Json(_) | DbErr::TryIntoErr { .. } | DbErr::ConvertFromU64(_) => Fault::Ours,
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => match error.as_ref() {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) | sqlx::Error::Encode(_) => {
                Fault::Ours
            }
            _ => Fault::Away,
        },
        DbErr::Exec(RuntimeErr::Internal(_)) | DbErr::Query(RuntimeErr::Internal(_)) => Fault::Ours,
        _ => Fault::Away,
    }
}

/// Whether a row was already there.
pub(crate) fn is_duplicate(error: &DbErr) -> bool {
    let code = refusal(error).and_then(DatabaseError::code).unwrap_or_default();
    // SQLite tells a primary key, a unique index and a rowid apart.
    matches!(&*code, "23505" | "1555" | "2067" | "2579")
}

/// Whether a commit that failed so may stand all the same: nobody heard the database's word, or it could not finish writing.
pub(crate) fn may_be_committed(error: &DbErr) -> bool {
    let Some(refusal) = refusal(error) else { return true };
    let code = refusal.code().unwrap_or_default();
    match sqlite_number(&code) {
        // An I/O error: the commit may already lie in the write-ahead log, where a recovery finds it.
        Some(number) => number & 0xff == 10,
        None => code.starts_with("08") || code.starts_with("57P") || code == "40003",
    }
}

/// The database's refusal inside an error, if it was the database that refused.
fn refusal(error: &DbErr) -> Option<&dyn DatabaseError> {
    let (DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))) = error
    else {
        return None;
    };
    match error.as_ref() {
        sqlx::Error::Database(refusal) => Some(refusal.as_ref()),
        _ => None,
    }
}

fn sqlite_number(code: &str) -> Option<u32> {
    if code.len() < 5 { code.parse().ok() } else { None }
}

fn fault_of(code: &str) -> Fault {
    match sqlite_number(code) {
        Some(number) => sqlite_fault(number),
        None => postgres_fault(code),
    }
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn postgres_fault(code: &str) -> Fault {
    match code {
        // Serialization failure, deadlock, lock not available.
        "40001" | "40P01" | "55P03" => Fault::Race,
        // A NUL character, in a text or in JSON; a text too long, a number or a time out of range.
        "22021" | "22P05" | "22001" | "22003" | "22007" | "22008" => Fault::Request,
        // Two inserted the same row: who tries again finds the other's.
        "23505" | "23P01" => Fault::Away,
        // A privilege that somebody has to give.
        "42501" => Fault::Away,
        // Too large for an index, too deep for a statement.
        _ if code.starts_with("54") => Fault::Request,
        // Other data exceptions, integrity, syntax and names, PostgreSQL's own errors.
        _ if ["22", "23", "42", "XX"].iter().any(|class| code.starts_with(class)) => Fault::Ours,
        _ => Fault::Away,
    }
}

/// <https://www.sqlite.org/rescode.html>
fn sqlite_fault(number: u32) -> Fault {
    match (number & 0xff, number) {
        // Busy, locked.
        (5 | 6, _) => Fault::Race,
        // Too large.
        (18, _) => Fault::Request,
        // Two inserted the same row, by any key of it.
        (19, 1555 | 2067 | 2579) => Fault::Away,
        // A wrong statement, a corrupt file, a broken constraint, a mismatch, misuse, a wrong parameter, no database.
        (1 | 11 | 19 | 20 | 21 | 25 | 26, _) => Fault::Ours,
        _ => Fault::Away,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Problem};
    use crate::sqlite::Refusal;

    /// A refusal in a language that nobody here reads.
    fn refused(code: &str) -> DbErr {
        let refusal = Refusal { code: code.to_owned(), message: "由于并发更新而无法串行访问".to_owned() };
        DbErr::Query(RuntimeErr::SqlxError(std::sync::Arc::new(sqlx::Error::Database(Box::new(refusal)))))
    }

    fn answer(code: &str) -> (&'static str, u16) {
        let problem = Problem::from(Error::from(refused(code)));
        (problem.code().code, problem.body().status)
    }

    #[test]
    fn races_are_known_by_their_codes() {
        for (code, race) in
            [("40001", true), ("40P01", true), ("55P03", true), ("5", true), ("517", true), ("57014", false), ("23505", false)]
        {
            assert_eq!(Error::from(refused(code)).is_contention(), race, "{code}");
        }
        for (code, duplicate) in [("23505", true), ("2067", true), ("1555", true), ("23503", false), ("787", false)] {
            assert_eq!(Error::from(refused(code)).is_duplicate(), duplicate, "{code}");
        }
    }

    #[test]
    fn what_can_never_succeed_is_not_asked_for_again() {
        for (code, expected) in [
            ("22021", ("invalid_request", 400)),
            ("22P05", ("invalid_request", 400)),
            ("22003", ("invalid_request", 400)),
            ("54000", ("invalid_request", 400)),
            ("18", ("invalid_request", 400)),
            ("22P02", ("internal", 500)),
            ("23502", ("internal", 500)),
            ("42P01", ("internal", 500)),
            ("787", ("internal", 500)),
            ("1", ("internal", 500)),
            ("23505", ("unavailable", 503)),
            ("40001", ("unavailable", 503)),
            ("53100", ("unavailable", 503)),
            ("57014", ("unavailable", 503)),
            ("57P01", ("unavailable", 503)),
            ("13", ("unavailable", 503)),
            ("5", ("unavailable", 503)),
        ] {
            assert_eq!(answer(code), expected, "{code}");
        }
    }

    #[test]
    fn a_commit_is_unknown_only_when_nobody_heard_that_it_failed() {
        for (code, unknown) in
            [("23503", false), ("40001", false), ("53100", false), ("08006", true), ("57P02", true), ("13", false), ("1034", true)]
        {
            assert_eq!(may_be_committed(&refused(code)), unknown, "{code}");
        }
        let cut = sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
        assert!(may_be_committed(&DbErr::Query(RuntimeErr::SqlxError(std::sync::Arc::new(cut)))));
    }
}
