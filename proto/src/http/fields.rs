//! Header fields of one message: an ordered list whose text lies in one buffer.

/// Place of a field in its list; valid until the next change of the list.
pub type FieldIndex = usize;

#[derive(Clone, Copy, Debug)]
struct Item {
    name: (u32, u32),
    value: (u32, u32),
}

/// Header fields in order of arrival. Names are kept in lower case (HAProxy sends them so, RFC 9110 section 5.1
/// makes case meaningless); values are bytes without surrounding white space. Removed text stays in the buffer until
/// [`Fields::clear`], so that changing a field never moves the others.
#[derive(Clone, Default, Debug)]
pub struct Fields {
    text: Vec<u8>,
    items: Vec<Item>,
}

impl Fields {
    /// Forgets all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.items.clear();
    }

    /// How many fields.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// No field at all.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of text held, live or removed: what a bound on a head's size compares with.
    pub fn text_len(&self) -> usize {
        self.text.len()
    }

    /// Appends a field; the name is lowered. The caller has checked both for forbidden bytes.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let name = self.append(name, true);
        let value = self.append(value, false);
        self.items.push(Item { name, value });
    }

    /// Fields in order: (name in lower case, value).
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        self.items.iter().map(|item| (self.slice(item.name), self.slice(item.value)))
    }

    /// Name and value at a place.
    pub fn at(&self, index: FieldIndex) -> Option<(&[u8], &[u8])> {
        self.items.get(index).map(|item| (self.slice(item.name), self.slice(item.value)))
    }

    /// The first value of `name` (lower case).
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All values of `name` (lower case), with their places.
    pub fn all<'s>(&'s self, name: &[u8]) -> impl DoubleEndedIterator<Item = (FieldIndex, &'s [u8])> {
        self.items
            .iter()
            .enumerate()
            .filter(move |(_, item)| self.slice(item.name) == name)
            .map(|(index, item)| (index, self.slice(item.value)))
    }

    /// Whether a field `name` (lower case) exists.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.get(name).is_some()
    }

    /// Gives the field at `index` another value. Nothing happens when there is none.
    pub fn replace(&mut self, index: FieldIndex, value: &[u8]) {
        if index < self.items.len() {
            let value = self.append(value, false);
            self.items[index].value = value;
        }
    }

    /// Removes every field that `keep` does not want; how many went.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) -> usize {
        let before = self.items.len();
        let text = &self.text;
        let slice = |(from, to): (u32, u32)| &text[from as usize..to as usize];
        self.items.retain(|item| keep(slice(item.name), slice(item.value)));
        before - self.items.len()
    }

    /// Removes the fields `name` (lower case); how many went.
    pub fn remove(&mut self, name: &[u8]) -> usize {
        self.retain(|known, _| known != name)
    }

    /// Removes the field at a place. Nothing happens when there is none.
    pub fn remove_at(&mut self, index: FieldIndex) {
        if index < self.items.len() {
            self.items.remove(index);
        }
    }

    /// Removes the fields `name` and appends one.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        let lower = name.to_ascii_lowercase();
        self.remove(&lower);
        self.push(name, value);
    }

    fn slice(&self, (from, to): (u32, u32)) -> &[u8] {
        &self.text[from as usize..to as usize]
    }

    fn append(&mut self, bytes: &[u8], lower: bool) -> (u32, u32) {
        let from = self.text.len();
        self.text.extend_from_slice(bytes);
        if lower {
            self.text[from..].make_ascii_lowercase();
        }
        // A head is bounded far below 4 GiB by its reader; a rule that appends is bounded by the rewrite reserve.
        (u32::try_from(from).unwrap_or(u32::MAX), u32::try_from(self.text.len()).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(fields: &Fields) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn fields_keep_their_order_and_lose_their_case() {
        let mut fields = Fields::default();
        fields.push(b"Host", b"a");
        fields.push(b"X-One", b"1");
        fields.push(b"x-one", b"2");
        assert_eq!(fields.get(b"x-one"), Some(&b"1"[..]));
        assert_eq!(fields.all(b"x-one").count(), 2);
        fields.replace(1, b"longer");
        fields.set(b"HOST", b"b");
        let expected = [("x-one", "longer"), ("x-one", "2"), ("host", "b")];
        assert_eq!(list(&fields), expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(fields.remove(b"x-one"), 2);
        fields.remove_at(0);
        fields.remove_at(0);
        assert!(fields.is_empty() && fields.at(0).is_none());
    }
}
