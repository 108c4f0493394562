//! Writes a bbolt file: a B+ tree of buckets, all at once and never changed.

const PAGE: usize = 4_096;
const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
const META: u16 = 0x04;
const FREELIST: u16 = 0x10;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// Two metas and the list of free pages come first.
const RESERVED_PAGES: usize = 3;
const BUCKET: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("an entry of the snapshot is too large")]
    TooLarge(#[from] std::num::TryFromIntError),
}

pub(super) struct Entry {
    flags: u32,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Entry {
    pub(super) fn new(key: Vec<u8>, value: Vec<u8>) -> Entry {
        Entry { flags: 0, key, value }
    }

    /// A bucket whose tree begins at page `root`.
    pub(super) fn bucket(name: &str, root: u64) -> Entry {
        let sequence = 0u64;
        Entry { flags: BUCKET, key: name.into(), value: [root.to_le_bytes(), sequence.to_le_bytes()].concat() }
    }

    fn size(&self) -> usize {
        ELEMENT + self.key.len() + self.value.len()
    }
}

pub(super) struct Bolt {
    file: Vec<u8>,
}

impl Bolt {
    pub(super) fn new() -> Bolt {
        Bolt { file: vec![0; RESERVED_PAGES * PAGE] }
    }

    /// Writes a tree of these entries, which are in the order of their keys; answers with the page of its root.
    pub(super) fn tree(&mut self, entries: Vec<Entry>) -> Result<u64, Error> {
        let mut level: Vec<(Vec<u8>, u64)> = vec![];
        let (mut rest, mut first) = (&entries[..], true);
        while first || !rest.is_empty() {
            first = false;
            let count = fitting(rest.iter().map(Entry::size)).max(rest.len().min(1));
            let (page, others) = rest.split_at(count);
            rest = others;
            let key = page.first().map(|entry| entry.key.clone()).unwrap_or_default();
            level.push((key, self.leaf(page)?));
        }
        while level.len() > 1 {
            let mut above = vec![];
            let mut rest = &level[..];
            while !rest.is_empty() {
                // A branch has two children at least, so that each level is shorter than the one below.
                let count = fitting(rest.iter().map(|(key, _)| ELEMENT + key.len())).max(2).min(rest.len());
                let (page, others) = rest.split_at(count);
                rest = others;
                above.push((page[0].0.clone(), self.branch(page)?));
            }
            level = above;
        }
        Ok(level[0].1)
    }

    fn leaf(&mut self, entries: &[Entry]) -> Result<u64, Error> {
        let mut elements = vec![];
        let mut data = vec![];
        for (n, entry) in entries.iter().enumerate() {
            // From the element to its key.
            let position = (entries.len() - n) * ELEMENT + data.len();
            for number in [entry.flags, u32::try_from(position)?, entry.key.len().try_into()?, entry.value.len().try_into()?] {
                elements.extend(number.to_le_bytes());
            }
            data.extend(&entry.key);
            data.extend(&entry.value);
        }
        self.page(LEAF, entries.len(), elements, data)
    }

    fn branch(&mut self, children: &[(Vec<u8>, u64)]) -> Result<u64, Error> {
        let mut elements = vec![];
        let mut data = vec![];
        for (n, (key, page)) in children.iter().enumerate() {
            let position = (children.len() - n) * ELEMENT + data.len();
            elements.extend(u32::try_from(position)?.to_le_bytes());
            elements.extend(u32::try_from(key.len())?.to_le_bytes());
            elements.extend(page.to_le_bytes());
            data.extend(key);
        }
        self.page(BRANCH, children.len(), elements, data)
    }

    fn page(&mut self, flags: u16, count: usize, elements: Vec<u8>, data: Vec<u8>) -> Result<u64, Error> {
        let id = (self.file.len() / PAGE) as u64;
        let pages = (PAGE_HEADER + elements.len() + data.len()).div_ceil(PAGE);
        let header = header(id, flags, count.try_into()?, u32::try_from(pages - 1)?);
        let end = self.file.len() + pages * PAGE;
        self.file.extend(header);
        self.file.extend(elements);
        self.file.extend(data);
        self.file.resize(end, 0);
        Ok(id)
    }

    /// The whole file, with these buckets in it.
    pub(super) fn finish(mut self, buckets: Vec<Entry>) -> Result<Vec<u8>, Error> {
        let root = self.tree(buckets)?;
        let pages = (self.file.len() / PAGE) as u64;
        for id in 0..2u64 {
            let freelist = 2u64;
            let sequence = 0u64;
            let transaction = id;
            let mut meta = vec![];
            for number in [MAGIC, VERSION, PAGE as u32, 0] {
                meta.extend(number.to_le_bytes());
            }
            for number in [root, sequence, freelist, pages, transaction] {
                meta.extend(number.to_le_bytes());
            }
            let checksum = fnv1a(&meta);
            meta.extend(checksum.to_le_bytes());
            self.put(id, META, &meta);
        }
        self.put(2, FREELIST, &[]);
        Ok(self.file)
    }

    fn put(&mut self, id: u64, flags: u16, data: &[u8]) {
        let at = id as usize * PAGE;
        let page = [&header(id, flags, 0, 0), data].concat();
        self.file[at..at + page.len()].copy_from_slice(&page);
    }
}

/// How many of these sizes have room in a page.
fn fitting(sizes: impl Iterator<Item = usize>) -> usize {
    let mut left = PAGE - PAGE_HEADER;
    sizes
        .take_while(|size| match left.checked_sub(*size) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        })
        .count()
}

fn header(id: u64, flags: u16, count: u16, overflow: u32) -> Vec<u8> {
    [&id.to_le_bytes()[..], &flags.to_le_bytes(), &count.to_le_bytes(), &overflow.to_le_bytes()].concat()
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
