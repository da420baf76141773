//! Who stands behind a key: whoever made it, whoever made the key that made it, and so on. One person with two keys is one pair of eyes.

use crate::error::Error;
use crate::sql;

/// Makers that are followed. Nobody needs that many; behind a longer line anybody may stand.
const MAKERS_MAX: usize = 100;

/// Whether one hand may stand behind two actors, by their names: they are the same, one of them made the other's key, or somebody made the
/// keys of both, each at any remove. A key that was made beside the data has no maker and stands alone, as does somebody who logs in.
///
/// # Errors
/// The database's.
pub async fn same_hand<C: sql::Connection>(conn: &C, one: &str, other: &str) -> Result<bool, Error> {
    if one == other {
        return Ok(true);
    }
    let (Some(one), Some(other)) = (line(conn, one).await?, line(conn, other).await?) else { return Ok(true) };
    Ok(one.iter().any(|name| other.contains(name)))
}

/// An actor and all its makers; `None` when there are too many.
async fn line<C: sql::Connection>(conn: &C, name: &str) -> Result<Option<Vec<String>>, Error> {
    let mut line = vec![name.to_owned()];
    while let Some(key) = line.last().and_then(|last| last.strip_prefix("key:")) {
        let row = sql::one(conn, "SELECT maker FROM kernel_key WHERE id = $1", [key.into()]).await?;
        let maker: Option<String> = row.map_or(Ok(None), |row| sql::get(&row, "maker"))?;
        let Some(maker) = maker else { break };
        if line.len() == MAKERS_MAX {
            return Ok(None);
        }
        line.push(maker);
    }
    Ok(Some(line))
}
