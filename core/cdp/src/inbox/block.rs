//! A block: the events of one group commit, as they came, compressed and sealed.

use crate::collect::sender::Sender;
use crate::event::EventKind;
use heyuan_kernel::Error;
use heyuan_kernel::secret::Key;
use std::sync::Arc;

/// Compression that keeps up with collecting on one core.
const ZSTD_LEVEL: i32 = 1;
/// The largest block that we ever write is far below this; a bound for reading.
const BLOCK_BYTES_MAX: usize = 256 << 20;
/// The context under which blocks are sealed.
const CONTEXT: &[u8] = b"inbox block";

/// An accepted event on its way into a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The kind that the URL named.
    pub path_kind: Option<EventKind>,
    pub message_id: String,
    pub raw: String,
}

/// Events of one request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    pub sender: Arc<Sender>,
    pub entries: Vec<Entry>,
}

/// Writes parts one after the other, compresses and seals them.
pub(crate) fn seal(key: &Key, parts: &[Part]) -> Result<Vec<u8>, Error> {
    let corrupt = |why: String| Error::Corrupt { what: "inbox block", why };
    let mut plain = Vec::with_capacity(parts.iter().flat_map(|part| &part.entries).map(|entry| entry.raw.len() + 64).sum());
    for part in parts {
        let sender = serde_json::to_vec(&*part.sender).map_err(|e| corrupt(e.to_string()))?;
        put(&mut plain, &sender);
        plain.extend_from_slice(&length(part.entries.len()));
        for entry in &part.entries {
            plain.push(
                entry
                    .path_kind
                    .map_or(u8::MAX, |kind| EventKind::ALL.iter().zip(0..).find(|(k, _)| **k == kind).map_or(u8::MAX, |(_, n)| n)),
            );
            put(&mut plain, entry.message_id.as_bytes());
            put(&mut plain, entry.raw.as_bytes());
        }
    }
    let packed = zstd::bulk::compress(&plain, ZSTD_LEVEL).map_err(|e| corrupt(e.to_string()))?;
    let mut framed = length(plain.len()).to_vec();
    framed.extend_from_slice(&packed);
    Ok(key.seal(&framed, CONTEXT))
}

/// Reads what [`seal`] wrote.
pub(crate) fn open(key: &Key, sealed: &[u8]) -> Result<Vec<Part>, Error> {
    let corrupt = |why: &str| Error::Corrupt { what: "inbox block", why: why.to_owned() };
    let framed = key.open(sealed, CONTEXT).ok_or_else(|| corrupt("the tenant key does not open it"))?;
    let mut reader = Reader { rest: &framed };
    let size = reader.number().ok_or_else(|| corrupt("it is cut off"))?;
    if size > BLOCK_BYTES_MAX {
        return Err(corrupt("it is too large"));
    }
    let plain = zstd::bulk::decompress(reader.rest, size).map_err(|e| corrupt(&e.to_string()))?;
    let mut reader = Reader { rest: &plain };
    let mut parts = Vec::new();
    while !reader.rest.is_empty() {
        parts.push(reader.part().ok_or_else(|| corrupt("it is cut off"))?);
    }
    Ok(parts)
}

/// The places of duplicates within a block, as stored.
pub(crate) fn places(list: &[u32]) -> Vec<u8> {
    list.iter().flat_map(|place| place.to_le_bytes()).collect()
}

/// Reads what [`places`] wrote.
pub(crate) fn read_places(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|chunk| u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]])).collect()
}

fn length(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes()
}

fn put(plain: &mut Vec<u8>, bytes: &[u8]) {
    plain.extend_from_slice(&length(bytes.len()));
    plain.extend_from_slice(bytes);
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<usize> {
        let bytes: [u8; 4] = self.take(4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.number()?;
        self.take(count)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn part(&mut self) -> Option<Part> {
        let sender = serde_json::from_slice(self.bytes()?).ok()?;
        let count = self.number()?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let kind = *self.take(1)?.first()?;
            let path_kind = EventKind::ALL.get(usize::from(kind)).copied();
            entries.push(Entry { path_kind, message_id: self.text()?, raw: self.text()? });
        }
        Some(Part { sender: Arc::new(sender), entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::sender::Spelling;
    use heyuan_contract::Timestamp;

    #[test]
    fn blocks_come_back_as_they_went_in() -> Result<(), Error> {
        let key = Key::random();
        let sender = Sender {
            key: "key:1".into(),
            unit: None,
            import: false,
            spelling: Spelling::Segment,
            arrived_at: Timestamp::clamped(5),
            sent_at: None,
            context: Some(r#"{"app":{"name":"w"}}"#.into()),
        };
        let entry = |id: &str| Entry { path_kind: Some(EventKind::Page), message_id: id.into(), raw: format!("{{\"id\":\"{id}\"}}") };
        let parts = vec![
            Part { sender: Arc::new(sender.clone()), entries: vec![entry("a"), entry("b")] },
            Part { sender: Arc::new(sender), entries: vec![Entry { path_kind: None, ..entry("c") }] },
        ];
        let sealed = seal(&key, &parts)?;
        assert_eq!(open(&key, &sealed)?, parts);
        assert!(open(&Key::random(), &sealed).is_err());
        assert_eq!(read_places(&places(&[1, 70_000])), [1, 70_000]);
        Ok(())
    }
}
